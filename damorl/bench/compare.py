"""This checkout against another one, or against saved figures: `damorl bench --algo NAME... --compare PATH`.

Two checkouts are two processes that never work at the same time: their calls take turns, so that a machine that is busy
or changes its clock slows both sides. Saved figures are of another hour or machine, so shares of the matrix rate are
compared, not seconds.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from damorl.bench.clock import MIN_ROUNDS, machine, teller
from damorl.errors import UserError

SIDE = Path(__file__).with_name("side.py")
HERE = SIDE.resolve().parents[2]


class Side:
    """A checkout at work."""

    def __init__(self, checkout: Path, asked: Mapping[str, Any]) -> None:
        """Start it, and wait until everything is compiled. UserError if it cannot."""
        self.checkout = checkout
        environment = dict(os.environ) | {"PYTHONPATH": str(checkout)}
        # a pipe that nobody reads would fill up and block the side
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed by stop)
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(SIDE)],
            cwd=checkout,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )
        try:
            self.told: dict[str, Any] = json.loads(self.ask(json.dumps(asked)))
        except UserError:
            self.stop()
            raise

    def ask(self, line: str) -> str:
        """The answer to one line."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        answer = ""
        if self.process.poll() is None:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        if answer:
            return answer
        self.process.wait()
        self.errors.seek(0)
        reason = (self.errors.read().strip().splitlines() or ["no reason given"])[-1]
        raise UserError(f"{self.checkout}: the bench of that checkout ended early: {reason}")

    def seconds(self, job: str) -> float:
        """Of one call."""
        return float(self.ask(job))

    def stop(self) -> None:
        """End it."""
        self.process.kill()
        self.process.communicate()
        self.errors.close()


def compare_checkouts(
    other: Path,
    names: Sequence[str],
    seconds: float,
    preset: str,
    quiet: bool = False,
    rows: int = 100_000,
    updates: int = 20,
) -> dict[str, Any]:
    """Updates per second of `names` in this checkout and in `other`, in turns for about `seconds` for each call.

    Raises UserError where `other` is no checkout, or its bench fails.
    """
    if not (other / "damorl" / "__init__.py").is_file():
        raise UserError(
            f"{other}: expected a checkout of damorl or the JSON of a bench, found neither: give one of them"
        )
    say = teller(quiet)
    asked = {"algorithms": list(names), "preset": preset, "rows": rows, "updates": updates}
    sides: list[Side] = []
    try:
        for checkout in (HERE, other.resolve()):
            say(f"compiling {', '.join(names)} in {checkout}")
            sides.append(Side(checkout, asked))
        jobs = [f"{kind} {name}" for name in names for kind in ("update", "refresh")]
        times: dict[tuple[int, str], list[float]] = defaultdict(list)
        end, rounds = time.perf_counter() + 2 * seconds * len(jobs), 0
        say(f"in turns, {2 * seconds * len(jobs):.0f} s or more")
        while time.perf_counter() < end or rounds < MIN_ROUNDS:
            for job in jobs:
                for number, side in enumerate(sides):
                    times[number, job].append(side.seconds(job))
            rounds += 1
    finally:
        for side in sides:
            side.stop()
    medians = {key: statistics.median(values) for key, values in times.items()}
    compared = [figures(name, [side.told[name] for side in sides], medians, updates) for name in names]
    return machine() | {"preset": preset, "other": str(other), "rounds": rounds, "compared": compared}


def figures(
    name: str, told: Sequence[Mapping[str, Any]], medians: Mapping[tuple[int, str], float], updates: int
) -> dict[str, Any]:
    """Both sides of one algorithm, this checkout first, and how many times as fast it is."""
    rates, epochs = [], []
    for number, own in enumerate(told):
        update, refresh = medians[number, f"update {name}"] / updates, medians[number, f"refresh {name}"]
        rates.append(1.0 / update)
        epochs.append(own["interval"] / (own["interval"] * update + refresh))
    return {
        "algo": name,
        "updates_per_second": rates,
        "updates_per_second_with_refresh": epochs,
        "compile_seconds": [own["compile_seconds"] for own in told],
        "speedup": rates[0] / rates[1],
        "speedup_with_refresh": epochs[0] / epochs[1],
    }


def compare_saved(path: Path, now: Mapping[str, Any]) -> dict[str, Any]:
    """Shares of the matrix rate in figures of `run_algorithms_bench`, beside those of a file made by it.

    Raises UserError where the file is not one, or has another preset.
    """
    try:
        before = json.loads(path.read_text())
        shares = {row["algo"]: row["share_of_matrix_rate"] for row in before["algorithms"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: expected the JSON of `damorl bench --algo all --json`, found another file") from error
    if before.get("preset") != now["preset"]:
        raise UserError(f"{path}: is of preset {before.get('preset')}, this is {now['preset']}: give --preset to match")
    rows = [
        {
            "algo": row["algo"],
            "share_of_matrix_rate": [row["share_of_matrix_rate"], shares[row["algo"]]],
            "speedup": row["share_of_matrix_rate"] / shares[row["algo"]],
        }
        for row in now["algorithms"]
        if row["algo"] in shares
    ]
    return dict(now) | {"other": str(path), "compared": rows}


def format_comparison(found: Mapping[str, Any]) -> str:
    """As a table: this checkout, the other, the ratio."""
    width = 2 + max((len(row["algo"]) for row in found["compared"]), default=0)
    saved = any("share_of_matrix_rate" in row for row in found["compared"])
    what = "share of the matrix rate" if saved else "updates per second"
    lines = [f"preset {found['preset']}, {what}: this checkout, {found['other']}, times as fast", ""]
    for row in found["compared"]:
        if saved:
            cells = "".join(f"{100 * share:>9.0f} %" for share in row["share_of_matrix_rate"])
            lines.append(f"{row['algo']:<{width}}{cells}{row['speedup']:>8.2f}")
            continue
        cells = "".join(f"{rate:>11,.1f}" for rate in row["updates_per_second"])
        lines.append(
            f"{row['algo']:<{width}}{cells}{row['speedup']:>8.2f}   with refreshes {row['speedup_with_refresh']:.2f}, "
            f"compiling {row['compile_seconds'][0]:.1f} s and {row['compile_seconds'][1]:.1f} s"
        )
    return "\n".join(lines)
