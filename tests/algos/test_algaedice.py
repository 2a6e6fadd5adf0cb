"""AlgaeDICE's two objectives by hand, and whose gradient flows where."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damorl.algos import algaedice
from damorl.core.nets import orthogonal_penalty
from damorl.parts.actor import policy
from damorl.parts.critic import q_min, q_values

CONFIG = algaedice.Config(hidden=(8,), batch_size=8, gamma=0.9, divergence_weight=0.5)
KEY = jax.random.key(3)
RESIDUAL, INITIAL = jnp.array([[1.0, -3.0], [0.5, 2.0]]), jnp.array([[2.0], [4.0]])


@pytest.fixture(scope="module")
def state(problem, data) -> algaedice.State:
    """A state whose target differs from its critic."""
    state, other = (jax.jit(lambda key: algaedice.init(key, CONFIG, problem, data))(jax.random.key(i)) for i in (0, 1))
    return state._replace(target_critic=other.critic.params)


def found(config, state, batch, initial_obs, critic=None, actor=None) -> algaedice.Sides:
    critic = state.critic.params if critic is None else critic
    actor = state.actor.params if actor is None else actor
    return compiled(config, state, critic, actor, batch, initial_obs)


@partial(jax.jit, static_argnums=0)
def compiled(config, state, critic, actor, batch, initial_obs) -> algaedice.Sides:
    return algaedice.sides(config, state, critic, actor, batch, initial_obs, KEY)


def test_objectives_by_hand_for_chi_square():
    """f*(y) = y + y^2 / 4 above -2, else -1, at y = residual / 0.5; ratios max(1 + y / 2, 0)."""
    config = replace(CONFIG, divergence="chi_square")
    conjugates = 0.5 * np.array([[2.0 + 1.0, -1.0], [1.0 + 0.25, 4.0 + 4.0]])
    expected = conjugates.mean(axis=1).sum() + 0.1 * (2.0 + 4.0)
    assert float(algaedice.critic_objective(config, RESIDUAL, INITIAL)) == pytest.approx(expected)
    ratios = np.array([[2.0, 0.0], [1.5, 3.0]])
    climbed = 0.5 * np.sum(np.mean(ratios * np.asarray(RESIDUAL), axis=1)) + 0.1 * 3.0
    assert float(algaedice.actor_objective(config, RESIDUAL, INITIAL)) == pytest.approx(climbed)
    slope = jax.grad(lambda residual: algaedice.actor_objective(config, residual, INITIAL))(RESIDUAL)
    np.testing.assert_allclose(slope, ratios / 4.0)


def test_cubic_is_the_released_objective_over_its_coefficient():
    """`|y|^1.5 / 1.5 + (1 - gamma) c Q(s0, a0)`, c = 0.01, is ours at weight c^2 times c; so are the actors' slopes."""
    c, config = 0.01, replace(CONFIG, divergence_weight=1e-4)
    residual = np.asarray(RESIDUAL, np.float64)
    released = np.sum(np.mean(np.abs(residual) ** 1.5 / 1.5, axis=1)) + 0.1 * c * 6.0
    ours = float(algaedice.critic_objective(config, RESIDUAL, INITIAL))
    assert c * ours == pytest.approx(released, rel=1e-5)
    slope = jax.grad(lambda residual: algaedice.actor_objective(config, residual, INITIAL))(RESIDUAL)
    np.testing.assert_allclose(c * slope, 0.25 * np.sqrt(np.maximum(residual, 0.0)), rtol=1e-5)


