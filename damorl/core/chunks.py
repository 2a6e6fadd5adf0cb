"""Work on many rows, so many at a time that what lies in between stays in a CPU's cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax

Rows = TypeVar("Rows")

CHUNK = 1000
"""Rows at a time: seven members of 4x200 then take two thirds of the time that 50 000 rows at once take on a CPU."""


def in_chunks(function: Callable[[Rows], Rows], rows: Rows, size: int = CHUNK) -> Rows:
    """`function(rows)`, where each row's result depends on that row alone; leaves are `[N, ...]`.

    The chunks are equal, the largest divisor of N up to `size`; without one above a tenth of it, and on anything but a
    CPU, all rows are done at once.
    """
    count = jax.tree.leaves(rows)[0].shape[0]
    length = next(length for length in range(min(size, count), 0, -1) if count % length == 0)
    if length == count or length * 10 < size or jax.default_backend() != "cpu":
        return function(rows)
    chunks = jax.tree.map(lambda leaf: leaf.reshape(count // length, length, *leaf.shape[1:]), rows)
    return jax.tree.map(lambda leaf: leaf.reshape(count, *leaf.shape[2:]), jax.lax.map(function, chunks))
