"""RAMBO's losses by hand: the mixture's density, the adversarial term, the advantage and its standardisation."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damorl.algos import rambo
from damorl.core.nets import Dense
from damorl.core.scaler import Standardiser
from damorl.parts import dynamics, sac
from damorl.types import Spec, Transition


def constant_model(mean: list[list[float]], log_var: list[list[float]]) -> dynamics.DynamicsParams:
    """One layer whose outputs are these for any input: `[member, obs_dim + 1]`, one state, one action."""
    bias = jnp.concatenate([jnp.array(mean), jnp.array(log_var)], axis=1)
    wide = jnp.full(len(mean[0]), 60.0)
    return dynamics.DynamicsParams((Dense(jnp.zeros((len(mean), 2, bias.shape[1])), bias),), wide, -wide)


def slow_log_density(params: Any, x: Any, y: Any, varying: Any) -> np.ndarray:
    """Row by row, member by member, in float64, numbers that are too small to be exponentiated included."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    x, y, found = np.asarray(x, np.float64), np.asarray(y, np.float64), []
    for row, outcome in zip(x, y, strict=True):
        logs = []
        for member in range(len(params.layers[0].kernel)):
            h = row
            for number, layer in enumerate(params.layers):
                h = h @ layer.kernel[member] + layer.bias[member]
                h = h / (1.0 + np.exp(-h)) if number < len(params.layers) - 1 else h
            mean, log_var = np.split(h, 2)
            log_var = params.log_var_max - np.log1p(np.exp(params.log_var_max - log_var))
            log_var = params.log_var_min + np.log1p(np.exp(log_var - params.log_var_min))
            each = -0.5 * (outcome - mean) ** 2 / np.exp(log_var) - 0.5 * log_var
            logs.append(each[np.asarray(varying) > 0].sum())
        top = max(logs)
        found.append(top + math.log(sum(math.exp(one - top) for one in logs) / len(logs)))
    return np.array(found)


@pytest.mark.parametrize("far", [1.0, 1e2, 1e4])
@pytest.mark.parametrize("varying", [(1.0, 1.0, 1.0), (1.0, 0.0, 1.0)])
def test_the_mixtures_density_equals_a_slow_one_also_where_it_vanishes(far: float, varying: tuple[float, ...]) -> None:
    config = dynamics.DynamicsConfig(num_members=3, num_elites=3, hidden=(8,))
    params = dynamics.init_params(jax.random.key(0), config, 2, 2)
    params = params._replace(layers=jax.tree.map(lambda leaf: 2.0 * leaf + 0.1, params.layers))
    x, y = jax.random.normal(jax.random.key(1), (20, 4)), far * jax.random.normal(jax.random.key(2), (20, 3))
    found = rambo.log_density(params, x, y, jnp.array(varying)) + 1.5 * math.log(2.0 * math.pi)
    np.testing.assert_allclose(found, slow_log_density(params, x, y, varying), rtol=1e-5, atol=1e-5)
    if far > 1.0:
        assert float(jnp.max(found)) < -104.0  # whose exponential is 0 in float32


def test_the_adversarial_loss_of_two_members_by_hand() -> None:
    """Members predict 0 and 1 for the change of state, deviation 1, in units of 2 around 0.5; the reward is 0."""
    params = constant_model([[0.0, 0.0], [1.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]])
    targets = Standardiser(jnp.array([0.5, 0.0]), jnp.array([2.0, 1.0]))
    model = dynamics.Dynamics(params, Standardiser(jnp.zeros(2), jnp.ones(2)), targets)
    column = lambda *values: jnp.array([[value] for value in values])
    rows = Transition(column(3.0, 5.0), column(0.0, 0.0), jnp.array([0.0, 2.0]), column(3.5, 9.5), jnp.zeros(2))
    # standardised changes 0 and 2: the first fits member one, the second is 1 from member two, its reward 2 from both
    normal = lambda *distances: math.prod(math.exp(-0.5 * d * d) / math.sqrt(2.0 * math.pi) for d in distances)
    first = math.log(0.5 * normal(0.0, 0.0) + 0.5 * normal(1.0, 0.0))
    second = math.log(0.5 * normal(2.0, 2.0) + 0.5 * normal(1.0, 2.0))
    loss, metrics = rambo.adversarial_loss(params, model, rows, jnp.array([1.5, -0.5]))
    assert float(loss) == pytest.approx(0.5 * (1.5 * first - 0.5 * second), rel=1e-5)
    assert float(metrics["adversary/log_density"]) == pytest.approx(0.5 * (first + second), rel=1e-5)


