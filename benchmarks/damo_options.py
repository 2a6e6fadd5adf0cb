"""What DAMO's options cost an update, in turns in one process: the joint log-ratio, the split one, and so on.

python benchmarks/damo_options.py [--preset quick] [--seconds 10] [--json]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

BOTH = {"data_alignment": True, "behaviour_alignment": True, "actor_objective": "consistent", "keep": "last",
        "rollout_occupancy": 0.0, "trust": "fixed"}  # fmt: skip
"""Both alignments, Eq. 2's own actor: the paper's update."""
JOINT = BOTH | {"log_ratio": "joint", "kl_target": None}
SPLIT = BOTH | {"log_ratio": "split", "cloning_updates": 5000, "kl_target": 0.3}
OPTIONS: dict[str, dict[str, Any]] = {
    "joint": JOINT,
    "split": SPLIT,
    "split, without the classifier": SPLIT | {"data_alignment": False},
    "split, without either alignment": SPLIT | {"data_alignment": False, "behaviour_alignment": False},
    "the same, imagined actor": SPLIT
    | {"data_alignment": False, "behaviour_alignment": False, "actor_objective": "imagined"},
}


def measure(preset: str, seconds: float) -> dict[str, Any]:
    """Microseconds of an update with each option, and each as a multiple of the joint one's."""
    import dataclasses

    from damorl.bench.algorithms import DATASET, whole_data
    from damorl.bench.clock import interleave, machine
    from damorl.bench.stages import Seeds, fresh_state, full_workload
    from damorl.experiment.config import defaults, find_algorithm, replace

    algorithm, sizes = find_algorithm("damo"), full_workload()
    data, jobs = whole_data(sizes.num_rows), {}
    for name, changes in OPTIONS.items():
        config = replace(defaults("damo", preset, DATASET)[1], changes)
        workload = dataclasses.replace(sizes, algorithm=algorithm, config=config)
        seeds = Seeds(workload, data, fresh_state(config, data, algorithm), 1)
        jobs[name] = partial(seeds.run, seeds.updates)
    medians = interleave(jobs, seconds)
    micro = {name: 1e6 * took / sizes.updates for name, took in medians.items()}
    ratios = {name: took / micro["joint"] for name, took in micro.items()}
    return machine() | {"preset": preset, "microseconds": micro, "of_joint": ratios}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="quick", help="whose sizes: quick, standard or paper (default: quick)")
    parser.add_argument("--seconds", type=float, default=10.0, help="time for each option")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args(argv)
    figures = measure(args.preset, args.seconds)
    if args.json:
        print(json.dumps(figures, indent=1))
        return 0
    for name, took in figures["microseconds"].items():
        print(f"{name:32} {took:9.1f} us  {100 * (figures['of_joint'][name] - 1):+6.1f} %")
    return 0


if __name__ == "__main__":
    sys.exit(main())
