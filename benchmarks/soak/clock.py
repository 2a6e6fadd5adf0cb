"""A clock that runs backwards: trainings and sweeps do not go by the time of day.

Every process of this part reads a clock that goes back a minute with every look at it, and that was set back a month
since the process before it; files that an earlier process left are dated a year ahead.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.soak import same

CLOCK = (
    "--preset smoke --total-updates 60 --refresh-interval 10 --eval-interval 20 --checkpoint-interval 10 "
    "--eval-episodes 1 --keep-policy-every 1"
)
BACKWARDS = """
import os, time
now = time.time() - float(os.environ["SET_BACK"])
def look(count=[0]):
    count[0] += 1
    return now - 60.0 * count[0]
time.time = look
time.time_ns = lambda: int(1e9 * look())
"""
"""Python runs it before anything else, so that also those who import the function itself get this one."""
DAY, YEAR = 86_400.0, 365 * 86_400.0
GRID = """
algorithms = ["bc"]
datasets = [{data}]
preset = "smoke"
seeds = [0, 1]
"""


class Clock:
    """Starts processes, each of which finds the clock set back by another month."""

    def __init__(self, folder: Path, backwards: bool) -> None:
        self.folder, self.backwards, self.started = folder, backwards, 0
        (folder / "clock").mkdir(parents=True)
        (folder / "clock" / "sitecustomize.py").write_text(BACKWARDS, encoding="utf-8")

    def start(self, words: list[str]) -> subprocess.Popen[str]:
        """`damorl WORDS` on that clock."""
        self.started += 1
        environment = os.environ | {"DAMORL_HOME": str(self.folder / "home")}
        if self.backwards:
            paths = [str(self.folder / "clock"), *filter(None, [os.environ.get("PYTHONPATH")])]
            environment |= {"PYTHONPATH": os.pathsep.join(paths), "SET_BACK": str(30 * DAY * self.started)}
        command = [sys.executable, "-m", "damorl", *words]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True)


def kill_when(process: subprocess.Popen[str], there: Callable[[], bool]) -> None:
    """End a process once something is there. AssertionError if it ends before."""
    while not there():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def date_ahead(folder: Path) -> None:
    """Date every file below a folder a year ahead."""
    ahead = time.time() + YEAR
    for path in folder.rglob("*"):
        os.utime(path, (ahead, ahead))


def train(clock: Clock, data: Path, cut: bool) -> tuple[Path, str]:
    """A training in one piece, or cut off on the way: its run directory, and what it said at the end."""
    words = ["train", "bc", "--dataset", str(data), *CLOCK.split(), "--resume"]
    words += ["--out", str(clock.folder / "runs")]
    if cut:
        first = clock.start(words)
        kill_when(first, lambda: any(clock.folder.glob("runs/*/checkpoint/step_00000002?.safetensors")))
        date_ahead(clock.folder)
    process = clock.start(words)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    (run_dir,) = (clock.folder / "runs").iterdir()
    return run_dir, said


def sweep(clock: Clock, data: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Two sittings of a sweep, the first one killed: what its runs say, and the events of the second."""
    grid, out = clock.folder / "grid.toml", clock.folder / "sweep"
    grid.write_text(GRID.format(data=json.dumps(str(data))), encoding="utf-8")
    words = ["sweep", str(grid), "--out", str(out), "--workers", "1", "--json"]
    kill_when(clock.start(words), lambda: any(out.glob("*/result.json")))
    date_ahead(clock.folder)
    process = clock.start(words)
    told, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    events = [json.loads(line) for line in told.splitlines() if line.startswith('{"event"')]
    runs = {path.parent.name: same.content(path.parent) for path in sorted(out.glob("*/result.json"))}
    return runs, events


def soak(data: Path, folder: Path, sweeps: bool = True) -> dict[str, Any]:
    """The same on a clock that runs backwards as on the real one: the report."""
    began, faults, starts, found = time.monotonic(), list[str](), 0, dict[str, Any]()
    for name, backwards in (("real", False), ("backwards", True)):
        clock = Clock(folder / name, backwards)
        run_dir, said = train(clock, data, cut=backwards)
        found[name] = {"run": same.content(run_dir)}
        if re.search(r"[\[<]-", said):
            faults.append(f"the bar tells a negative time: {said.strip()[-200:]}")
        if sweeps:
            runs, events = sweep(clock, data)
            found[name] |= runs
            etas = [event["eta_seconds"] for event in events if event["eta_seconds"] is not None]
            faults += [f"a sweep expects to take {eta} s" for eta in etas if not 0 <= eta < 3600]
        starts += clock.started
    for name in sorted(found["real"].keys() | found["backwards"].keys()):
        runs = [found[clock].get(name, {}) for clock in ("backwards", "real")]
        faults += [f"{name}: {file} differs" for file in same.differences(*runs)]
    return {
        "processes": starts,
        "runs": len(found["real"]),
        "seconds": round(time.monotonic() - began, 1),
        "faults": faults,
    }
