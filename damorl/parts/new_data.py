"""New rows beside the old ones, in a declared share of every batch (half of each: RLPD, arXiv 2302.02948).

Algorithms draw rows uniformly, so a share of the draws is a share of the rows: the new ones are drawn with replacement
until they make up their share. The shapes never change, however many new rows there are.
"""

from __future__ import annotations

import jax.numpy as jnp

from damorl.core import buffer as ring
from damorl.types import Key, OfflineData


def count_new(num_old: int, share: float) -> int:
    """How many rows beside `num_old` others make up `share` of all."""
    return round(share / (1.0 - share) * num_old)


def join(old: OfflineData, new: ring.RingBuffer, key: Key, share: float) -> OfflineData:
    """`old` with rows of `new` after its own; `new`, which must not be empty, is in the same units.

    Each new row counts as an episode of its own. Initial states, returns and ranks are those of `old`.
    """
    count = count_new(old.rows.reward.shape[0], share)
    rows = ring.concatenate(old.rows, ring.sample(new, key, count))
    if old.episode is None:
        return old._replace(rows=rows)
    numbers = old.episode[-1] + 1 + jnp.arange(count, dtype=old.episode.dtype)
    return old._replace(rows=rows, episode=jnp.concatenate([old.episode, numbers]))
