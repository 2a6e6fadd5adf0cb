"""The zoo: entries made from runs, read back with their hashes checked, and those that are shipped."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import damorl
from damorl.behaviour.host_policy import to_arrays
from damorl.cli import main
from damorl.errors import UserError
from damorl.experiment import zoo, zoo_entry
from damorl.experiment.config import resolve
from damorl.experiment.result import POLICIES
from damorl.record import store
from damorl.record.seal import SEAL
from damorl.world.tasks import TASKS

NAME, TASK = "hopper-medium-expert", TASKS["hopper"]
SCORES = {0: 30.0, 1: 90.0, 2: 60.0}
VALUES = {0: 5.0, 1: 4.0, 2: 7.0}
"""What the judge thinks: it prefers seed 2, the simulator seed 1."""


def write_run(folder: Path, seed: int, scaled: bool = True) -> Path:
    """A finished run of one seed with a random policy."""
    config = resolve("damo", NAME, "smoke", (seed,), {}).as_dict()
    run_dir = folder / f"seed{seed}"
    run_dir.mkdir(parents=True)
    data = {"name": NAME, "sha256": "ab" * 32, "num_transitions": 10, "task": "hopper"}
    data |= {"obs_mean": [0.0] * 11, "obs_std": [1.0] * 11, "action_low": [-1.0] * 3, "action_high": [1.0] * 3}
    policy = {"policy": {"obs_mean": [0.5] * 11, "obs_scale": [2.0] * 11}} if scaled else {}
    updates = config["loop"]["total_updates"]
    result = {"metric": "eval/score", "per_seed": {str(seed): {"last_10_mean": SCORES[seed]}}}
    store.write_json(run_dir / store.CONFIG, {**config, "data": data, **policy}, seal=True)
    store.write_json(run_dir / store.PROVENANCE, {"command": ["damorl"], "versions": {"damorl": "0"}, "git": None})
    store.write_json(run_dir / store.RESULT, result, seal=True)
    store.append_metrics(run_dir, [{"step": updates, "seed": seed, "eval/score": 1.0, "eval/return_mean": 1.0}])
    rng = np.random.default_rng(seed)
    shapes = ((11, 16), (16, 16), (16, 6))
    layers = tuple((rng.normal(0, 0.5, shape).astype(np.float32), np.zeros(shape[1], np.float32)) for shape in shapes)
    save_file(to_arrays(layers, f"{seed}/"), run_dir / POLICIES)
    return run_dir


def judge(run_dirs: Any, settings: Any) -> list[dict[str, Any]]:
    """Stands in for the models that `damorl select` fits; told to judge the last policies alone."""
    assert settings.last_steps == 1
    found = []
    for run_dir in run_dirs:
        config = store.read_json(run_dir / store.CONFIG)
        (seed,), step = config["seeds"], config["loop"]["total_updates"]
        row = {"seed": seed, "step": step, "model_value": VALUES[seed], "model_std": 0.5, "fqe": 1.0}
        about = {"run_dir": str(run_dir), "dataset": NAME, "dataset_sha256": "ab" * 32, "metric": "eval/score"}
        found.append(about | {"settings": {"fqe": {"gamma": 0.99}}, "policies": [row | {"score": SCORES[seed]}]})
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A zoo with one entry, which the library takes for its own; the runs are beside it."""
    monkeypatch.setattr(zoo_entry, "select", judge)
    runs = [write_run(tmp_path / "runs", seed) for seed in (0, 1, 2)]
    assert zoo_entry.collect(runs, tmp_path / "zoo") == [NAME]
    for function in (zoo.entry_names, zoo.entry_paths, zoo.read_card, zoo.read_entry):
        kept = function.__defaults__
        monkeypatch.setattr(function, "__defaults__", (*(kept or ())[:-1], tmp_path / "zoo"))
    return tmp_path / "zoo"


def test_an_entry_is_the_policy_that_the_judge_prefers(folder: Path) -> None:
    policy = damorl.load_policy(f"zoo:{NAME}")
    own = damorl.load_policy(folder.parent / "runs" / "seed2")
    obs = np.random.default_rng(0).normal(0, 1, (50, 11)).astype(np.float32)
    assert np.array_equal(policy(obs), own(obs))
    assert all(map(np.array_equal, policy.distribution(obs), own.distribution(obs)))
    assert (policy.obs_dim, policy.action_dim, policy.name) == (11, 3, f"zoo:{NAME}")
    assert policy.obs_names == TASK.obs_names
    arrays = load_file(folder / f"{NAME}.safetensors")
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.float32)}


