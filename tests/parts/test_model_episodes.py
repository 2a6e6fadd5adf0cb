"""Episodes in a model whose every step can be worked out by hand."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damorl.core.nets import Dense
from damorl.core.scaler import Standardiser
from damorl.parts.data_range import Range, find_range
from damorl.parts.dynamics import Dynamics, DynamicsParams, disagreement, first_members, predict_all, sample_step
from damorl.parts.model_episodes import Lane, Rules, World, lane_keys, reset, reset_lanes, step, step_lanes

NUM_ELITES, NUM_LANES = 3, 6
NEAR = Range(jnp.array([-1.0, -1.0]), jnp.array([1.0, 1.0]))


def never(obs, action, next_obs):
    return jnp.zeros(obs.shape[:-1], bool)


def beyond_two(obs, action, next_obs):
    return next_obs[..., 0] > 2.0


def random_model(scale: float = 0.3) -> Dynamics:
    """Linear elites over two features and an action, all different, in units of their own."""
    rng = np.random.default_rng(1)
    single = lambda array: jnp.asarray(array, jnp.float32)
    kernel, bias = rng.normal(size=(NUM_ELITES, 3, 6)), rng.normal(size=(NUM_ELITES, 6))
    inputs = Standardiser(single(rng.normal(size=3)), single(rng.uniform(0.5, 2.0, size=3)))
    targets = Standardiser(single([0.1, 0.0, 0.3]), single([0.7, 0.4, 1.0]))
    layer = Dense(single(scale * kernel), single(scale * bias))
    return Dynamics(DynamicsParams((layer,), jnp.full(3, 0.5), jnp.full(3, -10.0)), inputs, targets)


def push(force: float) -> Dynamics:
    """Three equal elites: the first feature grows by `force` times the action, the second stays, the reward is 1."""
    kernel, bias = np.zeros((NUM_ELITES, 3, 6)), np.zeros((NUM_ELITES, 6))
    kernel[:, 2, 0], bias[:, 2] = force, 1.0
    params = DynamicsParams((Dense(jnp.asarray(kernel), jnp.asarray(bias)),), jnp.zeros(3), jnp.full(3, -800.0))
    return Dynamics(params, Standardiser(jnp.zeros(3), jnp.ones(3)), Standardiser(jnp.zeros(3), jnp.ones(3)))


STARTS = jnp.asarray(np.random.default_rng(2).normal(size=(50, 2)), jnp.float32)
ACTIONS = jnp.asarray(np.random.default_rng(3).uniform(-1.0, 1.0, (NUM_LANES, 1)), jnp.float32)
LONG, SHORT = jnp.int32(100), jnp.int32(3)
RANDOM = World(random_model(), STARTS, NEAR, LONG)
GOING = np.zeros(NUM_LANES, bool)
# Few rules, of equal shapes: each is one compilation.
FREE = Rules(never, keep_in_range=False, disagreement=True)
ENDING = Rules(beyond_two, noise=False)


def begin(world: World, seed: int = 5) -> Lane:
    return reset_lanes(world, lane_keys(seed, NUM_LANES), jnp.zeros(NUM_LANES, jnp.int32))


def test_a_step_is_that_of_sample_step_with_the_elite_that_was_drawn() -> None:
    before, sample, apart = begin(RANDOM), jax.jit(sample_step), jax.jit(disagreement)
    after, outcome = step_lanes(FREE, RANDOM, before, GOING, ACTIONS)
    assert len(set(np.asarray(after.elite).tolist())) > 1
    assert (np.abs(np.asarray(after.obs)) > 1.0).any()  # beyond the range, where they stay
    np.testing.assert_allclose(outcome.disagreement, apart(RANDOM.elites, before.obs, ACTIONS), rtol=1e-5)
    for lane in range(NUM_LANES):
        key = jax.random.fold_in(jax.random.split(jax.random.fold_in(before.key[lane], 0))[1], 0)
        own = first_members(reverse(RANDOM.elites, int(after.elite[lane])), 1)
        expected, reward = sample(own, before.obs[lane : lane + 1], ACTIONS[lane : lane + 1], key)
        np.testing.assert_allclose(after.obs[lane], expected[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(outcome.reward[lane], reward[0], rtol=1e-5, atol=1e-6)


def reverse(model: Dynamics, first: int) -> Dynamics:
    """The same elites, `first` among them at the front."""
    order = np.roll(np.arange(NUM_ELITES), -first)
    return model._replace(
        params=model.params._replace(layers=jax.tree.map(lambda leaf: leaf[order], model.params.layers))
    )


def test_without_noise_it_is_the_mean_of_that_elite() -> None:
    lanes = begin(RANDOM)
    means = jax.jit(predict_all)(RANDOM.elites, lanes.obs, ACTIONS).mean
    after, outcome = step_lanes(ENDING, RANDOM, lanes, GOING, ACTIONS)
    expected = np.asarray(means)[np.asarray(after.elite), np.arange(NUM_LANES)]
    np.testing.assert_allclose(after.obs, np.clip(expected[:, :2], -1.0, 1.0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(outcome.reward, expected[:, 2], rtol=1e-5, atol=1e-6)


def test_stacked_lanes_are_single_lanes() -> None:
    together, outcomes = step_lanes(FREE, RANDOM, begin(RANDOM), GOING, ACTIONS)
    alone = jax.jit(lambda key, action: step(FREE, RANDOM, reset(RANDOM, key, jnp.int32(0)), action))
    for lane, key in enumerate(lane_keys(5, NUM_LANES)):
        own, outcome = alone(key, ACTIONS[lane])
        assert (int(own.elite), int(own.time)) == (int(together.elite[lane]), 1)
        np.testing.assert_allclose(own.obs, together.obs[lane], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(outcome.reward, outcomes.reward[lane], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("elite", "drawn"), [("episode", 1), ("step", NUM_ELITES)])
def test_an_elite_is_drawn_for_the_episode_or_for_each_step(elite: Any, drawn: int) -> None:
    lanes, rules, seen = begin(RANDOM), dataclasses.replace(FREE, elite=elite), []
    first = np.asarray(lanes.elite)
    for _ in range(20):
        lanes, _ = step_lanes(rules, RANDOM, lanes, GOING, ACTIONS)
        seen.append(np.asarray(lanes.elite))
    assert [len(set(column)) for column in np.stack(seen).T] == [drawn] * NUM_LANES
    if elite == "episode":
        np.testing.assert_array_equal(seen[-1], first)


def test_every_elite_and_every_start_is_drawn_equally_often() -> None:
    lanes = reset_lanes(RANDOM, lane_keys(0, 6000), jnp.zeros(6000, jnp.int32))
    counts = np.bincount(np.asarray(lanes.elite), minlength=NUM_ELITES)
    assert np.abs(counts - 2000).max() < 150  # four standard deviations
    found = np.searchsorted(np.sort(STARTS[:, 0]), np.asarray(lanes.obs[:, 0]))
    assert np.abs(np.bincount(found, minlength=50) - 120).max() < 50


def test_the_end_is_asked_before_the_state_is_brought_into_the_range() -> None:
    world = World(push(3.0), jnp.zeros_like(STARTS), NEAR, LONG)
    actions = jnp.array([[1.0], [0.5], [-1.0], [0.1], [9.0], [-9.0]])  # the last two count as 1 and -1
    lanes, outcome = step_lanes(ENDING, world, begin(world), GOING, actions)
    np.testing.assert_array_equal(outcome.terminated, [True, False, False, False, True, False])
    np.testing.assert_allclose(lanes.obs[:, 0], [1.0, 1.0, -1.0, 0.3, 1.0, -1.0], rtol=1e-6)
    np.testing.assert_array_equal(outcome.reward, 1.0)


def test_a_prediction_that_is_not_finite_ends_the_episode_where_it_was() -> None:
    world = World(push(np.inf), jnp.zeros_like(STARTS), NEAR, LONG)
    lanes, outcome = step_lanes(ENDING, world, begin(world), GOING, jnp.ones((NUM_LANES, 1)))
    assert np.asarray(outcome.terminated).all()
    np.testing.assert_array_equal(lanes.obs, 0.0)
    np.testing.assert_array_equal(outcome.reward, 0.0)


def test_after_the_time_limit_the_next_episode_begins() -> None:
    world = World(push(0.1), STARTS, Range(jnp.full(2, -1.5), jnp.full(2, 1.5)), SHORT)
    lanes, limits, over = begin(world), [], GOING
    outcome: Any = None
    for _ in range(4):
        lanes, outcome = step_lanes(ENDING, world, lanes, over, ACTIONS)
        over = np.asarray(outcome.truncated)
        limits.append(over.mean())
    assert limits == [0.0, 0.0, 1.0, 0.0]
    np.testing.assert_array_equal(outcome.reward, 0.0)
    np.testing.assert_array_equal(lanes.time, 0)
    np.testing.assert_array_equal(lanes.episode, 1)
    fresh = reset_lanes(world, lanes.key, jnp.ones(NUM_LANES, jnp.int32))
    np.testing.assert_array_equal(lanes.obs, fresh.obs)  # the actions of the step after the end are ignored


def test_the_range_is_that_of_all_columns() -> None:
    before, after = np.array([[0.0, 5.0], [2.0, 4.0]]), np.array([[1.0, 9.0], [-3.0, 4.5]])
    low, high = find_range(jnp.asarray(before), jnp.asarray(after))
    np.testing.assert_array_equal([low, high], [[-3.0, 4.0], [2.0, 9.0]])
    np.testing.assert_array_equal(find_range(jnp.asarray(before)).low, [0.0, 4.0])


def test_lanes_have_the_keys_of_their_seeds() -> None:
    keys = lane_keys(2**32 - 1, 2)
    expected = [jax.random.key(np.uint32(2**32 - 1)), jax.random.key(0)]
    np.testing.assert_array_equal(jax.random.key_data(keys), [jax.random.key_data(key) for key in expected])
