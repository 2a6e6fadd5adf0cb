"""TD3+BC: smoothing, delay and objective by hand; the scaling that is folded into its actor; where it only clones."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damorl.algos import bc, td3bc
from damorl.algos.base import OfflineData, Problem
from damorl.core import buffer as ring
from damorl.core.optim import adam, minimise
from damorl.parts.actor import LOG_STD_MIN, policy
from damorl.parts.critic import q_values

CONFIG = td3bc.Config(hidden=(8,), batch_size=8, gamma=0.9)
KEY = jax.random.key(5)


@pytest.fixture(scope="module")
def shifted(data: OfflineData) -> OfflineData:
    """States far from the origin, each feature on a scale of its own."""
    scale, mean = jnp.array([10.0, 0.1, 1.0]), jnp.array([50.0, -3.0, 0.0])
    rows = data.rows._replace(obs=data.rows.obs * scale + mean, next_obs=data.rows.next_obs * scale + mean)
    return data._replace(rows=rows)


@pytest.fixture(scope="module")
def state(problem: Problem, shifted: OfflineData) -> td3bc.State:
    fresh = td3bc.init(jax.random.key(0), CONFIG, problem, shifted)
    other = lambda params: jax.tree.map(lambda leaf: 1.5 * leaf + 0.1, params)
    return fresh._replace(target_actor=other(fresh.actor.params), target_critic=other(fresh.critic.params))


def updates(
    config: td3bc.Config, problem: Problem, state: td3bc.State, data: OfflineData, count: int
) -> list[td3bc.State]:
    """The states after one, two, ... updates."""
    step, found = jax.jit(lambda s, k: td3bc.update(config, problem, s, data, k)[0]), []
    for key in jax.random.split(jax.random.key(3), count):
        state = step(state, key)
        found.append(state)
    return found


def assert_same(one, other) -> None:
    jax.tree.map(np.testing.assert_array_equal, one, other)


def assert_close(one, other) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), one, other)


def differs(one, other) -> bool:
    return any(np.any(np.asarray(a) != b) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))


def test_smoothing_noise_is_clipped_and_so_is_the_action(state, batch):
    """Noise without end: every entry moves by exactly the clip, or to the action's bound."""
    mode = np.asarray(policy(state.target_actor, batch.obs).mode())
    found = np.asarray(td3bc.smoothed_action(replace(CONFIG, target_noise=1e6), state.target_actor, batch.obs, KEY))
    up, down = np.minimum(mode + 0.5, 1.0), np.maximum(mode - 0.5, -1.0)
    assert np.all(np.minimum(np.abs(found - up), np.abs(found - down)) < 1e-6)
    assert np.any(found > mode)
    assert np.any(found < mode)
    small = replace(CONFIG, target_noise=0.01)
    moved = td3bc.smoothed_action(small, jax.tree.map(jnp.zeros_like, state.target_actor), jnp.zeros((4000, 3)), KEY)
    assert float(jnp.std(moved)) == pytest.approx(0.01, rel=0.05)  # not clipped: the noise itself


def test_target_by_hand(state, batch):
    """Both targets, the lower critic, nothing beyond a terminal."""
    found = td3bc.td_target(replace(CONFIG, target_noise=0.0), state, batch, KEY)
    action = policy(state.target_actor, batch.next_obs).mode()
    lowest = np.asarray(q_values(state.target_critic, batch.next_obs, action)).min(axis=0)
    np.testing.assert_allclose(found, batch.reward + 0.9 * (1.0 - batch.terminal) * lowest, rtol=1e-5)


@pytest.fixture(scope="module")
def six_updates(problem, state, shifted) -> list[td3bc.State]:
    return updates(CONFIG, problem, state, shifted, 6)


@pytest.mark.parametrize("delay", [2, 3])
def test_actor_and_targets_move_on_every_delayth_update_and_the_critic_always(
    problem, state, shifted, six_updates, delay
):
    states = six_updates if delay == 2 else updates(replace(CONFIG, policy_delay=delay), problem, state, shifted, 6)
    before = state
    for number, after in enumerate(states, start=1):
        assert int(after.step) == int(after.critic.opt_state[0].count) == number
        assert int(after.actor.opt_state[0].count) == number // delay
        assert differs(after.critic.params, before.critic.params)
        for name in ("actor", "target_actor", "target_critic"):
            assert differs(getattr(after, name), getattr(before, name)) == (number % delay == 0), (name, number)
        before = after


def test_seeds_keep_their_own_count(problem, state, shifted):
    """Under vmap one seed's actor may move while the other's stands still."""
    pair = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), state)._replace(step=jnp.array([0, 1], jnp.int32))
    keys = jax.random.split(KEY, 2)
    after, _ = jax.jit(jax.vmap(lambda s, k: td3bc.update(CONFIG, problem, s, shifted, k)))(pair, keys)
    assert after.actor.opt_state[0].count.tolist() == [0, 1]
    assert after.step.tolist() == [1, 2]