def test_its_card_says_where_it_comes_from(folder: Path) -> None:
    card = dict(damorl.load_policy(f"zoo:{NAME}").metadata)
    assert (card["licence"], card["algorithm"], card["preset"], card["seed"]) == ("MIT", "damo", "smoke", 2)
    assert card["dataset"] == {"name": NAME, "sha256": "ab" * 32, "num_transitions": 10}
    assert card["trained"]["command"] == f"damorl train damo --dataset {NAME} --preset smoke --seeds 0 1 2"
    assert card["seeds"]["scores"] == {"0": 30.0, "1": 90.0, "2": 60.0}
    assert card["seeds"]["mean"] == 60.0
    low, high = card["seeds"]["interval"]
    assert 30.0 <= low < 60.0 < high <= 90.0
    assert {seed: row["model_value"] for seed, row in card["chosen"]["estimates"].items()} == {
        str(seed): value for seed, value in VALUES.items()
    }
    assert "need not be the best seed" in card["chosen"]["rule"]
    assert str(folder.parent) not in json.dumps(card)


def test_the_verb_lists_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zoo"]) == 0
    head, line = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["name", "algorithm", "preset"]
    assert line.startswith(f"{NAME}  damo       smoke   60.0 (30.0 to 90.0, 3 seeds)")
    assert line.split()[-4:] == ["60.0", "3", "kB", "MIT"]
    assert main(["zoo", NAME]) == 0
    assert json.loads(capsys.readouterr().out)["seed"] == 2


def test_it_is_scored_like_an_exported_policy(folder: Path) -> None:
    (row,) = damorl.evaluate(f"zoo:{NAME}", episodes=2)
    own = damorl.evaluate(folder.parent / "runs" / "seed2", episodes=2, env="Hopper-v4")
    assert row["return_mean"] == pytest.approx(own[0]["return_mean"])
    (other,) = damorl.evaluate(f"zoo:{NAME}", episodes=2, env="Hopper-v4")
    assert other["return_mean"] == pytest.approx(own[0]["return_mean"])
    with pytest.raises(UserError, match="found seed 1"):
        damorl.load_policy(f"zoo:{NAME}", seed=1)


def test_an_unknown_name_lists_what_there_is(folder: Path) -> None:
    for name in ("hopper-expert", "", "../zoo/hopper-medium-expert"):
        with pytest.raises(UserError, match=f"expected a policy of the zoo.*choose one of {NAME}"):
            damorl.load_policy(f"zoo:{name}")


def change_network(folder: Path) -> None:
    """Another network, sound in itself."""
    other = write_run(folder.parent / "others", 1)
    zoo_entry.write_entry([other], judge([other], zoo_entry.SelectConfig(last_steps=1)), folder.parent / "foreign")
    (folder / f"{NAME}.safetensors").write_bytes((folder.parent / "foreign" / f"{NAME}.safetensors").read_bytes())


def change_card(folder: Path) -> None:
    path = folder / f"{NAME}.json"
    card = json.loads(path.read_text())
    path.write_text(json.dumps({**card, "seeds": {**card["seeds"], "mean": 99.9}}))


def change_kind(folder: Path) -> None:
    path = folder / f"{NAME}.json"
    card = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in card.items() if key != SEAL} | {"name": "another"}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_network, r"safetensors: expected the SHA-256 [0-9a-f]{64} of its card, found [0-9a-f]{64}; install"),
        (change_card, "does not match its hash"),
        (change_kind, "expected the card of hopper-medium-expert, found something else"),
    ],
)
def test_what_does_not_match_its_hash_is_refused(folder: Path, change: Callable[[Path], None], message: str) -> None:
    change(folder)
    with pytest.raises(UserError, match=message):
        damorl.load_policy(f"zoo:{NAME}")


def test_only_whole_settings_are_collected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo_entry, "select", judge)
    runs = [write_run(tmp_path, seed) for seed in (0, 1)]
    with pytest.raises(UserError, match="at least 2 seeds"):
        zoo_entry.collect(runs[:1], tmp_path / "zoo")
    with pytest.raises(UserError, match="each once"):
        zoo_entry.collect([runs[0], runs[0]], tmp_path / "zoo")
    config = store.read_json(runs[1] / store.CONFIG)
    config["loop"]["eval_episodes"] += 1
    store.write_json(runs[1] / store.CONFIG, config)
    with pytest.raises(UserError, match="found 2 settings"):
        zoo_entry.collect(runs, tmp_path / "zoo")
    (runs[1] / store.RESULT).unlink()
    with pytest.raises(UserError, match="expected a finished run"):
        zoo_entry.collect(runs, tmp_path / "zoo")
    assert not (tmp_path / "zoo").exists()


@pytest.mark.parametrize("name", zoo.entry_names())
def test_what_is_shipped_can_be_used(name: str) -> None:
    policy = damorl.load_policy(f"zoo:{name}")
    card = policy.metadata
    std = np.asarray(card["observations"]["obs_std"])
    assert policy(np.zeros((5, policy.obs_dim)) + std).shape == (5, policy.action_dim)
    assert policy.obs_dim == TASKS[card["task"]].obs_dim
    assert (card["licence"], len(card["seeds"]["scores"])) == ("MIT", 3)
    assert str(card["seed"]) in card["seeds"]["scores"]
    assert card["file_bytes"] < 700_000
    assert "/tmp" not in json.dumps(dict(card))