def test_advantages_are_of_live_critics_at_the_mode_without_entropy() -> None:
    """Linear networks by hand. Target critic and temperature are NaN: nobody may ask them."""
    critic = (Dense(jnp.array([[[1.0], [2.0]], [[0.5], [-1.0]]]), jnp.array([[0.0], [0.3]])),)
    actor = (Dense(jnp.array([[0.7, 0.0]]), jnp.array([0.1, -0.5])),)
    nan = partial(jax.tree.map, lambda leaf: jnp.full_like(leaf, jnp.nan))
    config = rambo.Config(hidden=(4,))
    agent = sac.init(jax.random.key(0), config, Spec(1, 1))
    agent = agent._replace(
        actor=agent.actor._replace(params=actor),
        critic=agent.critic._replace(params=critic),
        target_critic=nan(critic),
        average_actor=nan(actor),
        temperature=nan(agent.temperature),
    )
    q = lambda s, a: min(1.0 * s + 2.0 * a, 0.5 * s - 1.0 * a + 0.3)
    rows = Transition(
        jnp.array([[0.2], [-1.0]]),
        jnp.array([[0.5], [-0.4]]),
        jnp.array([1.0, 2.0]),
        jnp.array([[0.4], [3.0]]),
        jnp.array([0.0, 1.0]),
    )
    alive = 1.0 + 0.99 * q(0.4, math.tanh(0.7 * 0.4 + 0.1)) - q(0.2, 0.5)
    ended = 2.0 - q(-1.0, -0.4)
    np.testing.assert_allclose(rambo.advantage(config, agent, rows), [alive, ended], rtol=1e-5)


def test_standardised_advantages_forget_shift_and_scale() -> None:
    values = jnp.array([3.0, -1.0, 0.5, 7.0])
    found = np.asarray(rambo.standardise(values))
    assert found.mean() == pytest.approx(0.0, abs=1e-6)
    assert found.std() == pytest.approx(1.0, rel=1e-5)
    np.testing.assert_allclose(rambo.standardise(100.0 * values - 40.0), found, atol=1e-5)
    np.testing.assert_array_equal(rambo.standardise(jnp.full(4, 2.0)), 0.0)


def test_a_target_that_never_changes_is_left_out() -> None:
    """Its scale is 0 in a fitted model: no division by it, and no gradient from it."""
    params = constant_model([[0.0, 0.0], [1.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]])
    targets = Standardiser(jnp.array([0.0, 5.0]), jnp.array([1.0, 0.0]))
    model = dynamics.Dynamics(params, Standardiser(jnp.zeros(2), jnp.ones(2)), targets)
    rows = Transition(jnp.zeros((4, 1)), jnp.zeros((4, 1)), jnp.full(4, 6.0), jnp.ones((4, 1)), jnp.zeros(4))
    grads = jax.grad(lambda p: rambo.adversarial_loss(p, model, rows, jnp.ones(4))[0])(params)
    bias = np.asarray(grads.layers[0].bias)
    assert np.isfinite(bias).all()
    assert bias[0, 0] > 0.3  # the first member's mean is below the outcome, the second's deviation is too large
    assert bias[1, 2] < -0.3
    np.testing.assert_array_equal(bias[:, [1, 3]], 0.0)
