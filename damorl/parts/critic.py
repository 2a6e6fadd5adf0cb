"""The critic: an ensemble (usually twins) of Q(s, a) networks."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp

from damorl.core.nets import Net, apply_ensemble, init_ensemble
from damorl.types import Array, Key


def init_critic(
    key: Key, obs_dim: int, action_dim: int, hidden: Sequence[int], num_critics: int = 2, layer_norm: bool = False
) -> Net:
    """`num_critics` networks from `[obs_dim + action_dim]` to one value each."""
    return init_ensemble(key, (obs_dim + action_dim, *hidden, 1), num_critics, layer_norm)


def q_values(params: Net, obs: Array, action: Array) -> Array:
    """Every critic's value: `[B, obs_dim], [B, action_dim] -> [critic, B]`."""
    return apply_ensemble(params, jnp.concatenate([obs, action], axis=-1))[..., 0]


def q_min(params: Net, obs: Array, action: Array) -> Array:
    """The lowest of the critics' values, `[B]` (clipped double Q-learning, arXiv 1802.09477)."""
    return jnp.min(q_values(params, obs, action), axis=0)
