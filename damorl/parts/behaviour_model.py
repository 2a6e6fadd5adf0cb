"""A model of the policy behind the data: a mixture of tanh-Gaussians (OptiDICE, arXiv 2106.10783)."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp

from damorl.core.distribution import TanhMixture, inverse_tanh
from damorl.core.nets import MLP, apply_mlp, init_mlp
from damorl.parts.actor import LOG_STD_MAX, LOG_STD_MIN
from damorl.types import Array, Key, Metrics


def init_behaviour(key: Key, obs_dim: int, action_dim: int, hidden: Sequence[int], num_components: int) -> MLP:
    """A network from `[obs_dim]` to logits, means and log-stds of the components."""
    return init_mlp(key, (obs_dim, *hidden, num_components * (1 + 2 * action_dim)))


def behaviour_policy(params: MLP, obs: Array, num_components: int) -> TanhMixture:
    """The action distribution at `obs` `[*B, obs_dim]`."""
    out = apply_mlp(params, obs)
    logits, rest = out[..., :num_components], out[..., num_components:]
    mean, log_std = jnp.split(rest.reshape(*rest.shape[:-1], num_components, -1), 2, axis=-1)
    return TanhMixture(logits, mean, jnp.clip(log_std, LOG_STD_MIN, LOG_STD_MAX))


def behaviour_loss(params: MLP, obs: Array, action: Array, num_components: int) -> tuple[Array, Metrics]:
    """Negative log-likelihood of the dataset's actions, `[B, obs_dim]`, `[B, action_dim]`."""
    law = behaviour_policy(params, obs, num_components)
    loss = -jnp.mean(law.log_prob_pre_tanh(inverse_tanh(action)))
    return loss, {"behaviour/loss": loss}
