"""Offline to online: damo and td3bc, fine-tuned on real steps, beside SAC from scratch on as many.

python benchmarks/finetune.py [--datasets hopper-medium halfcheetah-medium-replay] [--seeds 0 1 2] [--steps 50000]

The bar: no score below 90 % of the offline one for more than two evaluations in a row, and a final one above it, by
another policy than the offline one. What is finished in --out is not made again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

ALLOWED = 2  # evaluations in a row below 90 %


def tuned(algo: str, dataset: str, args: argparse.Namespace) -> dict[str, Any]:
    """What became of each seed's score, after the offline run and its fine-tuning, one process for both."""
    from damorl import api
    from damorl.experiment.finetuned import read_drops

    common = {"out": args.out, "resume": True, "quiet": args.json}
    offline = api.train(algo, dataset, args.preset, args.seeds, **common)
    clock = {"steps": args.steps, "eval_interval": max(500, args.steps // 20 // 500 * 500)}
    online = api.finetune(offline.run_dir, dataset.partition("-")[0], **clock, **common)
    drops = read_drops(online.run_dir)
    held = {seed: holds(own) for seed, own in drops.items()}
    return {"algo": algo, "run": online.run_dir.name, "seeds": drops, "holds": held}


def holds(own: dict[str, Any]) -> bool:
    """Whether a seed keeps to the bar."""
    return own["evaluations_below"] <= ALLOWED and own["final"] > own["offline"] and own["changes"] > 0


def from_scratch(dataset: str, args: argparse.Namespace) -> dict[str, Any]:
    """The scores of SAC on as many real steps, without the data: of the last policies, ten episodes each."""
    from functools import partial

    import numpy as np

    from damorl.behaviour import sac
    from damorl.world.tasks import find_task, make_env, normalised_score

    task, found = find_task(dataset.partition("-")[0]), {}
    config = sac.SACConfig(
        total_steps=args.steps, warmup_steps=args.steps // 10, snapshot_interval=args.steps, eval_episodes=10
    )
    for seed in args.seeds:
        last: list[float] = []
        keep = lambda step, layers, returns, metrics, last=last: last.__setitem__(slice(None), returns)
        sac.train(partial(make_env, task), config, seed, keep)
        found[str(seed)] = {"final": float(normalised_score(task, float(np.mean(last))))}
    return {"algo": "SAC from scratch", "seeds": found}


def main(argv: Sequence[str] | None = None) -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", nargs="+", default=["hopper-medium", "halfcheetah-medium-replay"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=50_000, help="real steps of each seed")
    parser.add_argument("--preset", default="quick", help="of the offline runs")
    parser.add_argument("--algos", nargs="+", default=["damo", "td3bc"])
    parser.add_argument("--out", type=Path, default=Path("runs/finetune"))
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args(argv)
    from damorl.experiment.finetuned import format_drops

    figures = []
    for dataset in args.datasets:
        for row in (*(tuned(algo, dataset, args) for algo in args.algos), from_scratch(dataset, args)):
            figures.append({"dataset": dataset, "steps": args.steps} | row)
            if not args.json:
                told = format_drops(row["seeds"]) if "holds" in row else json.dumps(row["seeds"])
                print(f"{dataset}, {row['algo']}:\n{told}\nthe bar holds: {row.get('holds', '-')}", flush=True)
    if args.json:
        print(json.dumps(figures, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
