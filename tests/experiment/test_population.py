"""A population: every member is the run it would be alone, in one compiled program, and each artefact knows it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

import damorl
from damorl.algos import ALGORITHMS
from damorl.cli import main
from damorl.data.datasets import Dataset
from damorl.errors import UserError
from damorl.experiment import inputs
from damorl.experiment import train as loop
from damorl.experiment.command import train_command
from damorl.experiment.config import RunConfig, defaults, replace, run_config_from_dict
from damorl.experiment.population import member_settings, parse_population, with_population
from damorl.experiment.progress import Progress
from damorl.parts import dynamics_fit
from damorl.record import checkpoint, store
from damorl.record.members import find_member
from damorl.report.compare import compare
from damorl.report.stores import read_runs
from tests.interrupting import cut_off_after

VARIED = {
    "damo": {"divergence_weight": (0.3, 3.0), "actor_lr": (1e-4, 1e-3)},
    "mopo": {"penalty_coefficient": (0.0, 2.5), "actor_lr": (1e-4, 1e-3)},
    "td3bc": {"value_weight": (0.5, 5.0), "critic_lr": (1e-4, 1e-3)},
}
CLOCK = {"total_updates": 20, "refresh_interval": 10, "eval_interval": 10, "checkpoint_interval": 10}
WEIGHTS = {"divergence_weight": (0.3, 1.0)}


def smoke(algo: str, data_path: Path, seeds: tuple[int, ...] = (3,), **changes: Any) -> RunConfig:
    run_loop, settings = defaults(algo, "smoke", str(data_path))
    run_loop = dataclasses.replace(run_loop, **CLOCK, eval_episodes=1)
    small = {"dynamics.max_batches": 4, "dynamics.epoch_batches": 2} if hasattr(settings, "dynamics") else {}
    return RunConfig(algo, str(data_path), None, "smoke", seeds, run_loop, replace(settings, small | changes))


def two_epochs(config: RunConfig, dataset: Dataset) -> tuple[dict[str, np.ndarray], int]:
    """The actors after two epochs, and how often the epoch was compiled."""
    problem, data = inputs.make_problem(dataset), inputs.to_device(dataset)
    state = loop.init_state(config, problem, data)
    state = loop.prepare_states(config, problem, data, state, Progress(config, quiet=True))
    epoch, keys = loop.make_epoch(config, problem), loop.member_keys(config)
    for number in range(2):
        state, _, _ = epoch(state, data, keys, number)
    named = checkpoint.named_leaves(config.algorithm.actor(state))
    return {name: np.asarray(leaf) for name, leaf in named.items()}, epoch._cache_size()  # type: ignore[attr-defined]


@pytest.mark.parametrize("algo", ["td3bc", *(pytest.param(name, marks=pytest.mark.slow) for name in ("damo", "mopo"))])
def test_each_member_equals_its_run_alone_in_one_program(algo: str, data_path: Path, dataset: Dataset) -> None:
    base = smoke(algo, data_path)
    config = with_population(base, VARIED[algo])
    together, compiled = two_epochs(config, dataset)
    assert compiled == 1
    for index in (0, len(config.members) - 1):
        own = dataclasses.replace(base, algo_config=member_settings(config, config.members[index]))
        alone, _ = two_epochs(own, dataset)
        for name, leaf in alone.items():
            np.testing.assert_allclose(together[name][index], leaf[0], rtol=1e-3, atol=1e-4, err_msg=name)
    assert any(np.abs(leaf[0] - leaf[-1]).max() > 1e-4 for leaf in together.values())  # the values matter


@pytest.mark.parametrize("algo", sorted(name for name in ALGORITHMS if ALGORITHMS[name].traced))
def test_every_setting_that_may_vary_can_be_traced(algo: str, data_path: Path, dataset: Dataset) -> None:
    config = smoke(algo, data_path)
    population = {name: (0.25,) for name in config.algorithm.traced}
    config = with_population(config, population)
    problem, data = inputs.make_problem(dataset), inputs.to_device(dataset)
    state = jax.eval_shape(lambda: loop.init_state(config, problem, data))
    jax.eval_shape(loop.make_epoch(config, problem), state, data, loop.member_keys(config), 0)


@pytest.mark.parametrize(
    ("varied", "expected"),
    [
        ({"hidden": (1, 2)}, "choose among divergence_weight, actor_divergence_weight"),
        ({"divergence_wait": (1.0,)}, "found 'divergence_wait'"),
        ({"gamma": (0.9, 0.99)}, "found 'gamma'"),
        ({"divergence_weight": (1.0, 1)}, "give each once"),
        ({"divergence_weight": ()}, "give each once"),
        ({"divergence_weight": (1.0, 0.0)}, "must be above 0"),
        ({"divergence_weight": (1.0, -1.0)}, "divergence_weight"),
        ({"log_ratio_floor": ("none", 0.0)}, "must be numbers"),
        ({"divergence_weight": (float("nan"),)}, "finite"),
    ],
)
def test_what_cannot_vary_is_refused(varied: dict[str, Any], expected: str, data_path: Path) -> None:
    with pytest.raises(UserError, match=expected):
        with_population(smoke("damo", data_path), varied)


@pytest.mark.parametrize("words", [["divergence_weight"], ["divergence_weight=a"], ["tau=1", "tau=2"]])
def test_words_that_say_no_population_are_refused(words: list[str]) -> None:
    with pytest.raises(UserError, match="--population"):
        parse_population(words)


def test_it_is_written_down_and_other_runs_say_nothing_of_it(data_path: Path) -> None:
    base = smoke("damo", data_path)
    assert "population" not in base.as_dict()
    config = with_population(base, VARIED["damo"])
    stored = json.loads(json.dumps(config.as_dict()))
    assert run_config_from_dict(stored) == config
    command = train_command(config)
    assert command[command.index("--population") + 1] == "divergence_weight=0.3,3.0"
    assert "--divergence-weight" not in command
    other = dataclasses.replace(base, algo_config=replace(base.algo_config, {"divergence_weight": 2.0}))
    assert with_population(other, VARIED["damo"]).digest() == config.digest()  # what it overrides does not matter


def test_members_are_found_and_others_refused(data_path: Path) -> None:
    config = with_population(smoke("damo", data_path, (3, 5)), VARIED["damo"]).as_dict()
    member = find_member(config, 5, 2, "here")
    assert member.values == (("divergence_weight", 3.0), ("actor_lr", 1e-4))
    assert (member.seed, member.key) == (5, "setting2/5")
    with pytest.raises(UserError, match=r"one of the settings 0: divergence_weight=0\.3, actor_lr=0\.0001; 1"):
        find_member(config, 5, 4, "here")
    with pytest.raises(UserError, match="no population"):
        find_member(smoke("damo", data_path).as_dict(), 3, 0, "here")


@pytest.fixture(scope="module")
def finished(data_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A population of two settings with two seeds, from the command line."""
    return from_shell(data_path, tmp_path_factory.mktemp("population"))


