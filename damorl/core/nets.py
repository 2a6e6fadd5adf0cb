"""Multilayer perceptrons as plain pytrees, one or an ensemble of them.

An ensemble is the same pytree with one more leading axis, the member: `[member, in, out]`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate, pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp

from damorl.types import Array, Key

Activation = Callable[[Array], Array]


class Dense(NamedTuple):
    """An affine layer. `kernel` is `[in, out]`, `bias` is `[out]`."""

    kernel: Array
    bias: Array


MLP = tuple[Dense, ...]


def init_mlp(key: Key, sizes: Sequence[int]) -> MLP:
    """Layers of widths `sizes`, weights and biases uniform in +-1/sqrt(fan_in) (the torch default)."""
    shapes = [(fan_in + 1, fan_out) for fan_in, fan_out in pairwise(sizes)]  # the bias is the last row
    draws = one_draw(partial(jax.random.uniform, key, minval=-1.0, maxval=1.0), shapes)
    scaled = [draw * fan_in**-0.5 for draw, fan_in in zip(draws, sizes[:-1], strict=True)]
    return tuple(Dense(draw[:-1], draw[-1]) for draw in scaled)


def one_draw(draw: Callable[..., Array], shapes: Sequence[tuple[int, int]]) -> list[Array]:
    """`draw(shape=(total,))` cut into arrays of `shapes`: XLA takes half a second to compile each."""
    ends = list(accumulate(rows * columns for rows, columns in shapes))
    pieces = jnp.split(draw(shape=(ends[-1],)), ends[:-1])
    return [piece.reshape(shape) for piece, shape in zip(pieces, shapes, strict=True)]


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
