"""An ensemble is nothing but its members, stacked."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damorl.core.nets import (
    Dense,
    LayerNorm,
    Net,
    NormedMLP,
    apply_ensemble,
    apply_mlp,
    apply_normed_mlp,
    init_ensemble,
    init_normed_mlp,
    num_parameters,
)

SIZES, MEMBERS = (3, 64, 2), 4


@pytest.fixture(scope="module")
def ensemble() -> Net:
    return init_ensemble(jax.random.key(0), SIZES, MEMBERS)


@pytest.fixture(scope="module")
def rows() -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)), jnp.float32)


def test_one_network_by_hand():
    params = (
        Dense(jnp.array([[1.0, -1.0], [2.0, 0.0]]), jnp.array([0.5, 0.0])),
        Dense(jnp.array([[1.0], [10.0]]), jnp.array([-1.0])),
    )
    # first layer at (1, 1): (1 + 2 + 0.5, -1), after relu (3.5, 0); the last layer is not cut at 0
    assert apply_mlp(params, jnp.array([1.0, 1.0])).tolist() == [2.5]
    assert apply_mlp(params, jnp.array([-1.0, 0.0])).tolist() == [9.0]
    assert apply_mlp(params, jnp.array([0.0, -1.0])).tolist() == [-1.0]
    np.testing.assert_allclose(apply_mlp(params, jnp.array([1.0, 1.0]), jnp.square), [12.25 + 10.0 - 1.0])


def test_ensemble_is_its_members_stacked(ensemble, rows):
    together = apply_ensemble(ensemble, rows)
    assert together.shape == (MEMBERS, 5, 2)
    for member in range(MEMBERS):
        alone = jax.tree.map(lambda leaf, m=member: leaf[m], ensemble)
        np.testing.assert_allclose(together[member], apply_mlp(alone, rows), atol=1e-6)


def test_batch_axes_are_kept(ensemble, rows):
    alone = jax.tree.map(lambda leaf: leaf[0], ensemble)
    nested = jnp.stack([rows, 2.0 * rows])
    np.testing.assert_allclose(apply_mlp(alone, nested)[1, 3], apply_mlp(alone, 2.0 * rows[3]), atol=1e-6)


def test_every_member_starts_elsewhere_and_uniformly_within_the_torch_bounds(ensemble):
    for layer, fan_in in zip(ensemble, SIZES[:-1], strict=True):
        for leaf in layer:
            flat = np.reshape(leaf, (MEMBERS, -1))
            assert len(np.unique(flat)) == flat.size  # no two members, nor two entries, share a draw
            assert np.max(np.abs(flat)) <= fan_in**-0.5
        np.testing.assert_allclose(np.std(layer.kernel), (3 * fan_in) ** -0.5, rtol=0.1)  # of a uniform law


def test_num_parameters_counts_every_scalar(ensemble):
    assert num_parameters(ensemble) == MEMBERS * ((3 * 64 + 64) + (64 * 2 + 2))


def test_layer_normalisation_by_hand():
    """Hidden (1, 3) is (-1, 1) once normalised; scale and shift act before the activation."""
    layers = (Dense(jnp.array([[1.0, 3.0]]), jnp.zeros(2)), Dense(jnp.array([[1.0], [10.0]]), jnp.array([0.5])))
    params = NormedMLP(layers, (LayerNorm(jnp.array([2.0, 3.0]), jnp.array([4.0, -1.0])),))
    np.testing.assert_allclose(apply_normed_mlp(params, jnp.array([[1.0], [7.0]])), [[2.0 + 20.0 + 0.5]] * 2, rtol=1e-4)


def test_fresh_normalisations_change_neither_mean_nor_scale():
    params = init_normed_mlp(jax.random.key(0), (3, 5, 4, 1))
    assert [norm.scale.tolist() for norm in params.norms] == [[1.0] * 5, [1.0] * 4]
    assert [norm.shift.tolist() for norm in params.norms] == [[0.0] * 5, [0.0] * 4]
