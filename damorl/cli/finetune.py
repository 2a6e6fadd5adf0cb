"""`damorl finetune`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import tyro

from damorl.cli.base import parse, print_json


@dataclasses.dataclass(frozen=True)
class FinetuneArgs:
    """What `damorl finetune` takes besides its settings and those of the run's algorithm."""

    run_dir: tyro.conf.Positional[Path]
    """Directory of the offline run, with its checkpoint. It stays as it is."""
    env: str | None = None
    """Environment of the real steps: a task (hopper, ...), a Gymnasium id, or mytasks.py:task."""
    dataset: str | None = None
    """More offline data: built-in name, D4RL name, path (HDF5, npz, CSV, Parquet) or Minari id."""
    data: str | None = None
    """Where the data of the offline run are, if not where they were in training."""
    out: Path = Path("runs")
    """Directory that the new run directory is made in."""
    resume: bool = False
    """Continue the run where its last checkpoint left it."""
    make: bool = True
    """Make a built-in dataset that is not on this machine, once and on all cores. Without: refuse."""
    json: bool = False
    """Print the result as JSON, without progress bars."""


EXAMPLES = """Let an offline run go on learning: real steps, or more offline data, join the data that it has.

examples:
  damorl finetune runs/damo-hopper-medium-quick-1a2b3c4d --env hopper --steps 50000
  damorl finetune runs/td3bc-hopper-medium-quick-1a2b3c4d --env hopper --steps 20000 --value-weight 10
  damorl finetune runs/damo-hopper-medium-quick-1a2b3c4d --env mytasks.py:icy_hopper --reference moves --resume
  damorl finetune runs/damo-hopper-medium-quick-1a2b3c4d --dataset hopper-medium-replay --steps 10000

--help after a run directory lists the settings of its algorithm, too."""


def finetune_verb(argv: list[str]) -> int:
    """`damorl finetune`."""
    from damorl import api
    from damorl.experiment.command import differences
    from damorl.experiment.finetune_settings import FinetuneSettings, finetuned_config
    from damorl.experiment.finetuned import format_drops, read_drops
    from damorl.experiment.parent import read_config
    from damorl.experiment.result import format_table

    named = argv and not argv[0].startswith("-")
    algo_config = finetuned_config(read_config(Path(argv[0])), FinetuneSettings(), {}).algo_config if named else None
    parsed = parse(arguments(algo_config), "finetune", argv, EXAMPLES)
    args = parsed.run
    own = {} if algo_config is None else differences(algo_config, parsed.config)
    settings = vars(parsed.settings) | {name.replace(".", "__"): value for name, value in own.items()}
    how = {"resume": args.resume, "quiet": args.json, "make": args.make, "data": args.data}
    result = api.finetune(args.run_dir, args.env, args.dataset, args.out, **settings, **how)
    drops = read_drops(result.run_dir)
    if args.json:
        places = {"run_dir": str(result.run_dir), "curves": str(result.curves)}
        print_json(result.summary | places | {"drops": drops})
        return 0
    print("\n" + format_table(result) + "\n" + format_drops(drops))
    return 0


def arguments(algo_config: Any) -> type:
    """What is parsed: the words above, the settings of fine-tuning and, for a known run, those of its algorithm."""
    from damorl.experiment.finetune_settings import FinetuneSettings

    flat = tyro.conf.arg(name="")
    settings = Annotated[tyro.conf.FlagConversionOff[FinetuneSettings], flat]
    fields: list[Any] = [
        ("run", Annotated[FinetuneArgs, flat]),
        ("settings", settings, dataclasses.field(default=FinetuneSettings())),
    ]
    if algo_config is not None:
        kind = type(algo_config)
        own = Annotated[tyro.conf.FlagConversionOff[kind], flat]
        fields.append(("config", own, dataclasses.field(default=algo_config)))
    return dataclasses.make_dataclass("finetune", fields, frozen=True)
