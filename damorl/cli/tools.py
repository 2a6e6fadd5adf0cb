"""`damorl data train-behaviour` and `damorl bench`: for those who develop damorl."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tyro

from damorl.cli.base import parse, print_json
from damorl.errors import UserError


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
      damorl bench --algo all --preset quick --json > before.json
      damorl bench --algo damo mopo sac --preset quick --compare ../old-checkout
      damorl bench --algo all --preset quick --compare before.json
      damorl bench --growth --algo mopo --minutes 20 --json --picture growth.png > growth.json
    """

    algo: tuple[str, ...] = ("damo",)
    """damo: every stage of it at full size; all, or several names: an update of each, side by side; an algorithm that
    plans: plans per second; or the name of another."""
    preset: str | None = None
    """Settings of the algorithms that are measured side by side: paper (the default), quick or smoke; for --growth
    quick is the default."""
    seconds: float = 3.0
    """Time spent on each measurement."""
    compare: Path | None = None
    """Another checkout of damorl, whose updates take turns with this one's; or the JSON of an earlier --algo all."""
    growth: bool = False
    """How speed and memory of one algorithm change with rows of data, rollout buffer, seeds, ensemble and width."""
    minutes: float | None = None
    """Time for --growth in all; what was not reached is listed as such."""
    picture: Path | None = None
    """Draw the figures of --growth into this PNG file, too."""
    json: bool = False
    """Print JSON."""


def bench_verb(argv: list[str]) -> int:
    """`damorl bench`."""
    args = parse(BenchArgs, "bench", argv)
    figures, write = grown(args) if args.growth else measured(args)
    print_json(figures) if args.json else print(write(figures))
    return 0


def grown(args: BenchArgs) -> tuple[dict[str, Any], Callable[[Any], str]]:
    """The figures of --growth, drawn if asked for, and what writes them as a table."""
    from damorl.bench.growth import format_growth, run_growth_bench

    if len(args.algo) != 1 or args.algo == ("all",) or args.compare is not None:
        found = "--compare" if args.compare is not None else f"--algo {' '.join(args.algo)}"
        raise UserError(f"--growth: expected one --algo and no --compare, found {found}; measure one after the other")
    if args.minutes is not None and args.minutes <= 0:
        raise UserError(f"--minutes: expected more than 0, found {args.minutes:g}; leave it out to measure everything")
    figures = run_growth_bench(args.algo[0], args.seconds, args.json, args.preset or "quick", args.minutes)
    if args.picture is not None:
        from damorl.report.growth import draw_growth

        draw_growth(figures, args.picture)
    return figures, format_growth


def measured(args: BenchArgs) -> tuple[dict[str, Any], Callable[[Any], str]]:
    """The figures that were asked for, and what writes them as a table."""
    if args.minutes is not None or args.picture is not None:
        raise UserError("--minutes and --picture belong to --growth: add it, or leave them out")
    from damorl.algos import ALGORITHMS
    from damorl.experiment.config import find_algorithm

    names = tuple(sorted(ALGORITHMS)) if args.algo == ("all",) else args.algo
    algorithms, preset = [find_algorithm(name) for name in names], args.preset or "paper"
    if args.compare is not None and not args.compare.is_file():
        from damorl.bench.compare import compare_checkouts, format_comparison

        return compare_checkouts(args.compare, names, args.seconds, preset, args.json), format_comparison
    if args.compare is None and names == ("damo",):
        from damorl.bench.stages import format_bench, run_bench

        return run_bench(args.seconds, quiet=args.json), format_bench
    if args.compare is None and len(names) == 1 and algorithms[0].planner is not None:
        from damorl.bench.planner import format_planner_bench, run_planner_bench

        return run_planner_bench(names[0], args.seconds, args.json), format_planner_bench
    from damorl.bench.algorithms import format_algorithms_bench, run_algorithms_bench

    figures = run_algorithms_bench(() if args.algo == ("all",) else names, args.seconds, args.json, preset)
    if args.compare is None:
        return figures, format_algorithms_bench
    from damorl.bench.compare import compare_saved, format_comparison

    return compare_saved(args.compare, figures), format_comparison
