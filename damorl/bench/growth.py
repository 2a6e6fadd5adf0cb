"""How the cost of training grows: `damorl bench --growth`.

Updates per second and memory of one algorithm against rows of data, rows of the rollout buffer, seeds trained together,
ensemble members and width of the networks. One quantity grows at a time, the others stay at the preset's values. Each
measurement is a process of its own: its peak of memory is its own, and one that does not fit ends alone.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from damorl.bench.algorithms import DATASET
from damorl.bench.clock import machine, teller
from damorl.data.limits import machine_memory
from damorl.experiment.config import defaults, find_algorithm
from damorl.parts.model_data import ModelSettings

SIDE = Path(__file__).with_name("growth_side.py")
HERE = SIDE.resolve().parents[2]
ROWS = 100_000
"""Rows of data where something else grows."""
WIDE = ("hidden", "actor_hidden", "classifier_hidden")
"""Settings whose entries are widths of an agent's networks; those of the model are its own."""
UPDATES = 50  # in one compiled call
FITS, TOO_LARGE, OUT_OF_TIME, FAILED = "measured", "does not fit", "out of time", "failed"
EXHAUSTED = ("MemoryError", "bad_alloc", "RESOURCE_EXHAUSTED", "Out of memory", "out of memory")
"""How NumPy, XLA and the C++ runtime say that memory has run out."""
COLUMNS = ("updates/s", "with refresh/s", "refresh, s", "state MiB", "data MiB", "peak MiB")


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The values that each quantity takes, beside the preset's own."""

    rows: tuple[int, ...] = (10_000, 100_000, 1_000_000, 10_000_000)
    blocks: tuple[int, ...] = (1, 10, 100)
    """Blocks of rollouts that the buffer holds (`rollout_retain`)."""
    seeds: tuple[int, ...] = (1, 2, 4, 8)
    members: tuple[int, ...] = (1, 2, 5, 10, 20)
    """Members of the ensemble, all of them elites."""
    width: tuple[int, ...] = (64, 128, 256, 512, 1024)


@dataclasses.dataclass(frozen=True)
class Point:
    """One measurement that is to be made."""

    axis: str
    value: int
    """As a table shows it."""
    rows: int = ROWS
    seeds: int = 1
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Settings that differ from the preset's."""

    @property
    def work(self) -> dict[str, Any]:
        """What a process has to be told; equal for points that are the same measurement."""
        return {"rows": self.rows, "seeds": self.seeds, "changes": dict(self.changes)}


def growth_points(algo: str, preset: str, sizes: Sizes | None = None) -> list[Point]:
    """What is measured, the smallest value of every quantity before the second smallest.

    An algorithm without a model has no buffer and no ensemble. Members that cannot be dealt the rollouts' starts evenly
    are left out.
    """
    sizes, config = sizes or Sizes(), defaults(algo, preset, DATASET)[1]
    axes = [
        [Point("rows", value, rows=value) for value in sorted({*sizes.rows, ROWS})],
        [Point("seeds", value, seeds=value) for value in sorted({*sizes.seeds, 1})],
        *(model_axes(config, sizes) if isinstance(config, ModelSettings) else []),
        width_axis(config, sizes),
    ]
    return [point for rank in zip_longest(*axes) for point in rank if point is not None]


def model_axes(config: ModelSettings, sizes: Sizes) -> list[list[Point]]:
    """The points at which the rollout buffer and the ensemble grow."""
    block, dynamics = config.rollout_starts * config.rollout_length, config.dynamics
    held = [
        Point("buffer", count * block, changes={} if count == config.rollout_retain else {"rollout_retain": count})
        for count in sorted({*sizes.blocks, config.rollout_retain})
    ]
    members = []
    for count in sorted({*sizes.members, dynamics.num_elites}):
        ours = count == dynamics.num_elites
        if config.rollout_starts % count == 0:
            changes = {} if ours else {"dynamics.num_members": count, "dynamics.num_elites": count}
            members.append(Point("members", count, changes=changes))
    return [held, members]


