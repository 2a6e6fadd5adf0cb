"""State values: networks of V(s), one or a few."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp

from damorl.core.nets import Net, apply_ensemble, init_ensemble
from damorl.types import Array, Key


def init_value(key: Key, obs_dim: int, hidden: Sequence[int], num_values: int = 2, layer_norm: bool = True) -> Net:
    """`num_values` networks from `[obs_dim]` to one value each, stacked on axis 0 of every leaf."""
    return init_ensemble(key, (obs_dim, *hidden, 1), num_values, layer_norm)


def v_values(params: Net, obs: Array) -> Array:
    """Every network's value, `[B, obs_dim] -> [value, B]`."""
    return apply_ensemble(params, obs)[..., 0]


def v_min(params: Net, obs: Array) -> Array:
    """The lowest of them, `[B]`."""
    return jnp.min(v_values(params, obs), axis=0)