def test_objective_by_hand_and_its_gradient_has_a_constant_scale(state, batch):
    actor, critic = state.actor.params, state.critic.params
    action = policy(actor, batch.obs).mode()
    q = np.asarray(q_values(critic, batch.obs, action)[0], np.float64)  # the first critic, not the lower
    weight = 2.5 / np.abs(q).mean()
    expected = np.square(np.asarray(action) - batch.action).mean() - weight * q.mean()
    loss, metrics = td3bc.actor_loss(actor, critic, batch, 2.5)
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    assert float(metrics["actor/cloning"]) == pytest.approx(np.square(action - batch.action).mean(), rel=1e-5)

    def with_constant(params):
        own = policy(params, batch.obs).mode()
        return jnp.mean(jnp.square(own - batch.action)) - weight * jnp.mean(q_values(critic, batch.obs, own)[0])

    gradient = jax.jit(jax.grad(lambda actor, critic: td3bc.actor_loss(actor, critic, batch, 2.5)[0]))
    found = gradient(actor, critic)
    assert_close(found, jax.jit(jax.grad(with_constant))(actor))
    louder = (*critic[:-1], jax.tree.map(lambda leaf: 10.0 * leaf, critic[-1]))
    assert_close(found, gradient(actor, louder))


def test_the_value_term_raises_q_and_the_cloning_term_nears_the_data(state, batch):
    actor, critic = state.actor.params, state.critic.params

    gradient = jax.jit(jax.grad(lambda p, weight: td3bc.actor_loss(p, critic, batch, weight)[0]))

    def moved(weight):
        grad = gradient(actor, weight)
        return jax.tree.map(lambda p, g: p - 1e-2 * g / max(weight, 1.0), actor, grad)

    value = lambda p: float(q_values(critic, batch.obs, policy(p, batch.obs).mode())[0].mean())
    distance = lambda p: float(jnp.mean(jnp.square(policy(p, batch.obs).mode() - batch.action)))
    assert value(moved(1e4)) > value(actor) + 1e-5
    assert distance(moved(0.0)) < distance(actor) - 1e-5


def test_without_value_weight_it_clones_bit_for_bit(problem, data):
    """The actor's step is that of behaviour cloning by squared error on the same rows."""
    config = replace(CONFIG, value_weight=0.0, policy_delay=1, standardise_obs=False)
    state = td3bc.init(jax.random.key(0), config, problem, data)
    after, _ = jax.jit(lambda s, k: td3bc.update(config, problem, s, data, k))(state, KEY)

    def clone(actor, key):
        batch = ring.sample_rows(data.rows, jax.random.split(key)[0], config.batch_size)
        return minimise(lambda p: bc.mse_loss(p, batch), actor, adam(config.actor_lr))[0]

    assert_same(after.actor.params, jax.jit(clone)(state.actor, KEY).params)


def test_scaling_is_folded_into_the_actor_also_of_stacked_seeds(state, shifted):
    obs = shifted.rows.obs
    scaled = (np.asarray(obs) - np.asarray(obs).mean(axis=0)) / np.asarray(obs).std(axis=0)
    expected = policy(state.average_actor, jnp.asarray(scaled)).mode()
    np.testing.assert_allclose(policy(td3bc.ALGORITHM.actor(state), obs).mode(), expected, rtol=1e-3, atol=1e-4)
    stacked = td3bc.ALGORITHM.actor(jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), state))
    second = jax.tree.map(lambda leaf: leaf[1], stacked)
    np.testing.assert_allclose(policy(second, obs).mode(), expected, rtol=1e-3, atol=1e-4)


class SeenError(Exception):
    """The rows have been seen; the rest of the update is of no interest."""


def test_networks_see_standardised_states(problem, state, shifted, monkeypatch):
    def look(config, state, batch, key):
        raise SeenError(batch)

    monkeypatch.setattr(td3bc, "td_target", look)
    with pytest.raises(SeenError) as seen:
        td3bc.update(replace(CONFIG, batch_size=4000), problem, state, shifted, KEY)
    (rows,) = seen.value.args
    np.testing.assert_allclose(rows.obs.mean(axis=0), 0.0, atol=0.1)
    np.testing.assert_allclose(rows.obs.std(axis=0), 1.0, atol=0.1)
    mean, scale = (np.asarray(f(shifted.rows.obs, axis=0)) for f in (jnp.mean, jnp.std))
    found, known = np.asarray(rows.next_obs) * scale + mean, np.asarray(shifted.rows.next_obs)
    assert np.abs(found[:, None] - known[None]).max(axis=2).min(axis=1).max() < 1e-2  # each is one of the data's


def test_the_policy_stays_deterministic(six_updates, shifted):
    actor = td3bc.ALGORITHM.actor(six_updates[-1])
    assert np.all(np.asarray(policy(actor, shifted.rows.obs).log_std) == LOG_STD_MIN)


def test_the_evaluated_actor_is_the_actor_or_its_average(problem, state, shifted, six_updates):
    assert_close(six_updates[-1].average_actor, six_updates[-1].actor.params)
    first, second = updates(replace(CONFIG, policy_delay=1, actor_averaging=0.25), problem, state, shifted, 2)
    mean = jax.tree.map(lambda old, new: 0.75 * old + 0.25 * new, first.average_actor, second.actor.params)
    assert_close(second.average_actor, mean)


@pytest.mark.slow
def test_it_beats_the_behaviour_on_a_toy(point_world, point_settings):
    assert point_world.distance(td3bc, td3bc.Config(**point_settings["agent"])) < 0.15  # behaviour cloning: about 0.52
    clone = td3bc.Config(**point_settings["agent"], value_weight=0.0)
    assert point_world.distance(td3bc, clone) > 0.4
