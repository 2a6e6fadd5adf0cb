"""Quantile bins: equal mass by hand, and never further off than half a bin."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from damorl.parts.discretiser import discretise, expectation, fit_edges, reconstruct


def test_bins_have_equal_mass_by_hand() -> None:
    data = jnp.array([[5.0], [1.0], [2.0], [10.0], [3.0], [4.0]])
    edges = fit_edges(data, 3)
    np.testing.assert_array_equal(edges[:, 0], [1.0, 3.0, 5.0, 10.0])  # two of six values in each bin
    np.testing.assert_array_equal(discretise(edges, data)[:, 0], [2, 0, 0, 2, 1, 1])
    np.testing.assert_array_equal(reconstruct(edges, jnp.array([[0], [1], [2]]))[:, 0], [2.0, 4.0, 7.5])


@pytest.mark.parametrize(("rows", "bins"), [(600, 10), (601, 10), (1000, 97)])
def test_every_bin_gets_its_share_in_every_column(rows: int, bins: int) -> None:
    data = np.random.default_rng(0).normal(size=(rows, 3)) ** 3
    edges = fit_edges(jnp.asarray(data, jnp.float32), bins)
    assert edges.shape == (bins + 1, 3)
    tokens = np.asarray(discretise(edges, jnp.asarray(data, jnp.float32)))
    for column in tokens.T:
        counts = np.bincount(column, minlength=bins)
        assert counts.max() - counts.min() <= 1


def test_the_reconstruction_is_within_half_the_bin_and_the_bound_is_met() -> None:
    data = jnp.asarray(np.random.default_rng(1).normal(size=(500, 2)), jnp.float32)
    edges = fit_edges(data, 20)
    tokens = discretise(edges, data)
    error = np.abs(np.asarray(reconstruct(edges, tokens) - data))
    half = 0.5 * np.take_along_axis(np.diff(np.asarray(edges), axis=0), np.asarray(tokens), axis=0)
    assert (error <= half + 1e-6).all()
    assert np.max(error / half) > 0.999  # a bin's own edge is exactly that far off


def test_a_middle_comes_back_as_its_own_token_and_outliers_go_to_the_ends() -> None:
    edges = fit_edges(jnp.asarray(np.random.default_rng(2).normal(size=(500, 1)), jnp.float32), 20)
    tokens = jnp.arange(20)[:, None]
    np.testing.assert_array_equal(discretise(edges, reconstruct(edges, tokens)), tokens)
    np.testing.assert_array_equal(discretise(edges, jnp.array([[-99.0], [99.0]]))[:, 0], [0, 19])
    np.testing.assert_array_equal(reconstruct(edges, jnp.array([[20]])), reconstruct(edges, jnp.array([[19]])))


def test_a_value_that_fills_several_bins_goes_to_the_last_of_them() -> None:
    edges = fit_edges(jnp.array([[0.0]] * 8 + [[1.0], [2.0]]), 5)
    np.testing.assert_array_equal(edges[:, 0], [0.0, 0.0, 0.0, 0.0, 1.0, 2.0])
    np.testing.assert_array_equal(discretise(edges, jnp.array([[0.0], [0.5], [1.0], [2.0]]))[:, 0], [3, 3, 4, 4])


def test_the_expectation_by_hand_and_what_is_missing_counts_as_zero() -> None:
    edges = jnp.array([0.0, 2.0, 6.0])  # middles 1 and 4
    assert float(expectation(edges, jnp.array([0.25, 0.75]))) == pytest.approx(3.25)
    assert float(expectation(edges, jnp.array([0.25, 0.25]))) == pytest.approx(1.25)
