"""`damorl sweep`."""

from __future__ import annotations

import dataclasses
import signal
import sys
from pathlib import Path
from typing import Literal

import tyro

from damorl.cli.base import parse, print_json
from damorl.errors import UserError

INTERRUPTED = 130


@dataclasses.dataclass(frozen=True)
class SweepArgs:
    """Run a grid of algorithms, data sets, settings and seeds: on every core, on a Ray cluster, or through Slurm.

    What has its result is skipped, what was begun goes on from its checkpoint: stop it whenever you like, and type the
    same command again. Exit code 0: every run is done; 1: some failed (failure.json in their directories says why).

    examples:
      damorl sweep grid.toml --dry-run
      damorl sweep grid.toml --out sweeps/weights
      damorl sweep docs/leaderboard/grid.toml --known docs/leaderboard/runs
      damorl sweep grid.toml --backend ray --address auto --cpus-per-run 2
      damorl sweep grid.toml --backend slurm --slurm slurm_partition=short mem_gb=8
    """

    grid: tyro.conf.Positional[Path]
    """The grid (TOML): algorithms, datasets, preset, seeds, [settings], [cross], variants, and each under
    [algorithm.NAME]."""
    backend: Literal["local", "ray", "slurm"] = "local"
    """Where: this machine, a Ray cluster (`pip install damorl[ray]`), or Slurm (`damorl[slurm]`)."""
    workers: int | None = None
    """Runs at once. By default one per core, or per GPU."""
    out: Path | None = None
    """Directory of the run directories; sweeps/NAME-OF-THE-GRID by default."""
    known: Path | None = None
    """Folder of compact records: runs that have one count as done, and each run that finishes gets one."""
    seeds_per_process: int | None = None
    """Seeds of one setting that train together; 0 is all. By default 1 on a CPU and all on a GPU."""
    retries: int = 2
    """Further tries for a run that crashed, was killed, ran out of memory or lost its node."""
    cpus_per_run: float = 1.0
    """On a cluster: CPUs of each run."""
    gpus_per_run: float = 0.0
    """On a cluster: GPUs of each run; Ray takes fractions."""
    address: str | None = None
    """Of a running Ray cluster, or auto. By default one is started on this machine."""
    slurm: tuple[str, ...] = ()
    """Further words for sbatch, as submitit calls them: slurm_partition=short timeout_min=600."""
    dry_run: bool = False
    """Print the runs that are left and the time that they would take, and do nothing."""
    refit: bool = False
    """Fit the dynamics, also where a stored model has the same data, settings and seed."""
    make: bool = True
    """Make built-in data sets that are missing."""
    quiet: bool = False
    """Show nothing but the end."""
    json: bool = False
    """Print a JSON object for every event and, last, for the result."""


def sweep_verb(argv: list[str]) -> int:
    """`damorl sweep`."""
    args = parse(SweepArgs, "sweep", argv)
    if args.dry_run:
        from damorl.sweeps.outlook import dry_run, outlook_text

        found = dry_run(args.grid, args.out, args.known, args.workers, args.seeds_per_process)
        print_json(found) if args.json else print(outlook_text(found))
        return 0
    from damorl.sweeps.run import sweep

    signal.signal(signal.SIGTERM, stop)
    try:
        result = sweep(
            args.grid,
            args.backend,
            args.out,
            args.known,
            form_of(args),
            args.make,
            workers=args.workers,
            seeds_per_process=args.seeds_per_process,
            retries=args.retries,
            refit=args.refit,
            cpus_per_run=args.cpus_per_run,
            gpus_per_run=args.gpus_per_run,
            address=args.address,
            slurm=pairs(args.slurm),
        )
    except KeyboardInterrupt:
        print("damorl: interrupted; the same command goes on", file=sys.stderr)
        return INTERRUPTED
    if args.json:
        print_json(dataclasses.asdict(result) | {"complete": result.complete})
    else:
        print(f"{result.done} of {result.total} runs are done, in {result.out}")
        for failure in result.failed:
            print(f"failed: {failure['run']}: {failure['kind']}: {failure['reason']}")
    return 0 if result.complete else 1


def stop(*_: object) -> None:
    """What a scheduler's SIGTERM does. Not by way of SIGINT: shells let their background jobs ignore that one."""
    raise KeyboardInterrupt


def form_of(args: SweepArgs) -> Literal["live", "lines", "quiet", "json"]:
    """A live table for people at a terminal, lines for a file, JSON for programs."""
    if args.json:
        return "json"
    if args.quiet:
        return "quiet"
    return "live" if sys.stderr.isatty() else "lines"


def pairs(words: tuple[str, ...]) -> dict[str, str]:
    """`key=value` words."""
    found: dict[str, str] = {}
    for word in words:
        key, _, value = word.partition("=")
        if not key or not value:
            raise UserError(f"--slurm: expected key=value, found '{word}'; write for instance slurm_partition=short")
        found[key] = value
    return found
