"""The actor's gradient through the model, in a linear world where it can be worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damorl.algos import damo
from damorl.core.nets import Dense
from damorl.core.scaler import Standardiser
from damorl.errors import UserError
from damorl.parts.actor import policy
from damorl.parts.dynamics import Dynamics, DynamicsConfig, DynamicsParams
from damorl.parts.imagined import World, imagined_gradients, imagined_value, spread
from damorl.parts.maximin import Gradients, Networks
from damorl.parts.reference import kl

GAMMA, STEP, PUSH = 0.9, 0.5, 2.0
MODEL = DynamicsConfig(num_members=2, num_elites=2, hidden=(8,))
CONFIG = damo.Config(
    gamma=GAMMA, actor_objective="imagined", actor_horizon=3, actor_starts=4, rollout_starts=4, dynamics=MODEL
)
KEY = jax.random.key(0)


def linear_world(limit: float = 1e9, log_std: float = -900.0, noise: bool = False) -> World:
    """Two equal elites: s' = s + a / 2, reward 2 a + s; the episode ends where s' passes `limit`."""
    kernel = np.zeros((2, 2, 4), np.float32)
    kernel[:, 1, 0], kernel[:, :, 1] = STEP, [1.0, PUSH]
    bias = np.tile(np.array([0.0, 0.0, 2.0 * log_std, 2.0 * log_std], np.float32), (2, 1))
    params = DynamicsParams((Dense(jnp.asarray(kernel), jnp.asarray(bias)),), jnp.full(2, 20.0), jnp.full(2, -1800.0))
    unit = Standardiser(jnp.zeros(2), jnp.ones(2))
    ended = lambda obs, action, next_obs: next_obs[:, 0] > limit
    return World(Dynamics(params, unit, unit), ended, lambda rows: rows.reward, noise)


def constant_actor(action: float, log_std: float = -5.0) -> tuple[Dense, ...]:
    return (Dense(jnp.zeros((1, 2)), jnp.array([np.arctanh(action), log_std], jnp.float32)),)


def networks(actor, temperature: float = 0.0, reference=None) -> Networks:
    """Twin critics Q = 3 s and 4 s."""
    critic = (Dense(jnp.array([[[3.0], [0.0]], [[4.0], [0.0]]]), jnp.zeros((2, 1))),)
    return Networks(actor, critic, critic, jnp.float32(temperature), reference)


def gradients(world: World, others: Gradients, obs: jax.Array) -> Gradients:
    """In one program: operation by operation it would take half a minute."""
    actor = networks(constant_actor(0.3))
    return jax.jit(lambda nets, rest: imagined_gradients(CONFIG, nets, world, rest, obs, KEY))(actor, others)


def slow_value(start: float, action: float, limit: float = 1e9) -> float:
    total, obs = 0.0, start
    for t in range(CONFIG.actor_horizon):
        total += GAMMA**t * (PUSH * action + obs)
        obs += STEP * action
        if obs > limit:
            return total
    return total + GAMMA**CONFIG.actor_horizon * min(3.0 * obs, 4.0 * obs)


START = jnp.array([[[0.2], [1.0]], [[0.5], [-4.0]]])  # [elite, n, obs_dim]


@pytest.mark.parametrize("limit", [1e9, 1.1])
def test_value_equals_a_slow_loop(limit):
    value, _ = imagined_value(CONFIG, networks(constant_actor(0.3)), linear_world(limit), START, KEY)
    expected = [[slow_value(float(s), 0.3, limit) for s in row[:, 0]] for row in START]
    np.testing.assert_allclose(value, expected, atol=0.06)  # the policy's own deviation is exp(-5)


def test_gradient_is_that_of_the_value_through_every_step():
    """dV/da for actions that are all equal to a: push and drift at every later step, and the critic's slope."""
    obs, empty = (
        jnp.array([[0.2], [0.5], [1.0], [2.0]]),
        Gradients({}, {}, jnp.zeros(4), {"critic/loss": jnp.zeros(())}),
    )
    found = gradients(linear_world(), empty, obs)
    horizon = CONFIG.actor_horizon
    slope = sum(GAMMA**t * (PUSH + t * STEP) for t in range(horizon)) + GAMMA**horizon * 3.0 * horizon * STEP
    expected = -slope * (1.0 - 0.3**2) / horizon  # through the tanh, for descent
    assert float(found.actor[0].bias[0]) == pytest.approx(expected, rel=0.02)
    assert set(found.metrics) == {"critic/loss", "actor/loss"}


def test_the_charge_for_the_policy_is_paid_at_every_step():
    reference, actor = constant_actor(0.0, -1.0), constant_actor(0.3, -1.0)
    free, paid = (
        imagined_value(CONFIG, networks(actor, weight, reference), linear_world(), START, KEY) for weight in (0.0, 0.7)
    )
    distance = float(kl(policy(actor, jnp.zeros(1)), policy(reference, jnp.zeros(1))))
    weights = sum(GAMMA**t for t in range(CONFIG.actor_horizon + 1))
    np.testing.assert_allclose(free[0] - paid[0], 0.7 * distance * weights, rtol=1e-4)
    np.testing.assert_allclose(paid[1], distance, rtol=1e-5)


def test_the_alignment_term_pushes_the_actor_too():
    """A refined reward that falls with s' turns the gradient."""
    obs, empty = jnp.ones((4, 1)), Gradients({}, {}, jnp.zeros(4), {})
    fallen = linear_world()._replace(reward=lambda rows: rows.reward - 30.0 * rows.next_obs[:, 0])
    plain, aligned = (float(gradients(world, empty, obs).actor[0].bias[0]) for world in (linear_world(), fallen))
    assert plain < 0.0 < aligned


def test_noise_is_sampled_or_not():
    quiet, noisy = (linear_world(log_std=0.0, noise=noise) for noise in (False, True))
    act = networks(constant_actor(0.3))
    still = imagined_value(CONFIG, act, quiet, START, KEY)[0]
    assert float(jnp.max(jnp.abs(still - imagined_value(CONFIG, act, linear_world(), START, KEY)[0]))) == 0.0
    assert float(jnp.max(jnp.abs(still - imagined_value(CONFIG, act, noisy, START, KEY)[0]))) > 0.3


def test_starts_are_spread_over_the_batch_and_dealt_to_the_elites():
    dealt = spread(jnp.arange(9.0)[:, None], 4, 2)
    assert dealt[..., 0].tolist() == [[0.0, 5.0], [2.0, 8.0]]


def test_starts_that_cannot_be_dealt_are_refused():
    with pytest.raises(UserError, match=r"actor_starts must be a multiple of dynamics\.num_elites, found 7 and 2"):
        replace(CONFIG, actor_starts=7)
