"""The actor (a tanh-Gaussian policy network) and its entropy temperature, as in SAC (arXiv 1812.05905)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import optax

from damorl.core.buffer import sample_rows
from damorl.core.distribution import TanhGaussian, inverse_tanh
from damorl.core.nets import MLP, Dense, apply_mlp, init_mlp
from damorl.core.optim import Learner, init_learner, minimise
from damorl.core.scaler import Standardiser
from damorl.types import Array, Key, Metrics, Transition

LOG_STD_MIN, LOG_STD_MAX = -5.0, 2.0  # OfflineRL-Kit's hard clip


def init_actor(key: Key, obs_dim: int, action_dim: int, hidden: Sequence[int]) -> MLP:
    """A network from `[obs_dim]` to mean and log-std, `[2 * action_dim]`."""
    return init_mlp(key, (obs_dim, *hidden, 2 * action_dim))


def policy(params: MLP, obs: Array) -> TanhGaussian:
    """The action distribution at `obs` `[*B, obs_dim]`."""
    mean, log_std = jnp.split(apply_mlp(params, obs), 2, axis=-1)
    return TanhGaussian(mean, jnp.clip(log_std, LOG_STD_MIN, LOG_STD_MAX))


def cloning_loss(params: MLP, obs: Array, action: Array, weight: Array | float = 1.0) -> tuple[Array, Metrics]:
    """Negative log-likelihood of the dataset's actions, `E[-weight * log pi(a|s)]`; `[B, obs_dim]`, `[B, action_dim]`.

    Actions at the bound have no finite pre-image under tanh and are moved inside by 1e-4. `weight` is `[B]`.
    """
    loss = -jnp.mean(weight * policy(params, obs).log_prob_pre_tanh(inverse_tanh(action)))
    return loss, {"actor/loss": loss}


def on_raw_observations(params: MLP, inputs: Standardiser) -> MLP:
    """The same actor for observations in the data's units: the standardisation moves into the first layer.

    Inputs that follow the observation (a flag, say) are taken to be 0 and dropped. Every leaf may have one more leading
    axis, the seed.
    """
    kernel = params[0].kernel[..., : inputs.mean.shape[-1], :] / inputs.scale[..., None]
    return (Dense(kernel, params[0].bias - jnp.einsum("...i,...ij->...j", inputs.mean, kernel)), *params[1:])


@partial(jax.jit, static_argnames="num_updates")
def clone_actor(params: MLP, rows: Transition, key: Key, num_updates: int) -> MLP:
    """`num_updates` Adam steps (rate 1e-3, batch 256) on `cloning_loss` over a dataset `[N, ...]`."""
    optimiser = optax.adam(1e-3)

    def step(learner: Learner, step_key: Key) -> tuple[Learner, Metrics]:
        batch = sample_rows(rows, step_key, 256)
        return minimise(lambda p: cloning_loss(p, batch.obs, batch.action), learner, optimiser)

    learner, _ = jax.lax.scan(step, init_learner(params, optimiser), jax.random.split(key, num_updates))
    return learner.params


def temperature_loss(log_temperature: Array, log_prob: Array, target_entropy: float) -> tuple[Array, Metrics]:
    """`-log(temperature) * E[log pi(a|s) + target_entropy]` (SAC, in the log form of its public code).

    Its gradient raises the temperature where the policy's entropy is below the target. `log_prob` is `[B]`.
    """
    excess = jax.lax.stop_gradient(jnp.mean(log_prob) + target_entropy)
    return -log_temperature * excess, {
        "actor/temperature": jnp.exp(log_temperature),
        "actor/entropy": -jnp.mean(log_prob),
    }
