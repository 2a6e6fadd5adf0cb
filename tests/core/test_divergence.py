"""Each record is a conjugate pair, and its two stored facts are facts."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damorl.core.divergence import CUBIC, DIVERGENCES, HALF_CHI_SQUARE, Divergence

RESIDUALS = np.linspace(-4.0, 2.0, 121)  # 0 is one of them, and so are -2 and -1, where the conjugates have kinks
FAR = np.array([-1e4, -50.0, -2.0, -1.0, -1e-30, 0.0, 1e-30, 1.0, 50.0])
RATIOS = np.concatenate([np.geomspace(1e-9, 1.0, 2_000), np.geomspace(1.0, 100.0, 1_000)])


class Table(NamedTuple):
    """One divergence, evaluated in double precision."""

    record: Divergence
    x: np.ndarray
    """A dense grid, wide enough for the maximiser of `x y - f(x)` at every residual above (e^2 < 8)."""
    f: np.ndarray
    f_prime: np.ndarray
    f_slope: np.ndarray
    """Derivative of f, by automatic differentiation."""
    round_trip: np.ndarray
    """The inverse of f' at f'(x)."""
    f_star_on_curve: np.ndarray
    """f* at f'(x)."""
    f_star: np.ndarray
    inverse: np.ndarray
    f_star_slope: np.ndarray
    weight: np.ndarray
    f_prime_of_inverse: np.ndarray
    f_prime_at_zero: np.ndarray
    f_star_at_zero: np.ndarray
    gap_to_kl: np.ndarray
    """f less its tangent at 1, less `x log x - x + 1`, on RATIOS."""
    far: np.ndarray
    """Values and derivatives at FAR, and of f at the edge of its domain."""


def slope(function):
    return jax.vmap(jax.grad(function))


def evaluate(record: Divergence, x: np.ndarray) -> Table:
    """Every figure the tests need, from one compiled function."""

    def figures(x, y, ratios, far):
        curve, inverse, one = record.f_prime(x), record.f_prime_inverse(y), jnp.ones(())
        tangent = record.f(one) + record.f_prime(one) * (ratios - 1.0)
        functions = (record.f_star, record.f_prime_inverse, record.weight)
        far_out = [g(far) for g in functions] + [slope(g)(far) for g in functions]
        return {
            "f": record.f(x),
            "f_prime": curve,
            "f_slope": slope(record.f)(x),
            "round_trip": record.f_prime_inverse(curve),
            "f_star_on_curve": record.f_star(curve),
            "f_star": record.f_star(y),
            "inverse": inverse,
            "f_star_slope": slope(record.f_star)(y),
            "weight": record.weight(y),
            "f_prime_of_inverse": record.f_prime(inverse),
            "f_prime_at_zero": record.f_prime(0.0 * one),
            "f_star_at_zero": record.f_star(0.0 * one),
            "gap_to_kl": record.f(ratios) - tangent - (ratios * jnp.log(ratios) - ratios + 1.0),
            "far": jnp.concatenate([*far_out, slope(record.f)(jnp.array([0.0, 1e-30, 1.0]))]),
        }

    with jax.enable_x64(True):
        values = jax.jit(figures)(x, RESIDUALS, RATIOS, FAR)
        return Table(record, x, **{name: np.asarray(value) for name, value in values.items()})


@pytest.fixture(scope="module", params=list(DIVERGENCES.values()), ids=list(DIVERGENCES))
def table(request: pytest.FixtureRequest) -> Table:
    record = request.param
    return evaluate(record, np.linspace(-8.0, 8.0, 16_001) if record.whole_line else np.linspace(0.0, 8.0, 8_001))


def test_conjugate_is_the_supremum(table):
    supremum = np.max(np.outer(RESIDUALS, table.x) - table.f, axis=1)
    np.testing.assert_allclose(table.f_star, supremum, atol=1e-5)


def test_fenchel_young_holds_everywhere_and_with_equality_on_the_curve(table):
    assert np.min(table.f + table.f_star[:, None] - np.outer(RESIDUALS, table.x)) >= -1e-12
    inner = slice(1, None)  # at x = 0 the slope may be infinite
    product = table.x[inner] * table.f_prime[inner]
    np.testing.assert_allclose(table.f[inner] + table.f_star_on_curve[inner], product, atol=1e-9)


def test_derivatives_are_the_stored_ones(table):
    np.testing.assert_allclose(table.f_slope[1:], table.f_prime[1:], atol=1e-9)
    np.testing.assert_allclose(table.f_star_slope, table.inverse, atol=1e-9)


def test_inverse_undoes_the_derivative_inside_its_range_and_stops_at_the_edge_outside(table):
    np.testing.assert_allclose(table.round_trip, table.x, atol=1e-9)
    inside = np.full(RESIDUALS.shape, True) if table.record.whole_line else table.f_prime_at_zero < RESIDUALS
    np.testing.assert_allclose(table.f_prime_of_inverse[inside], RESIDUALS[inside], atol=1e-9)
    np.testing.assert_array_equal(table.inverse[~inside], 0.0)


def test_weight_is_a_density_ratio(table):
    assert np.all(table.weight >= 0.0)
    assert np.all(np.diff(table.weight) >= 0.0)
    np.testing.assert_array_equal(table.weight[RESIDUALS > 0.0], table.inverse[RESIDUALS > 0.0])


def test_flag_dominates_kl_is_the_fact_on_a_grid(table):
    assert table.record.dominates_kl == bool(np.min(table.gap_to_kl) >= -1e-12)


def test_flag_conjugate_least_at_zero_is_the_fact_on_a_grid(table):
    elsewhere = table.f_star[RESIDUALS != 0.0]
    assert table.record.conjugate_least_at_zero == bool(np.min(elsewhere) > table.f_star_at_zero)


def test_no_value_or_derivative_is_nan_at_zero_below_it_or_far_out(table):
    assert np.all(np.isfinite(table.far))


def test_cubic_lies_below_kl_only_near_zero():
    """The paper's C.1 asks f to exceed KL; x^3/3 does so from x = 0.2145 on."""
    below = RATIOS[evaluate(CUBIC, np.linspace(0.0, 1.0, 3)).gap_to_kl < -1e-12]
    assert below.min() == RATIOS.min()
    assert below.max() == pytest.approx(0.2145, abs=3e-3)


def test_half_chi_square_lies_below_kl_everywhere_under_one():
    gap = evaluate(HALF_CHI_SQUARE, np.linspace(0.0, 1.0, 3)).gap_to_kl
    np.testing.assert_array_equal(gap[RATIOS < 0.999] < 0.0, True)
    np.testing.assert_array_equal(gap[RATIOS > 1.001] > 0.0, True)


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
