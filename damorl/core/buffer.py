"""A ring buffer on the device: a pure state, and functions that add to it and sample from it."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from damorl.types import Array, Key, Transition


class RingBuffer(NamedTuple):
    """Rows `[capacity, ...]`; only the first `size` of them were ever written and only those are sampled."""

    rows: Transition
    next_index: Array
    """Where the next row goes, int32 scalar."""
    size: Array
    """Number of written rows, int32 scalar, at most the capacity."""

    @property
    def capacity(self) -> int:
        """How many rows fit before the oldest are overwritten."""
        return self.rows.reward.shape[0]


def init_buffer(capacity: int, obs_dim: int, action_dim: int) -> RingBuffer:
    """An empty buffer for `capacity` transitions."""
    rows = Transition(
        obs=jnp.zeros((capacity, obs_dim)),
        action=jnp.zeros((capacity, action_dim)),
        reward=jnp.zeros(capacity),
        next_obs=jnp.zeros((capacity, obs_dim)),
        terminal=jnp.zeros(capacity),
    )
    return RingBuffer(rows, jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))


def add(buffer: RingBuffer, rows: Transition, valid: Array) -> RingBuffer:
    """Append the rows where `valid` (`[N]`, bool), in order, overwriting the oldest. N is at most the capacity.

    Invalid rows take no place: they are neither stored nor counted.
    """
    capacity = buffer.capacity
    if valid.shape[0] > capacity:
        raise ValueError(f"cannot add {valid.shape[0]} rows at once to a buffer of {capacity}")
    rank = jnp.cumsum(valid) - 1
    slot = jnp.where(valid, (buffer.next_index + rank) % capacity, capacity)  # capacity = out of range: dropped
    written = jnp.sum(valid).astype(jnp.int32)
    return RingBuffer(
        rows=jax.tree.map(lambda old, new: old.at[slot].set(new, mode="drop"), buffer.rows, rows),
        next_index=(buffer.next_index + written) % capacity,
        size=jnp.minimum(buffer.size + written, capacity),
    )


def take(rows: Transition, index: Array) -> Transition:
    """The rows at `index`: `[N, ...] -> [B, ...]`."""
    return jax.tree.map(lambda leaf: leaf[index], rows)


def sample(buffer: RingBuffer, key: Key, batch_size: int) -> Transition:
    """`batch_size` rows drawn uniformly, with replacement, from the written ones. The buffer must not be empty."""
    return take(buffer.rows, jax.random.randint(key, (batch_size,), 0, buffer.size))


def sample_rows(rows: Transition, key: Key, batch_size: int) -> Transition:
    """`batch_size` rows drawn uniformly, with replacement, from a fixed dataset `[N, ...]`."""
    return take(rows, jax.random.randint(key, (batch_size,), 0, rows.reward.shape[0]))


def concatenate(first: Transition, second: Transition) -> Transition:
    """Join two batches on axis 0."""
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), first, second)
