"""A model fitted on: better where the world has changed, never worse on rows that were held out."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damorl.core import buffer as ring
from damorl.core.scaler import fit_standardiser
from damorl.parts.dynamics import Dynamics, DynamicsConfig, init_members, model_arrays, predict_all
from damorl.parts.dynamics_refit import RefitSettings, draw_index, refit
from damorl.parts.model_units import to_units
from damorl.types import Metrics, Transition, Units

CONFIG = DynamicsConfig(num_members=3, num_elites=2, hidden=(32,), batch_size=64, nll_beta=0.5)
HOW = RefitSettings(batches=800, learning_rate=1e-2, share=0.5)
REFIT = jax.jit(refit, static_argnums=(1, 2))
ROWS = 400


def world(slope: float, seed: int) -> Transition:
    """Rows of s' = s + slope a, reward slope s; the third feature never changes."""
    rng = np.random.default_rng(seed)
    obs, action = rng.normal(size=(ROWS, 2)), rng.uniform(-1.0, 1.0, (ROWS, 2))
    obs = np.concatenate([obs, np.ones((ROWS, 1))], axis=1)
    moved = obs + slope * np.concatenate([action, np.zeros((ROWS, 1))], axis=1)
    columns = (obs, action, slope * obs[:, 0], moved, np.zeros(ROWS))
    return Transition(*(jnp.asarray(column, jnp.float32) for column in columns))


OLD, CHANGED = world(1.0, 0), world(-1.0, 1)


def fitted_on(model: Dynamics, old: Transition, new: Transition) -> tuple[Dynamics, Metrics]:
    buffer = ring.add(ring.init_buffer(2 * ROWS, 3, 2), new, jnp.ones(ROWS, bool))
    return REFIT(jax.random.key(1), CONFIG, HOW, model, old, buffer)


@pytest.fixture(scope="module")
def model() -> Dynamics:
    """One that knows the old world."""
    x, y = model_arrays(OLD)
    inputs, targets = fit_standardiser(x), fit_standardiser(y)
    varying = jnp.array([1.0, 1.0, 0.0, 1.0])
    targets = targets._replace(scale=targets.scale * varying)
    fresh = init_members(jax.random.key(0), CONFIG, 3, 2)._replace(inputs=inputs, targets=targets)
    return fitted_on(fresh, OLD, OLD)[0]


def error(model: Dynamics, rows: Transition) -> float:
    found = predict_all(model, rows.obs, rows.action).mean[..., :3]
    return float(jnp.mean(jnp.square(found - rows.next_obs)))


def test_it_follows_a_world_that_has_changed(model: Dynamics) -> None:
    found, metrics = fitted_on(model, CHANGED, CHANGED)
    unseen = world(-1.0, 2)
    assert error(model, world(1.0, 3)) < 0.1 < error(model, unseen)
    assert error(found, unseen) < 0.1
    assert metrics["dynamics/error_after"] < 0.1 * metrics["dynamics/error_before"]
    np.testing.assert_array_equal(found.inputs.mean, model.inputs.mean)  # the scaling is that of the first fit
    np.testing.assert_allclose(predict_all(found, unseen.obs, unseen.action).mean[..., 2], 1.0, atol=1e-6)


def test_a_member_that_becomes_worse_on_what_is_held_out_stays_as_it_was(model: Dynamics) -> None:
    held_out = jnp.arange(ROWS) % 10 == 9
    pick = lambda kept, other: jnp.where(held_out.reshape(-1, *[1] * (kept.ndim - 1)), kept, other)
    rows = jax.tree.map(pick, OLD, CHANGED)  # the world has changed in all rows but these
    found, metrics = fitted_on(model, rows, rows)
    for now, was in zip(found.params.layers, model.params.layers, strict=True):
        np.testing.assert_array_equal(now.kernel, was.kernel)
    assert metrics["dynamics/error_after"] == metrics["dynamics/error_before"]


def test_units_change_nothing(model: Dynamics) -> None:
    units = Units(jnp.array([0.3, -0.2, 0.0]), jnp.array([2.0, 0.5, 1.0]), jnp.float32(4.0))

    def scaled(rows: Transition) -> Transition:
        obs, reached = ((x - units.obs_mean) / units.obs_scale for x in (rows.obs, rows.next_obs))
        return rows._replace(obs=obs, next_obs=reached, reward=units.reward_factor * rows.reward)

    own, _ = fitted_on(model, OLD, CHANGED)
    inner, _ = fitted_on(to_units(model, units), scaled(OLD), scaled(CHANGED))
    one, other = (predict_all(m, scaled(OLD).obs, OLD.action) for m in (to_units(own, units), inner))
    np.testing.assert_allclose(one.mean, other.mean, atol=0.05)


@pytest.mark.parametrize("size", [10, 11, 19, 20, 57])
def test_every_tenth_row_is_held_out_and_every_other_one_is_drawn(size: int) -> None:
    held, others = (
        set(np.asarray(draw_index(jax.random.key(0), jnp.int32(size), 4000, held_out)).tolist())
        for held_out in (True, False)
    )
    assert held == set(range(9, size, 10))
    assert others == set(range(size)) - held
