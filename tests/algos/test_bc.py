"""Behaviour cloning finds the policy that made the data."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damorl.algos import bc
from damorl.algos.base import OfflineData, Problem
from damorl.parts.actor import policy
from damorl.types import Spec, Transition

WEIGHTS, NOISE = np.array([[1.0, 0.0], [-0.5, 0.7], [0.0, 0.3]]), 0.3
CONFIG = bc.Config(batch_size=64, hidden=(), learning_rate=0.02)
PROBLEM = Problem(Spec(3, 2), lambda obs, action, next_obs: obs[:, 0] > jnp.inf)


class Trained(NamedTuple):
    state: bc.State
    losses: np.ndarray


@pytest.fixture(scope="module")
def data() -> OfflineData:
    """Actions tanh(W s + noise): a squashed Gaussian whose mean is linear in the state."""
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(2000, 3)).astype(np.float32)
    action = np.tanh(obs @ WEIGHTS + NOISE * rng.normal(size=(2000, 2))).astype(np.float32)
    rows = Transition(*map(jnp.asarray, (obs, action, np.zeros(2000), obs, np.zeros(2000))))
    return OfflineData(rows, rows.obs[:1])


def train(config: bc.Config, data: OfflineData, updates: int) -> Trained:
    @jax.jit
    def run(state, key):
        step = lambda state, key: bc.update(config, PROBLEM, state, data, key)
        return jax.lax.scan(step, state, jax.random.split(key, updates))

    state, metrics = run(bc.init(jax.random.key(0), config, PROBLEM, data), jax.random.key(1))
    return Trained(state, np.asarray(metrics["actor/loss"]))


@pytest.fixture(scope="module")
def by_likelihood(data: OfflineData) -> Trained:
    return train(CONFIG, data, 400)


def test_likelihood_recovers_mean_and_deviation(by_likelihood):
    (layer,) = by_likelihood.state.actor.params
    np.testing.assert_allclose(layer.kernel[:, :2], WEIGHTS, atol=0.06)
    law = policy(by_likelihood.state.actor.params, jnp.zeros((1, 3)))
    np.testing.assert_allclose(np.exp(law.log_std), NOISE, rtol=0.15)
    np.testing.assert_allclose(law.mean, 0.0, atol=0.06)


def test_loss_ends_at_the_entropy_of_the_behaviour(by_likelihood, data):
    """E[-log pi] of the true policy: two Gaussian entropies and the squash's log-determinant."""
    action = np.asarray(data.rows.action, np.float64)
    gaussian = 0.5 * np.log(2.0 * np.pi * np.e * NOISE**2)
    expected = 2.0 * gaussian + np.mean(np.sum(np.log(1.0 - action**2), axis=1))
    assert by_likelihood.losses[-100:].mean() == pytest.approx(expected, abs=0.1)
    assert by_likelihood.losses[0] > expected + 0.5


def test_squared_error_recovers_the_mean_of_the_action(data):
    """That is E[tanh(W s + noise)], a little nearer to 0 than tanh(W s)."""
    trained = train(replace(CONFIG, loss="mse"), data, 400)
    draws = NOISE * np.random.default_rng(1).normal(size=(200, 1, 1))
    mean = np.mean(np.tanh(np.asarray(data.rows.obs) @ WEIGHTS + draws), axis=0)
    found = np.asarray(policy(trained.state.actor.params, data.rows.obs).mode())
    assert np.sqrt(np.mean((found - mean) ** 2)) < 0.05
    noise = np.mean((np.asarray(data.rows.action) - mean) ** 2)
    assert trained.losses[-100:].mean() == pytest.approx(noise, rel=0.1)
