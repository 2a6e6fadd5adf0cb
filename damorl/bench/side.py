"""One side of `damorl.bench.compare`: a process that has compiled some algorithms and times one call when asked.

Run as a script with a checkout first on the path, which may be an older revision than this file: it uses what the
bench of every revision has. Standard input: one line of JSON (`algorithms`, `preset`, `rows`, `updates`), then names of
jobs. Standard output: one line of JSON (per algorithm its interval and compile seconds), then seconds of each call.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any


def main() -> None:
    """Compile, tell, and serve until the input ends."""
    asked = json.loads(sys.stdin.readline())
    stages, algorithms, clock = (bench_module(name) for name in ("stages", "algorithms", "clock"))
    from damorl.experiment.config import defaults, find_algorithm

    rows, updates = asked["rows"], asked["updates"]
    data, jobs, told = algorithms.whole_data(rows), {}, {}
    for name in asked["algorithms"]:
        algorithm, (loop, config) = find_algorithm(name), defaults(name, asked["preset"], algorithms.DATASET)
        workload = stages.Workload(config=config, num_rows=rows, updates=updates, algorithm=algorithm)
        seeds = stages.Seeds(workload, data, stages.fresh_state(config, data, algorithm), 1)
        jobs |= algorithms.Entry(name, loop.refresh_interval, 0.0, seeds).jobs()
        told[name] = {"interval": loop.refresh_interval, "compile_seconds": seeds.compile_seconds}
    print(json.dumps(told), flush=True)
    for line in sys.stdin:
        print(clock.clock(jobs[line.strip()]), flush=True)


def bench_module(name: str) -> Any:
    """A module of the bench of the checkout that is on the path, where that checkout keeps it."""
    if find_spec("damorl.bench") is not None:
        return import_module(f"damorl.bench.{name}")
    before = "bench" if name == "stages" else f"bench_{name}"  # up to 0.1
    return import_module(f"damorl.experiment.{before}")


if __name__ == "__main__":
    main()
