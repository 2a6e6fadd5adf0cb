"""`damorl data train-behaviour` and `damorl bench`: for those who build the house."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import tyro

from damorl.cli.base import parse, print_json


@dataclasses.dataclass(frozen=True)
class BehaviourArgs:
    """Train behaviour policies for a task with online SAC, and keep snapshots of them.

    examples:
      damorl data train-behaviour hopper --steps 500000 --seed 0 --out behaviours/hopper
    """

    env: tyro.conf.Positional[str]
    """Task: hopper, halfcheetah, walker2d or inverted_double_pendulum."""
    steps: int = 600_000
    """Environment steps."""
    snapshot_interval: int = 10_000
    """Steps between two snapshots; a multiple of 50."""
    seed: int = 0
    """Seed."""
    out: Path | None = None
    """Directory of the snapshots; behaviours/ENV-SEED by default."""
    export: Path | None = None
    """Afterwards choose expert, medium and replay snapshots and write arrays and card into this directory."""


def data_train_behaviour(argv: list[str]) -> int:
    """`damorl data train-behaviour`."""
    args = parse(BehaviourArgs, "data train-behaviour", argv)
    from damorl.behaviour import policies, sac, training
    from damorl.world.tasks import find_task

    task = find_task(args.env)
    out = args.out or Path("behaviours") / f"{task.short_name}-{args.seed}"
    training.train_behaviour(
        task, args.seed, sac.SACConfig(total_steps=args.steps, snapshot_interval=args.snapshot_interval), out
    )
    if args.export is not None:
        policies.export(out, task, args.export)
    print(out)
    return 0


@dataclasses.dataclass(frozen=True)
class BenchArgs:
    """Measure speed on this machine: updates, rollouts, dynamics fit, evaluation, and the share of the matrix rate.

    For an algorithm that plans: plans per second.

    examples:
      damorl bench
      damorl bench --algo trajectory-transformer
      damorl bench --json > bench.json
      damorl bench --algo all
      damorl bench --algo rambo --preset quick
    """

    algo: str = "damo"
    """damo: every stage of it at full size; all: an update of every algorithm, side by side; an algorithm that plans:
    plans per second; or the name of another."""
    preset: str = "paper"
    """Settings of the algorithms that are measured side by side: paper, quick or smoke."""
    seconds: float = 3.0
    """Time spent on each measurement."""
    json: bool = False
    """Print JSON."""


def bench_verb(argv: list[str]) -> int:
    """`damorl bench`."""
    args = parse(BenchArgs, "bench", argv)
    from damorl.experiment.config import find_algorithm

    if args.algo == "damo":
        from damorl.experiment.bench import format_bench, run_bench

        figures, write = run_bench(args.seconds, quiet=args.json), format_bench
    elif args.algo != "all" and find_algorithm(args.algo).planner is not None:
        from damorl.experiment.bench_planner import format_planner_bench, run_planner_bench

        figures, write = run_planner_bench(args.algo, args.seconds, args.json), format_planner_bench
    else:
        from damorl.experiment.bench_algorithms import format_algorithms_bench, run_algorithms_bench

        names = () if args.algo == "all" else (args.algo,)
        figures, write = run_algorithms_bench(names, args.seconds, args.json, args.preset), format_algorithms_bench
    print_json(figures) if args.json else print(write(figures))
    return 0
