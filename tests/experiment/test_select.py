"""Selection on a control problem small enough to simulate: `x' = x + 0.3 a + noise`, and standing at 0 is best."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from damorl.cli.select import select_verb
from damorl.core.nets import Dense
from damorl.data.datasets import load_dataset
from damorl.data.store import write_dataset
from damorl.errors import UserError
from damorl.experiment import select as selection
from damorl.experiment.inputs import to_device
from damorl.experiment.select import SelectConfig, select
from damorl.parts.dynamics import DynamicsConfig, init_members
from damorl.parts.fqe import FQEConfig, evaluate_policies
from damorl.record import store

GAMMA, EPISODE, EPISODES = 0.9, 40, 60
SEEDS, STEPS = (0, 7), (100, 200, 300)
GAINS = {(100, 0): 2.0, (100, 7): 0.4, (200, 0): 0.0, (200, 7): -0.3, (300, 0): -1.0, (300, 7): -4.0}
"""Of the policy `a = tanh(gain * x)` kept at (step, seed): from a runaway to a good regulator."""
SETTINGS = SelectConfig(
    FQEConfig(1500, 250, hidden=(32, 32), batch_size=128, tau=0.05, learning_rate=3e-3),
    DynamicsConfig(2, 2, (32, 32), 128, 3e-3, max_batches=1000, epoch_batches=500, patience=100),
    starts=EPISODES,
)


def world(x: np.ndarray, action: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.clip(x + 0.3 * action + 0.02 * rng.standard_normal(x.shape), -3.0, 3.0)


def real_return(gain: float | None, starts: np.ndarray | None = None, gamma: float = 1.0) -> float:
    """Of the policy with that gain, or of the random actions in the data."""
    rng = np.random.default_rng(1)
    x, total = rng.uniform(-2, 2, 200) if starts is None else starts, 0.0
    for step in range(EPISODE):
        total -= gamma**step * float(np.mean(x**2))
        x = world(x, rng.uniform(-1, 1, x.shape) if gain is None else np.tanh(gain * x), rng)
    return total


def write_data(path: Path, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    x, steps = rng.uniform(-2, 2, EPISODES), []
    for _ in range(EPISODE):
        action = rng.uniform(-1, 1, EPISODES)
        following = world(x, action, rng)
        steps.append((x, action, -(x**2), following))
        x = following
    obs, action, reward, next_obs = np.array(steps, np.float32).transpose(1, 2, 0).reshape(4, -1, 1)
    columns = {"observations": obs, "actions": action, "rewards": reward[:, 0], "next_observations": next_obs}
    number = np.arange(len(obs))
    ends = {"terminals": np.zeros(len(obs), bool), "timeouts": number % EPISODE == EPISODE - 1}
    write_dataset(path, columns | ends, {})


def write_policies(path: Path, step: int) -> None:
    path.parent.mkdir(exist_ok=True)
    arrays = {}
    for seed in SEEDS:
        arrays[f"{seed}/kernel0"] = np.array([[GAINS[step, seed], 0.0]], np.float32)
        arrays[f"{seed}/bias0"] = np.zeros(2, np.float32)
    save_file(arrays, path)


def write_run(run_dir: Path, data_path: Path, simulator: bool = True) -> Path:
    """A run directory as training leaves it, with two kept steps and the final one."""
    run_dir.mkdir()
    data = {"name": "toy", "sha256": load_dataset(data_path).sha256, "task": None}
    loop = {"dataset_steps": 1000, "total_updates": STEPS[-1]}
    config = {"dataset": str(data_path), "seeds": list(SEEDS), "loop": loop, "algo_config": {"gamma": GAMMA}}
    store.write_json(run_dir / "config.json", config | {"data": data})
    for step in STEPS[:-1]:
        write_policies(run_dir / "policies" / f"step_{step:09d}.safetensors", step)
    write_policies(run_dir / "policies.safetensors", STEPS[-1])
    store.write_json(run_dir / "result.json", {})
    rows = [{"step": step, "seed": seed, "critic/loss": 1.0} for step in (50, *STEPS) for seed in SEEDS]
    for row in rows:
        if simulator and row["step"] in STEPS:
            row["eval/return_mean"] = real_return(GAINS[row["step"], row["seed"]])
    store.append_metrics(run_dir, rows)
    return run_dir


UNFITTED = init_members(jax.random.key(0), DynamicsConfig(2, 2, hidden=(4,)), 1, 1)


@pytest.fixture(scope="module")
def data_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "toy.hdf5"
    write_data(path)
    return path


@pytest.fixture(scope="module")
def judged(data_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that a selection was made for."""
    run_dir = write_run(tmp_path_factory.mktemp("runs") / "damo-toy", data_path)
    select([run_dir], SETTINGS)
    return run_dir


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The runs that were judged, by a stand-in for the expensive part that returns made-up values."""
    judged: list[Path] = []

    def values(run: selection.Run, *_: Any) -> Any:
        judged.append(run.run_dir)
        count = float(len(run.kept))
        value = np.arange(count)
        return selection.FQEResult(np.where(value == 1.0, np.nan, value), np.ones((3, len(value))), value)

    model = lambda run, *_: selection.ModelValue(np.arange(float(len(run.kept))), np.ones(len(run.kept)))
    monkeypatch.setattr(selection, "fitted_values", values)
    monkeypatch.setattr(selection, "imagined_values", model)
    monkeypatch.setattr(selection.dynamics_fit, "fit_members", lambda *_: (UNFITTED, {"holdout_error": 0.5}))
    return judged


@pytest.mark.slow
def test_both_estimators_rank_policies_of_known_quality(judged: Path) -> None:
    found = json.loads((judged / "selection.json").read_text())
    returns = [real_return(gain) for gain in GAINS.values()]
    assert sorted(returns) == returns  # the gains were listed from worst to best
    assert [p["score"] for p in found["policies"]] == pytest.approx(returns)
    assert found["metric"] == "eval/return_mean"
    assert found["rank_correlation"]["num_policies"] == len(GAINS)
    assert found["rank_correlation"]["fqe"] > 0.8
    assert found["rank_correlation"]["model_value"] > 0.8


@pytest.mark.slow
def test_both_estimate_the_discounted_value(judged: Path, data_path: Path) -> None:
    """Of the regulators, from the data's initial states; what made the data is worth less than half of either."""
    policies = json.loads((judged / "selection.json").read_text())["policies"][-2:]
    starts = load_dataset(data_path).initial_obs()[:, 0]
    exact = [real_return(gain, np.tile(starts, 50), GAMMA) for gain in (-1.0, -4.0)]
    assert real_return(None, np.tile(starts, 50), GAMMA) < 2.0 * exact[0]
    assert [policy["fqe"] for policy in policies] == pytest.approx(exact, rel=0.15)
    assert [policy["model_value"] for policy in policies] == pytest.approx(exact, rel=0.15)


