"""The squashed Gaussian's density is a density, and the one its samples follow."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damorl.core.distribution import TanhGaussian, gaussian_log_prob, tanh_log_det

PARAMETERS = [(0.0, 0.0), (1.0, -1.0), (-0.7, 0.5), (0.0, -3.0)]


def cdf(action: float, mean: float, log_std: float) -> float:
    """P(tanh(X) <= action), X normal, from the error function: nothing here knows a density."""
    return 0.5 * (1.0 + math.erf((math.atanh(action) - mean) * math.exp(-log_std) / math.sqrt(2.0)))


def one_dimensional(mean: float, log_std: float) -> TanhGaussian:
    return TanhGaussian(jnp.array([mean]), jnp.array([log_std]))


@pytest.mark.parametrize(("mean", "log_std"), PARAMETERS)
def test_density_integrates_to_one(mean, log_std):
    pre_tanh = np.linspace(-14.0, 14.0, 20_001)
    with jax.enable_x64(True):
        density = np.exp(one_dimensional(mean, log_std).log_prob_pre_tanh(jnp.asarray(pre_tanh)[:, None]))
    assert np.trapezoid(density, np.tanh(pre_tanh)) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize(("mean", "log_std"), PARAMETERS)
def test_density_is_the_derivative_of_the_distribution_function(mean, log_std):
    spread = math.exp(log_std)
    for pre_tanh in (mean - 2.0 * spread, mean - 0.3 * spread, mean + spread):
        action, step = math.tanh(pre_tanh), 1e-6 * (1.0 - math.tanh(pre_tanh) ** 2)
        numeric = (cdf(action + step, mean, log_std) - cdf(action - step, mean, log_std)) / (2.0 * step)
        log_prob = one_dimensional(mean, log_std).log_prob_pre_tanh(jnp.array([pre_tanh]))
        assert float(log_prob) == pytest.approx(math.log(numeric), abs=1e-4)


def test_dimensions_are_independent_and_batch_axes_kept():
    means, log_stds, pre_tanh = np.random.default_rng(0).normal(scale=0.5, size=(3, 2, 5, 3))
    joint = TanhGaussian(means, log_stds).log_prob_pre_tanh(pre_tanh)
    single = [TanhGaussian(means[..., [d]], log_stds[..., [d]]).log_prob_pre_tanh(pre_tanh[..., [d]]) for d in range(3)]
    assert joint.shape == (2, 5)
    np.testing.assert_allclose(joint, sum(single), rtol=1e-5)


def test_samples_follow_the_law_and_come_with_their_own_density():
    mean, log_std, count = 0.4, -0.5, 20_000
    law = TanhGaussian(jnp.full((count, 1), mean), jnp.full((count, 1), log_std))
    action, log_prob = law.sample(jax.random.key(0))
    assert action.shape == (count, 1)
    assert log_prob.shape == (count,)
    for level in (-0.3, 0.2, 0.5, 0.8):
        share = cdf(level, mean, log_std)
        assert np.mean(np.asarray(action) <= level) == pytest.approx(share, abs=4.0 * math.sqrt(share / count))
    again = law.log_prob_pre_tanh(jnp.arctanh(action))
    inner = np.abs(np.asarray(action)[:, 0]) < 0.99  # arctanh loses digits beyond
    np.testing.assert_allclose(log_prob[inner], again[inner], atol=1e-3)


def test_mode_is_the_median():
    mode = one_dimensional(0.8, 0.3).mode()
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
