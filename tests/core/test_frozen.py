"""A frozen network gives what its layers give, and the same gradient to its input, none to itself."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from damorl.core.frozen import freeze
from damorl.core.nets import NormedMLP, apply_ensemble, apply_mlp, init_ensemble, init_mlp


def test_values_and_slopes_are_those_of_the_layers() -> None:
    layers, x = init_mlp(jax.random.key(0), (3, 8, 8, 2)), jax.random.normal(jax.random.key(1), (5, 3))
    total = lambda net, rows: jnp.sum(jnp.square(apply_mlp(net, rows)))
    np.testing.assert_allclose(apply_mlp(freeze(layers), x), apply_mlp(layers, x), rtol=1e-6)
    for found, expected in zip(
        jax.tree.leaves(jax.grad(total, argnums=1)(freeze(layers), x)),
        jax.tree.leaves(jax.grad(total, argnums=1)(layers, x)),
        strict=True,
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_the_matrices_themselves_have_no_gradient() -> None:
    net, x = freeze(init_mlp(jax.random.key(0), (3, 4, 2))), jnp.ones((5, 3))
    slopes = jax.grad(lambda p: jnp.sum(apply_mlp(p, x)))(net)
    for layer in slopes:
        assert not any(np.any(leaf) for leaf in jax.tree.leaves(layer.kernel))


def test_members_keep_their_own() -> None:
    net, x = init_ensemble(jax.random.key(2), (3, 8, 2), 4), jax.random.normal(jax.random.key(3), (5, 3))
    assert not isinstance(net, NormedMLP)
    np.testing.assert_allclose(apply_ensemble(freeze(net), x), apply_ensemble(net, x), rtol=1e-6)
    slope = lambda p: jax.grad(lambda rows: jnp.sum(jnp.square(apply_ensemble(p, rows))))(x)
    np.testing.assert_allclose(jax.jit(slope)(freeze(net)), slope(net), rtol=1e-5, atol=1e-6)
