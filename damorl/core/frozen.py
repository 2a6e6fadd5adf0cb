"""Networks that gradients pass through without changing them: a fitted model under an actor, say."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from damorl.core.nets import MLP, Dense
from damorl.types import Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Frozen:
    """A matrix `[in, out]` whose product `x @ matrix` has a gradient in x alone.

    That gradient is a product with the transpose. On a CPU, reading a small matrix against the grain takes two to four
    times as long as reading it along, so the transpose is kept.
    """

    matrix: Array
    transposed: Array

    def __rmatmul__(self, x: Array) -> Array:
        """`x @ matrix`, `[*B, in] -> [*B, out]`."""
        return product(x, self.matrix, self.transposed)


@jax.custom_vjp
def product(x: Array, matrix: Array, transposed: Array) -> Array:
    """`x @ matrix`; see `Frozen`."""
    del transposed
    return x @ matrix


product.defvjp(
    lambda x, matrix, transposed: (x @ matrix, (matrix, transposed)),
    lambda kept, slope: (slope @ kept[1], *map(jnp.zeros_like, kept)),
)


def freeze(layers: MLP) -> MLP:
    """The same layers for a loop that does not change them, in which the transposes are then made once; leading axes
    (members) are allowed."""
    turned = (jax.lax.optimization_barrier(jnp.swapaxes(layer.kernel, -1, -2)) for layer in layers)
    return tuple(Dense(Frozen(layer.kernel, own), layer.bias) for layer, own in zip(layers, turned, strict=True))  # pyright: ignore[reportArgumentType]
