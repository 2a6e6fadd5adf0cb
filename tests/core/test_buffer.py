"""The ring buffer is a bounded queue: a `deque` says what it must hold."""

from __future__ import annotations

from collections import Counter, deque
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damorl.core import buffer as ring
from damorl.types import Transition

CAPACITY, AT_ONCE = 7, 5
add = jax.jit(ring.add)
sample = jax.jit(ring.sample, static_argnames="batch_size")
sample_rows = jax.jit(ring.sample_rows, static_argnames="batch_size")


def rows_of(ids) -> Any:
    """Rows that carry their number in every field, so that a row put together from two would show."""
    ids = np.asarray(ids, np.float32)
    pair = lambda first, second: np.stack([ids + first, ids + second], axis=-1)
    fields: Any = (pair(0.0, 0.1), ids[:, None] + 0.2, ids + 0.3, pair(0.4, 0.5), ids % 2)
    return Transition(*fields)  # numpy's arrays serve: nothing need be compiled for them


def empty() -> ring.RingBuffer:
    return ring.init_buffer(CAPACITY, 2, 1)


def assert_same(rows: Transition, ids) -> None:
    for found, expected in zip(rows, rows_of(ids), strict=True):
        np.testing.assert_array_equal(found, expected)


def held(buffer: ring.RingBuffer) -> Transition:
    """The written rows, oldest first."""
    size, start = int(buffer.size), int(buffer.next_index)
    order: Any = (start + np.arange(CAPACITY)) % CAPACITY if size == CAPACITY else np.arange(size)
    return ring.take(jax.tree.map(np.asarray, buffer.rows), order)


@pytest.mark.parametrize("seed", range(3))
def test_equals_a_bounded_queue_over_random_additions(seed):
    rng = np.random.default_rng(seed)
    buffer, queue = empty(), deque(maxlen=CAPACITY)
    for call in range(12):
        ids = 1 + AT_ONCE * call + np.arange(AT_ONCE)
        valid = rng.random(AT_ONCE) < rng.choice([0.0, 0.5, 1.0], p=[0.1, 0.7, 0.2])
        buffer = add(buffer, rows_of(ids), valid)
        queue.extend(ids[valid])
        assert int(buffer.size) == len(queue)
        assert_same(held(buffer), list(queue))


def test_a_full_load_replaces_everything():
    buffer = empty()
    buffer = add(buffer, rows_of(range(1, 6)), np.ones(5, bool))
    buffer = add(buffer, rows_of(range(11, 11 + CAPACITY)), np.ones(CAPACITY, bool))
    assert_same(held(buffer), range(11, 11 + CAPACITY))


def test_masked_rows_may_hold_anything():
    rows = rows_of([1, 2, 3, 4, 5])
    rows.reward[1] = np.nan
    buffer = add(empty(), rows, np.array([True, False, True, True, False]))
    assert_same(held(buffer), [1, 3, 4])
    assert np.all(np.isfinite(buffer.rows.reward))


def test_more_rows_than_the_capacity_are_refused():
    with pytest.raises(ValueError, match=f"{CAPACITY + 1} rows"):
        ring.add(empty(), rows_of(range(CAPACITY + 1)), jnp.ones(CAPACITY + 1, bool))


@pytest.mark.parametrize("written", [1, 3])
def test_an_unwritten_row_is_never_sampled_and_a_written_one_as_often_as_another(written):
    ids = 1 + np.arange(AT_ONCE)
    buffer = add(empty(), rows_of(ids), ids <= written)
    batch = sample(buffer, jax.random.key(0), batch_size=3000)
    drawn = np.asarray(batch.obs)[:, 0]
    assert_same(batch, drawn)  # whole rows
    counts = Counter(drawn.tolist())
    assert set(counts) == set(range(1, written + 1))
    assert max(abs(count - 3000 / written) for count in counts.values()) < 4.0 * (3000 / written) ** 0.5


def test_a_dataset_is_sampled_whole():
    batch = sample_rows(rows_of(range(1, 6)), jax.random.key(1), batch_size=400)
    assert_same(batch, np.asarray(batch.obs)[:, 0])
    assert set(np.asarray(batch.obs)[:, 0].tolist()) == {1.0, 2.0, 3.0, 4.0, 5.0}


def test_concatenate_joins_in_order():
    assert_same(ring.concatenate(rows_of([4, 2]), rows_of([9])), [4, 2, 9])