@pytest.mark.slow
def test_time_limits_are_bootstrapped_and_terminals_are_not(tmp_path: Path) -> None:
    """The same episodes that pay 1 per step, cut by a clock or by falls. Shapes are the toy's: already compiled."""
    values, number = {}, np.arange(EPISODES * EPISODE)
    for name in ("timeouts", "terminals"):
        last = {key: (number % EPISODE == EPISODE - 1) & (key == name) for key in ("timeouts", "terminals")}
        column = np.zeros((len(number), 1), np.float32)
        rows = {"observations": column, "actions": column, "rewards": np.ones(len(number), np.float32)}
        write_dataset(tmp_path / f"{name}.hdf5", rows | {"next_observations": column} | last, {})
        data = to_device(load_dataset(tmp_path / f"{name}.hdf5"))
        actors = (Dense(jnp.zeros((6, 1, 2)), jnp.zeros((6, 2))),)
        config = dataclasses.replace(SETTINGS.fqe, gamma=GAMMA)
        values[name] = evaluate_policies(jax.random.key(0), config, actors, data.rows, data.initial_obs).value
    np.testing.assert_allclose(values["timeouts"], 1 / (1 - GAMMA), rtol=0.01)
    np.testing.assert_allclose(values["terminals"], 1 / (1 - GAMMA * (1 - 1 / EPISODE)), rtol=0.05)


