"""`damorl ope`: off-policy estimates of a run's policies, side by side."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import tyro

from damorl.cli.base import parse, print_json


@dataclasses.dataclass(frozen=True)
class OPEArgs:
    """Estimate what the kept policies of runs are worth from their data, in eight ways.

    Importance weights (whole episodes; per decision; both weighted), doubly robust, a ratio of occupancies (DICE),
    fitted Q and a learned model, with intervals and effective episodes; `!` marks what cannot be trusted. Where a
    simulator scored the policies, the last table has each estimator's rank correlation and regret. Writes ope.json into
    each run directory.

    examples:
      damorl ope runs/damo-hopper-medium-quick-1a2b3c4d
      damorl ope runs/*-hopper-medium-* --out ope.json
      damorl ope runs/td3bc-mydata-* --densities cloned --std 0.1
    """

    run_dirs: tyro.conf.Positional[tuple[Path, ...]]
    """Run directories, or directories of them: a sweep's, of which the finished runs are judged."""
    densities: Literal["auto", "recorded", "cloned"] = "auto"
    """The behaviour's log densities: those that the data record, those of a Gaussian clone, or whichever there are."""
    std: float | None = None
    """Give every policy this standard deviation before the tanh: one that was trained to be deterministic has none."""
    fqe_updates: int = 20_000
    """Updates of fitted Q evaluation; a multiple of 1000."""
    model_batches: int = 3000
    """Batches that the dynamics model is fitted for."""
    resamples: int = 200
    """Bootstrap resamples of the episodes, for the intervals."""
    features: int = 128
    """Features of the ratio of occupancies."""
    last_steps: int | None = None
    """Judge only that many of the kept steps, the latest ones."""
    gamma: float | None = None
    """Discount of all estimates; by default the run's own."""
    seed: int = 0
    """Seed of the fits, the samples and the resamples."""
    dataset: str | None = None
    """Where the data is, if not where it was in training."""
    make: bool = True
    """Make a built-in data set that is not on this machine."""
    force: bool = False
    """Judge again what was judged before with the same settings."""
    out: Path | None = None
    """Also write all of it, with the command, into this JSON file."""
    json: bool = False
    """Print JSON, without progress bars."""


def ope_verb(argv: list[str]) -> int:
    """`damorl ope`."""
    args = parse(OPEArgs, "ope", argv)
    from damorl.api import keep_compiled_programs
    from damorl.experiment.ope import ope, write_all
    from damorl.experiment.ope_settings import OPEConfig
    from damorl.experiment.ope_table import format_pooled, format_report, pooled
    from damorl.experiment.result import run_dirs_in
    from damorl.experiment.select import SelectConfig
    from damorl.parts.fqe import FQEConfig

    keep_compiled_programs()
    model = dataclasses.replace(SelectConfig().dynamics, max_batches=args.model_batches)
    own = {name: getattr(args, name) for name in ("gamma", "last_steps", "seed")}
    judging = SelectConfig(FQEConfig(args.fqe_updates), model, **own)
    settings = OPEConfig(judging, args.densities, args.std, args.resamples, features=args.features)
    reports = ope(run_dirs_in(args.run_dirs), settings, args.dataset, args.force, quiet=args.json, make=args.make)
    groups = pooled(reports)
    if args.out is not None:
        write_all(reports, groups, args.out)
    if args.json:
        print_json({"runs": reports, "pooled": groups})
        return 0
    for report in reports:
        print(f"\n{format_report(report)}")
    for group in groups:
        print(f"\n{format_pooled(group)}")
    return 0
