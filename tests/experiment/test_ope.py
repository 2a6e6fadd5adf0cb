"""Off-policy estimates on the control problem of `test_select`, whose behaviour acts uniformly: density 1/2."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damorl.behaviour.host_policy import log_density as host_log_density
from damorl.behaviour.host_policy import squash
from damorl.cli import main
from damorl.core.nets import Dense
from damorl.data.datasets import load_dataset
from damorl.data.store import write_dataset
from damorl.errors import UserError
from damorl.experiment import densities, select
from damorl.experiment.ope import ope
from damorl.experiment.ope_settings import OPEConfig
from damorl.experiment.ope_table import pooled, summed_up
from damorl.parts import actor as actors
from damorl.parts import fqe
from damorl.record import store
from damorl.types import Transition
from tests.experiment.test_select import (
    EPISODE,
    EPISODES,
    GAINS,
    GAMMA,
    SETTINGS,
    UNFITTED,
    write_data,
    write_run,
)

CONFIG = OPEConfig(SETTINGS, resamples=20, v_actions=4, features=16, groups=10)


def record_densities(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["infos/action_log_probs"] = np.full(EPISODES * EPISODE, np.log(0.5), np.float32)


@pytest.fixture(scope="module")
def data_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "toy.hdf5"
    write_data(path)
    record_densities(path)
    return path


@pytest.fixture(scope="module")
def without_fits() -> Any:
    """Stand-ins for the expensive parts: critics that know nothing, and a model that gives each policy its number."""

    def values(run: select.Run, evidence: select.Evidence, *_: Any) -> fqe.FQEResult:
        count, config = len(run.kept), dataclasses.replace(SETTINGS.fqe, gamma=GAMMA)
        states = fqe.init_states(jax.random.key(0), config, 2, count)
        found = np.where(np.arange(count) == 1, np.nan, -np.arange(float(count)))
        return fqe.FQEResult(found, np.ones((1, count)), found, states.target, fqe.fit_units(evidence.data.rows, GAMMA))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(select, "fitted_values", values)
        model = lambda run, *_: select.ModelValue(np.arange(float(len(run.kept))), np.ones(len(run.kept)))
        patch.setattr(select, "imagined_values", model)
        patch.setattr(select.dynamics_fit, "fit_members", lambda *_: (UNFITTED, {"holdout_error": 0.5}))
        patch.setattr(densities, "CLONE_UPDATES", 50)
        yield


@pytest.fixture(scope="module")
def run_dir(data_path: Path, tmp_path_factory: pytest.TempPathFactory, without_fits: Any) -> Path:
    """A run with finished estimates."""
    path = write_run(tmp_path_factory.mktemp("runs") / "damo-toy", data_path)
    ope([path], CONFIG)
    return path


def test_every_policy_has_every_estimate_with_what_speaks_against_it(run_dir: Path) -> None:
    found = store.read_json(run_dir / "ope.json")
    assert (found["densities"], found["episodes"], found["saturated"]) == ("recorded", 60, 0.0)
    assert [(p["step"], p["seed"]) for p in found["policies"]] == list(GAINS)
    for policy in found["policies"]:
        low, high = policy["about"]["wpdis"]["interval"]
        assert low <= policy["wpdis"] <= high
        assert (
            1.0 <= policy["about"]["wis"]["effective_episodes"] <= policy["about"]["pdis"]["effective_episodes"] <= 60
        )
        for name in ("wis", "pdis", "dice"):
            own = policy["about"][name]
            assert own["trusted"] == (own["effective_episodes"] >= 5.0)
        assert policy["about"]["fqe"] == {"interval": None, "effective_episodes": None, "trusted": None}
    assert [p["model"] for p in found["policies"]] == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert found["policies"][3]["about"]["model"]["interval"] == [1.0, 5.0]
    diverged = found["policies"][1]
    assert (diverged["fqe"], diverged["dr"], diverged["wdr"]) == (None, None, None)


def test_importance_weights_are_those_of_the_sampled_policy(run_dir: Path, data_path: Path) -> None:
    """PDIS again in a plain loop: the density of `tanh(gain x + noise)` at a uniform action, in float64."""
    rows = load_dataset(data_path).transitions
    x, action = (np.asarray(column, np.float64)[:, 0].reshape(60, -1) for column in (rows.obs, rows.action))
    u, total = np.arctanh(action), 0.0
    gain = GAINS[200, 7]
    density = np.exp(-0.5 * (u - gain * x) ** 2) / np.sqrt(2.0 * np.pi) / (1.0 - action**2)
    weight = np.cumprod(density / 0.5, axis=1)
    for step, reward in enumerate(np.asarray(rows.reward).reshape(60, -1).T):
        total += GAMMA**step * np.mean(weight[:, step] * reward)
    policy = store.read_json(run_dir / "ope.json")["policies"][list(GAINS).index((200, 7))]
    assert policy["pdis"] == pytest.approx(total, rel=1e-3)


def test_finished_estimates_are_not_made_again(run_dir: Path) -> None:
    before = (run_dir / "ope.json").read_bytes()
    (again,) = ope([run_dir], CONFIG)
    assert (run_dir / "ope.json").read_bytes() == before
    assert again == {"run_dir": str(run_dir), **store.read_json(run_dir / "ope.json")}


def test_a_policy_that_was_kept_twice_counts_once(data_path: Path, tmp_path: Path, without_fits: Any) -> None:
    run = write_run(tmp_path / "run", data_path)
    kept = run / "policies"
    shutil.copy(kept / "step_000000100.safetensors", kept / "step_000000200.safetensors")
    (found,) = ope([run], CONFIG)
    assert [(p["step"], p["seed"]) for p in found["policies"]] == [(100, 0), (100, 7), (300, 0), (300, 7)]
    rows = [row for row in store.read_metrics(run) if "eval/return_mean" in row and row["step"] < 300]
    for policy in found["policies"][:2]:
        own = [row["eval/return_mean"] for row in rows if row["seed"] == policy["seed"]]
        assert policy["score"] == pytest.approx(np.mean(own))
    (group,) = pooled([found, found])
    assert (group["num_runs"], group["num_policies"]) == (2, 4)


def test_without_recorded_densities_the_behaviour_is_cloned_or_the_sentence_says_so(
    tmp_path: Path, without_fits: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    write_data(tmp_path / "toy.hdf5")
    run = write_run(tmp_path / "run", tmp_path / "toy.hdf5")
    assert main(["ope", str(run), "--densities", "recorded"]) == 2
    error = capsys.readouterr().err
    assert "expected the log density of every action in infos/action_log_probs, found none" in error
    assert error.count("\n") == 1
    assert main(["ope", str(run), "--resamples", "5", "--features", "8"]) == 0
    assert "the behaviour is a Gaussian clone, and the weights are estimates" in capsys.readouterr().out


def test_the_command_prints_tables_and_writes_one_file(
    data_path: Path, tmp_path: Path, without_fits: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", data_path)
    words = ["ope", str(run), "--resamples", "5", "--features", "8", "--std", "0.01"]
    assert main([*words, "--out", str(tmp_path / "all" / "ope.json")]) == 0
    printed = capsys.readouterr().out
    assert "with standard deviation 0.01 before the tanh" in printed
    assert "! cannot be trusted, and neither can its interval: the weights leave fewer than 5 effective" in printed
    assert "| WIS, importance weights by whole episodes, weighted |" in printed
    written = json.loads((tmp_path / "all" / "ope.json").read_text())
    assert written["pooled"][0]["estimators"]["wis"]["trusted"] == 0
    assert written["pooled"][0]["estimators"]["model"]["rank_correlation"] == pytest.approx(1.0)
    assert written["pooled"][0]["estimators"]["model"]["regret"] == 0.0
    assert written["provenance"]["command"]
    assert "run_dir" not in written["runs"][0]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--std", "0"], r"std must lie within .* found 0.0"),
        (["--features", "1"], "features must be at least 2, found 1"),
        (["--dataset", "nowhere.hdf5"], "its data cannot be loaded"),
    ],
)
def test_mistakes_are_one_sentence(
    words: list[str], sentence: str, data_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", data_path)
    assert main(["ope", str(run), *words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    with pytest.raises(UserError, match=sentence):
        raise UserError(error)


def test_data_without_a_complete_episode_have_nothing_to_weigh(tmp_path: Path, without_fits: Any) -> None:
    column = np.zeros((6, 1), np.float32)
    arrays = {"observations": column, "actions": column, "rewards": column[:, 0], "next_observations": column}
    flags = {"terminals": np.zeros(6, bool), "timeouts": np.zeros(6, bool)}
    write_dataset(tmp_path / "toy.hdf5", arrays | flags, {})
    run = write_run(tmp_path / "run", tmp_path / "toy.hdf5")
    with pytest.raises(UserError, match="expected at least one complete episode to weigh, found none"):
        ope([run], CONFIG)


def random_layers(seed: int = 0) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    rng = np.random.default_rng(seed)
    sizes = [(3, 16), (16, 4)]
    return tuple(
        (rng.normal(size=size).astype(np.float32), rng.normal(size=size[1]).astype(np.float32)) for size in sizes
    )


def test_the_behaviour_itself_has_the_densities_that_the_collector_records() -> None:
    """Also next to the bound, where the value before the tanh has few digits left."""
    layers, rng = random_layers(), np.random.default_rng(1)
    obs, noise = (rng.standard_normal(shape).astype(np.float32) for shape in ((500, 3), (500, 2)))
    action = squash(layers, obs, noise)
    assert np.mean(np.abs(action) > 0.999) > 0.02
    zeros = jnp.zeros(500)
    rows = Transition(jnp.asarray(obs), jnp.asarray(action), zeros, jnp.asarray(obs), zeros)
    actor = tuple(Dense(jnp.asarray(kernel), jnp.asarray(bias)) for kernel, bias in layers)
    error = np.abs(densities.log_density(actor, rows) - host_log_density(layers, obs, noise))
    distance = 1.0 - np.abs(action).max(axis=1)
    assert error[distance > 1e-3].max() < 0.01
    assert error[distance > 1e-5].max() < 0.1
    assert densities.saturated(rows.action) == pytest.approx(np.mean(np.any(np.abs(action) >= 1.0, axis=1)))
    stiff = actors.policy(densities.with_std(actor, 0.1), rows.obs)
    np.testing.assert_allclose(stiff.log_std, np.log(0.1), rtol=1e-6)
    np.testing.assert_array_equal(stiff.mean, actors.policy(actor, rows.obs).mean)


def test_recorded_densities_are_of_the_stored_actions_units(data_path: Path, tmp_path: Path) -> None:
    """Actions of a torque in [-2, 2]: half as dense there as in [-1, 1]."""
    path = tmp_path / "torque.hdf5"
    shutil.copy(data_path, path)
    with h5py.File(path, "a") as opened:
        file: Any = opened
        file["actions"][:] *= 2.0
    dataset = load_dataset(path, action_bounds=(-2.0, 2.0))
    found = densities.recorded(dataset)
    assert found is not None
    np.testing.assert_allclose(found, np.log(0.5) + np.log(2.0), atol=1e-6)


def test_ranks_and_regret_by_hand() -> None:
    """Scores 1 3 2 4 beside estimates 1 2 4 3: 1 - 6 (0 + 1 + 4 + 1) / (4 * 15) = 0.4, and the third is chosen."""
    names = ("wis", "pdis", "wpdis", "dr", "wdr", "dice", "fqe", "model")
    about = {name: {"interval": None, "effective_episodes": 2.0, "trusted": False} for name in names}
    policies = [
        {"seed": 0, "step": i, "score": score, "policy": str(i), "about": about} | dict.fromkeys(names, value)
        for i, (score, value) in enumerate(zip((1.0, 3.0, 2.0, 4.0), (1.0, 2.0, 4.0, 3.0), strict=True))
    ]
    about_run = {"dataset": "toy", "gamma": 0.9, "metric": "eval/score", "densities": "recorded"}
    found = summed_up([about_run | {"episodes": 7, "saturated": 0.0, "policies": policies}])["estimators"]["dr"]
    assert found["rank_correlation"] == pytest.approx(0.4)
    assert (found["regret"], found["trusted"], found["median_effective_episodes"]) == (2.0, 0, 2.0)
