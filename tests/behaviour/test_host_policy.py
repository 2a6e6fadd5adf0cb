"""The policy beside the simulator is the policy that was trained."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damorl.behaviour.host_policy import (
    LOG_STD_MAX,
    LOG_STD_MIN,
    act,
    from_arrays,
    log_density,
    rounded,
    squash,
    to_arrays,
)
from damorl.behaviour.sac import to_numpy_policy
from damorl.parts import actor


@pytest.fixture
def params() -> object:
    return actor.init_actor(jax.random.key(3), 5, 2, (16, 16))


def test_mode_sample_and_density_are_those_of_the_device(params):
    layers, rng = to_numpy_policy(params), np.random.default_rng(0)
    obs, noise = rng.normal(size=(7, 5)).astype(np.float32), rng.normal(size=(7, 2)).astype(np.float32)
    law = actor.policy(params, jnp.asarray(obs))
    pre_tanh = law.mean + jnp.exp(law.log_std) * jnp.asarray(noise)
    np.testing.assert_allclose(act(layers, obs, None), law.mode(), atol=1e-6)
    np.testing.assert_allclose(squash(layers, obs, noise), jnp.tanh(pre_tanh), atol=1e-6)
    np.testing.assert_allclose(log_density(layers, obs, noise), law.log_prob_pre_tanh(pre_tanh), atol=1e-4)
    assert (LOG_STD_MIN, LOG_STD_MAX) == (actor.LOG_STD_MIN, actor.LOG_STD_MAX)


def test_density_integrates_to_one():
    layers = ((np.zeros((1, 2), np.float32), np.array([0.3, -0.4], np.float32)),)
    action = np.linspace(-0.99999, 0.99999, 200_001)
    noise = ((np.arctanh(action) - 0.3) / np.exp(-0.4))[:, None]
    density = np.exp(log_density(layers, np.zeros((len(action), 1)), noise))
    assert np.trapezoid(density, action) == pytest.approx(1.0, abs=1e-4)


def test_log_std_is_clipped_on_both_sides():
    for value, clipped in ((-9.0, -5.0), (7.0, 2.0)):
        layers = ((np.zeros((1, 2), np.float32), np.array([0.0, value], np.float32)),)
        noise = np.array([0.01], np.float32)
        assert squash(layers, np.zeros(1), noise)[0] == pytest.approx(np.tanh(0.01 * np.exp(clipped)), rel=1e-5)


def test_sampling_uses_the_generator_and_one_row_needs_no_batch(params):
    layers, obs = to_numpy_policy(params), np.ones(5)
    first, again = (act(layers, obs, np.random.default_rng(1)) for _ in range(2))
    other = act(layers, obs, np.random.default_rng(2))
    assert first.shape == (2,)
    assert (first == again).all()
    assert (first != other).all()


def test_arrays_round_trip_under_a_prefix(params):
    layers = to_numpy_policy(params)
    arrays = to_arrays(layers, "replay/1/") | to_arrays(rounded(layers), "replay/10/")
    assert "replay/1/kernel0" in arrays
    for stored, original in zip(from_arrays(arrays, "replay/1/"), layers, strict=True):
        assert all((a == b).all() for a, b in zip(stored, original, strict=True))
    with pytest.raises(KeyError):
        from_arrays(arrays, "replay/2/")


def test_rounding_is_that_of_float16():
    layers = ((np.array([[1.0003, -0.1]], np.float32), np.array([70.03], np.float32)),)
    kernel, bias = rounded(layers)[0]
    assert kernel.dtype == np.float32
    np.testing.assert_array_equal(kernel, np.array([[1.0, -0.099975586]], np.float32))
    np.testing.assert_array_equal(bias, np.array([70.0], np.float32))
