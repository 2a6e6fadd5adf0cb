"""IQL: the expectile and the weights by hand, a whole update against NumPy, and where it only clones."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damorl.algos import iql
from damorl.algos.base import OfflineData, Problem
from damorl.core import buffer as ring
from damorl.core.distribution import inverse_tanh
from damorl.core.optim import adam, minimise
from damorl.errors import UserError
from damorl.experiment.config import defaults
from damorl.parts.actor import cloning_loss
from damorl.types import Transition
from tests.algos import slow

CONFIG = iql.Config(hidden=(8,), batch_size=8, gamma=0.9, reward_scale=0.5)
KEY = jax.random.key(5)


@pytest.fixture(scope="module")
def before(problem: Problem, data: OfflineData) -> iql.State:
    """A target that differs from the critic."""
    fresh = iql.init(jax.random.key(0), CONFIG, problem, data)
    return fresh._replace(target_critic=jax.tree.map(lambda leaf: 1.5 * leaf + 0.1, fresh.critic.params))


@pytest.fixture(scope="module")
def updated(problem: Problem, data: OfflineData, before: iql.State) -> tuple[iql.State, dict[str, jax.Array]]:
    return jax.jit(lambda state, data: iql.update(CONFIG, problem, state, data, KEY))(before, data)


@pytest.fixture(scope="module")
def rows(data: OfflineData) -> Transition:
    """The rows of that update, in doubles, with the rewards as given."""
    return slow.in_doubles(ring.sample_rows(data.rows, KEY, CONFIG.batch_size))


def advantage(before: iql.State, value, rows: Transition) -> np.ndarray:
    q = slow.values(slow.in_doubles(before.target_critic), rows.obs, rows.action).min(axis=0)
    return q - slow.mlp(slow.members(value)[0], rows.obs)[:, 0]


def test_expectile_loss_by_hand():
    found = iql.expectile_loss(jnp.array([2.0, -2.0, 0.0]), 0.7)
    np.testing.assert_allclose(found, [0.7 * 4.0, 0.3 * 4.0, 0.0], rtol=1e-6)
    np.testing.assert_allclose(iql.expectile_loss(jnp.array([3.0, -3.0]), 0.5), [4.5, 4.5])  # half the square


@pytest.mark.parametrize("expectile", [0.5, 0.7, 0.9])
def test_its_minimum_is_the_expectile(expectile):
    """Of two equally frequent values 0 and 1 that is `expectile` itself; below it V rises, above it falls."""
    q = jnp.array([0.0, 1.0])
    slope = jax.grad(lambda v: jnp.mean(iql.expectile_loss(q - v, expectile)))
    assert float(slope(expectile)) == pytest.approx(0.0, abs=1e-6)
    assert float(slope(expectile - 0.1)) < -0.05
    assert float(slope(expectile + 0.1)) > 0.05


def test_weights_by_hand_are_at_most_a_hundred():
    advantage = jnp.array([0.0, np.log(2.0) / 3.0, -np.log(2.0) / 3.0, 2.0, 1e6])
    np.testing.assert_allclose(iql.cloning_weight(CONFIG, advantage), [1.0, 2.0, 0.5, 100.0, 100.0], rtol=1e-6)


def test_value_steps_down_eq_5(before, updated, rows):
    def loss(value) -> float:
        u = advantage(before, value, rows)
        return float(np.mean(np.abs(CONFIG.expectile - (u < 0.0)) * u**2))

    slow.assert_close(slow.first_gradient(updated[0].value), slow.gradient(loss, before.value.params))
    assert float(updated[1]["value/loss"]) == pytest.approx(loss(slow.in_doubles(before.value.params)), rel=1e-4)


def test_critic_steps_down_eq_6_towards_the_new_value(before, updated, rows):
    (value,) = slow.members(slow.in_doubles(updated[0].value.params))
    next_value = slow.mlp(value, rows.next_obs)[:, 0]
    target = CONFIG.reward_scale * rows.reward + CONFIG.gamma * (1.0 - rows.terminal) * next_value
    assert set(rows.terminal) == {0.0, 1.0}

    def loss(critic) -> float:
        return float(np.sum(np.mean((slow.values(critic, rows.obs, rows.action) - target) ** 2, axis=1)))

    slow.assert_close(slow.first_gradient(updated[0].critic), slow.gradient(loss, before.critic.params))


def test_actor_steps_down_eq_7_with_the_new_value(before, updated, rows):
    weight = np.exp(CONFIG.inverse_temperature * advantage(before, slow.in_doubles(updated[0].value.params), rows))
    weight = np.minimum(weight, CONFIG.max_weight)
    pre_tanh = np.asarray(inverse_tanh(jnp.asarray(rows.action, jnp.float32)), np.float64)

    def loss(actor) -> float:
        mean, log_std = np.split(slow.mlp(actor, rows.obs), 2, axis=1)
        log_prob = -0.5 * ((pre_tanh - mean) / np.exp(log_std)) ** 2 - log_std  # the rest does not depend on the actor
        return float(-np.mean(weight * np.sum(log_prob, axis=1)))

    slow.assert_close(slow.first_gradient(updated[0].actor), slow.gradient(loss, before.actor.params))
    assert float(updated[1]["actor/weight"]) == pytest.approx(weight.mean(), rel=1e-3)


def test_target_follows_and_metrics_are_in_the_rewards_as_given(before, updated, rows):
    after, metrics = updated
    expected = jax.tree.map(lambda old, new: 0.995 * old + 0.005 * new, before.target_critic, after.critic.params)
    slow.assert_close(after.target_critic, expected, tolerance=1e-6)
    q = slow.values(slow.in_doubles(before.critic.params), rows.obs, rows.action)
    assert float(metrics["critic/q_mean"]) == pytest.approx(q.mean() / CONFIG.reward_scale, rel=1e-3, abs=1e-4)


def test_without_inverse_temperature_it_clones_bit_for_bit(problem, data, before):
    config = replace(CONFIG, inverse_temperature=0.0)
    after, _ = jax.jit(lambda s, d: iql.update(config, problem, s, d, KEY))(before, data)

    def clone(actor, data):
        batch = ring.sample_rows(data.rows, KEY, config.batch_size)
        return minimise(lambda p: cloning_loss(p, batch.obs, batch.action), actor, adam(config.actor_lr))[0]

    jax.tree.map(np.testing.assert_array_equal, after.actor.params, jax.jit(clone)(before.actor, data).params)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [({"expectile": 1.0}, "expectile"), ({"expectile": 0.0}, "0.7"), ({"max_weight": 0.0}, "100")],
)
def test_settings_that_cannot_work_are_refused(changes, expected):
    with pytest.raises(UserError, match=expected):
        iql.Config(**changes)


def test_paper_preset_is_the_released_one():
    loop, config = defaults("iql", "paper", "walker2d-medium-replay")
    assert (loop.total_updates, config.actor_lr_decay, config.hidden) == (1_000_000, 1_000_000, (256, 256))
    assert (config.expectile, config.inverse_temperature, config.max_weight) == (0.7, 3.0, 100.0)
    assert (config.actor_lr, config.value_lr, config.critic_lr, config.reward_scale) == (3e-4, 3e-4, 3e-4, None)


@pytest.mark.slow
def test_it_beats_the_behaviour_on_a_toy(point_world, point_settings):
    config = iql.Config(**point_settings["agent"], value_lr=3e-3, tau=0.02, reward_scale=10.0)
    assert point_world.distance(iql, config) < 0.15  # behaviour cloning: about 0.52
    assert point_world.distance(iql, replace(config, inverse_temperature=0.0)) > 0.4
