"""ReBRAC: both penalties by hand, which rows have a next action, and a whole update against NumPy."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damorl.algos import rebrac
from damorl.algos.base import OfflineData, Problem
from damorl.core.buffer import take
from damorl.core.nets import NormedMLP
from damorl.errors import UserError
from damorl.experiment.config import defaults
from damorl.parts.actor import policy
from damorl.parts.critic import q_min
from damorl.types import Transition
from tests.algos import slow

CONFIG = rebrac.Config(
    hidden=(8,),
    batch_size=16,
    gamma=0.9,
    actor_penalty=0.3,
    critic_penalty=2.0,
    target_noise=0.0,
    policy_delay=1,
    critic_layer_norm=False,
)
KEY = jax.random.key(5)
CUT = (5, 8, 11)  # rows after which an episode was cut; every third row from 1 on is terminal


@pytest.fixture(scope="module")
def episodes(data: OfflineData) -> OfflineData:
    """The rows of `data` in episodes that end at terminal rows and at those that are cut."""
    ended = np.asarray(data.rows.terminal) > 0.5
    ended[list(CUT)] = True
    return data._replace(episode=jnp.asarray(np.cumsum(np.append(0, ended[:-1])), jnp.int32))


@pytest.fixture(scope="module")
def before(problem: Problem, episodes: OfflineData) -> rebrac.State:
    """Targets that differ from what learns."""
    fresh = rebrac.init(jax.random.key(0), CONFIG, problem, episodes)
    other = lambda params: jax.tree.map(lambda leaf: 1.5 * leaf + 0.1, params)
    return fresh._replace(target_actor=other(fresh.actor.params), target_critic=other(fresh.critic.params))


@pytest.fixture(scope="module")
def update(problem: Problem):
    return jax.jit(lambda state, data: rebrac.update(CONFIG, problem, state, data, KEY))


@pytest.fixture(scope="module")
def index() -> np.ndarray:
    """The rows of that update."""
    return np.asarray(jax.random.randint(jax.random.split(KEY)[0], (CONFIG.batch_size,), 0, 20))


def has_next(episodes: OfflineData, row: int) -> bool:
    episode = np.asarray(episodes.episode)
    return row + 1 < len(episode) and bool(episode[row + 1] == episode[row])


def test_next_action_is_the_following_row_s_within_an_episode(episodes):
    action, known = rebrac.next_action(episodes, jnp.arange(20))
    assert known.tolist() == [has_next(episodes, row) for row in range(20)]
    assert not any(known[row] for row in (*CUT, 1, 19))
    for row in np.flatnonzero(known):
        np.testing.assert_array_equal(action[row], episodes.rows.action[row + 1])


def test_weights_leave_out_the_rows_that_are_cut():
    terminal, known = jnp.array([0.0, 1.0, 0.0, 0.0]), jnp.array([True, False, False, True])
    np.testing.assert_allclose(rebrac.critic_weight(terminal, known), [4.0 / 3.0, 4.0 / 3.0, 0.0, 4.0 / 3.0])
    np.testing.assert_array_equal(rebrac.critic_weight(jnp.zeros(2), jnp.array([False, False])), [0.0, 0.0])


def test_target_by_hand(before, batch):
    """The lower target, less the penalty of the distance to the data's next action; nothing beyond a terminal."""
    after = jnp.asarray(np.tanh(np.random.default_rng(3).normal(size=batch.action.shape)), jnp.float32)
    found = rebrac.td_target(CONFIG, before, batch, after, KEY)
    action = np.asarray(policy(before.target_actor, batch.next_obs).mode())
    lowest = np.asarray(q_min(before.target_critic, batch.next_obs, jnp.asarray(action)))
    penalty = 2.0 * np.sum((action - np.asarray(after)) ** 2, axis=1)
    np.testing.assert_allclose(found, batch.reward + 0.9 * (1.0 - batch.terminal) * (lowest - penalty), rtol=1e-4)
    assert np.min(penalty) > 0.01
    at_target = rebrac.td_target(CONFIG, before, batch, jnp.asarray(action), KEY)
    free = rebrac.td_target(replace(CONFIG, critic_penalty=0.0), before, batch, after, KEY)
    np.testing.assert_allclose(at_target, free, rtol=1e-5)  # no distance, no penalty


def test_actor_loss_by_hand_and_its_gradient_has_a_constant_scale(before, batch):
    actor, critic = before.actor.params, before.critic.params
    action = policy(actor, batch.obs).mode()
    q = np.asarray(q_min(critic, batch.obs, action), np.float64)
    distance = np.sum((np.asarray(action) - np.asarray(batch.action)) ** 2, axis=1).mean()
    gradient = jax.jit(jax.value_and_grad(lambda actor, critic: rebrac.actor_loss(actor, critic, batch, 0.3)[0]))
    loss, slope = gradient(actor, critic)
    assert float(loss) == pytest.approx(0.3 * distance - q.mean() / np.abs(q).mean(), rel=1e-4)
    louder = (*critic[:-1], jax.tree.map(lambda leaf: 10.0 * leaf, critic[-1]))
    slow.assert_close(gradient(actor, louder)[1], slope)


