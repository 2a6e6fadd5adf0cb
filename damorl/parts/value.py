"""State values: networks of V(s), one or a few."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from damorl.core.nets import MLP, NormedMLP, apply_mlp, apply_normed_mlp, init_mlp, init_normed_mlp
from damorl.types import Array, Key


def init_value(
    key: Key, obs_dim: int, hidden: Sequence[int], num_values: int = 2, layer_norm: bool = True
) -> MLP | NormedMLP:
    """`num_values` networks from `[obs_dim]` to one value each, stacked on axis 0 of every leaf."""
    init = init_normed_mlp if layer_norm else init_mlp
    return jax.vmap(lambda k: init(k, (obs_dim, *hidden, 1)))(jax.random.split(key, num_values))


def v_values(params: MLP | NormedMLP, obs: Array) -> Array:
    """Every network's value, `[B, obs_dim] -> [value, B]`."""
    apply = apply_normed_mlp if isinstance(params, NormedMLP) else apply_mlp
    return jax.vmap(lambda p: apply(p, obs)[..., 0])(params)


def v_min(params: MLP | NormedMLP, obs: Array) -> Array:
    """The lowest of them, `[B]`."""
    return jnp.min(v_values(params, obs), axis=0)
