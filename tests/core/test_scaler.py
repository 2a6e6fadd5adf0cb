"""Standardising: zero mean, unit deviation, and back."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from damorl.core.scaler import fit_standardiser


def test_standardised_data_has_zero_mean_and_unit_deviation_and_comes_back():
    x = np.random.default_rng(0).normal([5.0, 0.0, -40.0], [0.01, 1.0, 300.0], size=(500, 3))
    x = jnp.asarray(x, jnp.float32)
    scaler = fit_standardiser(x)
    z = scaler.apply(x)
    np.testing.assert_allclose(jnp.mean(z, axis=0), 0.0, atol=1e-4)
    np.testing.assert_allclose(jnp.std(z, axis=0), 1.0, atol=1e-4)
    np.testing.assert_allclose(scaler.invert(z), x, rtol=1e-4, atol=1e-4)


def test_statistics_by_hand():
    scaler = fit_standardiser(jnp.array([[1.0, 10.0], [3.0, 10.0], [5.0, 40.0], [7.0, 40.0]]))
    np.testing.assert_allclose(scaler.mean, [4.0, 25.0])
    np.testing.assert_allclose(scaler.scale, [5.0**0.5, 15.0], rtol=1e-6)  # of the whole, not of a sample: 1 / N
    np.testing.assert_allclose(scaler.apply(jnp.array([4.0, 55.0])), [0.0, 2.0], atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 5.3, -1000.1, 3e6])
@pytest.mark.parametrize("count", [10, 1000])
def test_a_constant_feature_keeps_its_scale_however_large_it_is(value, count):
    """The rounding of a mean of large equal numbers must not pass for their deviation."""
    scaler = fit_standardiser(jnp.full((count, 1), value))
    assert scaler.scale.tolist() == [1.0]
    assert scaler.apply(jnp.full(1, value)).tolist() == [0.0]
