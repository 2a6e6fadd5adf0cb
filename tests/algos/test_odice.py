"""O-DICE's gradients by hand and in their limits, its weights and its reward scale."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from damorl.algos import odice
from damorl.core.nets import NormedMLP
from damorl.parts.value import init_value, v_min, v_values
from tests.exact import exact_jit

CONFIG = odice.Config(hidden=(8,), actor_hidden=(8,), batch_size=8, gamma=0.9)


@pytest.fixture(scope="module")
def nets(problem) -> tuple[NormedMLP, NormedMLP]:
    """Live values and targets that differ."""
    first, second = (init_value(jax.random.key(i), problem.spec.obs_dim, (8,)) for i in range(2))
    assert isinstance(first, NormedMLP)
    assert isinstance(second, NormedMLP)
    return first, second


def flat(tree) -> np.ndarray:
    return np.asarray(ravel_pytree(tree)[0], np.float64)


@partial(exact_jit, static_argnums=0)
def gradients(config, nets, batch):
    """The code under test."""
    return odice.value_gradients(config, nets[0], nets[1], batch)


@jax.jit
def losses_apart(nets, batch, eta):
    """The gradients of the linear, the forward and the backward loss, each written out for chi-square."""
    value, target = nets
    f_star = lambda y: jnp.where(y > -2.0, y + y**2 / 4.0, -1.0)
    alive = 0.9 * (1.0 - batch.terminal)

    def forward(p):
        return 0.6 * jnp.mean(f_star(batch.reward + alive * v_min(target, batch.next_obs) - v_values(p, batch.obs)))

    def backward(p):
        y = batch.reward + alive * v_values(p, batch.next_obs) - v_min(target, batch.obs)
        return 0.6 * eta * jnp.mean(f_star(y))

    linear = lambda p: 0.4 * jnp.mean(v_values(p, batch.obs))
    return [jax.grad(loss)(value) for loss in (linear, forward, backward)]


def slow_parts(nets, batch, eta: float) -> list[np.ndarray]:
    return [flat(grads) for grads in losses_apart(nets, batch, eta)]


@pytest.mark.parametrize("eta", [1.0, 0.3])
def test_backward_gradient_is_projected_before_it_is_added(nets, batch, eta):
    config = replace(CONFIG, backward_weight=eta)
    linear, forward, backward = slow_parts(nets, batch, eta)
    inner = forward @ backward / (forward @ forward)
    found = flat(gradients(config, nets, batch)[0])
    np.testing.assert_allclose(found, linear + forward + backward - inner * forward, rtol=1e-3, atol=1e-5)
    assert abs(forward @ (found - linear - forward)) < 1e-4 * (forward @ forward)
    assert abs(inner) > 0.01


def test_without_backward_weight_it_is_the_semi_gradient(nets, batch):
    """Bit for bit."""
    none, semi = replace(CONFIG, backward_weight=0.0), replace(CONFIG, gradient="semi")
    left, right = (flat(gradients(config, nets, batch)[0]) for config in (none, semi))
    np.testing.assert_array_equal(left, right)
    linear, forward, _ = slow_parts(nets, batch, 1.0)
    np.testing.assert_allclose(right, linear + forward, rtol=1e-4, atol=1e-6)


def test_full_gradient_is_that_of_the_objective(nets, batch):
    config = replace(CONFIG, gradient="full")

    def objective(p):
        y = batch.reward + 0.9 * (1.0 - batch.terminal) * v_values(p, batch.next_obs) - v_values(p, batch.obs)
        return 0.4 * jnp.mean(v_values(p, batch.obs)) + 0.6 * jnp.mean(jnp.where(y > -2.0, y + y**2 / 4.0, -1.0))

    grads, _, metrics = gradients(config, nets, batch)
    np.testing.assert_allclose(flat(grads), flat(jax.jit(jax.grad(objective))(nets[0])), rtol=1e-4, atol=1e-6)
    assert float(metrics["value/loss"]) == pytest.approx(float(objective(nets[0])), rel=1e-5)


def test_residual_and_conjugate_by_hand(batch):
    batch = batch._replace(reward=jnp.array([1.0, 1.0]), terminal=jnp.array([0.0, 1.0]))
    y = odice.residual(CONFIG, batch, jnp.array([2.0, 2.0]), jnp.array([3.0, 3.0]))
    np.testing.assert_allclose(y, [1.0 + 2.7 - 2.0, -1.0], rtol=1e-6)
    expected = 0.6 * np.mean([1.7 + 1.7**2 / 4.0, -1.0 + 0.25])
    assert float(odice.conjugate_term(CONFIG, y)) == pytest.approx(expected)


def test_cloning_weights_by_hand():
    """The record's ratio 1 + y / 2 and the released max(y, 0), both at most `max_weight`, averaged over the twins."""
    y = jnp.array([[-3.0, -1.0, 2.0, 500.0], [1.0, 1.0, 2.0, 500.0]])
    np.testing.assert_allclose(odice.cloning_weight(CONFIG, y), [0.75, 1.0, 2.0, 100.0])
    released = replace(CONFIG, policy_weight="residual")
    np.testing.assert_allclose(odice.cloning_weight(released, y), [0.5, 0.5, 2.0, 100.0])


@pytest.mark.slow
def test_more_conjugate_raises_the_value(problem, data):
    """A larger share k pulls V up, towards the best in-sample value (as an expectile does)."""
    means = []
    for share in (0.3, 0.9):
        config = replace(CONFIG, conjugate_share=share, reward_scale=1.0, value_lr=1e-2, tau=0.05, gamma=0.5)
        state = odice.init(jax.random.key(0), config, problem, data)
        step = lambda state, key, config=config: odice.update(config, problem, state, data, key)
        _, metrics = jax.jit(lambda s, k, step=step: jax.lax.scan(step, s, k))(
            state, jax.random.split(jax.random.key(1), 300)
        )
        means.append(float(metrics["value/mean"][-50:].mean()))
    assert means[1] > means[0] + 0.5