def from_shell(data_path: Path, out: Path, *more: str) -> Path:
    words = [word for name, value in CLOCK.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    words += ["--eval-episodes", "1", "--dynamics.max-batches", "4", "--dynamics.epoch-batches", "2"]
    words += ["--keep-policy-every", "1", "--seeds", "3", "5", "--population", "divergence-weight=0.3,1"]
    argv = ["train", "damo", "--dataset", str(data_path), "--preset", "smoke", *words, "--out", str(out), "--json"]
    assert main([*argv, *more]) == 0
    (run_dir,) = out.iterdir()
    return run_dir


def test_the_dynamics_are_fitted_once_per_seed(
    data_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits: list[int] = []
    fit = dynamics_fit.fit_members
    monkeypatch.setattr(dynamics_fit, "fit_members", lambda *a, **k: (fits.append(1), fit(*a, **k))[1])
    config = with_population(smoke("damo", data_path, (3, 5)), WEIGHTS)
    problem, data = inputs.make_problem(dataset), inputs.to_device(dataset)
    state = loop.prepare_states(
        config, problem, data, loop.init_state(config, problem, data), Progress(config, quiet=True)
    )
    assert len(fits) == 2
    for leaf in jax.tree.leaves(state.model):
        np.testing.assert_array_equal(leaf[0], leaf[2])  # both settings of the first seed


def test_it_resumes_bit_for_bit(
    finished: Path, data_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with cut_off_after(10, monkeypatch):
        from_shell(data_path, tmp_path)
    halves = from_shell(data_path, tmp_path, "--resume")
    arrays, expected = (load_file(checkpoint.checkpoints(run / "checkpoint")[-1]) for run in (halves, finished))
    assert arrays.keys() == expected.keys()
    for name, array in arrays.items():
        assert array.tobytes() == expected[name].tobytes(), name


def test_the_run_directory_tells_its_members_apart(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = store.read_metrics(finished)
    assert [(row["setting"], row["seed"]) for row in rows] == 2 * [(0, 3), (0, 5), (1, 3), (1, 5)]
    assert (finished / "tb" / "divergence_weight=0.3" / "seed_3").is_dir()
    assert (finished / "curves.png").exists()
    result = store.read_json(finished / "result.json")
    last = {(row["setting"], str(row["seed"])): row["eval/score"] for row in rows if row["step"] == 20}
    for number, entry in enumerate(result["per_setting"]):
        assert entry["values"] == {"divergence_weight": (0.3, 1.0)[number]}
        assert {seed: found["last"] for seed, found in entry["per_seed"].items()} == {
            seed: last[number, seed] for seed in ("3", "5")
        }
    obs = np.zeros((1, 11), np.float32)
    policies = [damorl.load_policy(finished, seed=5, setting=number)(obs) for number in (0, 1)]
    assert np.any(policies[0] != policies[1])
    capsys.readouterr()
    assert main(["eval", str(finished), "--episodes", "1", "--json"]) == 0
    scored = json.loads(capsys.readouterr().out)
    assert [(row["setting"], row["seed"]) for row in scored] == [(0, 3), (0, 5), (1, 3), (1, 5)]
    assert main(["eval", str(finished), "--episodes", "1"]) == 0
    assert "setting 1: divergence_weight=1   seed 5" in capsys.readouterr().out


def test_a_report_shows_each_setting_as_a_method(finished: Path, tmp_path: Path) -> None:
    comparison = compare(read_runs([finished]))
    labels = [method.label for method in comparison.methods]
    assert labels == ["damo (divergence_weight=0.3)", "damo (divergence_weight=1)"]
    rows = store.read_metrics(finished)
    for number, result in enumerate(comparison.results):
        own = [row["eval/score"] for row in rows if row["setting"] == number]
        assert result.state == "finished"
        assert len(result.counted) == 2
        assert float(result.scores.mean()) == pytest.approx(np.mean(own))
    assert main(["report", str(finished), "--out", str(tmp_path / "report.html"), "--json"]) == 0
    assert "divergence_weight=0.3" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_one_member_is_exported(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["export", str(finished), "--format", "jax", "--setting", "1", "--seed", "5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["path"].endswith("setting1-seed5-step20.jaxpolicy")
    assert found["card"]["settings"] == {"divergence_weight": 1.0}
    assert main(["export", str(finished), "--format", "jax", "--setting", "2"]) == 2


def test_select_names_the_setting(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--fqe-updates", "1000", "--fqe-hidden", "8", "--model-batches", "4", "--model-hidden", "8"]
    capsys.readouterr()
    assert (
        main(["select", str(finished), *small, "--horizon", "3", "--starts", "5", "--last-steps", "1", "--json"]) == 0
    )
    found = json.loads(capsys.readouterr().out)
    policies = found["runs"][0]["policies"]
    assert [(item["setting"], item["seed"], item["step"]) for item in policies] == [
        (0, 3, 20),
        (0, 5, 20),
        (1, 3, 20),
        (1, 5, 20),
    ]
    assert found["choices"][0]["settings"] == 2
    assert "divergence_weight=" in found["choices"][0]["setting"]
    assert found["runs"][0]["chosen"]["fqe"]["setting"] in (0, 1)
