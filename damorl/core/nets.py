"""Multilayer perceptrons as plain pytrees, one or an ensemble of them.

An ensemble is the same pytree with one more leading axis, the member: `[member, in, out]`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax

from damorl.types import Array, Key

Activation = Callable[[Array], Array]


class Dense(NamedTuple):
    """An affine layer. `kernel` is `[in, out]`, `bias` is `[out]`."""

    kernel: Array
    bias: Array


MLP = tuple[Dense, ...]


def init_mlp(key: Key, sizes: Sequence[int]) -> MLP:
    """Layers of widths `sizes`, weights and biases uniform in +-1/sqrt(fan_in) (the torch default)."""
    layers = []
    for layer_key, fan_in, fan_out in zip(jax.random.split(key, len(sizes) - 1), sizes[:-1], sizes[1:], strict=True):
        kernel_key, bias_key = jax.random.split(layer_key)
        bound = fan_in**-0.5
        layers.append(
            Dense(
                jax.random.uniform(kernel_key, (fan_in, fan_out), minval=-bound, maxval=bound),
                jax.random.uniform(bias_key, (fan_out,), minval=-bound, maxval=bound),
            )
        )
    return tuple(layers)


def init_ensemble(key: Key, sizes: Sequence[int], num_members: int) -> MLP:
    """`num_members` independent networks, stacked on axis 0 of every leaf."""
    return jax.vmap(lambda k: init_mlp(k, sizes))(jax.random.split(key, num_members))


def apply_mlp(params: MLP, x: Array, activation: Activation = jax.nn.relu) -> Array:
    """`[*B, in] -> [*B, out]`; no activation after the last layer."""
    for layer in params[:-1]:
        x = activation(x @ layer.kernel + layer.bias)
    return x @ params[-1].kernel + params[-1].bias


def apply_ensemble(params: MLP, x: Array, activation: Activation = jax.nn.relu) -> Array:
    """Every member on the same rows: `[B, in] -> [member, B, out]`."""
    return jax.vmap(lambda p: apply_mlp(p, x, activation))(params)


def num_parameters(params: MLP) -> int:
    """How many scalars the pytree holds."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
