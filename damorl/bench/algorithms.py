"""What an update of every algorithm costs on this machine, side by side: `damorl bench --algo all`.

Each algorithm trains one seed on the same synthetic data with the settings of a preset for hopper-medium-expert; their
calls and the matrix products that they are held against take turns. Nothing is fitted beforehand: it costs the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from damorl.algos import ALGORITHMS
from damorl.algos.base import OfflineData
from damorl.bench.clock import interleave, machine, matrix_job, teller
from damorl.bench.stages import Seeds, Workload, fresh_state, full_workload, synthetic_data, update_flops
from damorl.data.datasets import load_dataset
from damorl.experiment.config import defaults, find_algorithm
from damorl.experiment.inputs import to_device
from damorl.types import Transition

DATASET, EPISODE = "hopper-medium-expert", 100  # whose tuned values are measured; rows of an episode
COLUMNS = ("updates/s", "of matrix rate", "GFLOP", "refresh, s", "with refresh/s", "MiB")


@dataclasses.dataclass(frozen=True)
class Entry:
    """One algorithm, compiled and warmed up: its model buffer is filled."""

    name: str
    interval: int
    """Updates between two calls of `refresh`."""
    flops: float
    """Of one update."""
    seeds: Seeds

    def jobs(self) -> dict[str, Any]:
        """Its two halves of an epoch, to be timed."""
        run = self.seeds.run
        return {
            f"update {self.name}": partial(run, self.seeds.updates),
            f"refresh {self.name}": partial(run, self.seeds.refresh),
        }

    def figures(self, medians: Mapping[str, float], updates: int, matrix_rate: float) -> dict[str, Any]:
        """From the seconds of one call of each job, `updates` updates being one call."""
        per_update, refresh = medians[f"update {self.name}"] / updates, medians[f"refresh {self.name}"]
        return {
            "algo": self.name,
            "updates_per_second": 1.0 / per_update,
            "gflop": self.flops / 1e9,
            "share_of_matrix_rate": self.flops / per_update / matrix_rate,
            "refresh_seconds": refresh,
            "refresh_interval": self.interval,
            "updates_per_second_with_refresh": self.interval / (self.interval * per_update + refresh),
            "memory_bytes": self.seeds.memory_bytes(),
            "compile_seconds": self.seeds.compile_seconds,
        }


def whole_data(num_rows: int) -> OfflineData:
    """The synthetic rows in episodes, read as any dataset is: with all that an algorithm may ask of its data."""
    rows = synthetic_data(num_rows).rows
    timeouts = np.arange(num_rows) % EPISODE == EPISODE - 1
    arrays = dict(zip(Transition._fields, (np.asarray(column) for column in rows), strict=True))
    return to_device(load_dataset(arrays | {"timeouts": timeouts}, task="hopper"))


def run_algorithms_bench(
    names: Sequence[str] = (),
    seconds: float = 3.0,
    quiet: bool = False,
    preset: str = "paper",
    sizes: Workload | None = None,
) -> dict[str, Any]:
    """Measure the algorithms `names`, by default all, for about `seconds` for each of their two calls, after compiling.

    `sizes` gives rows, updates per call and matrix sizes; what else a workload has is not used. Progress goes to
    standard error unless `quiet`. Raises UserError for an unknown name or preset.
    """
    say = teller(quiet)
    sizes, entries = sizes or full_workload(), []
    data = whole_data(sizes.num_rows)
    for name in names or sorted(ALGORITHMS):
        algorithm, (loop, config) = find_algorithm(name), defaults(name, preset, DATASET)
        say(f"compiling {name}")
        workload = dataclasses.replace(sizes, algorithm=algorithm, config=config)
        start = fresh_state(config, data, algorithm)
        flops = update_flops(config, data, algorithm)
        entries.append(Entry(name, loop.refresh_interval, flops, Seeds(workload, data, start, 1)))
    matrices = {size: matrix_job(size, min(seconds / 10, 0.3)) for size in sizes.matrix_sizes}
    jobs = {name: job for entry in entries for name, job in entry.jobs().items()}
    jobs |= {f"matrix {size}": run for size, (run, _) in matrices.items()}
    say(f"updates, refreshes and matrix products in turns, {seconds * len(jobs):.0f} s or more")
    medians = interleave(jobs, seconds)
    rates = {size: flops / medians[f"matrix {size}"] for size, (_, flops) in matrices.items()}
    rows = [entry.figures(medians, sizes.updates, max(rates.values())) for entry in entries]
    rates = {str(size): rate / 1e9 for size, rate in rates.items()}
    return machine() | {"preset": preset, "dataset": DATASET, "algorithms": rows, "matrix_gflops": rates}


def format_algorithms_bench(figures: Mapping[str, Any]) -> str:
    """The figures of `run_algorithms_bench` as a table, the fastest update first."""
    width = 2 + max(len(row["algo"]) for row in figures["algorithms"])
    lines = [
        f"{figures['device_kind']} ({figures['backend']}), {figures['usable_cpus']} CPUs, preset {figures['preset']}, "
        f"one seed, matrix rate {max(figures['matrix_gflops'].values()):,.0f} GFLOP/s",
        "",
        " " * width + "".join(f"{column:>16}" for column in COLUMNS),
    ]
    for row in sorted(figures["algorithms"], key=lambda row: -row["updates_per_second"]):
        memory = "-" if row["memory_bytes"] is None else f"{row['memory_bytes'] / 2**20:,.0f}"
        cells = (
            f"{row['updates_per_second']:,.1f}",
            f"{100 * row['share_of_matrix_rate']:.0f} %",
            f"{row['gflop']:.3f}",
            f"{row['refresh_seconds']:.2f}",
            f"{row['updates_per_second_with_refresh']:,.1f}",
            memory,
        )
        lines.append(f"{row['algo']:<{width}}" + "".join(f"{cell:>16}" for cell in cells))
    note = "GFLOP is of one update; a refresh (rollouts, and model updates if any) comes before each block of updates."
    return "\n".join([*lines, "", note])
