"""SAC's target, step and temperature: hand values, and what each switch changes."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damorl.core.optim import adam, init_learner
from damorl.parts import sac
from damorl.parts.actor import policy
from damorl.parts.critic import q_min, q_values
from damorl.types import Spec, Transition

SETTINGS = sac.SACSettings(hidden=(8,), gamma=0.9, initial_temperature=0.5, num_critics=3)
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def batch() -> Transition:
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    return Transition(draw(16, 3), jnp.tanh(draw(16, 2)), draw(16), draw(16, 3), jnp.arange(16) % 4 == 0)


@pytest.fixture(scope="module")
def state() -> sac.SACState:
    fresh = sac.init(jax.random.key(1), SETTINGS, Spec(3, 2))
    return fresh._replace(target_critic=jax.tree.map(lambda leaf: 1.5 * leaf + 0.1, fresh.critic.params))


def stepped(settings, state, batch, extra=None):
    return jax.jit(lambda s, b: sac.step(settings, s, b, b.reward, KEY, extra))(state, batch)


def test_target_by_hand_with_and_without_entropy(state, batch):
    action, log_prob = policy(state.actor.params, batch.next_obs).sample(KEY)
    lowest = np.asarray(q_values(state.target_critic, batch.next_obs, action)).min(axis=0)
    alive = 1.0 - np.asarray(batch.terminal, np.float32)
    for entropy, bonus in ((True, -0.5 * np.asarray(log_prob)), (False, 0.0)):
        found = sac.td_target(replace(SETTINGS, entropy_backup=entropy), state, batch, KEY)
        np.testing.assert_allclose(found, batch.reward + 0.9 * alive * (lowest + bonus), rtol=1e-5)


def test_the_actor_is_moved_by_the_critic_that_has_moved(state, batch):
    after, _ = stepped(SETTINGS, state, batch)
    slope = jax.jit(jax.grad(lambda p, critic: sac.actor_loss(p, critic, jnp.float32(0.5), batch.obs, KEY)[0]))
    new, old = (slope(state.actor.params, critic) for critic in (after.critic.params, state.critic.params))
    momentum = after.actor.opt_state[0].mu  # a tenth of the first gradient
    for found, expected, wrong in zip(*map(jax.tree.leaves, (momentum, new, old)), strict=True):
        np.testing.assert_allclose(10.0 * found, expected, rtol=1e-3, atol=1e-6)
        assert np.abs(10.0 * found - wrong).max() > 10.0 * np.abs(10.0 * found - expected).max()


def test_an_added_critic_loss_changes_the_critic_in_its_direction_and_zero_changes_nothing(state, batch):
    lowering = lambda weight: lambda p: (weight * q_values(p, batch.obs, batch.action).mean(), {"critic/extra": weight})
    plain, _ = stepped(SETTINGS, state, batch)
    same, _ = stepped(SETTINGS, state, batch, lowering(jnp.float32(0.0)))
    for one, other in zip(jax.tree.leaves(plain), jax.tree.leaves(same), strict=True):
        np.testing.assert_array_equal(one, other)
    lowered, metrics = stepped(SETTINGS, state, batch, lowering(jnp.float32(100.0)))
    assert metrics["critic/extra"] == 100.0
    value = lambda s: float(q_min(s.critic.params, batch.obs, batch.action).mean())
    assert value(lowered) < value(state)
    assert value(lowered) < value(plain)


def test_averages_follow_their_networks(state, batch):
    after, _ = stepped(replace(SETTINGS, actor_averaging=0.25), state, batch)
    for average, old, new, rate in (
        (after.target_critic, state.target_critic, after.critic.params, SETTINGS.tau),
        (after.average_actor, state.average_actor, after.actor.params, 0.25),
    ):
        for found, a, b in zip(*map(jax.tree.leaves, (average, old, new)), strict=True):
            np.testing.assert_allclose(found, (1.0 - rate) * a + rate * b, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("log_prob", "maximum", "expected"),
    [(5.0, 1.0, 0.0), (5.0, None, 0.1), (5.0, 0.5, np.log(0.5)), (-5.0, 1.0, -0.1)],
    ids=["too sure, bound 1", "too sure, free", "too sure, bound 1/2", "too random"],
)
def test_temperature_seeks_the_entropy_and_keeps_its_bound(log_prob, maximum, expected):
    """Target entropy -2: log pi of 5 is too sure, of -5 too random. Adam's first step is its rate, 0.1."""
    tx = adam(0.1)
    learner, _ = sac.tune_temperature(init_learner(jnp.zeros(()), tx), jnp.full(4, log_prob), 2, tx, maximum)
    assert float(learner.params) == pytest.approx(expected, abs=1e-5)


def test_a_fixed_temperature_stays(state, batch):
    after, metrics = stepped(replace(SETTINGS, learn_temperature=False), state, batch)
    assert float(after.temperature.params) == float(state.temperature.params) == pytest.approx(np.log(0.5))
    assert "actor/entropy" in metrics
    assert float(stepped(SETTINGS, state, batch)[0].temperature.params) != float(state.temperature.params)


@pytest.mark.slow
def test_it_finds_the_best_action_of_a_bandit():
    """Reward -(a - 0.5)^2 and no future: the mode goes to 0.5."""
    settings = sac.SACSettings(hidden=(16,), actor_lr=3e-3, critic_lr=3e-3, initial_temperature=0.05)
    rng = np.random.default_rng(0)
    action = jnp.asarray(rng.uniform(-1, 1, (256, 1)), jnp.float32)
    zeros = jnp.zeros((256, 1))
    rows = Transition(zeros, action, -jnp.square(action[:, 0] - 0.5), zeros, jnp.ones(256))
    step = lambda s, k: sac.update(settings, s, rows, k)
    state = sac.init(KEY, settings, Spec(1, 1))
    state, _ = jax.jit(lambda s: jax.lax.scan(step, s, jax.random.split(KEY, 1500)))(state)
    assert float(policy(state.actor.params, zeros[:1]).mode()[0, 0]) == pytest.approx(0.5, abs=0.1)