def width_axis(config: Any, sizes: Sizes) -> list[Point]:
    """The points at which the agent's networks widen: all of their layers have the same width."""
    own = {name: getattr(config, name) for name in WIDE if hasattr(config, name)}
    preset = {width for layers in own.values() for width in layers}
    points = []
    for width in sorted({*sizes.width, *preset}) if own else []:
        changes = {name: [width] * len(layers) for name, layers in own.items()}
        points.append(Point("width", width, changes={} if preset == {width} else changes))
    return points


def run_growth_bench(
    algo: str = "damo",
    seconds: float = 3.0,
    quiet: bool = False,
    preset: str = "quick",
    minutes: float | None = None,
    sizes: Sizes | None = None,
    memory: int | None = None,
) -> dict[str, Any]:
    """Measure `algo` at every point for about `seconds` for each of its two calls, and for at most `minutes` in all.

    No process gets more than `memory` bytes of main memory, by default nine tenths of the machine's. What was not
    reached in time is in the figures as such. Progress goes to standard error unless `quiet`. UserError for an unknown
    name or preset.
    """
    find_algorithm(algo)
    say, points = teller(quiet), growth_points(algo, preset, sizes)
    deadline = None if minutes is None else time.monotonic() + 60.0 * minutes
    memory = memory if memory is not None else (machine_memory() or 0) * 9 // 10
    shared = {"algo": algo, "preset": preset, "seconds": seconds, "updates": UPDATES, "memory": memory}
    found: dict[str, dict[str, Any]] = {}
    rows = []
    for number, point in enumerate(points, 1):
        known = json.dumps(point.work, sort_keys=True)
        if known not in found:
            say(f"{number} of {len(points)}: {point.axis} {point.value:,}")
            left = None if deadline is None else deadline - time.monotonic()
            found[known] = measure(shared | point.work, left)
        rows.append({"axis": point.axis, "value": point.value} | point.work | found[known])
    return machine() | shared | {"dataset": DATASET, "growth": rows}


def measure(asked: Mapping[str, Any], left: float | None = None) -> dict[str, Any]:
    """The figures of one measurement in its own process, with its `outcome`; `left` seconds at most."""
    if left is not None and left <= 0.0:
        return {"outcome": OUT_OF_TIME}
    environment = dict(os.environ) | {"PYTHONPATH": str(HERE)}
    try:
        done = subprocess.run(
            [sys.executable, "-P", str(SIDE)],
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            env=environment,
            timeout=left,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"outcome": OUT_OF_TIME}
    if done.returncode == 0:
        return {"outcome": FITS} | json.loads(done.stdout.splitlines()[-1])
    if done.returncode == -9 or any(word in done.stderr for word in EXHAUSTED):  # SIGKILL: the system's own way
        return {"outcome": TOO_LARGE}
    reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    return {"outcome": FAILED, "reason": reason}


def format_growth(figures: Mapping[str, Any]) -> str:
    """The figures of `run_growth_bench` as a table, one block for each quantity that grows."""
    lines = [
        f"{figures['device_kind']} ({figures['backend']}), {figures['usable_cpus']} CPUs, {figures['algo']}, preset "
        f"{figures['preset']}",
        "",
        f"{'':<24}" + "".join(f"{column:>16}" for column in COLUMNS),
    ]
    for axis in dict.fromkeys(row["axis"] for row in figures["growth"]):
        lines += [growth_line(row) for row in figures["growth"] if row["axis"] == axis] + [""]
    note = "One quantity grows at a time. State and data are what lives on the device, the peak is the whole process's."
    return "\n".join([*lines, note])


def growth_line(row: Mapping[str, Any]) -> str:
    """One measurement, or why there is none."""
    label = f"{row['axis']:<9}{row['value']:>13,}  "
    if row["outcome"] != FITS:
        return f"{label:<24}{row['outcome'] + (': ' + row['reason'] if 'reason' in row else ''):>16}"
    sizes = [row["state_bytes"], row["data_bytes"], row["peak_bytes"]]
    cells: Sequence[str] = (
        f"{row['updates_per_second']:,.1f}",
        f"{row['updates_per_second_with_refresh']:,.1f}",
        f"{row['refresh_seconds']:.3f}",
        *("-" if size is None else f"{size / 2**20:,.1f}" for size in sizes),
    )
    return f"{label:<24}" + "".join(f"{cell:>16}" for cell in cells)
