"""`damorl model`: how far a learned model can be trusted."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from damorl.cli.base import parse, print_json

if TYPE_CHECKING:
    from damorl.experiment.fitted import FittedModel


@dataclasses.dataclass(frozen=True)
class ModelArgs:
    """Judge a learned dynamics model by data that it was not fitted to.

    The error after 1 to HORIZON steps along recorded actions, whether targets lie in the predicted spread as often as
    they should, and whether the elites disagree where the error is large; for each feature and for all. Writes
    model.json and model.png into the run directory. To a data set a model is fitted first, with episodes held out.

    examples:
      damorl model runs/mopo-hopper-medium-quick-1a2b3c4d --horizon 20
      damorl model runs/mopo-hopper-medium-quick-1a2b3c4d --test-data hopper-medium-replay
      damorl model hopper-medium --out models/hopper-medium
      damorl model log.csv --task pendulum --json
    """

    source: tyro.conf.Positional[str]
    """Run directory, or a data set: a built-in name, a file, a Minari id."""
    horizon: int = 20
    """Steps that the model is followed for."""
    seed: int | None = None
    """Which seed's model of a run, the first one by default; of a data set the seed of the fit."""
    setting: int | None = None
    """Which setting of a population, by its number; the first one by default."""
    dataset: str | None = None
    """Where the data of a run is, if not where it was in training."""
    test_data: str | None = None
    """Another data set of the task to judge by, instead of what the fit held out."""
    task: str | None = None
    """Task of a data set whose name does not tell it."""
    preset: str = "quick"
    """Whose settings a model is fitted to a data set with."""
    out: Path | None = None
    """Directory of model.json and model.png; the run directory, or models/NAME for a data set."""
    make: bool = True
    """Make a built-in data set that is not on this machine."""
    json: bool = False
    """Print JSON, without progress bars."""


def model_verb(argv: list[str]) -> int:
    """`damorl model`."""
    args = parse(ModelArgs, "model", argv)
    from damorl.api import keep_compiled_programs
    from damorl.experiment.config import dataset_stem
    from damorl.experiment.model_report import format_report, report_model, write_report
    from damorl.experiment.sources import load_dataset

    keep_compiled_programs()
    model = model_of(args)
    task = None if model.dataset.task is None else model.dataset.task.name
    other = args.test_data and load_dataset(args.test_data, task, make=args.make, quiet=args.json)
    report = report_model(model, args.horizon, other or None)
    paths = write_report(report, args.out or model.run_dir or Path("models") / dataset_stem(model.dataset.name))
    if args.json:
        print_json(report | {"paths": paths})
        return 0
    print(format_report(report))
    print(f"\nreport:  {paths[0]}\npicture: {paths[1]}")
    return 0


def model_of(args: ModelArgs) -> FittedModel:
    """The model that is meant, fitted if there is none yet; UserError for words that belong to the other kind."""
    from damorl.errors import UserError
    from damorl.experiment.fitted import find_model, fit_held_out
    from damorl.experiment.sources import load_dataset

    if Path(args.source).is_dir():
        if args.task is not None:
            raise UserError(f"{args.source}: expected no --task for a run, which has its own; leave it out")
        return find_model(args.source, args.seed, args.setting, None, args.dataset, args.json, args.make)
    for name, value in {"setting": args.setting, "dataset": args.dataset}.items():
        if value is not None:
            raise UserError(f"{args.source}: expected no --{name} for a data set, found {value}; leave it out")
    dataset = load_dataset(args.source, args.task, make=args.make, quiet=args.json)
    return fit_held_out(dataset, args.preset, args.seed or 0, args.json)
