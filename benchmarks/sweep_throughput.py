"""How much more a sweep does with one process per core than one process with all cores: `quick` runs, in turns.

    python benchmarks/sweep_throughput.py --out docs/results/sweep_throughput.json

Both sides do the same runs through `damorl sweep`; the data set and the fits of the dynamics are made first, so that
only start-up, compilation from the cache, updates and evaluations count. Needs an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from damorl.record.store import git_revision, write_json

CODE = """
import json, sys, damorl
damorl.sweep(json.load(sys.stdin), out=sys.argv[1], workers=int(sys.argv[2]), form="quiet")
"""
SETTINGS: dict[str, Any] = {"eval_interval": 5000, "checkpoint_interval": 10000}


def sweep(grid: dict[str, Any], out: Path, workers: int) -> float:
    """Seconds of a whole `damorl sweep`, start to end."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", CODE, str(out), str(workers)], input=json.dumps(grid).encode(), check=True)
    return time.perf_counter() - began


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--algorithms", nargs="+", default=["damo"])
    parser.add_argument("--dataset", default="hopper-medium-replay")
    parser.add_argument("--updates", type=int, default=20_000)
    parser.add_argument("--runs", type=int, help="by default one per core")
    parser.add_argument("--turns", type=int, default=2)
    args = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    runs = args.runs or cores
    found: list[dict[str, Any]] = []
    for algo in args.algorithms:
        grid = {
            "algorithms": [algo],
            "datasets": [args.dataset],
            "preset": "quick",
            "seeds": list(range(runs)),
            "settings": SETTINGS | {"total_updates": args.updates},
        }
        with tempfile.TemporaryDirectory() as folder:
            sweep(grid | {"settings": SETTINGS | {"total_updates": 5000}}, Path(folder) / "warm", cores)
            seconds: dict[int, list[float]] = {1: [], cores: []}
            for turn in range(args.turns):
                for workers in seconds:
                    seconds[workers].append(sweep(grid, Path(folder) / f"{workers}-{turn}", workers))
        best = {workers: min(taken) for workers, taken in seconds.items()}
        row = {"algorithm": algo, "runs": runs, "updates": args.updates, "ratio": best[1] / best[cores]}
        found.append(row | {"seconds": {str(workers): taken for workers, taken in seconds.items()}})
        text = f"{best[1]:.0f} s one at a time, {best[cores]:.0f} s side by side"
        print(f"{algo}: {text}: {row['ratio']:.2f} times", flush=True)
    machine = {"cores": cores, "platform": platform.platform(), "git": git_revision(Path(__file__))}
    write_json(args.out, {"command": ["python", *sys.argv], "dataset": args.dataset, "machine": machine, "rows": found})


if __name__ == "__main__":
    main()
