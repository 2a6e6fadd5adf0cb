"""The squashed Gaussian's density is a density, and the one its samples follow."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damorl.core.distribution import TanhGaussian, TanhMixture, gaussian_log_prob, inverse_tanh, tanh_log_det

PARAMETERS = [(0.0, 0.0), (1.0, -1.0), (-0.7, 0.5), (0.0, -3.0)]


def cdf(action: float, mean: float, log_std: float) -> float:
    """P(tanh(X) <= action), X normal, from the error function: nothing here knows a density."""
    return 0.5 * (1.0 + math.erf((math.atanh(action) - mean) * math.exp(-log_std) / math.sqrt(2.0)))


@jax.jit
def log_prob(mean, log_std, pre_tanh):
    return TanhGaussian(mean, log_std).log_prob_pre_tanh(pre_tanh)


@jax.jit
def log_prob_1d(mean, log_std, pre_tanh):
    """At each of `pre_tanh` `[N]`, for a single action dimension."""
    return TanhGaussian(mean[None], log_std[None]).log_prob_pre_tanh(pre_tanh[:, None])


@pytest.mark.parametrize(("mean", "log_std"), PARAMETERS)
def test_density_integrates_to_one(mean, log_std):
    pre_tanh = np.linspace(-14.0, 14.0, 20_001)
    with jax.enable_x64(True):
        density = np.exp(log_prob_1d(jnp.float64(mean), jnp.float64(log_std), pre_tanh))
    assert np.trapezoid(density, np.tanh(pre_tanh)) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize(("mean", "log_std"), PARAMETERS)
def test_density_is_the_derivative_of_the_distribution_function(mean, log_std):
    pre_tanh = mean + math.exp(log_std) * np.array([-2.0, -0.3, 1.0])
    found = log_prob_1d(jnp.float32(mean), jnp.float32(log_std), pre_tanh.astype(np.float32))
    for u, value in zip(pre_tanh, found, strict=True):
        action, step = math.tanh(u), 1e-6 * (1.0 - math.tanh(u) ** 2)
        numeric = (cdf(action + step, mean, log_std) - cdf(action - step, mean, log_std)) / (2.0 * step)
        assert float(value) == pytest.approx(math.log(numeric), abs=1e-4)


def test_dimensions_are_independent_and_batch_axes_kept():
    means, log_stds, pre_tanh = np.random.default_rng(0).normal(scale=0.5, size=(3, 2, 5, 3)).astype(np.float32)
    joint = log_prob(means, log_stds, pre_tanh)
    single = [log_prob(means[..., [d]], log_stds[..., [d]], pre_tanh[..., [d]]) for d in range(3)]
    assert joint.shape == (2, 5)
    np.testing.assert_allclose(joint, sum(single), rtol=1e-5)


def test_samples_follow_the_law_and_come_with_their_own_density():
    mean, log_std, count = 0.4, -0.5, 20_000
    law = TanhGaussian(jnp.full((count, 1), mean), jnp.full((count, 1), log_std))
    action, density = map(np.asarray, jax.jit(TanhGaussian.sample)(law, jax.random.key(0)))
    assert (action.shape, density.shape) == ((count, 1), (count,))
    for level in (-0.3, 0.2, 0.5, 0.8):
        share = cdf(level, mean, log_std)
        assert np.mean(action <= level) == pytest.approx(share, abs=4.0 * math.sqrt(share / count))
    inner = np.abs(action[:, 0]) < 0.99  # the inverse of tanh loses digits beyond
    again = log_prob_1d(jnp.float32(mean), jnp.float32(log_std), np.arctanh(action[:, 0]))
    np.testing.assert_allclose(density[inner], np.asarray(again)[inner], atol=1e-3)


def test_mode_is_the_median():
    mode = TanhGaussian(jnp.array([0.8]), jnp.array([0.3])).mode()
    assert cdf(float(mode[0]), 0.8, 0.3) == pytest.approx(0.5, abs=1e-6)


def test_gaussian_log_prob_by_hand():
    # N(1, 2^2) at 3: -1/2 - log 2 - log sqrt(2 pi); standard normal at 0: -log sqrt(2 pi)
    value = gaussian_log_prob(jnp.array([3.0, 0.0]), jnp.array([1.0, 0.0]), jnp.array([math.log(2.0), 0.0]))
    assert float(value) == pytest.approx(-0.5 - math.log(2.0) - math.log(2.0 * math.pi), abs=1e-6)


def test_tanh_log_det_is_the_naive_formula_where_that_has_digits():
    pre_tanh = np.linspace(-6.0, 6.0, 49)
    with jax.enable_x64(True):
        value = tanh_log_det(jnp.asarray(pre_tanh)[:, None])
    np.testing.assert_allclose(value, np.log(1.0 - np.tanh(pre_tanh) ** 2), atol=1e-9)


@pytest.mark.parametrize("pre_tanh", [-50.0, 50.0])
def test_tanh_log_det_keeps_its_digits_far_out(pre_tanh):
    value, slope = jax.value_and_grad(lambda u: tanh_log_det(u[None]))(jnp.float32(pre_tanh))
    assert float(value) == pytest.approx(2.0 * math.log(2.0) - 100.0, rel=1e-6)  # log(4 exp(-2|u|))
    assert float(slope) == pytest.approx(-math.copysign(2.0, pre_tanh))


def test_mixture_is_the_weighted_sum_of_its_parts():
    pre_tanh = jnp.array([0.3, -0.8])
    mean, log_std = jnp.array([[0.0, 1.0], [-1.0, 0.5]]), jnp.array([[0.1, -0.5], [0.3, 0.0]])
    logits = jnp.log(jnp.array([3.0, 1.0])) + 5.0
    parts = [float(jnp.exp(TanhGaussian(mean[i], log_std[i]).log_prob_pre_tanh(pre_tanh))) for i in range(2)]
    found = TanhMixture(logits, mean, log_std).log_prob_pre_tanh(pre_tanh)
    assert float(found) == pytest.approx(math.log(0.75 * parts[0] + 0.25 * parts[1]), abs=1e-5)


def test_inverse_tanh_stays_finite_at_the_bounds():
    np.testing.assert_allclose(jnp.tanh(inverse_tanh(jnp.array([-1.0, -0.3, 1.0]))), [-0.9999, -0.3, 0.9999], atol=1e-6)
