"""MOReL's disagreement by hand, what it knows, the halt, and that where everything is known there is only SAC."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damorl.algos import morel, sac
from damorl.algos.base import OfflineData
from damorl.core.nets import Dense
from damorl.errors import UserError
from damorl.parts import dynamics, model_agent
from damorl.parts.dynamics import DynamicsConfig

from .conftest import ACTION_DIM, OBS_DIM, assert_bits, moving_elites, rows, sac_settings, sac_state

CONFIG = morel.Config(**sac_settings(), halt_penalty=50.0)
KEY = jax.random.key(7)


@pytest.fixture(scope="module")
def state(problem, data) -> morel.State:
    return sac_state(morel.ALGORITHM, CONFIG, problem, data)


def doubting(factor: float) -> dynamics.Dynamics:
    """Two elites without noise of which one adds `factor * s_1` to s_0: they disagree by `|factor * s_1|`."""
    model = moving_elites([[0.0] * OBS_DIM] * 2)
    (layer,) = model.params.layers
    kernel = layer.kernel.at[1, 1, 0].set(factor)
    return model._replace(params=model.params._replace(layers=(Dense(kernel, layer.bias),)))


def test_disagreement_is_the_largest_distance_between_two_elites():
    """Means at (0, 0, 0), (3, 4, 0), (0, 1, 0): 5 apart at most; their mean is no further than 3 from any of them."""
    model = moving_elites([[0.0, 0, 0], [3.0, 4, 0], [0.0, 1, 0]])
    scale = jnp.array([1.0, 4.0, 0.0, 1.0])  # the third feature never changes
    obs, action = jnp.zeros((2, OBS_DIM)), jnp.zeros((2, ACTION_DIM))
    np.testing.assert_allclose(morel.discrepancy(model, obs, action, "raw"), [5.0, 5.0], rtol=1e-6)
    from_mean = float(dynamics.disagreement(model, obs, action)[0])
    assert from_mean == pytest.approx(np.hypot(2.0, 7.0 / 3.0), rel=1e-5)  # what `damorl select` judges by
    # moves of (0, 0), (3, 16) and (0, 4) in units in which one deviation is (1, 4): again 5 apart
    scaled = moving_elites([[0.0, 0, 0], [3.0, 4, 0], [0.0, 1, 0]])._replace(
        targets=model.targets._replace(scale=scale)
    )
    np.testing.assert_allclose(morel.discrepancy(scaled, obs, action, "standardised"), [5.0, 5.0], rtol=1e-6)
    np.testing.assert_allclose(morel.discrepancy(scaled, obs, action, "raw"), [np.hypot(3.0, 16.0)] * 2, rtol=1e-6)


@pytest.mark.parametrize(("share", "coefficient"), [(1.0, 3.0), (0.5, 2.0)])
def test_threshold_is_a_multiple_of_the_datas_own_disagreement(data, share, coefficient, monkeypatch):
    monkeypatch.setattr(morel, "CHUNK", 7)  # 20 rows: chunks and a rest
    config = replace(CONFIG, known_share=share, threshold_coefficient=coefficient)
    found = float(morel.fit_threshold(config, doubting(2.0), data))
    own = 2.0 * np.abs(np.asarray(data.rows.obs)[:, 1])
    assert found == pytest.approx(coefficient * np.quantile(own, share), rel=1e-5)


def test_prepare_fits_the_model_and_its_threshold(problem, data):
    settings = DynamicsConfig(num_members=2, num_elites=2, hidden=(4,), max_batches=2, epoch_batches=2)
    config = replace(CONFIG, dynamics=settings)
    state = sac_state(morel.ALGORITHM, config, problem, data)
    found = morel.prepare(KEY, config, problem, state, data, lambda *_: None)
    own = morel.discrepancy(found.model, data.rows.obs, data.rows.action, "raw")
    assert float(found.threshold) == pytest.approx(3.0 * float(own.max()), rel=1e-5)
    assert found.threshold.dtype == state.threshold.dtype


def test_unknown_pairs_halt_and_known_ones_are_the_models(state):
    found_rows = rows(60, 6)
    own = np.abs(np.asarray(found_rows.obs)[:, 1])
    known = own <= np.median(own)
    state = state._replace(model=doubting(1.0), threshold=jnp.float32(np.median(own)))
    found = morel.halt(CONFIG, state, jnp.float32(-53.0), found_rows)
    np.testing.assert_array_equal(found.reward, np.where(known, found_rows.reward, -53.0))
    np.testing.assert_array_equal(found.terminal, np.where(known, found_rows.terminal, 1.0))
    assert 0 < known.sum() < 6
    for name in ("obs", "action", "next_obs"):
        np.testing.assert_array_equal(getattr(found, name), getattr(found_rows, name))


def test_a_pair_on_which_the_model_is_not_a_number_is_unknown(state):
    state = state._replace(model=doubting(jnp.nan), threshold=jnp.float32(jnp.inf))
    assert np.asarray(morel.halt(CONFIG, state, jnp.float32(-53.0), rows(60, 6)).terminal).all()


def refreshed(state: morel.State, problem, data: OfflineData):
    return jax.jit(partial(morel.refresh, CONFIG, problem))(state, data, KEY)


def test_with_no_tolerance_every_first_step_halts(state, problem, data):
    state = state._replace(threshold=jnp.zeros(()), buffer=state.buffer._replace(size=jnp.int32(0)))
    found, metrics = refreshed(state, problem, data)
    starts = CONFIG.rollout_starts
    assert int(found.buffer.size) == starts  # one step each, of three
    assert np.asarray(found.buffer.rows.terminal[:starts]).all()
    lowest = float(data.rows.reward.min())
    np.testing.assert_allclose(found.buffer.rows.reward[:starts], lowest - 50.0, rtol=1e-6)
    assert float(metrics["rollout/halt_share"]) == 1.0
    assert float(metrics["rollout/length_mean"]) == 1.0


def test_with_all_tolerance_it_is_sac_bit_for_bit(state, problem, data):
    state = state._replace(threshold=jnp.float32(jnp.inf))
    settings = sac.Config(**sac_settings())
    plain = model_agent.State(state.agent, state.model, state.buffer)
    (ours, metrics), (theirs, _) = (
        refreshed(state, problem, data),
        jax.jit(partial(sac.ALGORITHM.refresh, settings, problem))(plain, data, KEY),
    )
    assert float(metrics["rollout/halt_share"]) == 0.0
    assert_bits(ours.buffer, theirs.buffer)
    ours, _ = jax.jit(partial(morel.ALGORITHM.update, CONFIG, problem))(ours, data, KEY)
    theirs, _ = jax.jit(partial(sac.ALGORITHM.update, settings, problem))(theirs, data, KEY)
    assert_bits(ours.agent, theirs.agent)


@pytest.mark.parametrize("share", [0.0, 1.5])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(UserError, match=f"known_share must be above 0 and at most 1, found {share}"):
        morel.Config(known_share=share)


def test_one_elite_is_refused():
    with pytest.raises(UserError, match=r"dynamics.num_elites must be at least 2.*found 1.*train sac"):
        morel.Config(dynamics=DynamicsConfig(num_elites=1))