@pytest.fixture
def run_dir(data_path: Path, tmp_path: Path, fits: list[Path]) -> Path:
    """A run with a finished selection of made-up values."""
    path = write_run(tmp_path / "run", data_path)
    select([path], SETTINGS)
    assert fits == [path]
    fits.clear()
    return path


def test_the_file_says_what_was_judged_and_how(run_dir: Path) -> None:
    found = json.loads((run_dir / "selection.json").read_text())
    assert [(p["step"], p["seed"]) for p in found["policies"]] == list(GAINS)
    assert found["settings"]["fqe"]["gamma"] == found["settings"]["gamma"] == GAMMA
    assert found["horizon"] == EPISODE  # no task: the longest episode
    assert found["dataset_sha256"] == store.read_json(run_dir / "config.json")["data"]["sha256"]
    assert found["provenance"]["versions"]["jax"] == jax.__version__
    assert np.shape(found["fqe_curve"]) == (len(GAINS), 3)
    assert found["chosen"]["fqe"]["regret"] >= 0.0
    assert not list(run_dir.glob("*.tmp"))


def test_a_finished_selection_is_not_made_again(run_dir: Path, fits: list[Path]) -> None:
    before = (run_dir / "selection.json").read_bytes()
    (again,) = select([run_dir], SETTINGS)
    assert fits == []
    assert (run_dir / "selection.json").read_bytes() == before
    assert again == {"run_dir": str(run_dir), **store.read_json(run_dir / "selection.json")}


def test_force_and_other_settings_make_it_again(run_dir: Path, fits: list[Path]) -> None:
    select([run_dir], SETTINGS, force=True)
    assert len(fits) == 1
    (other,) = select([run_dir], dataclasses.replace(SETTINGS, starts=5, last_steps=1, gamma=0.5))
    assert len(fits) == 2
    assert [(p["step"], p["seed"]) for p in other["policies"]] == [(300, 0), (300, 7)]
    assert other["settings"]["fqe"]["gamma"] == 0.5


def test_other_kept_policies_or_a_damaged_file_make_it_again(run_dir: Path, fits: list[Path]) -> None:
    (run_dir / "policies" / "step_000000100.safetensors").unlink()
    (again,) = select([run_dir], SETTINGS)
    assert (len(fits), len(again["policies"])) == (1, 4)
    (run_dir / "selection.json").write_text('{"policies": [')
    select([run_dir], SETTINGS)
    assert len(fits) == 2
    assert json.loads((run_dir / "selection.json").read_text())["holdout_error"] == 0.5


def test_a_network_that_was_kept_twice_counts_once(data_path: Path, tmp_path: Path, fits: list[Path]) -> None:
    run = write_run(tmp_path / "run", data_path)
    shutil.copy(run / "policies" / "step_000000100.safetensors", run / "policies" / "step_000000200.safetensors")
    (found,) = select([run], SETTINGS)
    assert len({policy["policy"] for policy in found["policies"]}) == found["rank_correlation"]["num_policies"] == 4
    earlier = [{name: value for name, value in row.items() if name != "policy"} for row in found["policies"]]
    store.write_json(run / "selection.json", store.read_json(run / "selection.json") | {"policies": earlier})
    select([run], SETTINGS)
    assert len(fits) == 2  # a version that did not tell policies apart had made it


