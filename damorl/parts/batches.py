"""The rows of one update of DAMO: offline and model-generated ones, in their shares, and initial states."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax

from damorl.core import buffer as ring
from damorl.parts import model_data
from damorl.parts.start import sample_reference
from damorl.types import Array, Key, OfflineData, Transition


class Sampled(NamedTuple):
    """The rows of one update."""

    real: Transition
    """Offline rows for the classifier (the reference's, where that is a share of the data)."""
    synthetic: Transition
    """Model-generated rows for the classifier."""
    batch: Transition
    """Both kinds in their shares, for Eq. 2."""
    initial_obs: Array
    """s0 `[initial_batch_size, obs_dim]`."""


def sample(config: Any, buffer: ring.RingBuffer, data: OfflineData, keys: list[Key]) -> Sampled:
    """Uniform draws; `keys` are those of the offline rows, of the model's and of the initial states."""
    real_key, synthetic_key, initial_key = keys
    half, num_real = config.batch_size // 2, model_data.count_real(config.batch_size, config.real_ratio)
    real = ring.sample_rows(data.rows, real_key, max(num_real, half))
    synthetic = ring.sample(buffer, synthetic_key, max(config.batch_size - num_real, half))
    judged = real
    if config.data_alignment and config.reference_share < 1.0:
        judged = sample_reference(data, jax.random.fold_in(real_key, 1), half, config.reference_share)
    batch = model_data.mix(real, synthetic, config.batch_size, config.real_ratio)
    return Sampled(judged, synthetic, batch, sample_initial(config, data, initial_key))


def sample_initial(config: Any, data: OfflineData, key: Key) -> Array:
    """s0 `[initial_batch_size, obs_dim]`."""
    source = data.rows.obs if config.initial_states == "dataset" else data.initial_obs
    return source[jax.random.randint(key, (config.initial_batch_size,), 0, source.shape[0])]
