"""Twin critics: independent networks on the same rows, and the lower of their values."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damorl.core.nets import Net, NormedMLP, apply_mlp
from damorl.parts.critic import init_critic, q_min, q_values

OBS, ACTION = (jnp.asarray(np.random.default_rng(d).normal(scale=5.0, size=(40, d)), jnp.float32) for d in (3, 2))


@pytest.fixture(scope="module")
def params() -> Net:
    return init_critic(jax.random.key(3), 3, 2, (8,))


def test_values_are_the_members_and_q_min_the_lowest_of_them(params):
    values = np.asarray(q_values(params, OBS, ACTION))
    for member in range(2):
        alone = jax.tree.map(lambda leaf, m=member: leaf[m], params)
        expected = apply_mlp(alone, jnp.concatenate([OBS, ACTION], axis=1))[:, 0]
        np.testing.assert_allclose(values[member], expected, atol=1e-5)
    assert {0, 1} == set(np.argmin(values, axis=0).tolist())  # each twin is the lower one somewhere
    np.testing.assert_array_equal(q_min(params, OBS, ACTION), np.minimum(values[0], values[1]))


def test_gradient_of_q_min_reaches_the_lower_twin_only(params):
    lower = np.argmin(np.asarray(q_values(params, OBS, ACTION)), axis=0)
    slope = jax.jit(jax.grad(lambda p: q_min(p, OBS, ACTION).sum()))(params)
    assert slope[-1].bias[:, 0].tolist() == [np.sum(lower == 0), np.sum(lower == 1)]


def test_layer_normalisation_bounds_what_a_critic_says_far_from_the_data(params):
    normed = init_critic(jax.random.key(3), 3, 2, (8,), layer_norm=True)
    assert isinstance(normed, NormedMLP)
    reach = lambda net, distance: float(jnp.max(jnp.abs(q_values(net, OBS * distance, ACTION * distance))))
    assert reach(params, 1e4) > 1e3 * reach(params, 1.0)
    # normalised features have length sqrt(8) at most, so |Q| <= sqrt(8) |w| + |b| wherever it is asked
    last = normed.layers[-1]
    limit = jnp.sqrt(8.0) * jnp.linalg.norm(last.kernel, axis=(1, 2)) + jnp.abs(last.bias[:, 0])
    assert np.all(np.abs(q_values(normed, OBS * 1e4, ACTION * 1e4)) <= np.asarray(limit)[:, None] + 1e-5)