def test_a_diverged_estimate_is_stored_as_missing(run_dir: Path) -> None:
    found = json.loads((run_dir / "selection.json").read_text())
    assert [p["fqe"] for p in found["policies"]] == [0.0, None, 2.0, 3.0, 4.0, 5.0]


def test_runs_on_the_same_data_share_the_model(data_path: Path, tmp_path: Path, fits: list[Path], monkeypatch) -> None:
    models: list[int] = []
    fit = lambda *_: models.append(1) or (UNFITTED, {"holdout_error": 0.5})
    monkeypatch.setattr(selection.dynamics_fit, "fit_members", fit)
    runs = [write_run(tmp_path / name, data_path) for name in ("a", "b")]
    found = select([runs[1], runs[0]], SETTINGS)
    assert [entry["run_dir"] for entry in found] == [str(runs[1]), str(runs[0])]
    assert (sorted(fits), models) == (runs, [1])


def test_without_a_simulator_scores_and_correlations_are_missing(
    data_path: Path, tmp_path: Path, fits: list[Path]
) -> None:
    (found,) = select([write_run(tmp_path / "run", data_path, simulator=False)], SETTINGS)
    assert found["metric"] is None
    assert {p["score"] for p in found["policies"]} == {None}
    assert found["rank_correlation"] == {"fqe": None, "model_value": None, "num_policies": 0}
    assert found["chosen"]["fqe"] == {"seed": 7, "step": 300, "score": None, "regret": None}
    assert found["chosen"]["best"] is None


def test_an_unfinished_run_offers_what_it_kept(data_path: Path, tmp_path: Path, fits: list[Path]) -> None:
    run = write_run(tmp_path / "run", data_path)
    (run / "result.json").unlink()
    (found,) = select([run], SETTINGS)
    assert {p["step"] for p in found["policies"]} == {100, 200}
    for path in (run / "policies").iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"expected kept policies to choose from, found none.*--resume"):
        select([run], SETTINGS)


def test_other_data_than_the_runs_are_refused(data_path: Path, tmp_path: Path, fits: list[Path]) -> None:
    run = write_run(tmp_path / "run", data_path)
    write_data(tmp_path / "toy.hdf5", seed=1)
    with pytest.raises(UserError, match=r"expected the data that it was trained on, with sha256 \w{12}, found \w{12}"):
        select([run], SETTINGS, dataset=tmp_path / "toy.hdf5")
    config = store.read_json(run / "config.json")
    store.write_json(run / "config.json", config | {"dataset": str(tmp_path / "moved.hdf5")})
    with pytest.raises(UserError, match=r"moved.hdf5.*say where it is with --dataset"):
        select([run], SETTINGS)
    assert not (run / "selection.json").exists()
    (found,) = select([run], SETTINGS, dataset=data_path)
    assert len(found["policies"]) == len(GAINS)


def test_sizes_below_one_are_refused() -> None:
    with pytest.raises(UserError, match="starts must be at least 1, found 0"):
        SelectConfig(starts=0)


def test_the_command_prints_a_table_or_json(
    data_path: Path, tmp_path: Path, fits: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [str(write_run(tmp_path / name, data_path)) for name in ("a", "b")]
    words = [*runs, "--fqe-updates", "3000", "--fqe-hidden", "16", "--model-batches", "700", "--horizon", "25"]
    assert select_verb([*words, "--starts", "4", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    settings = printed["runs"][0]["settings"]
    assert (settings["fqe"]["num_updates"], settings["fqe"]["hidden"]) == (3000, [16])
    assert (settings["dynamics"]["max_batches"], settings["starts"], printed["runs"][0]["horizon"]) == (700, 4, 25)
    assert printed["pooled"][0]["num_policies"] == len(GAINS)  # both runs kept the same networks
    assert select_verb([*words, "--starts", "4"]) == 0
    table = capsys.readouterr().out
    assert len(fits) == 2  # the second call found the first one's files
    assert "model chooses seed 7 at step 300" in table
    assert "2 runs on toy, discount 0.9" in table
