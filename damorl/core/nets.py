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


class LayerNorm(NamedTuple):
    """Learned scale and shift after a normalisation over features, `[out]` each."""

    scale: Array
    shift: Array


class NormedMLP(NamedTuple):
    """A multilayer perceptron with layer normalisation before every activation."""

    layers: MLP
    norms: tuple[LayerNorm, ...]
    """One for each layer but the last."""


Net = MLP | NormedMLP
"""Either kind."""


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


def apply_mlp(params: MLP, x: Array, activation: Activation = jax.nn.relu) -> Array:
    """`[*B, in] -> [*B, out]`; no activation after the last layer."""
    for layer in params[:-1]:
        x = activation(x @ layer.kernel + layer.bias)
    return x @ params[-1].kernel + params[-1].bias


def init_normed_mlp(key: Key, sizes: Sequence[int]) -> NormedMLP:
    """As `init_mlp`; the normalisations start as scale 1 and shift 0."""
    norms = tuple(LayerNorm(jnp.ones(size), jnp.zeros(size)) for size in sizes[1:-1])
    return NormedMLP(init_mlp(key, sizes), norms)


def apply_normed_mlp(params: NormedMLP, x: Array, activation: Activation = jax.nn.relu) -> Array:
    """`[*B, in] -> [*B, out]`; each hidden layer has mean 0 and variance 1 over its features (arXiv 1607.06450)."""
    for layer, norm in zip(params.layers[:-1], params.norms, strict=True):
        x = x @ layer.kernel + layer.bias
        centred = x - jnp.mean(x, axis=-1, keepdims=True)
        x = centred * jax.lax.rsqrt(jnp.mean(jnp.square(centred), axis=-1, keepdims=True) + 1e-5)
        x = activation(x * norm.scale + norm.shift)
    return x @ params.layers[-1].kernel + params.layers[-1].bias


def init_ensemble(key: Key, sizes: Sequence[int], num_members: int, layer_norm: bool = False) -> Net:
    """`num_members` independent networks, stacked on axis 0 of every leaf."""
    init = init_normed_mlp if layer_norm else init_mlp
    return jax.vmap(lambda k: init(k, sizes))(jax.random.split(key, num_members))


def apply_ensemble(params: Net, x: Array, activation: Activation = jax.nn.relu) -> Array:
    """Every member on the same rows: `[B, in] -> [member, B, out]`."""
    apply = apply_normed_mlp if isinstance(params, NormedMLP) else apply_mlp
    return jax.vmap(lambda p: apply(p, x, activation))(params)


def orthogonal_penalty(params: MLP) -> Array:
    """Sum of the squared inner products of different columns of each kernel (as in arXiv 1809.11096)."""
    products = [layer.kernel.T @ layer.kernel for layer in params]
    return sum((jnp.sum(jnp.square(p)) - jnp.sum(jnp.square(jnp.diagonal(p))) for p in products), jnp.zeros(()))


def num_parameters(params: MLP) -> int:
    """How many scalars the pytree holds."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
