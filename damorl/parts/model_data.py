"""Model data: a fitted ensemble, branched rollouts of the policy in it, and batches that mix them with offline rows.

What every method of the MBPO family shares (arXiv 1906.08253, with MOPO's numbers, arXiv 2005.13239).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from damorl.core import buffer as ring
from damorl.errors import UserError
from damorl.parts import dynamics, dynamics_fit
from damorl.parts.actor import policy
from damorl.parts.model_units import to_units
from damorl.parts.rollout import Revise, rollout
from damorl.parts.start import StartSettings
from damorl.parts.validation import Episodes, ValidationSettings, sample_occupancy
from damorl.types import Array, Key, Metrics, OfflineData, OnProgress, Params, Problem, TerminationFn, Transition

FIT_STREAM = 0x64796E
"""What the key of an algorithm's preparation is folded with for the fit: every algorithm gets the same model."""


@dataclass(frozen=True)
class ModelSettings(StartSettings, ValidationSettings):
    """Settings that every algorithm with a model has; its Config inherits them. Defaults: OfflineRL-Kit's."""

    real_ratio: float = 0.05
    """Share of offline rows in a batch."""
    rollout_length: int = 5
    """Steps of a branched rollout."""
    rollout_starts: int = 50_000
    """Dataset states that rollouts start from, before every block of updates. A multiple of the number of elites."""
    rollout_occupancy: float = 0.0
    """Share of the starts that come from the policy's own discounted occupancy in the model instead: states of the
    whole episodes that `keep` validated plays there. With dataset states alone the first steps of an episode, where a
    policy leaves the data for good, are hardly ever visited."""
    rollout_noise: bool = True
    """Whether rollouts sample the Gaussian that the model predicts. Off: they follow its mean. Where the world is
    deterministic the predicted spread is the model's own error, and as noise in every step it topples what stands."""
    rollout_retain: int = 5
    """Blocks of rollouts that the model buffer holds."""
    dynamics: dynamics.DynamicsConfig = field(default_factory=dynamics.DynamicsConfig)

    def __post_init__(self) -> None:
        """Refuse rollouts that cannot be dealt evenly, and a share that is none."""
        super().__post_init__()
        self.dynamics.check_dealt("rollout_starts", self.rollout_starts)
        if not 0.0 <= self.real_ratio <= 1.0:
            raise UserError(f"real_ratio must be between 0 and 1, found {self.real_ratio}: give the share of real rows")
        if not 0.0 <= self.rollout_occupancy <= 1.0:
            raise UserError(
                f"rollout_occupancy must be between 0 and 1, found {self.rollout_occupancy}: give the share of starts"
            )
        if self.rollout_occupancy > 0.0 and self.keep == "last":
            raise UserError("rollout_occupancy takes states of the episodes that validate: set keep to validated")
        if self.keep != "last" and self.cloning_updates is None:
            raise UserError(f"keep '{self.keep}' falls back on a clone of the data: give cloning_updates (5000, say)")


def init_buffer(settings: ModelSettings, obs_dim: int, action_dim: int) -> ring.RingBuffer:
    """An empty buffer for `rollout_retain` blocks of rollouts."""
    capacity = settings.rollout_starts * settings.rollout_length * settings.rollout_retain
    return ring.init_buffer(capacity, obs_dim, action_dim)


def fit_model(
    key: Key,
    config: dynamics.DynamicsConfig,
    problem: Problem,
    data: OfflineData,
    on_progress: OnProgress,
    all_members: bool = False,
) -> dynamics.Dynamics:
    """The fitted elites, or all members, with progress reports of the stage `dynamics`.

    `key` is that of the whole preparation: with the same one, `config` and data every algorithm has the same model,
    which `problem.recall` may find again. The fit is made in the data's own units and then converted to the run's, so
    runs in different units have the same model too.
    """
    key = jax.random.fold_in(key, FIT_STREAM)
    own = data if problem.own_data is None else problem.own_data

    def on_epoch(done: int, figures: dict[str, float]) -> None:
        on_progress("dynamics", done, config.max_batches, figures)

    fit = lambda: dynamics_fit.fit_members(key, config, own.rows, on_epoch, own.episode)
    if problem.recall is None:
        model, _ = fit()
    else:
        template = jax.eval_shape(lambda: dynamics.init_members(key, config, *problem.spec))
        model, _ = problem.recall(key, config, template, fit)
    model = to_units(model, data.units)
    return model if all_members else dynamics.first_members(model, config.num_elites)


def draw_starts(settings: Any, rows: Transition, episodes: Episodes | None, key: Key) -> Array:
    """Where rollouts start, `[rollout_starts, obs_dim]`: states of the offline `rows` and of the policy's own
    `episodes`, in their shares. `settings` is a `ModelSettings` with `gamma`."""
    num_own = 0 if episodes is None else int(settings.rollout_starts * settings.rollout_occupancy)
    starts = ring.sample_rows(rows, key, settings.rollout_starts - num_own).obs
    if episodes is None or num_own == 0:
        return starts
    own = sample_occupancy(episodes, settings.gamma, jax.random.fold_in(key, 1), num_own)
    return jnp.concatenate([starts, own])


def imagine(
    settings: ModelSettings,
    elites: dynamics.Dynamics,
    actor: Params,
    termination: TerminationFn,
    starts: Array,
    key: Key,
    revise: Revise | None = None,
) -> tuple[Transition, Array, Metrics]:
    """One block of branched rollouts, with sampled actions, from `starts` `[B, obs_dim]`.

    Returns what `rollout` returns, for `ring.add`; `revise` is handed to it.
    """
    act = lambda obs, k: policy(actor, obs).sample(k)[0]
    world = partial(dynamics.sample_step, elites, noise=settings.rollout_noise)
    return rollout(world, act, termination, starts, key, settings.rollout_length, revise)


def count_real(batch_size: int, real_ratio: float) -> int:
    """How many rows of a mixed batch, its first ones, are offline rows: rounded down, so 12 of 256 at 0.05."""
    return int(batch_size * real_ratio)


def mix(real: Transition, synthetic: Transition, batch_size: int, real_ratio: float) -> Transition:
    """The first rows of each, in their shares, real ones first: `[batch_size, ...]`."""
    num_real = count_real(batch_size, real_ratio)
    first = lambda rows, count: jax.tree.map(lambda leaf: leaf[:count], rows)
    return ring.concatenate(first(real, num_real), first(synthetic, batch_size - num_real))


def mixed_batch(rows: Transition, buffer: ring.RingBuffer, key: Key, batch_size: int, real_ratio: float) -> Transition:
    """Uniform draws from the offline `rows` and from the model buffer, real ones first: `[batch_size, ...]`."""
    real_key, synthetic_key = jax.random.split(key)
    num_real = count_real(batch_size, real_ratio)
    real = ring.sample_rows(rows, real_key, num_real)
    return ring.concatenate(real, ring.sample(buffer, synthetic_key, batch_size - num_real))
