"""Steps, averages and projections of parameter vectors."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from damorl.core.optim import init_learner, minimise, polyak, project_out, scale_gradient


def tree(seed: int):
    rng = np.random.default_rng(seed)
    return {
        "a": jnp.asarray(rng.normal(size=(3, 2)), jnp.float32),
        "b": (jnp.asarray(rng.normal(size=4), jnp.float32),),
    }


def flat(params) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(params)]).astype(np.float64)


def test_project_out_leaves_only_what_is_orthogonal():
    gradient, direction = tree(0), tree(1)
    rest = project_out(gradient, direction)
    assert abs(flat(rest) @ flat(direction)) < 1e-5
    assert abs(flat(gradient) @ flat(direction)) > 0.1  # there was something to remove
    removed = flat(gradient) - flat(rest)
    along = flat(direction) / np.linalg.norm(flat(direction))
    np.testing.assert_allclose(removed, (flat(gradient) @ along) * along, atol=1e-5)  # and nothing else went


def test_project_out_treats_the_leaves_as_one_vector():
    gradient, direction = {"a": jnp.array(1.0), "b": jnp.array(0.0)}, {"a": jnp.array(1.0), "b": jnp.array(1.0)}
    rest = project_out(gradient, direction)
    assert (float(rest["a"]), float(rest["b"])) == (0.5, -0.5)


def test_project_out_along_nothing_changes_nothing():
    gradient = tree(0)
    np.testing.assert_array_equal(flat(project_out(gradient, jax.tree.map(jnp.zeros_like, gradient))), flat(gradient))


@pytest.mark.parametrize("factor", [-0.5, 0.0, 3.0])
def test_scale_gradient_keeps_the_value_and_scales_the_slope(factor):
    def cube(x):
        return scale_gradient(x, factor) ** 3

    value, slope = jax.value_and_grad(cube)(jnp.float32(2.0))
    assert float(value) == 8.0
    assert float(slope) == pytest.approx(factor * 12.0)


def test_polyak_moves_the_target_by_the_rate():
    target, online = tree(0), tree(1)
    np.testing.assert_allclose(flat(polyak(target, online, 0.25)), 0.75 * flat(target) + 0.25 * flat(online), rtol=1e-5)
    np.testing.assert_array_equal(flat(polyak(target, online, 0.0)), flat(target))
    np.testing.assert_allclose(flat(polyak(target, online, 1.0)), flat(online), rtol=1e-6)


def test_repeated_polyak_forgets_the_start_geometrically():
    target, online = jnp.array(1.0), jnp.array(0.0)
    for _ in range(10):
        target = polyak(target, online, 0.1)
    assert float(target) == pytest.approx(0.9**10, rel=1e-5)


def test_minimise_takes_one_step_downhill_and_returns_the_metrics():
    optimiser = optax.sgd(0.1, momentum=0.5)
    learner = init_learner(jnp.array([1.0, -2.0]), optimiser)

    def loss(params):
        value = jnp.sum(jnp.square(params))
        return value, {"loss": value}

    learner, metrics = minimise(loss, learner, optimiser)
    np.testing.assert_allclose(learner.params, [0.8, -1.6], rtol=1e-6)  # p - 0.1 * 2 p
    assert float(metrics["loss"]) == 5.0  # of the parameters before the step
    learner, _ = minimise(loss, learner, optimiser)
    np.testing.assert_allclose(learner.params, [0.54, -1.08], rtol=1e-6)  # momentum: the optimiser's state was kept
