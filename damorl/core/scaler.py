"""Standardisation: the only place that knows what happens to a constant feature."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from damorl.types import Array


class Standardiser(NamedTuple):
    """Per-feature mean and scale, `[d]`."""

    mean: Array
    scale: Array

    def apply(self, x: Array) -> Array:
        """`[*B, d]` in the data's units to zero mean and unit deviation."""
        return (x - self.mean) / self.scale

    def invert(self, z: Array) -> Array:
        """Back to the data's units."""
        return z * self.scale + self.mean


def fit_standardiser(x: Array) -> Standardiser:
    """Mean and standard deviation over the rows of `[N, d]`; a constant feature keeps the scale 1."""
    origin = x[0]
    offset = x - origin  # exactly 0 for a constant feature: the rounding of its mean must not pass for a deviation
    std = jnp.std(offset, axis=0)
    return Standardiser(origin + jnp.mean(offset, axis=0), jnp.where(std < 1e-6, 1.0, std))
