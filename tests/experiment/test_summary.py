"""The summary of a store: complete, with variants by what they change."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from damorl.cli import main
from damorl.errors import UserError
from damorl.experiment.config import RunConfig, resolve
from damorl.experiment.summary import summary, variant_of
from damorl.record import store


def run(out: Path, config: RunConfig, scores: dict[int, float], sha: str = "ab") -> Path:
    run_dir = out / config.name()
    run_dir.mkdir(parents=True)
    data = {"name": config.dataset, "sha256": sha}
    store.write_json(run_dir / store.CONFIG, config.as_dict() | {"data": data})
    total = config.loop.total_updates
    rows = [
        {"step": step, "seed": seed, "eval/score": score, "eval/return_mean": score}
        for step in (total // 2, total)
        for seed, score in scores.items()
    ]
    store.append_metrics(run_dir, rows)
    return run_dir


def setting(algo: str = "bc", dataset: str = "hopper-medium", seeds: tuple[int, ...] = (0, 1), **changes) -> RunConfig:
    return resolve(algo, dataset, "smoke", seeds, changes)


def test_entries_are_complete_and_unfinished_ones_are_empty(tmp_path: Path) -> None:
    run(tmp_path, setting(seeds=(1,)), {1: 20.0})
    run(tmp_path, setting(seeds=(0,)), {0: 10.0})
    run(tmp_path, setting("td3bc"), {0: 1.0})  # its seed 1 is not there
    run(tmp_path, setting(dataset="walker2d-medium", hidden=(8, 8)), {0: 3.0, 1: 4.0})
    found = summary([tmp_path])
    table = {(e["dataset"], e["algorithm"], e["variant"]): (e["seeds"], e["scores"]) for e in found}
    assert table == {
        ("hopper-medium", "bc", ""): ([0, 1], [10.0, 20.0]),
        ("hopper-medium", "td3bc", ""): ([0, 1], []),
        ("walker2d-medium", "bc", ""): ([0, 1], []),
        ("walker2d-medium", "bc", "hidden=[8,8]"): ([0, 1], [3.0, 4.0]),
        ("walker2d-medium", "td3bc", ""): ([0, 1], []),
    }
    assert {entry["preset"] for entry in found} == {"smoke"}
    assert all("reference_scores" not in entry for entry in found)


def test_a_variant_is_what_differs_from_the_preset_not_from_the_paper() -> None:
    stored = lambda config: json.loads(json.dumps(store.plain(config.as_dict())))
    assert variant_of(stored(setting("damo"))) == ""
    changes: dict[str, Any] = {"dynamics.num_elites": 2, "checkpoint_interval": 200}
    changed = setting("damo", actor_objective="sac", **changes)
    assert set(variant_of(stored(changed)).split(", ")) == {"actor_objective=sac", "dynamics.num_elites=2"}
    older = stored(setting("damo"))
    del older["algo_config"]["actor_objective"]
    assert variant_of(older) == ""


def test_a_reference_adds_its_scores_where_it_has_them(tmp_path: Path) -> None:
    for place, scores in (("new", {0: 1.0, 1: 2.0}), ("old", {0: 3.0, 1: 4.0})):
        run(tmp_path / place, setting(), scores)
    run(tmp_path / "new", setting("td3bc"), {0: 0.0, 1: 0.0})
    first, second = summary([tmp_path / "new"], [tmp_path / "old"])
    assert (first["algorithm"], first["scores"], first["reference_scores"]) == ("bc", [1.0, 2.0], [3.0, 4.0])
    assert "reference_scores" not in second


def test_what_starts_from_a_clone_stands_beside_cloning_of_the_same_share(tmp_path: Path) -> None:
    run(tmp_path, setting(), {0: 1.0, 1: 2.0})
    run(tmp_path, setting(reference_share=0.1), {0: 3.0, 1: 4.0})
    run(tmp_path, setting("mopo", cloning_updates=10, reference_share=0.1), {0: 5.0, 1: 6.0})
    run(tmp_path, setting("sac", cloning_updates=10, reference_share=0.2), {0: 5.0, 1: 6.0})
    run(tmp_path, setting("td3bc"), {0: 7.0, 1: 8.0})
    found = {entry["algorithm"]: entry.get("reference_scores") for entry in summary([tmp_path]) if entry["scores"]}
    assert found == {"bc": None, "mopo": [3.0, 4.0], "sac": None, "td3bc": None}


def test_one_name_for_two_files_is_refused(tmp_path: Path) -> None:
    run(tmp_path, setting(), {0: 1.0, 1: 2.0})
    run(tmp_path, setting("td3bc"), {0: 1.0, 1: 2.0}, sha="cd")
    with pytest.raises(UserError, match="expected hopper-medium to be one file, found sha256 ab and cd"):
        summary([tmp_path])


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path / "s", dataclasses.replace(setting(), seeds=(5,)), {5: 1.5})
    out = tmp_path / "summary.json"
    assert main(["leaderboard", "summary", str(tmp_path / "s"), "--out", str(out)]) == 0
    assert "1 entries, 0 without scores" in capsys.readouterr().out
    assert json.loads(out.read_text()) == [
        {"preset": "smoke", "dataset": "hopper-medium", "algorithm": "bc", "variant": "", "seeds": [5], "scores": [1.5]}
    ]
    assert main(["leaderboard", "summary", str(tmp_path / "nowhere"), "--out", str(out)]) == 2
