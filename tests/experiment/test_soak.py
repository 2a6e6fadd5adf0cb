"""The short forms of `make soak`: kills, full disks, a clock that runs backwards, memory, two machines."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.soak import disks, fingerprint, same, updates
from benchmarks.soak.calls import Call, full_disk, watching
from benchmarks.soak.kills import draw
from benchmarks.soak.life import Seen
from damorl.errors import UserError

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
ROOT = Path(__file__).resolve().parents[2]


def soak(out: Path, *words: str) -> dict[str, Any]:
    """The report of `python -m benchmarks.soak WORDS`."""
    command = [sys.executable, "-m", "benchmarks.soak", "--out", str(out), *words]
    found = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert out.exists(), found.stderr
    return json.loads(out.read_text())


def test_a_run_that_is_killed_at_random_ends_in_the_same_bits(tmp_path: Path) -> None:
    report = soak(tmp_path / "soak.json", "--kills", "2", "--algo", "bc", "--short")
    part = report["parts"]["kills"]
    assert part["faults"] == []
    assert part["kills"] == 2
    assert part["left_temporary_files"] == {}
    assert report["command"][3:] == ["--kills", "2", "--algo", "bc", "--short"]
    assert report["git"] is None or len(report["git"]["revision"]) == 40


@pytest.mark.slow
def test_kills_in_every_phase_with_a_model_in_a_sweep_and_in_a_make(tmp_path: Path) -> None:
    part = soak(tmp_path / "soak.json", "--kills", "24")["parts"]["kills"]
    assert part["faults"] == []
    assert part["left_temporary_files"] == {}
    assert part["by_phase"].keys() == {"begin", "fit", "checkpoint", "train", "end", "make", "sweep"}


def test_a_full_disk_is_one_sentence_and_nothing_is_lost(hopper_toy: Path, tmp_path: Path) -> None:
    report = disks.soak("bc", hopper_toy, tmp_path, rooms=(None,), tmpfs=False, short=True)
    assert report["faults"] == []
    assert report["writes"] > 40
    assert report["exit_codes"].keys() <= {"0", "2"}
    assert report["exit_codes"]["2"] >= report["writes"] - 2  # who holds the lock need not be noted


@pytest.mark.slow
def test_full_in_every_way(hopper_toy: Path, tmp_path: Path) -> None:
    assert disks.soak("bc", hopper_toy, tmp_path)["faults"] == []


@pytest.mark.slow
def test_full_with_a_model(hopper_toy: Path, tmp_path: Path) -> None:
    assert disks.soak("mopo", hopper_toy, tmp_path, rooms=(None,), tmpfs=False, short=True)["faults"] == []


@pytest.mark.slow
def test_a_clock_that_runs_backwards_changes_nothing(tmp_path: Path) -> None:
    assert soak(tmp_path / "soak.json", "--clock")["parts"]["clock"]["faults"] == []


@pytest.mark.slow
def test_memory_stays_what_it_is(hopper_toy: Path) -> None:
    report = updates.soak(300_000, "bc", hopper_toy)
    assert report["faults"] == []
    assert report["samples"] == 300


def test_calls_are_told_with_what_they_would_write(tmp_path: Path) -> None:
    calls, inside = list[Call](), tmp_path / "inside"
    with watching(inside, calls.append):
        inside.mkdir()
        (tmp_path / "outside").write_text("x")
        (inside / "a").write_text("x")
        (inside / "a").read_text()
        os.replace(inside / "a", inside / "b")
        (inside / "b").unlink()
        shutil.rmtree(inside)
    (tmp_path / "later").mkdir()
    told = [(call.kind, call.path.name) for call in calls]
    assert told == [("open", "a"), ("rename", "b"), ("remove", "b")]


def test_a_full_disk_refuses_or_cuts_off(tmp_path: Path) -> None:
    path, calls = tmp_path / "file", list[Call]()
    with full_disk(tmp_path, 1, None, calls):
        path.write_bytes(b"x" * 100)
        with pytest.raises(OSError, match="No space left"):
            path.write_bytes(b"x" * 100)
        path.unlink()
    assert [call.kind for call in calls] == ["open", "remove"]
    with full_disk(tmp_path, 0, 30, calls := []), pytest.raises(OSError, match="File too large"):
        path.write_bytes(b"x" * 100)
    assert path.read_bytes() == b"x" * 30
    path.write_bytes(b"x" * 100)


def test_a_moment_is_in_its_phase() -> None:
    phases = ("begin", "begin", "fit", "fit", "train", "end")
    calls = [Seen(phase, 1.0 * index, Call("open", Path("x"))) for index, phase in enumerate(phases)]
    drawn = [draw(np.random.default_rng(seed), "fit", calls) for seed in range(200)]
    assert {moment.call for moment in drawn} == {0, 1}
    assert max(moment.delay for moment in drawn) <= 1.001
    assert 60 < sum(moment.delay == 0.0 for moment in drawn) < 140


def test_what_was_lost_is_seen(make_run: Any, tmp_path: Path) -> None:
    run_dir = make_run(tmp_path / "run", "hopper")
    expected = same.content(run_dir)
    assert same.lost(run_dir, expected, None) == []
    assert same.differences(same.content(run_dir), expected) == []
    assert same.lost(run_dir, expected, 20) == ["the newest checkpoint is that of None, not 20"]
    other = expected | {"metrics.jsonl": [{"step": 40, "seed": 0}], "config.json": {}}
    assert same.lost(run_dir, other, None) == ["config.json is another", "the metrics are others"]
    assert same.differences(expected, other) == ["config.json", "metrics.jsonl"]
    (run_dir / ".result.json.7.tmp").touch()
    assert same.leftovers(run_dir) == [".result.json.7.tmp"]


def test_growth_is_the_rise_of_a_line() -> None:
    steps = np.arange(1, 101) * 1000
    flat = np.column_stack([steps, np.full(100, 300 * 2**20)])
    flat[:20, 1] //= 2  # caches fill
    assert updates.growth(flat) == (0.0, 0.0)
    leaking = flat + np.outer(steps, [0, 2**20 // 1000])
    risen, error = updates.growth(leaking)
    assert risen == pytest.approx(74, rel=1e-3)
    assert error == pytest.approx(0, abs=1e-3)


def test_two_fingerprints_are_compared_number_by_number() -> None:
    row = {"step": 10, "seed": 0, "loss": 2.0, "gap": 0.0, "ratio": float("nan")}
    one = {"sha256": "a", "rows": [row, row | {"step": 20}], "policy": {"0/w": [1.0, -4.0], "0/b": [0.0]}}
    changed = [row, row | {"step": 20, "loss": 2.002}]
    other = {"sha256": "b", "rows": changed, "policy": {"0/w": [1.0, -4.004], "0/b": [0.0]}}
    named = ((one, "x"), (other, "y"))
    sides: list[Any] = [{"machine": {}, "xla_flags": "", "runs": {"bc": run, name: run}} for run, name in named]
    found = fingerprint.compare(*sides)["runs"]
    assert found.keys() == {"bc"}
    assert found["bc"]["same_bits"] is False
    assert found["bc"]["policy"] == pytest.approx(0.004 / 4.004)
    assert found["bc"]["metrics_by_step"] == {"10": 0.0, "20": pytest.approx(0.002 / 2.002)}
    assert fingerprint.compare(sides[0], sides[0])["runs"]["bc"]["same_bits"]


def test_what_is_no_fingerprint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "f.json"
    with pytest.raises(UserError, match=r"expected a fingerprint, found .*No such file"):
        fingerprint.read(path)
    path.write_text("[]")
    with pytest.raises(UserError, match="found other JSON; write it with --fingerprint"):
        fingerprint.read(path)
