"""kill -9 at random moments of a training, of the making of a data set and of a sweep; each goes on to the same bits.

A run lives several times: every life but the last ends in a kill, in a later phase than the life before. Half of the
kills come just before a call that changes a file, half at a time between two calls.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.soak import same
from benchmarks.soak.calls import Call
from benchmarks.soak.life import Life, Lives, Moment, Seen, prepare
from benchmarks.soak.processes import alive, children

DATA, ROWS = "inverted_double_pendulum-random", "300"
MAKE = ["data", "make", DATA, "--steps", ROWS, "--json"]
CLOCK = (
    "--preset smoke --total-updates 40 --refresh-interval 10 --eval-interval 20 --checkpoint-interval 10 "
    "--eval-episodes 1 --keep-policy-every 1 --seeds 3"
)
FIT = "--dynamics.max-batches 20 --dynamics.epoch-batches 10"
LAST_CHECKPOINT = "checkpoint/step_000000040.safetensors"
ORDER = {"begin": 0, "fit": 1, "checkpoint": 2, "train": 2, "end": 3}
PHASES = ("begin", "fit", "checkpoint", "train", "train", "end")
"""Of one run, in the order of its kills."""
GRID = f"""
algorithms = ["bc"]
datasets = ["{DATA}"]
preset = "smoke"
seeds = [0, 1]
[settings]
dataset_steps = {ROWS}
total_updates = 40
refresh_interval = 10
eval_interval = 20
checkpoint_interval = 10
"""
KILLED = -signal.SIGKILL
Rng = np.random.Generator


def phase_of_run(call: Call, runs: Path) -> str:
    """How far the one run below `runs` is, by what lies there, and whether the call is part of a checkpoint's write."""
    run_dir = next(iter(runs.iterdir()), None) if runs.is_dir() else None
    if run_dir is None or not (run_dir / "config.json").exists():
        return "begin"
    if "checkpoint" in (call.path.name, call.path.parent.name) and run_dir in call.path.parents:
        return "checkpoint"
    if not (run_dir / "checkpoint").is_dir() or not any((run_dir / "checkpoint").glob("step_*")):
        return "fit"
    return "end" if (run_dir / LAST_CHECKPOINT).exists() else "train"


def draw(rng: Rng, phase: str, calls: Sequence[Seen]) -> Moment:
    """A moment of a phase, by what was seen of a whole run: before any of its calls, or at any of its times."""
    own = [index for index, seen in enumerate(calls) if seen.phase == phase]
    if rng.random() < 0.5:
        return Moment(phase, int(rng.integers(len(own))), 0.0)
    gaps = np.array([calls[min(index + 1, len(calls) - 1)].seconds - calls[index].seconds for index in own]) + 1e-4
    nth = int(rng.choice(len(own), p=gaps / gaps.sum()))
    return Moment(phase, nth, float(rng.uniform(0, gaps[nth])))


class Tally:
    """Kills and faults so far."""

    def __init__(self, on_note: Callable[[str], None]) -> None:
        self.on_note = on_note
        self.kills, self.faults, self.left, self.lives = Counter[str](), list[str](), Counter[str](), 0

    def count(self, life: Life, where: str) -> bool:
        """Take a life in; whether it was killed. One that ended by itself must have ended well."""
        self.lives += 1
        killed = life.code == KILLED
        if killed:
            self.kills[where] += 1
        elif life.code or "Traceback" in life.said:
            self.fault(f"{where}: exit code {life.code}: {life.said.strip()[-300:]}")
        self.on_note(f"kill {sum(self.kills.values())}: {where}" if killed else f"ended: {where}")
        return killed

    def fault(self, told: str) -> None:
        """Note what is wrong."""
        self.faults.append(told)
        self.on_note(f"fault: {told}")

    def check(self, what: str, different: Sequence[str], folder: Path) -> None:
        """Take in how the end of a story differs from an undisturbed one, and what lies about."""
        if different:
            self.fault(f"{what}: {', '.join(different)} differ from those of an undisturbed one")
        for name in same.leftovers(folder):
            self.left[name.rpartition("/")[2].strip(".").split(".")[0]] += 1


def kill_runs(count: int, algo: str, folder: Path, rng: Rng, tally: Tally, data: Path | None) -> None:
    """`count` kills of trainings on `data`, or on a data set that is made first; fit of the dynamics included."""
    words = ["train", algo, "--dataset", DATA if data is None else str(data), "--json", "--resume", *CLOCK.split()]
    words += ["--dataset-steps", ROWS, *([] if algo == "bc" else FIT.split())]
    (folder / "home").mkdir()
    if data is None:
        lives = lives_in(folder / "data", folder / "home")
        tally.count(lives.spend(MAKE), "make")
        shutil.copytree(lives.folder / "home", folder / "home", dirs_exist_ok=True)
    expected, reference = undisturbed(words, folder, tally, 1 if algo == "bc" else 2)
    done, number = 0, 0
    while done < count and not tally.faults:
        lives, number = lives_in(folder / f"run{number}", folder / "home"), number + 1
        own = [*words, "--out", str(lives.folder / "runs")]
        for phase in [phase for phase in PHASES if phase != "fit" or algo != "bc"][: count - done]:
            life = lives.spend(own, draw(rng, phase, reference.calls))
            if not tally.count(life, life.phase or phase):
                break
            done += 1
        else:
            tally.count(lives.spend(own), "end")
        tally.check(lives.folder.name, same.differences(same.content(run_in(lives)), expected), lives.folder)
        shutil.rmtree(lives.folder)


