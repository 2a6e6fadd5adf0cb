"""`damorl select`: which policy to deploy, where there is no simulator to ask."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import tyro

from damorl.cli.base import parse, print_json


@dataclasses.dataclass(frozen=True)
class SelectArgs:
    """Estimate the value of a run's kept policies from its data alone, by fitted Q evaluation and in a learned model.

    Prints both estimates beside the real score, where there was a simulator, with the rank correlation, and marks the
    policy that each would choose. Writes selection.json into the run directory. Of several runs on one data set it
    names the setting and the checkpoint to take, how sure that is and, where there was a simulator, the regret.

    examples:
      damorl select runs/damo-hopper-medium-expert-quick-1a2b3c4d
      damorl select sweeps/weights
      damorl select runs/damo-mydata-* --dataset ~/data/mydata.hdf5 --fqe-updates 50000 --json
    """

    run_dirs: tyro.conf.Positional[tuple[Path, ...]]
    """Run directories, or directories of them: a sweep's, of which the finished runs are judged."""
    rule: Literal["pessimistic", "mean"] = "pessimistic"
    """How one setting is chosen among several runs: by its mean estimate over seeds, less its standard error or not."""
    estimator: Literal["model_value", "fqe"] = "model_value"
    """By which estimate."""
    fqe_updates: int = 20_000
    """Updates of fitted Q evaluation; a multiple of 1000."""
    fqe_hidden: tuple[int, ...] = (64, 64)
    """Hidden widths of its networks."""
    model_batches: int = 3000
    """Batches that the dynamics model is fitted for."""
    model_hidden: tuple[int, ...] = (100, 100, 100)
    """Hidden widths of the dynamics model."""
    horizon: int | None = None
    """Steps of an imagined episode; by default the time limit, or fewer where the discount leaves nothing."""
    starts: int = 50
    """Imagined episodes per policy."""
    known_share: float = 0.99
    """An imagined episode ends where the models disagree more than on this share of the data; 1: nowhere."""
    last_steps: int | None = None
    """Judge only that many of the kept steps, the latest ones."""
    gamma: float | None = None
    """Discount of both estimates; by default the run's own."""
    seed: int = 0
    """Seed of the fits and the rollouts."""
    dataset: str | None = None
    """Where the data is, if not where it was in training."""
    make: bool = True
    """Make a built-in data set that is not on this machine."""
    force: bool = False
    """Judge again what was judged before with the same settings."""
    json: bool = False
    """Print JSON, without progress bars."""


def select_verb(argv: list[str]) -> int:
    """`damorl select`."""
    args = parse(SelectArgs, "select", argv)
    from damorl.api import keep_compiled_programs
    from damorl.experiment.choice import choose_setting, format_choice
    from damorl.experiment.ranking import describe_correlation, format_selection, pooled_correlations
    from damorl.experiment.result import run_dirs_in
    from damorl.experiment.select import SelectConfig, select
    from damorl.parts.fqe import FQEConfig
    from damorl.record.store import CONFIG, read_json

    keep_compiled_programs()
    model = dataclasses.replace(SelectConfig().dynamics, max_batches=args.model_batches, hidden=args.model_hidden)
    settings = SelectConfig(
        FQEConfig(args.fqe_updates, hidden=args.fqe_hidden),
        model,
        **{name: getattr(args, name) for name in ("gamma", "horizon", "known_share", "starts", "last_steps", "seed")},
    )
    run_dirs = run_dirs_in(args.run_dirs)
    selections = select(run_dirs, settings, args.dataset, args.force, quiet=args.json, make=args.make)
    pooled = pooled_correlations(selections)
    configs = [read_json(run_dir / CONFIG) for run_dir in run_dirs]
    choices = (
        choose_setting(selections, configs, args.estimator, args.rule)
        if len(run_dirs) > 1 or configs[0].get("population")
        else []
    )
    if args.json:
        print_json({"runs": selections, "pooled": pooled, "choices": choices})
        return 0
    for selection in selections:
        print(f"\n{format_selection(selection)}")
    for group in pooled:
        print(f"\n{group['num_runs']} runs on {group['dataset']}, discount {group['gamma']:g}")
        print(describe_correlation(group))
    for choice in choices:
        print(f"\n{format_choice(choice)}")
    return 0
