"""The range that the data showed. Imagined episodes stay inside it: hundreds of steps compound any error."""

from __future__ import annotations

from functools import reduce
from typing import NamedTuple

import jax.numpy as jnp

from damorl.types import Array


class Range(NamedTuple):
    """Least and greatest value of every feature, `[d]`."""

    low: Array
    high: Array

    def clip(self, x: Array) -> Array:
        """`[*B, d]`, each feature brought to the nearest value in its range."""
        return jnp.clip(x, self.low, self.high)


def find_range(*columns: Array) -> Range:
    """The range over the rows of all `columns`, `[N, d]` each."""
    low = reduce(jnp.minimum, (jnp.min(column, axis=0) for column in columns))
    return Range(low, reduce(jnp.maximum, (jnp.max(column, axis=0) for column in columns)))
