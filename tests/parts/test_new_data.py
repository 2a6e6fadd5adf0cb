"""New rows beside old ones: their share of a uniform draw is the declared one, however few they are."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damorl.core import buffer as ring
from damorl.parts.new_data import count_new, join
from damorl.parts.start import rank_episodes
from damorl.types import OfflineData, Transition


def rows(values: np.ndarray) -> Transition:
    column = jnp.asarray(values, jnp.float32)
    return Transition(column[:, None], column[:, None], column, column[:, None], 0.0 * column)


OLD = OfflineData(
    rows(np.arange(30)),
    jnp.zeros((3, 1)),
    jnp.asarray(np.repeat([0, 1, 2], 10), jnp.int32),
    jnp.ones(2),
    rank_episodes(np.repeat([0, 1, 2], 10), np.array([1.0, 2.0])),
)
NEW = ring.add(ring.init_buffer(50, 1, 1), rows(np.arange(100, 107)), jnp.ones(7, bool))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_share_is_that_of_the_rows(share: float) -> None:
    found = join(OLD, NEW, jax.random.key(0), share)
    reward = np.asarray(found.rows.reward)
    assert len(reward) == 30 + count_new(30, share)
    assert np.mean(reward >= 100) == pytest.approx(share, abs=0.02)
    np.testing.assert_array_equal(reward[:30], np.arange(30))
    assert set(reward[30:]) <= set(range(100, 107))  # no row that was never written
    if share == 0.9:
        assert set(reward[30:]) == set(range(100, 107))


def test_what_is_known_of_the_old_episodes_stays() -> None:
    found = join(OLD, NEW, jax.random.key(0), 0.5)
    assert found.episode is not None
    np.testing.assert_array_equal(found.episode, np.append(np.repeat([0, 1, 2], 10), 3 + np.arange(30)))
    assert found._replace(rows=OLD.rows, episode=OLD.episode) == OLD
    assert join(OLD._replace(episode=None), NEW, jax.random.key(0), 0.5).episode is None