def test_residual_by_hand(state, batch, initial_obs):
    """5 % live, 95 % the lower target, entropy bonus on both, nothing behind a terminal."""
    state = state._replace(temperature=state.temperature._replace(params=jnp.log(0.3)))
    law = policy(state.actor.params, jnp.concatenate([batch.next_obs, initial_obs]))
    action, log_prob = law.sample(KEY)
    live = q_values(state.critic.params, batch.next_obs, action[:8])
    frozen = q_min(state.target_critic, batch.next_obs, action[:8])
    later = 0.05 * live + 0.95 * frozen - 0.3 * log_prob[:8]
    now = q_values(state.critic.params, batch.obs, batch.action)
    expected = batch.reward + 0.9 * np.where(batch.terminal > 0.5, 0.0, later) - now
    at = found(CONFIG, state, batch, initial_obs)
    np.testing.assert_allclose(at.residual, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(at.initial, q_values(state.critic.params, initial_obs, action[8:]), rtol=1e-5)
    np.testing.assert_allclose(at.log_prob, log_prob[:8], rtol=1e-5)


def test_critic_gradient_is_that_much_of_a_residual_gradient(state, batch, initial_obs):
    """It is linear in the live share: forward part plus share times backward part, at equal target and critic twins."""
    same = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[:1], leaf.shape), state.critic.params)
    state = state._replace(critic=state.critic._replace(params=same), target_critic=same)

    def gradient(share):
        config = replace(CONFIG, live_share=share)
        loss = lambda critic: algaedice.critic_objective(
            config, *found(config, state, batch, initial_obs, critic=critic)[:2]
        )
        return np.asarray(jax.jit(jax.grad(loss))(same)[0].kernel)

    semi, full, released = gradient(0.0), gradient(1.0), gradient(0.05)
    np.testing.assert_allclose(released, 0.95 * semi + 0.05 * full, rtol=1e-4, atol=1e-5)
    assert np.max(np.abs(full - semi)) > 0.01


def test_actor_climbs_towards_higher_values(state, batch, initial_obs):
    """Each of its steps raises the objective, ratios held, though they come from critics that stand still."""

    def objective(actor):
        at = found(CONFIG, state, batch, initial_obs, actor=actor)
        return algaedice.actor_objective(CONFIG, at.residual, at.initial)

    def held(actor):
        at, ratio = found(CONFIG, state, batch, initial_obs, actor=actor), weights
        return float(jnp.mean(ratio * at.residual) + 0.1 * jnp.mean(at.initial))

    start = found(CONFIG, state, batch, initial_obs).residual
    weights = np.sqrt(np.maximum(np.asarray(start) / 0.5, 0.0))
    slope = jax.jit(jax.grad(objective))(state.actor.params)
    stepped = jax.tree.map(lambda p, g: p + 1e-3 * g, state.actor.params, slope)
    assert held(stepped) > held(state.actor.params)


def test_orthogonal_penalty_by_hand(state):
    """Columns (1, 2) and (3, 4): inner product 11, counted twice."""
    layer = state.actor.params[0]._replace(kernel=jnp.array([[1.0, 3.0], [2.0, 4.0]]))
    assert float(orthogonal_penalty((layer,))) == pytest.approx(2 * 121.0)
    assert float(orthogonal_penalty((layer._replace(kernel=jnp.eye(3) * 5.0),))) == 0.0


@pytest.mark.slow
def test_critic_steps_to_one_of_the_rest(problem, state, data):
    """Adam counts: the critics' is `critic_steps`, the actor's 1; the target moves once, by tau."""
    config = replace(CONFIG, critic_steps=3, tau=0.25, batch_size=4)
    start = state
    end, _ = jax.jit(lambda state, key: algaedice.update(config, problem, state, data, key))(start, KEY)
    assert int(end.critic.opt_state[0].count) == 3
    assert int(end.actor.opt_state[0].count) == int(end.temperature.opt_state[0].count) == 1
    old, new, target = (
        np.asarray(tree[0].kernel) for tree in (start.target_critic, end.critic.params, end.target_critic)
    )
    np.testing.assert_allclose(target, 0.75 * old + 0.25 * new, atol=1e-6)


@pytest.mark.parametrize("source", ["episode_starts", "dataset"])
def test_initial_states_come_from_where_they_should(source, data):
    config = replace(CONFIG, initial_states=source, batch_size=64)
    _, drawn = algaedice.sample(config, data, KEY)
    pool = np.asarray(data.initial_obs if source == "episode_starts" else data.rows.obs)
    assert {tuple(row) for row in np.asarray(drawn)} <= {tuple(row) for row in pool}