def undisturbed(words: list[str], folder: Path, tally: Tally, times: int) -> tuple[dict[str, Any], Life]:
    """What a run says that nothing disturbs, and its life.

    The first of several compiles, which would be most of its time; the last one's times are those without.
    """
    found = list[tuple[dict[str, Any], Life]]()
    places = [lives_in(folder / f"whole{number}", folder / "home") for number in range(times)]
    for number, lives in enumerate(places):
        life = lives.spend([*words, "--out", str(lives.folder / "runs")], fill_cache=not number)
        tally.count(life, "undisturbed")
        found.append((same.content(run_in(lives)), life))
    tally.check("the same run again", same.differences(found[0][0], found[-1][0]), places[-1].folder)
    return found[-1]


def lives_in(folder: Path, home: Path) -> Lives:
    """A new place for lives of one run, with a copy of `home`."""
    folder.mkdir()
    shutil.copytree(home, folder / "home")
    return Lives(folder, lambda call: phase_of_run(call, folder / "runs"), ORDER)


def run_in(lives: Lives) -> Path:
    """Its only run directory."""
    (run_dir,) = (lives.folder / "runs").iterdir()
    return run_dir


def kill_makes(count: int, folder: Path, rng: Rng, tally: Tally) -> None:
    """`count` kills while a data set is made, one after another until it is whole."""
    place = lambda name: Lives(folder / name, lambda call: "make", {"make": 0})
    digest = lambda lives: {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (lives.folder / "home" / "datasets").glob("*.hdf5")
    }
    whole, done, number = place("made"), 0, 0
    whole.folder.mkdir()
    reference = whole.spend(MAKE)
    tally.count(reference, "make")
    while done < count and not tally.faults:
        lives, number = place(f"made{number}"), number + 1
        lives.folder.mkdir()
        while tally.count(lives.spend(MAKE, draw(rng, "make", reference.calls) if done < count else None), "make"):
            done += 1
        tally.check("made data", same.differences(digest(lives), digest(whole)), lives.folder)


def kill_sweeps(count: int, folder: Path, rng: Rng, tally: Tally) -> None:
    """`count` kills of a sweep or of its worker, in turns, at any time of it, one after another until it is done."""
    grid, whole = folder / "grid.toml", folder / "sweep"
    grid.write_text(GRID, encoding="utf-8")
    reference = sweep(grid, whole, folder)
    tally.count(reference, "sweep")
    done, number = 0, 0
    while done < count and not tally.faults:
        out, number = folder / f"sweep{number}", number + 1
        killed = True
        while killed:
            seconds = float(rng.uniform(0, reference.seconds)) if done < count else None
            killed = tally.count(sweep(grid, out, folder, seconds, worker=done % 2 == 1), "sweep")
            done += killed
        for run_dir in sorted(path.parent for path in whole.glob("*/config.json")):
            different = same.differences(same.content(out / run_dir.name), same.content(run_dir))
            tally.check(f"sweep, {run_dir.name}", different, out / run_dir.name)


def sweep(grid: Path, out: Path, folder: Path, seconds: float | None = None, worker: bool = False) -> Life:
    """A sweep in a process of its own, killed after `seconds`, or its worker is, and the sweep goes on."""
    began = time.monotonic()
    command = [sys.executable, "-m", "damorl", "sweep", str(grid), "--out", str(out), "--workers", "1", "--json"]
    environment = os.environ | {"DAMORL_HOME": str(folder / "home")}
    with open(folder / "sweep.said", "w+b") as said:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=said)
        killed = seconds is not None and kill_after(process, seconds, worker)
        code = process.wait(300)
        said.seek(0)
        # a sweep whose worker was killed tries again, and so ends well
        return Life(KILLED if killed and not code else code, said.read().decode(), time.monotonic() - began)


def kill_after(process: subprocess.Popen[bytes], seconds: float, worker: bool) -> bool:
    """Kill a sweep, or the worker if there is one, when the time comes; whether the sweep had not ended before."""
    try:
        process.wait(seconds)
        return False
    except subprocess.TimeoutExpired:
        started = children(process.pid)
    os.kill(started[0] if worker and started else process.pid, signal.SIGKILL)
    process.wait(300)
    while any(map(alive, started)):  # a worker leaves with its starter
        time.sleep(0.05)
    return True


def soak(count: int, seed: int, folder: Path, algo: str, short: bool, on_note: Callable[[str], None]) -> dict[str, Any]:
    """`count` kills, about a twelfth each while data are made and in sweeps, the others in trainings: the report.

    In the `short` form all are in trainings, on a data set that need not be made.
    """
    began, rng, tally = time.monotonic(), np.random.default_rng(seed), Tally(on_note)
    prepare()
    from damorl.testing.algorithms import write_toy

    apart = 0 if short else -(-count // 12)
    kill_runs(count - 2 * apart, algo, folder, rng, tally, write_toy(folder / "hopper-toy.hdf5") if short else None)
    if not short:
        kill_makes(apart, folder, rng, tally)
        kill_sweeps(apart, folder, rng, tally)
    return {
        "algo": algo,
        "seed": seed,
        "kills": sum(tally.kills.values()),
        "by_phase": dict(sorted(tally.kills.items())),
        "lives": tally.lives,
        "left_temporary_files": dict(sorted(tally.left.items())),
        "seconds": round(time.monotonic() - began, 1),
        "faults": tally.faults,
    }
