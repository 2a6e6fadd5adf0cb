"""`damorl train`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from damorl.cli.base import column_map, parse, print_json


@dataclasses.dataclass(frozen=True)
class TrainArgs:
    """What `damorl train` takes besides the fields of the configs."""

    algo: tyro.conf.Positional[str] = "damo"
    """Algorithm: damo, a baseline (bc, sac, mopo, ...) or a plug-in's (an unknown name lists them all)."""
    dataset: str = "hopper-medium-expert"
    """Built-in name (`damorl data list`), D4RL name, path (HDF5, npz, CSV, Parquet) or Minari id."""
    preset: str = "quick"
    """smoke (seconds), quick (a minute), standard (ten minutes on a laptop) or paper (Tables 3 and 4; for a GPU)."""
    seeds: tuple[int, ...] = (0,)
    """Seeds, trained together."""
    population: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A setting and its values, divergence_weight=0.3,1,3: each is trained, in one compiled program. Give it once for
    every setting that varies: all combinations are trained."""
    task: str | None = None
    """Task of the data where their name does not tell: built-in (hopper, ...), a Gymnasium id, or mytasks.py:task."""
    columns: tuple[str, ...] = ()
    """What arrays or columns are called in a file of your own: observations=angle,speed rewards=r."""
    action_bounds: tuple[float, float] | None = None
    """Lowest and highest action, where they are not -1 and 1 and the task does not tell."""
    resident_rows: int | None = None
    """Rows of the data in memory at a time, others in every epoch: for an HDF5 file that is larger than memory, and an
    algorithm without a model. By default all."""
    out: Path = Path("runs")
    """Directory that the run directory is made in."""
    resume: bool = False
    """Continue the run where its last checkpoint left it."""
    refit: bool = False
    """Fit the dynamics, also where a stored model has the same data, settings and seed."""
    make: bool = True
    """Make a built-in dataset that is not on this machine, once and on all cores. Without: refuse."""
    allow_external: bool = False
    """Read values that an HDF5 file keeps in other files, each named before it is read. Without: refuse."""
    log: tuple[Literal["wandb", "mlflow"], ...] = ()
    """Trackers to log to as well: wandb (needs damorl[wandb]), mlflow (needs damorl[mlflow])."""
    json: bool = False
    """Print the result as JSON, without progress bars."""


TRAIN_EXAMPLES = """Train an algorithm on a dataset and score it in the simulator.

examples:
  damorl train damo --dataset hopper-medium-expert --preset quick --seeds 0 1 2
  damorl train bc --dataset ~/data/hopper_medium-v2.hdf5 --preset quick
  damorl train damo --preset smoke --divergence-weight 1.0 --data-alignment False
  damorl train damo --population divergence_weight=0.3,1,3 --population actor_lr=1e-4,3e-4 --seeds 0 1
  damorl train damo --dataset mydata.hdf5 --task hopper --resume
  damorl train damo --seeds 0 1 2 --log wandb"""


def train_verb(argv: list[str]) -> int:
    """`damorl train`."""
    from damorl import api
    from damorl.experiment.config import LoopConfig, RunConfig, defaults
    from damorl.experiment.population import parse_population, with_population
    from damorl.experiment.result import format_table
    from damorl.loggers import make_loggers

    first = peek(argv)
    loop, algo_config = defaults(first.algo, first.preset, first.dataset)
    config_type = type(algo_config)
    flat = tyro.conf.arg(name="")
    arguments = dataclasses.make_dataclass(
        "train",
        [
            ("run", Annotated[TrainArgs, flat], dataclasses.field(default=first)),
            ("loop", Annotated[tyro.conf.FlagConversionOff[LoopConfig], flat], dataclasses.field(default=loop)),
            (
                "config",
                Annotated[tyro.conf.FlagConversionOff[config_type], flat],
                dataclasses.field(default=algo_config),
            ),
        ],
        frozen=True,
    )
    parsed = parse(arguments, "train", argv, TRAIN_EXAMPLES)
    args = parsed.run
    config = RunConfig(
        args.algo,
        args.dataset,
        args.task,
        args.preset,
        args.seeds,
        parsed.loop,
        parsed.config,
        column_map(args.columns),
        args.action_bounds,
        resident_rows=args.resident_rows,
    )
    config = with_population(config, parse_population(args.population))
    callbacks = make_loggers(args.log)
    if args.allow_external:
        config = api.with_full_task(config)
        data = api.load_data(config, args.make, args.json, allow_external=True)
        result = api.run_on(config, data, args.out, args.resume, args.json, args.refit, callbacks)
    else:
        result = api.run(config, args.out, args.resume, args.json, args.refit, args.make, callbacks)
    summary = result.summary | {"run_dir": str(result.run_dir), "curves": str(result.curves)}
    print_json(summary) if args.json else print("\n" + format_table(result))
    return 0


def peek(argv: list[str]) -> TrainArgs:
    """The three arguments that decide every default: algorithm, preset, dataset."""
    found = {"algo": TrainArgs.algo, "preset": TrainArgs.preset, "dataset": TrainArgs.dataset}
    if argv and not argv[0].startswith("-"):
        found["algo"] = argv[0]
    for name in ("preset", "dataset"):
        for index, word in enumerate(argv):
            if word.startswith(f"--{name}="):
                found[name] = word.split("=", 1)[1]
            elif word == f"--{name}" and index + 1 < len(argv):
                found[name] = argv[index + 1]
    return TrainArgs(found["algo"], found["dataset"], found["preset"])
