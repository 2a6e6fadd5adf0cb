"""Real processes: a sweep that is killed again and again finishes, and every run is the same as alone, to the bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import damorl
from damorl.api import run
from damorl.cli import main
from damorl.cli.sweep import INTERRUPTED
from damorl.errors import BusyError
from damorl.experiment.config import resolve, run_config_from_dict
from damorl.record import store
from damorl.record.hold import held
from damorl.sweeps.grid import expand, read_grid

pytestmark = pytest.mark.usefixtures("data_sets")


def start(grid: Path, out: Path, *words: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "damorl", "sweep", str(grid), "--out", str(out), *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)


def kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


def finished(out: Path) -> list[Path]:
    return sorted(path.parent for path in out.glob("*/result.json"))


def workers() -> list[int]:
    found = subprocess.run(["pgrep", "-f", "damorl.sweeps.worker"], capture_output=True, text=True).stdout
    return [int(word) for word in found.split()]


def wait_until(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.1)


def without_times(run_dir: Path) -> list[dict[str, Any]]:
    rows = store.read_metrics(run_dir)
    return [{key: value for key, value in row.items() if not key.startswith("time/")} for row in rows]


def check_same(one: Path, other: Path) -> None:
    """The same numbers at every step, and the same policies."""
    assert without_times(one) == without_times(other)
    left, right = (load_file(path / "policies.safetensors") for path in (one, other))
    assert left.keys() == right.keys()
    assert all(np.array_equal(left[name], right[name]) for name in left)


def check_all(grid: Path, out: Path, alone: Path) -> None:
    """Every cell is there once, from its first update to its last, and equal to the run alone."""
    cells = []
    for run_dir in finished(out):
        config = run_config_from_dict(store.read_json(run_dir / store.CONFIG))
        cells += [(config.algo, config.dataset, seed) for seed in config.seeds]
        steps = [row["step"] for row in store.read_metrics(run_dir)]
        assert steps == sorted(set(steps))
        assert steps[-1] == config.loop.total_updates
        check_same(run_dir, run(config, alone, quiet=True).run_dir)
    asked = [(c.algo, c.dataset, seed) for c in expand(read_grid(grid)[0]) for seed in c.seeds]
    assert sorted(cells) == sorted(asked)


@pytest.mark.slow
def test_a_sweep_that_is_killed_three_times_finishes(grid: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = start(grid, out)
    wait_until(lambda: len(finished(out)) >= 3)
    kill(first)
    wait_until(lambda: not workers(), 10)  # they leave with their starter
    made = {path: (path / "result.json").stat().st_mtime_ns for path in finished(out)}

    second = start(grid, out)
    wait_until(lambda: len(finished(out)) >= 8 and bool(workers()))
    os.kill(workers()[0], signal.SIGKILL)
    wait_until(lambda: len(finished(out)) >= 12)
    kill(second)
    wait_until(lambda: not workers(), 10)

    third = start(grid, out, "--json")
    words, _ = third.communicate(timeout=600)
    assert third.returncode == 0
    assert b'"complete": true' in words
    assert all((path / "result.json").stat().st_mtime_ns == when for path, when in made.items())
    check_all(grid, out, tmp_path / "alone")

    again = start(grid, out, "--json")
    words, _ = again.communicate(timeout=60)
    assert (again.returncode, b'"event"' in words) == (0, False)  # nothing was left to do


@pytest.mark.slow
def test_two_sweeps_on_one_directory_share_the_work(grid: Path, tmp_path: Path) -> None:
    grid.write_text(
        grid.read_text().replace('"td3bc", "mopo", "damo"', '"td3bc"').replace(', "halfcheetah-medium"', "")
    )
    out = tmp_path / "out"
    both = [start(grid, out, "--json", "--workers", "1") for _ in range(2)]
    words = [process.communicate(timeout=300)[0].decode() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    for run_dir in finished(out):
        assert len(without_times(run_dir)) == 4  # every row once
    check_all(grid, out, tmp_path / "alone")
    assert all('"complete": true' in text for text in words)


def test_sigterm_ends_a_sweep_that_a_shell_put_in_the_background(
    grid: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def told_to_stop(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)
        pytest.fail("it went on")

    monkeypatch.setattr("damorl.sweeps.run.sweep", told_to_stop)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as `sh -c "damorl sweep ... &"` does
    try:
        assert main(["sweep", str(grid)]) == INTERRUPTED
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert "the same command goes on" in capsys.readouterr().err


def test_a_sweep_runs_fails_records_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = {"name": str(tmp_path / "gone.npz"), "task": "hopper"}
    grid = {"algorithms": ["bc"], "datasets": ["hopper-medium-replay", missing], "preset": "smoke", "seeds": [5]}
    out = tmp_path / "out"
    result = damorl.sweep(grid, out=out, form="quiet")
    assert (result.total, result.done, result.complete) == (2, 1, False)
    (failure,) = result.failed
    assert failure["kind"] == "user error"
    assert "gone.npz" in failure["reason"]
    recorded = store.read_json(out / failure["run"] / "failure.json")
    assert (recorded["reason"], recorded["attempts"]) == (failure["reason"], 1)
    config = resolve("bc", "hopper-medium-replay", "smoke", (5,), {})
    check_same(out / config.name(), run(config, tmp_path / "alone", quiet=True).run_dir)
    command = store.read_json(out / config.name() / store.PROVENANCE)["command"]
    assert command == [
        "damorl",
        *["train", "bc", "--dataset", "hopper-medium-replay", "--preset", "smoke", "--seeds", "5", "--out"],
        str(out),
    ]
    timings = Path(os.environ["DAMORL_HOME"]) / "timings.jsonl"
    assert json.loads(timings.read_text().splitlines()[-1])["algo"] == "bc"


def test_a_run_belongs_to_one_process_at_a_time(tmp_path: Path) -> None:
    config = resolve("bc", "hopper-medium-replay", "smoke", (6,), {})
    run_dir = store.create_run_dir(tmp_path, config.name())
    with held(run_dir), pytest.raises(BusyError, match="another process making this very run"):
        run(config, tmp_path, quiet=True, resume=True)
    assert run(config, tmp_path, quiet=True, resume=True).summary["algo"] == "bc"
