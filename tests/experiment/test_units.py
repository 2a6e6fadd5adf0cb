"""Standardised observations and scaled rewards: the same run in other units, seen from outside in the data's own."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damorl.algos import ALGORITHMS, mopo, morel
from damorl.algos.base import OfflineData
from damorl.data.datasets import Dataset
from damorl.errors import UserError
from damorl.experiment import inputs
from damorl.experiment import train as loop
from damorl.experiment import units as scaling
from damorl.experiment.config import LoopConfig, RunConfig, defaults
from damorl.experiment.policy import load_policy
from damorl.experiment.population import with_population
from damorl.paper.trained import critic_values, restore, synthetic
from damorl.parts import dynamics, model_data
from damorl.parts.actor import policy
from damorl.parts.critic import q_values
from damorl.parts.model_units import to_own_units
from damorl.record import store

FACTOR = 0.25
ON = {"standardise_observations": True, "reward_factor": FACTOR}


def run_config(algo: str, path: Path, **changes: Any) -> RunConfig:
    run_loop, settings = defaults(algo, "smoke", "hopper-toy")
    run_loop = dataclasses.replace(
        run_loop, total_updates=20, refresh_interval=10, eval_interval=10, checkpoint_interval=10, eval_episodes=1
    )
    return RunConfig(algo, str(path), None, "smoke", (0,), dataclasses.replace(run_loop, **changes), settings)


def work(algo: str, path: Path, dataset: Dataset, **changes: Any) -> scaling.Work:
    return scaling.in_units(run_config(algo, path, **changes), inputs.make_problem(dataset), inputs.to_device(dataset))


def test_the_data_are_standardised_and_scaled_and_come_back(data_path: Path, dataset: Dataset) -> None:
    raw, data = inputs.to_device(dataset), work("mopo", data_path, dataset, **ON).data
    np.testing.assert_allclose(jnp.mean(data.rows.obs, axis=0), 0.0, atol=1e-4)
    np.testing.assert_allclose(jnp.std(data.rows.obs, axis=0), 1.0, atol=1e-4)
    np.testing.assert_allclose(data.rows.reward, FACTOR * raw.rows.reward, rtol=1e-6)
    np.testing.assert_allclose(np.asarray(data.episode_returns), FACTOR * dataset.episode_returns(), rtol=1e-6)
    for back, own in zip(scaling.own_rows(data.rows, data.units), raw.rows, strict=True):
        np.testing.assert_allclose(back, own, rtol=1e-5, atol=1e-6)


def test_off_is_the_very_same(data_path: Path, dataset: Dataset) -> None:
    config, problem, data = run_config("mopo", data_path), inputs.make_problem(dataset), inputs.to_device(dataset)
    found = scaling.in_units(config, problem, data)
    assert found.config is config
    assert found.problem is problem
    assert found.data is data
    assert data.units is None


def test_planners_keep_the_data_as_they_are(data_path: Path, dataset: Dataset) -> None:
    assert work("trajectory-transformer", data_path, dataset, **ON).data.units is None


def test_auto_brings_the_mean_absolute_reward_to_its_value() -> None:
    assert scaling.auto_factor(jnp.array([-4.0, 2.0, 0.0])) == pytest.approx(scaling.MEAN_REWARD / 2.0, rel=5e-3)
    assert scaling.auto_factor(jnp.zeros(3)) == 1.0


def test_a_factor_of_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="reward_factor must be above 0"):
        LoopConfig(reward_factor=0.0)


def test_weights_in_units_of_reward_are_scaled_and_others_are_not(data_path: Path, dataset: Dataset) -> None:
    given = run_config("morel", data_path, **ON).algo_config
    inner = work("morel", data_path, dataset, **ON).config.algo_config
    assert inner.halt_penalty == FACTOR * given.halt_penalty
    assert inner.initial_temperature == FACTOR * given.initial_temperature
    assert inner.max_temperature == FACTOR * given.max_temperature
    assert inner.threshold_coefficient == given.threshold_coefficient
    assert inner.gamma == given.gamma


def test_the_termination_rule_is_asked_in_its_own_units(data_path: Path, dataset: Dataset) -> None:
    problem = inputs.make_problem(dataset)
    found = work("mopo", data_path, dataset, **ON)
    fallen = inputs.to_device(dataset).rows._replace()
    low = fallen.next_obs.at[::2, 0].set(0.3)  # half the hoppers lie on the ground
    expected = problem.termination(fallen.obs, fallen.action, low)
    assert 0 < int(jnp.sum(expected)) < expected.size
    units = found.data.units
    assert units is not None
    standardise = scaling.observer(units).apply
    asked = found.problem.termination(standardise(fallen.obs), fallen.action, standardise(low))
    np.testing.assert_array_equal(asked, expected)


@pytest.fixture(scope="module")
def models(data_path: Path, dataset: Dataset) -> tuple[dynamics.Dynamics, dynamics.Dynamics, OfflineData, OfflineData]:
    """One fit in the data's units, the same one in the run's, and both data."""
    raw, found = work("mopo", data_path, dataset), work("mopo", data_path, dataset, **ON)
    fit = lambda w: model_data.fit_model(
        jax.random.key(1), w.config.algo_config.dynamics, w.problem, w.data, lambda *_: None, all_members=True
    )
    return fit(raw), fit(found), raw.data, found.data


def test_the_model_is_the_same_fit_in_other_units(models: Any) -> None:
    own, model, raw, data = models
    for a, b in zip(jax.tree.leaves(own.params), jax.tree.leaves(model.params), strict=True):
        np.testing.assert_array_equal(a, b)
    expected = dynamics.predict_all(own, raw.rows.obs, raw.rows.action)
    found = dynamics.predict_all(model, data.rows.obs, data.rows.action)
    unit = data.units
    mean = jnp.concatenate(
        [found.mean[..., :-1] * unit.obs_scale + unit.obs_mean, found.mean[..., -1:] / unit.reward_factor], axis=-1
    )
    np.testing.assert_allclose(mean, expected.mean, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(to_own_units(found, unit).std, expected.std, rtol=1e-3)


@pytest.mark.parametrize("kind", ["max_std", "disagreement", "ensemble_std"])
def test_mopo_measures_its_penalty_in_the_data_s_units(models: Any, kind: mopo.Penalty) -> None:
    own, model, raw, data = models
    expected = mopo.uncertainty(own, raw.rows.obs, raw.rows.action, kind)
    found = mopo.uncertainty(model, data.rows.obs, data.rows.action, kind, data.units)
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize("kind", ["raw", "standardised"])
def test_morel_knows_the_same_pairs(models: Any, kind: morel.Discrepancy) -> None:
    own, model, raw, data = models
    expected = morel.discrepancy(own, raw.rows.obs, raw.rows.action, kind)
    found = morel.discrepancy(model, data.rows.obs, data.rows.action, kind, data.units)
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize(
    "algo",
    ["bc", "td3bc", "optidice", "algaedice", "cql", "mopo", pytest.param("combo", marks=pytest.mark.slow)],
)  # combo's actor is mopo's
def test_saved_policies_take_raw_observations(algo: str, data_path: Path, dataset: Dataset, tmp_path: Path) -> None:
    config = run_config(algo, data_path, **ON)
    loop.train(config, dataset, tmp_path, quiet=True)
    found = restore(config, tmp_path, dataset, lambda note: None)
    inside = ALGORITHMS[algo].actor(found.seed_state(0))
    expected = policy(inside, found.data.rows.obs).mode()
    given = load_policy(tmp_path)(np.asarray(dataset.transitions.obs))
    np.testing.assert_allclose(given, expected, atol=1e-3)


def test_what_a_run_shows_is_in_the_data_s_units(data_path: Path, dataset: Dataset, tmp_path: Path) -> None:
    config = run_config("damo", data_path, **ON)
    loop.train(config, dataset, tmp_path, quiet=True)
    row = store.read_metrics(tmp_path)[-1]
    assert row["actor/temperature"] == pytest.approx(config.algo_config.initial_temperature, rel=0.02)
    # an unfitted model is what it is; its rewards are those of the toy, between 0.5 and 1.5, not a quarter of them
    assert 0.5 < row["rollout/reward_mean"] < 1.5
    assert store.read_json(tmp_path / store.CONFIG)["algo_config"]["initial_temperature"] == 1.0
    found = restore(config, tmp_path, dataset, lambda note: None)
    drawn = synthetic(found, 0, 100)
    assert 1.0 < drawn.obs[:, 0].mean() < 1.5  # the torso's height
    rows, data = dataset.transitions, found.data
    q = q_values(found.seed_state(0).critic.params, data.rows.obs, data.rows.action)
    np.testing.assert_allclose(
        critic_values(found, 0, np.asarray(rows.obs), np.asarray(rows.action)), jnp.mean(q, axis=0) / FACTOR, atol=1e-4
    )


def test_a_population_in_other_units_is_scaled_as_the_settings_are(data_path: Path, dataset: Dataset) -> None:
    base = run_config("mopo", data_path, **ON)
    given = with_population(base, {"penalty_coefficient": [1.0, 4.0], "tau": [0.1, 0.2]})
    inner = scaling.in_units(given, inputs.make_problem(dataset), inputs.to_device(dataset)).config
    assert inner.population == {"penalty_coefficient": (FACTOR, 4.0 * FACTOR), "tau": (0.1, 0.2)}
    assert inner.algo_config.penalty_coefficient == FACTOR
