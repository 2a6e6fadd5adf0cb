"""Each record is a conjugate pair, and its two stored facts are facts."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damorl.core.divergence import CUBIC, DIVERGENCES, KL, Divergence

EVERY = pytest.mark.parametrize("divergence", DIVERGENCES.values(), ids=DIVERGENCES.keys())
RESIDUALS = np.linspace(-4.0, 2.0, 121)  # 0 is one of them, and so are -2 and -1, where the conjugates have kinks


@pytest.fixture(autouse=True)
def double_precision() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def domain(divergence: Divergence) -> np.ndarray:
    """A dense grid, wide enough for the maximiser of `x y - f(x)` at every residual above (e^2 < 8)."""
    return np.linspace(-8.0 if divergence.whole_line else 0.0, 8.0, 16_001 if divergence.whole_line else 8_001)


def derivative(function, points) -> np.ndarray:
    return np.asarray(jax.vmap(jax.grad(function))(jnp.asarray(points)))


def gap_to_kl(divergence: Divergence, x: np.ndarray) -> np.ndarray:
    """f less its tangent at 1, less KL's generator."""
    tangent = divergence.f(jnp.ones(())) + divergence.f_prime(jnp.ones(())) * (x - 1.0)
    return np.asarray(divergence.f(jnp.asarray(x)) - tangent) - (x * np.log(x) - x + 1.0)


@EVERY
def test_conjugate_is_the_supremum(divergence):
    x = domain(divergence)
    supremum = np.max(np.outer(RESIDUALS, x) - np.asarray(divergence.f(jnp.asarray(x))), axis=1)
    np.testing.assert_allclose(divergence.f_star(jnp.asarray(RESIDUALS)), supremum, atol=1e-5)


@EVERY
def test_fenchel_young_holds_everywhere_and_with_equality_on_the_curve(divergence):
    x = domain(divergence)[1:]
    f = np.asarray(divergence.f(jnp.asarray(x)))
    f_star = np.asarray(divergence.f_star(jnp.asarray(RESIDUALS)))
    assert np.min(f + f_star[:, None] - np.outer(RESIDUALS, x)) >= -1e-12
    on_curve = np.asarray(divergence.f_prime(jnp.asarray(x)))
    np.testing.assert_allclose(f + np.asarray(divergence.f_star(jnp.asarray(on_curve))), x * on_curve, atol=1e-9)


@EVERY
def test_derivatives_are_the_stored_ones(divergence):
    x = domain(divergence)[1:]
    np.testing.assert_allclose(derivative(divergence.f, x), divergence.f_prime(jnp.asarray(x)), atol=1e-9)
    inverse = divergence.f_prime_inverse(jnp.asarray(RESIDUALS))
    np.testing.assert_allclose(derivative(divergence.f_star, RESIDUALS), inverse, atol=1e-9)


@EVERY
def test_inverse_undoes_the_derivative_inside_its_range_and_stops_at_the_edge_outside(divergence):
    x = domain(divergence)[1:]
    np.testing.assert_allclose(divergence.f_prime_inverse(divergence.f_prime(jnp.asarray(x))), x, atol=1e-9)
    with np.errstate(divide="ignore"):
        lowest = -np.inf if divergence.whole_line else float(divergence.f_prime(jnp.zeros(())))
    x_of_y = np.asarray(divergence.f_prime_inverse(jnp.asarray(RESIDUALS)))
    inside = lowest < RESIDUALS
    np.testing.assert_allclose(divergence.f_prime(jnp.asarray(x_of_y[inside])), RESIDUALS[inside], atol=1e-9)
    np.testing.assert_array_equal(x_of_y[~inside], 0.0)


@EVERY
def test_weight_is_a_density_ratio(divergence):
    weight = np.asarray(divergence.weight(jnp.asarray(RESIDUALS)))
    assert np.all(weight >= 0.0)
    assert np.all(np.diff(weight) >= 0.0)
    positive = RESIDUALS > 0.0
    np.testing.assert_array_equal(weight[positive], divergence.f_prime_inverse(jnp.asarray(RESIDUALS[positive])))


@EVERY
def test_flag_dominates_kl_is_the_fact_on_a_grid(divergence):
    x = np.concatenate([np.geomspace(1e-9, 1.0, 2_000), np.geomspace(1.0, 100.0, 1_000)])
    assert divergence.dominates_kl == bool(np.min(gap_to_kl(divergence, x)) >= -1e-12)


@EVERY
def test_flag_conjugate_least_at_zero_is_the_fact_on_a_grid(divergence):
    elsewhere = np.asarray(divergence.f_star(jnp.asarray(RESIDUALS[RESIDUALS != 0.0])))
    only_minimum = bool(np.min(elsewhere) > float(divergence.f_star(jnp.zeros(()))))
    assert divergence.conjugate_least_at_zero == only_minimum


@EVERY
def test_no_derivative_is_nan_at_zero_below_it_or_far_out(divergence):
    residuals = jnp.array([-1e4, -50.0, -2.0, -1.0, -1e-30, 0.0, 1e-30, 1.0, 50.0])
    for function in (divergence.f_star, divergence.f_prime_inverse, divergence.weight):
        assert np.all(np.isfinite(function(residuals)))
        assert np.all(np.isfinite(derivative(function, residuals)))
    assert np.all(np.isfinite(derivative(divergence.f, jnp.array([0.0, 1e-30, 1.0]))))


def test_cubic_lies_below_kl_only_near_zero():
    """The paper's C.1 asks f to exceed KL; x^3/3 does so from x = 0.2145 on."""
    x = np.linspace(1e-6, 3.0, 3_000_001)
    below = x[gap_to_kl(CUBIC, x) < -1e-12]
    assert below.min() == pytest.approx(1e-6)
    assert below.max() == pytest.approx(0.2145, abs=5e-4)


def test_kl_touches_itself():
    np.testing.assert_allclose(gap_to_kl(KL, np.linspace(1e-3, 5.0, 100)), 0.0, atol=1e-12)


def test_the_printed_pair_is_no_conjugate_pair():
    """C.1 prints f = (x-1)^3/3 with f* = 2/3 (x-1)^1.5: wrong as a pair, and f is not even convex below 1."""

    def printed_f(x):
        return (x - 1.0) ** 3 / 3.0

    def printed_f_star(y):
        return 2.0 / 3.0 * (y - 1.0) ** 1.5

    x, y = np.linspace(1.0, 8.0, 70_001), np.linspace(1.0, 4.0, 13)
    supremum = np.max(np.outer(y, x) - printed_f(x), axis=1)
    np.testing.assert_allclose(supremum, y + 2.0 / 3.0 * y**1.5, atol=1e-6)  # its true conjugate on x >= 1
    assert np.all(supremum - printed_f_star(y) > 1.0)  # so Fenchel-Young fails by far
    assert printed_f(0.5) > 0.5 * (printed_f(0.0) + printed_f(1.0))  # above its chord
    assert 2.0 * -100.0 - printed_f(-100.0) > 1e5  # over the whole line the supremum is infinite
