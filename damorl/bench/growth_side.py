"""One measurement of `damorl.bench.growth`, in a process that may end for want of memory without taking others with it.

Run as a script. Standard input: JSON with `algo`, `preset`, `rows`, `seeds`, `changes`, `updates`, `seconds`, `memory`.
Standard output: a line of JSON with the figures.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from typing import Any

BLOCK = 10_000  # rows that are drawn; larger data repeats them, which costs an update the same


def main() -> None:
    """Measure what standard input asks for."""
    asked = json.load(sys.stdin)
    limit_memory(asked["memory"])
    print(json.dumps(measured(asked)), flush=True)


def limit_memory(most: int) -> None:
    """Allocate at most `most` bytes (0: as many as there are), and be the first to go if the machine has none left."""
    with suppress(OSError):  # Linux
        from pathlib import Path

        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    with suppress(ImportError, ValueError, OSError):  # not on Windows
        import resource

        if most:
            resource.setrlimit(resource.RLIMIT_DATA, (most, resource.RLIM_INFINITY))


def measured(asked: dict[str, Any]) -> dict[str, Any]:
    """Rates and sizes of the work that was asked for."""
    import jax

    from damorl.bench.algorithms import DATASET
    from damorl.bench.clock import interleave, peak_memory
    from damorl.bench.stages import Seeds, Workload, fresh_state
    from damorl.experiment.config import defaults, find_algorithm, replace

    algorithm, (loop, config) = find_algorithm(asked["algo"]), defaults(asked["algo"], asked["preset"], DATASET)
    config, updates = replace(config, asked["changes"]), asked["updates"]
    data = repeated_data(asked["rows"])
    workload = Workload(config=config, num_rows=asked["rows"], updates=updates, algorithm=algorithm)
    seeds = Seeds(workload, data, fresh_state(config, data, algorithm), asked["seeds"])
    jobs = {"update": lambda: seeds.run(seeds.updates), "refresh": lambda: seeds.run(seeds.refresh)}
    medians = interleave(jobs, asked["seconds"])
    per_update, refresh, interval = medians["update"] / updates, medians["refresh"], loop.refresh_interval
    peak, memory = peak_memory(), seeds.memory_bytes()
    state = sum(leaf.nbytes for leaf in jax.tree.leaves(seeds.state))
    return {
        "updates_per_second": 1.0 / per_update,
        "refresh_seconds": refresh,
        "updates_per_second_with_refresh": interval / (interval * per_update + refresh),
        "compile_seconds": seeds.compile_seconds,
        "state_bytes": state,
        "scratch_bytes": None if memory is None else memory - state,
        "data_bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(data)),
        "peak_bytes": peak["host"],
        "device_peak_bytes": peak["device"],
    }


def repeated_data(num_rows: int) -> Any:
    """`num_rows` synthetic rows in episodes, read as any data set is."""
    import numpy as np

    from damorl.bench.algorithms import EPISODE
    from damorl.bench.stages import synthetic_data
    from damorl.data.datasets import load_dataset
    from damorl.experiment.inputs import to_device
    from damorl.types import Transition

    drawn = synthetic_data(min(num_rows, BLOCK)).rows
    arrays = {
        name: np.resize(np.asarray(column), (num_rows, *column.shape[1:]))
        for name, column in zip(Transition._fields, drawn, strict=True)
    }
    timeouts = np.arange(num_rows) % EPISODE == EPISODE - 1
    return to_device(load_dataset(arrays | {"timeouts": timeouts}, task="hopper"))


if __name__ == "__main__":
    main()