def test_the_value_term_raises_q_and_the_penalty_nears_the_data(before, batch):
    actor, critic = before.actor.params, before.critic.params
    gradient = jax.jit(jax.grad(lambda p, penalty: rebrac.actor_loss(p, critic, batch, penalty)[0]))

    def moved(penalty):
        return jax.tree.map(lambda p, g: p - 1e-2 * g / max(penalty, 1.0), actor, gradient(actor, penalty))

    value = lambda p: float(q_min(critic, batch.obs, policy(p, batch.obs).mode()).mean())
    distance = lambda p: float(jnp.mean(jnp.square(policy(p, batch.obs).mode() - batch.action)))
    assert value(moved(0.0)) > value(actor) + 1e-5
    assert distance(moved(1e3)) < distance(actor) - 1e-5


def test_a_whole_update_steps_down_both_losses(before, update, episodes, index):
    after, _ = update(before, episodes)
    rows: Transition = slow.in_doubles(take(episodes.rows, index))
    action = np.tanh(np.split(slow.mlp(slow.in_doubles(before.target_actor), rows.next_obs), 2, axis=1)[0])
    data_action = np.asarray(episodes.rows.action, np.float64)[np.minimum(index + 1, 19)]
    next_value = slow.values(slow.in_doubles(before.target_critic), rows.next_obs, action).min(axis=0)
    next_value -= CONFIG.critic_penalty * np.sum((action - data_action) ** 2, axis=1)
    target = rows.reward + CONFIG.gamma * (1.0 - rows.terminal) * next_value
    taken = np.array([has_next(episodes, row) for row in index]) | (rows.terminal > 0.5)
    assert 0 < taken.sum() < len(taken)

    def critic_loss(critic) -> float:
        error = slow.values(critic, rows.obs, rows.action) - target
        return float(np.sum(np.mean(error[:, taken] ** 2, axis=1)))

    slow.assert_close(slow.first_gradient(after.critic), slow.gradient(critic_loss, before.critic.params))
    critic, scale = slow.in_doubles(after.critic.params), 0.0

    def actor_loss(actor) -> float:
        own = np.tanh(np.split(slow.mlp(actor, rows.obs), 2, axis=1)[0])
        q = slow.values(critic, rows.obs, own).min(axis=0)
        cloning = np.mean(np.sum((own - rows.action) ** 2, axis=1))
        return float(CONFIG.actor_penalty * cloning - q.mean() / (scale or np.abs(q).mean()))

    actor = slow.in_doubles(before.actor.params)
    own = np.tanh(np.split(slow.mlp(actor, rows.obs), 2, axis=1)[0])
    scale = float(np.abs(slow.values(critic, rows.obs, own).min(axis=0)).mean())
    slow.assert_close(slow.first_gradient(after.actor), slow.gradient(actor_loss, actor))


def test_what_a_cut_row_earned_does_not_reach_the_critic(before, update, episodes, index):
    """Bit for bit; what any other row earned does."""

    def critic_after(row: int) -> list[np.ndarray]:
        rewards = episodes.rows.reward.at[row].add(10.0)
        after, _ = update(before, episodes._replace(rows=episodes.rows._replace(reward=rewards)))
        return [np.asarray(leaf) for leaf in jax.tree.leaves(after.critic.params)]

    (cut, *_), (other, *_) = [row for row in index if row in CUT], [row for row in index if has_next(episodes, row)]
    known = [np.asarray(leaf) for leaf in jax.tree.leaves(update(before, episodes)[0].critic.params)]
    assert all(np.array_equal(one, two) for one, two in zip(critic_after(int(cut)), known, strict=True))
    assert not all(np.array_equal(one, two) for one, two in zip(critic_after(int(other)), known, strict=True))


def test_critics_are_normalised_by_default(problem, episodes):
    assert isinstance(rebrac.init(KEY, rebrac.Config(hidden=(8,)), problem, episodes).critic.params, NormedMLP)


def test_rows_that_stand_alone_are_refused(problem, data, episodes, before):
    prepare = lambda rows: rebrac.prepare(KEY, CONFIG, problem, before, rows, lambda *_: None)
    for rows in (data, data._replace(episode=jnp.arange(20, dtype=jnp.int32))):
        with pytest.raises(UserError, match="order of time"):
            prepare(rows)
    assert prepare(episodes) is before


def test_paper_preset_is_the_released_one():
    loop, config = defaults("rebrac", "paper", "hopper-medium-replay")
    assert (loop.total_updates, config.batch_size, config.hidden) == (1_000_000, 1024, (256, 256, 256))
    assert (config.actor_penalty, config.critic_penalty, config.critic_layer_norm) == (0.05, 0.5, True)
    assert (config.actor_lr, config.critic_lr, config.policy_delay, config.actor_averaging) == (1e-3, 1e-3, 2, 1.0)


@pytest.mark.slow
def test_it_beats_the_behaviour_on_a_toy(point_world, point_settings):
    """The toy's steps, taken one after the other in episodes of fifty."""
    rng, place, columns = np.random.default_rng(0), 0.0, []
    for row in range(3000):
        place = rng.uniform(-1.0, 1.0) if row % 50 == 0 else place
        action = rng.uniform(-1.0, 1.0)
        reached = float(np.clip(place + 0.3 * action + 0.01 * rng.normal(), -1.5, 1.5))
        columns.append(([place], [action], -(reached**2), [reached], 0.0))
        place = reached
    rows = Transition(*(jnp.asarray(column, jnp.float32) for column in zip(*columns, strict=True)))
    world = point_world._replace(data=OfflineData(rows, rows.obs, jnp.arange(3000, dtype=jnp.int32) // 50))
    config = rebrac.Config(**point_settings["agent"], actor_penalty=0.05)
    assert world.distance(rebrac, config) < 0.15  # behaviour cloning: about 0.52
    assert world.distance(rebrac, replace(config, actor_penalty=1e3)) > 0.4
