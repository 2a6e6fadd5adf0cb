"""What is known near the data: distances against a slow loop, the radius, rewards up to the first unknown pair."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damorl.parts import support
from damorl.parts.support import find_support, known_reward, nearest
from damorl.types import Transition


def rows_of(obs: np.ndarray, action: np.ndarray) -> Transition:
    zeros = np.zeros(len(obs), np.float32)
    return Transition(*map(jnp.asarray, (obs, action, zeros, obs, zeros)))


@pytest.fixture(scope="module")
def recorded() -> Transition:
    rng = np.random.default_rng(0)
    scale = np.array([1.0, 100.0, 1e-3], np.float32)  # units that must not matter
    return rows_of(*(rng.normal(size=(1500, n)).astype(np.float32) * s for n, s in ((3, scale), (2, 1.0))))


def test_distances_equal_those_of_a_slow_loop(recorded: Transition) -> None:
    found = find_support(recorded)
    asked = np.random.default_rng(1).normal(size=(7, 5)).astype(np.float32) * np.array([1.0, 100.0, 1e-3, 1.0, 1.0])
    pairs = np.concatenate([recorded.obs, recorded.action], axis=1)
    mean, std = pairs.mean(axis=0), pairs.std(axis=0)
    known = np.asarray(found.pairs)
    expected = [np.sqrt(np.min(np.sum(((row - mean) / std - known) ** 2, axis=1))) for row in asked]
    np.testing.assert_allclose(nearest(found, jnp.asarray(asked, jnp.float32)), expected, rtol=1e-3)


def test_so_many_recorded_pairs_are_known_and_few_that_are_far(recorded: Transition) -> None:
    """Fresh draws of the same law are known in the share that the radius was set for, within three deviations."""
    rng, found = np.random.default_rng(2), find_support(recorded)
    fresh = rng.normal(size=(4000, 5)).astype(np.float32) * np.array([1.0, 100.0, 1e-3, 1.0, 1.0], np.float32)
    share = float(jnp.mean(nearest(found, jnp.asarray(fresh)) <= found.radius))
    assert share == pytest.approx(support.KNOWN_SHARE, abs=0.02)  # the radius is a quantile of 300 distances
    far = jnp.asarray(fresh).at[:, 1].add(1e4)
    assert not jnp.any(nearest(found, far) <= found.radius)


def test_a_few_rows_are_enough_and_the_same_rows_give_the_same_support() -> None:
    rows = rows_of(np.arange(3, dtype=np.float32)[:, None], np.zeros((3, 1), np.float32))
    first, again = find_support(rows), find_support(rows)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.all(a == b)), first, again))
    assert len(first.pairs) == 2
    assert jnp.isfinite(first.radius)


@pytest.mark.parametrize(("worst", "rest"), [(-2.0, -2.0), (1.0, 0.0)])
def test_rewards_count_up_to_the_first_unknown_pair(worst: float, rest: float) -> None:
    """Steps 0 and 2 are looked at with a stride of two: step 2 is unknown, so steps 2 to 4 count as the worst reward.
    The other episode has ended before it gets there."""
    assert support.STRIDE == 2
    rows = rows_of(np.linspace(0.0, 1.0, 50, dtype=np.float32)[:, None], np.zeros((50, 1), np.float32))
    obs = jnp.array([[0.5, 0.5], [0.5, 0.5], [9.0, 9.0], [0.5, 0.5], [0.5, 0.5]])[..., None]
    alive = jnp.array([[True, True], [True, True], [True, False], [True, False], [True, False]])
    reward = jnp.where(alive, 3.0, 0.0)
    found = known_reward(find_support(rows), obs, jnp.zeros_like(obs), alive, reward, jnp.array(worst))
    np.testing.assert_allclose(found[:, 0], [3.0, 3.0, rest, rest, rest])
    np.testing.assert_allclose(found[:, 1], [3.0, 3.0, 0.0, 0.0, 0.0])


def test_runs_together_equal_runs_alone(recorded: Transition) -> None:
    """Over a leading axis of episodes, as a run of several seeds asks."""
    found, rng = find_support(recorded), np.random.default_rng(3)
    obs = jnp.asarray(rng.normal(size=(2, 4, 3, 3)) * np.array([1.0, 100.0, 1e-3]), jnp.float32)
    action = jnp.asarray(rng.normal(size=(2, 4, 3, 2)) * 3.0, jnp.float32)
    alive, reward = jnp.ones((2, 4, 3), bool), jnp.asarray(rng.normal(size=(2, 4, 3)), jnp.float32)
    known = lambda o, a, e, r: known_reward(found, o, a, e, r, jnp.array(-1.0))
    together = jax.vmap(known)(obs, action, alive, reward)
    alone = [known(*one) for one in zip(obs, action, alive, reward, strict=True)]
    np.testing.assert_allclose(together, np.stack(alone))
    assert 0.0 < float(jnp.mean(together == -1.0)) < 1.0
