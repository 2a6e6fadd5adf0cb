"""Chunks change nothing but the order of the work."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damorl.core.chunks import in_chunks


@pytest.mark.parametrize(("count", "calls"), [(12, 4), (10, 5), (7, 1), (3, 3)])
def test_each_row_is_done_once_and_in_its_place(count: int, calls: int) -> None:
    seen: list[int] = []

    def double(rows: dict[str, jax.Array]) -> dict[str, jax.Array]:
        seen.append(len(rows["x"]))
        return {"x": 2.0 * rows["x"], "y": rows["y"] + 1.0}

    rows = {"x": jnp.arange(count * 2.0).reshape(count, 2), "y": jnp.arange(float(count))}
    found = in_chunks(double, rows, size=5)
    np.testing.assert_array_equal(found["x"], 2.0 * rows["x"])
    np.testing.assert_array_equal(found["y"], rows["y"] + 1.0)
    assert seen == [calls]  # traced once, with the largest divisor of the count up to 5


def test_a_count_with_no_good_divisor_is_done_at_once() -> None:
    found = in_chunks(lambda rows: rows + 1.0, jnp.zeros((101, 2)), size=50)
    np.testing.assert_array_equal(found, jnp.ones((101, 2)))
