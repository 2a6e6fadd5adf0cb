"""`damorl data ...`: what it prints, where it draws, and how it goes on after a failure."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from damorl.cli import main
from damorl.cli.card import card_lines
from damorl.data.card import summary
from damorl.data.datasets import cache_dir, dataset_path, load_dataset, write_dataset


def store(path: Path, num_rows: int = 20, obs_dim: int = 11, action_dim: int = 3) -> Path:
    """A sound data set: an episode that fell at row 7, one that was cut at row 15, and an unfinished one."""
    rng = np.random.default_rng(0)
    states, rows = rng.normal(size=(num_rows + 1, obs_dim)), np.arange(num_rows)
    arrays = {
        "observations": states[:-1],
        "actions": rng.uniform(-0.9, 0.9, (num_rows, action_dim)),
        "rewards": np.ones(num_rows),
        "next_observations": states[1:],
        "terminals": rows == 7,
        "timeouts": rows == 15,
    }
    write_dataset(path, arrays, {"recorded_by": "Ada", "notes": "x" * 100})
    return path


def words(text: str) -> dict[str, str]:
    """The lines of a card by what they begin with."""
    return {line[:18].strip(): " ".join(line[18:].split()) for line in text.splitlines()}


def test_info_prints_the_card_and_draws_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, picture = store(tmp_path / "hopper-few.hdf5"), tmp_path / "new" / "card.png"
    assert main(["data", "info", str(path), "--picture", str(picture)]) == 0
    lines = words(capsys.readouterr().out)
    assert lines["file"] == str(path)
    assert lines["task"] == "hopper"
    assert lines["stored as"] == (
        "float32: observations, actions, rewards, next_observations; bool: terminals, timeouts"
    )
    assert lines["not finite"] == "0 rows"
    assert lines["transitions"] == "20 of 11-d states and 3-d actions"
    assert lines["episodes"] == "2 complete, 1 incomplete"
    assert lines["ended by"] == "1 terminals, 1 time limits or cuts"
    assert lines["duplicates"] == "0.00% of the rows repeat another one"
    assert lines["episode length"] == lines["return"] == "8.00 0.00 8.00 8.00 8.00 8.00 8.00"
    assert lines["normalised score"] == "0.87 0.00 0.87 0.87 0.87 0.87 0.87"  # (8 + 20.27) / 32.55
    assert lines["reward"] == "1.00 0.00 1.00 1.00 1.00 1.00 1.00"
    assert lines["recorded_by"] == "Ada"
    assert lines["with --json"] == "notes"
    assert lines["picture"] == str(picture)
    assert picture.read_bytes()[:4] == b"\x89PNG"


def test_info_speaks_json_and_draws_into_the_cache(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = store(tmp_path / "mine.hdf5", obs_dim=2)
    assert main(["data", "info", str(path), "--json"]) == 0
    card = json.loads(capsys.readouterr().out)
    picture = Path(card.pop("picture"))
    assert card == json.loads(json.dumps(summary(load_dataset(path))))
    assert picture == cache_dir() / "cards" / f"mine-{card['sha256'][:8]}.png"
    assert picture.exists()


def test_the_printed_card_says_what_is_unknown_and_stays_narrow(tmp_path: Path) -> None:
    card = summary(load_dataset(store(tmp_path / "mine.hdf5", num_rows=6, action_dim=40)))
    lines = list(card_lines({**card, "path": None, "reward": {**card["reward"], "max": 1e9, "min": 1e-5}}))
    told = words("\n".join(lines))
    assert told["task"] == "unknown"
    assert told["file"] == "none"
    assert told["return"] == told["normalised score"] == "unknown"
    assert told["reward"] == "1.00 0.00 1e-05 1.00 1.00 1.00 1e+09"
    assert told["at the bounds"] == "0.0% of the actions; most in dimension 0: 0.0%"
    assert max(map(len, lines)) <= 104


@pytest.mark.parametrize("json_flag", [[], ["--json"]])
def test_info_on_a_bad_file_says_what_check_says(
    json_flag: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = store(tmp_path / "walker2d-wrong.hdf5")
    said = []
    for verb in ("check", "info"):
        assert main(["data", verb, str(path), *json_flag]) == 2
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
    assert "expected 17 and 6 columns as in task walker2d" in said[0]


def test_another_build_of_a_built_in_set_is_not_taken_for_the_one_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    store(dataset_path("hopper-medium"))
    assert main(["data", "info", "hopper-medium", "--steps", "7", "--no-make"]) == 2
    assert "data make hopper-medium --steps 7" in capsys.readouterr().err
    dataset_path("hopper-medium").unlink()


def test_make_all_goes_on_after_a_failure_and_skips_what_is_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("damorl.world.tasks.DATASET_NAMES", ("pendulum-medium", "hopper-random", "walker2d-random"))
    argv = ["data", "make", "--all", "--steps", "30"]
    assert main([*argv, "--json"]) == 2
    rows = json.loads(capsys.readouterr().out)
    assert [row["status"] for row in rows] == ["failed", "made", "made"]
    assert [row["error"] is None for row in rows] == [False, True, True]
    assert "pendulum" in rows[0]["error"]
    assert load_dataset("walker2d-random", num_steps=30).num_transitions == 30
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out.splitlines()[1:] == [f"{name:<42} was there" for name in ("hopper-random", "walker2d-random")]
    assert [line for line in captured.err.splitlines() if line.startswith("[")] == [
        "[1/3] pendulum-medium",
        "[2/3] hopper-random",
        "[3/3] walker2d-random",
    ]


def test_make_all_succeeds_when_every_set_is_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("damorl.world.tasks.DATASET_NAMES", ("hopper-random",))
    assert main(["data", "make", "--all", "--steps", "30", "--seed", "5"]) == 0
    assert capsys.readouterr().out.split() == ["hopper-random", "made"]


@pytest.mark.parametrize("argv", [["make"], ["make", "hopper-medium", "--all"], ["download"]])
def test_what_is_meant_must_be_said(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", *argv]) == 2
    assert f"data {argv[0]}: expected" in capsys.readouterr().err


COLUMNS = ["--columns", "observations=angle,speed", "actions=torque", "rewards=r", "episodes=try"]


def test_a_table_is_read_by_the_names_of_its_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "log.csv"
    rows = [f"{row},{row * row},{(-2.0, 1.0)[row % 2]},1,0,{row // 5}" for row in range(10)]
    path.write_text("\n".join(["angle,speed,torque,r,terminal,try", *rows, ""]))
    argv = [str(path), *COLUMNS, "--action-bounds", "-2", "2"]
    assert main(["data", "info", *argv, "--json"]) == 0
    card = json.loads(capsys.readouterr().out)
    assert (card["obs_dim"], card["action_dim"], card["transitions"]) == (2, 1, 8)  # of 5 states 4 are followed by one
    assert (card["complete_episodes"], card["return"]["mean"]) == (1, 4.0)
    assert card["action_saturation"] == 0.5
    assert main(["data", "check", *argv, "--json"]) == 0
    assert [problem["severity"] for problem in json.loads(capsys.readouterr().out)][:1] == ["warning"]
    assert main(["data", "check", str(path), "--action-bounds", "-2", "2"]) == 2
    assert "expected this array, found only angle" in capsys.readouterr().out


@pytest.mark.parametrize("column", ["observations", "=angle", "observations=", "rewards=s"])
def test_a_column_that_is_no_pair_is_refused(column: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = store(tmp_path / "mine.hdf5")
    assert main(["data", "info", str(path), "--columns", "rewards=r", column]) == 2
    assert f"found '{column}'" in capsys.readouterr().err


def test_the_list_has_what_is_built_in_and_what_was_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DAMORL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path))
    made = dataset_path("walker2d-medium")
    store(made, obs_dim=17, action_dim=6)
    theirs = store(tmp_path / "hopper_medium-v2.hdf5")
    assert main(["data", "list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert [name for name, row in rows.items() if row.get("made")] == ["walker2d-medium"]
    assert [row for row in rows.values() if "made" not in row] == [
        {"name": "hopper-medium-v2", "path": str(theirs), "downloaded": True}
    ]
    assert main(["data", "list"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["walker2d-medium"] == str(made)
    assert lines["walker2d-random"] == "damorl data make walker2d-random"
    assert lines["hopper-medium-v2"] == str(theirs)


def test_what_is_exported_to_minari_has_the_same_hash_when_it_is_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    path = tmp_path / "hopper-walk.npz"
    rng = np.random.default_rng(0)
    states, ends = rng.normal(size=(21, 11)), np.arange(20) % 10 == 9
    np.savez(
        path,
        obs=states[:-1],
        action=rng.uniform(-1, 1, (20, 3)),
        reward=np.ones(20),
        next_obs=states[1:],
        terminal=np.zeros(20),
        timeout=ends,
    )
    assert main(["data", "export", str(path), "minari", "lab/walk-v0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["path"] == str(tmp_path / "minari" / "lab" / "walk-v0")
    hashes = []
    for source in (str(path), "lab/walk-v0"):
        assert main(["data", "info", source, "--json"]) == 0
        card = json.loads(capsys.readouterr().out)
        hashes.append(card["sha256"])
        assert Path(card["picture"]).parent == cache_dir() / "cards"
    assert hashes[0] == hashes[1]
    assert main(["data", "export", str(path), "minari", "lab/walk-v0"]) == 2  # the id is taken
