"""The policy's head, and the direction in which the temperature moves."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damorl.core.nets import Dense, apply_mlp
from damorl.parts.actor import (
    LOG_STD_MAX,
    LOG_STD_MIN,
    clone_actor,
    cloning_loss,
    init_actor,
    policy,
    temperature_loss,
)
from damorl.types import Transition


def test_network_gives_mean_then_clipped_log_std():
    params = init_actor(jax.random.key(0), 3, 2, (8,))
    obs = jnp.asarray(np.random.default_rng(0).normal(scale=30.0, size=(4, 5, 3)), jnp.float32)  # meets both clips
    output = np.asarray(apply_mlp(params, obs))
    law = policy(params, obs)
    np.testing.assert_array_equal(law.mean, output[..., :2])
    np.testing.assert_array_equal(law.log_std, np.clip(output[..., 2:], -5.0, 2.0))
    assert np.min(output[..., 2:]) < -5.0
    assert np.max(output[..., 2:]) > 2.0


def test_log_std_is_clipped_to_the_stated_range():
    params = (Dense(jnp.zeros((1, 4)), jnp.array([0.3, -0.3, -90.0, 90.0])),)
    assert policy(params, jnp.zeros(1)).log_std.tolist() == [LOG_STD_MIN, LOG_STD_MAX] == [-5.0, 2.0]


def constant_policy(mean: float, log_std: float):
    return (Dense(jnp.zeros((1, 2)), jnp.array([mean, log_std])),)


def test_cloning_loss_is_minus_the_log_density_of_the_actions():
    """N(0.2, 1/2) before the squash, at actions tanh(0.2) and tanh(-0.8): z = 0 and -2."""
    action = jnp.tanh(jnp.array([[0.2], [-0.8]]))
    loss, metrics = cloning_loss(constant_policy(0.2, math.log(0.5)), jnp.zeros((2, 1)), action)
    gaussian = math.log(0.5) + 0.5 * math.log(2.0 * math.pi) + 0.5 * np.array([0.0, 4.0])
    assert float(loss) == pytest.approx(np.mean(gaussian + np.log(1.0 - np.asarray(action)[:, 0] ** 2)), abs=1e-5)
    assert float(metrics["actor/loss"]) == float(loss)


def test_cloning_loss_takes_actions_at_the_bound():
    def loss(params):
        return cloning_loss(params, jnp.zeros((2, 1)), jnp.array([[1.0], [-1.0]]))[0]

    value, slope = jax.value_and_grad(loss)(constant_policy(0.0, 0.0))
    assert np.isfinite(value)
    assert all(np.all(np.isfinite(leaf)) for leaf in slope[0])


def test_cloning_moves_the_actor_to_the_actions_of_the_data():
    """300 steps of about 1e-3 suffice from mean 0 to mean 0.2, and a deviation that is right stays."""
    rng = np.random.default_rng(0)
    action = jnp.asarray(np.tanh(0.2 + math.exp(-1.0) * rng.normal(size=(512, 1))), jnp.float32)
    zeros = jnp.zeros((512, 1))
    rows = Transition(obs=zeros, action=action, reward=zeros[:, 0], next_obs=zeros, terminal=zeros[:, 0])
    (layer,) = clone_actor(constant_policy(0.0, -1.0), rows, jax.random.key(0), num_updates=300)
    np.testing.assert_allclose(layer.bias, [0.2, -1.0], atol=0.06)
    np.testing.assert_array_equal(layer.kernel, 0.0)  # the state is 0, so it teaches the kernel nothing


@pytest.mark.parametrize(("entropy", "sign"), [(-5.0, -1.0), (-2.0, 0.0), (1.0, 1.0)])
def test_temperature_rises_where_entropy_is_below_its_target_and_falls_above(entropy, sign):
    log_prob = jnp.array([-entropy - 1.0, -entropy + 1.0])

    def loss(log_temperature):
        return temperature_loss(log_temperature, log_prob, target_entropy=-2.0)[0]

    value, slope = jax.value_and_grad(loss)(jnp.float32(0.7))
    assert np.sign(slope) == sign  # descent goes against the slope
    assert float(slope) == pytest.approx(entropy + 2.0)  # by how far the entropy lies above the target
    assert float(value) == pytest.approx(0.7 * (entropy + 2.0))


def test_temperature_loss_leaves_the_policy_alone_and_reports_itself():
    slope = jax.grad(lambda log_prob: temperature_loss(jnp.float32(0.7), log_prob, -2.0)[0])(jnp.array([1.0, 2.0]))
    assert slope.tolist() == [0.0, 0.0]
    metrics = temperature_loss(jnp.float32(0.7), jnp.array([1.0, 2.0]), -2.0)[1]
    assert float(metrics["actor/temperature"]) == pytest.approx(math.exp(0.7), rel=1e-6)
    assert float(metrics["actor/entropy"]) == -1.5
