"""One side of `bench_compare`: a process that has compiled some algorithms and times one call whenever it is asked.

Run as a script with a checkout first on the path, which may be an older revision than this file: it uses what the
bench of every revision has. Standard input: one line of JSON (`algorithms`, `preset`, `rows`, `updates`), then names of
jobs. Standard output: one line of JSON (per algorithm its interval and compile seconds), then seconds of each call.
"""

from __future__ import annotations

import json
import sys


def main() -> None:
    """Compile, tell, and serve until the input ends."""
    asked = json.loads(sys.stdin.readline())
    from damorl.experiment.bench import Seeds, Workload, fresh_state
    from damorl.experiment.bench_algorithms import DATASET, Entry, whole_data
    from damorl.experiment.bench_clock import clock
    from damorl.experiment.config import defaults, find_algorithm

    rows, updates = asked["rows"], asked["updates"]
    data, jobs, told = whole_data(rows), {}, {}
    for name in asked["algorithms"]:
        algorithm, (loop, config) = find_algorithm(name), defaults(name, asked["preset"], DATASET)
        workload = Workload(config=config, num_rows=rows, updates=updates, algorithm=algorithm)
        seeds = Seeds(workload, data, fresh_state(config, data, algorithm), 1)
        jobs |= Entry(name, loop.refresh_interval, 0.0, seeds).jobs()
        told[name] = {"interval": loop.refresh_interval, "compile_seconds": seeds.compile_seconds}
    print(json.dumps(told), flush=True)
    for line in sys.stdin:
        print(clock(jobs[line.strip()]), flush=True)


if __name__ == "__main__":
    main()
