"""The command line: it parses, calls, prints, and turns a user's mistake into one sentence and exit code 2."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from damorl._version import __version__
from damorl.errors import UserError

USAGE = """damorl: offline model-based reinforcement learning around DAMO (arXiv 2502.00850)

  damorl train [ALGO] [--dataset NAME|PATH] [--preset smoke|quick|paper] [--seeds 0 1 2] [--out DIR] [--resume]
  damorl eval RUN_DIR [--episodes N] [--noise S]
  damorl data list | make NAME | info NAME|PATH | check PATH | train-behaviour ENV
  damorl bench [--json]
  damorl --version

Each of them explains itself with --help. A first run:

  damorl data make hopper-medium-expert
  damorl train damo --dataset hopper-medium-expert --preset quick
"""


@dataclasses.dataclass(frozen=True)
class TrainArgs:
    """What `damorl train` takes besides the fields of the configs."""

    algo: tyro.conf.Positional[str] = "damo"
    """Algorithm: damo or bc."""
    dataset: str = "hopper-medium-expert"
    """Built-in name (`damorl data list`) or the path of a D4RL-layout HDF5 file."""
    preset: str = "quick"
    """smoke (seconds), quick (a laptop) or paper (Tables 3 and 4; for a GPU)."""
    seeds: tuple[int, ...] = (0,)
    """Seeds, trained together."""
    task: str | None = None
    """Task of the dataset where its name does not tell (hopper, halfcheetah, walker2d, ...)."""
    out: Path = Path("runs")
    """Directory that the run directory is made in."""
    resume: bool = False
    """Continue the run where its last checkpoint left it."""
    json: bool = False
    """Print the result as JSON, without progress bars."""


TRAIN_EXAMPLES = """Train an algorithm on a dataset and score it in the simulator.

examples:
  damorl train damo --dataset hopper-medium-expert --preset quick --seeds 0 1 2
  damorl train bc --dataset ~/data/hopper_medium-v2.hdf5 --preset quick
  damorl train damo --preset smoke --divergence-weight 1.0 --data-alignment False
  damorl train damo --dataset mydata.hdf5 --task hopper --resume"""


def train_verb(argv: list[str]) -> int:
    """`damorl train`."""
    from damorl.api import run
    from damorl.experiment.config import LoopConfig, RunConfig, defaults
    from damorl.experiment.result import format_table

    first = peek(argv)
    loop, algo_config = defaults(first.algo, first.preset, first.dataset)
    config_type = type(algo_config)
    flat = tyro.conf.arg(name="")
    arguments = dataclasses.make_dataclass(
        "train",
        [
            ("run", Annotated[TrainArgs, flat], dataclasses.field(default=first)),
            ("loop", Annotated[LoopConfig, flat], dataclasses.field(default=loop)),
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
    config = RunConfig(args.algo, args.dataset, args.task, args.preset, args.seeds, parsed.loop, parsed.config)
    result = run(config, args.out, resume=args.resume, quiet=args.json)
    summary = result.summary | {"run_dir": str(result.run_dir), "curves": str(result.curves)}
    print(json.dumps(store_plain(summary), indent=2) if args.json else "\n" + format_table(result))
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


@dataclasses.dataclass(frozen=True)
class EvalArgs:
    """Score the policies of a run in the real simulator.

    examples:
      damorl eval runs/damo-hopper-medium-expert-quick-1a2b3c4d --episodes 100
      damorl eval runs/damo-hopper-medium-expert-quick-1a2b3c4d --noise 0.05
    """

    run_dir: tyro.conf.Positional[Path]
    """Run directory."""
    episodes: int = 10
    """Episodes per seed."""
    noise: float = 0.0
    """Noise on the measured state, as a share of each feature's standard deviation."""
    json: bool = False
    """Print JSON."""


def eval_verb(argv: list[str]) -> int:
    """`damorl eval`."""
    args = parse(EvalArgs, "eval", argv)
    from damorl.api import evaluate

    rows = evaluate(args.run_dir, args.episodes, args.noise)
    if args.json:
        print(json.dumps(rows, indent=2))
        return 0
    for row in rows:
        score = f"score {row['score']:6.1f} +- {row['score_std']:.1f}   " if "score" in row else ""
        print(
            f"seed {row['seed']}   {score}return {row['return_mean']:8.1f} +- {row['return_std']:.1f}   "
            f"length {row['length_mean']:6.1f}   falls {row['falls']}/{row['episodes']}"
        )
    return 0


@dataclasses.dataclass(frozen=True)
class MakeArgs:
    """Build a built-in dataset on this machine from the behaviour policies that ship with the package.

    examples:
      damorl data make hopper-medium-expert
      damorl data make walker2d-medium --steps 1000000
    """

    name: tyro.conf.Positional[str]
    """Name from `damorl data list`."""
    steps: int = 200_000
    """Transitions per part."""
    seed: int = 0
    """Seed of the collection."""
    json: bool = False
    """Print JSON."""


def data_make(argv: list[str]) -> int:
    """`damorl data make`."""
    args = parse(MakeArgs, "data make", argv)
    from damorl.behaviour.recipe import make_dataset

    path = make_dataset(args.name, args.steps, args.seed, progress=not args.json)
    print(json.dumps({"path": str(path)}) if args.json else str(path))
    return 0


@dataclasses.dataclass(frozen=True)
class ListArgs:
    """List the built-in datasets and whether they are on this machine.

    examples:
      damorl data list
      damorl data list --json
    """

    json: bool = False
    """Print JSON."""


def data_list(argv: list[str]) -> int:
    """`damorl data list`."""
    args = parse(ListArgs, "data list", argv)
    from damorl.world.datasets import dataset_path
    from damorl.world.tasks import DATASET_NAMES

    rows = [
        {"name": name, "path": str(dataset_path(name)), "made": dataset_path(name).exists()} for name in DATASET_NAMES
    ]
    if args.json:
        print(json.dumps(rows, indent=2))
        return 0
    for row in rows:
        print(f"{row['name']:<42} {row['path'] if row['made'] else 'not made yet: damorl data make ' + row['name']}")
    return 0


@dataclasses.dataclass(frozen=True)
class InfoArgs:
    """Describe a dataset: transitions, episodes, returns, coverage, hash.

    examples:
      damorl data info hopper-medium-expert
      damorl data info ~/data/hopper_medium-v2.hdf5 --json
    """

    source: tyro.conf.Positional[str]
    """Built-in name or path."""
    task: str | None = None
    """Task, where the name does not tell."""
    steps: int = 200_000
    """Which build of a built-in set."""
    json: bool = False
    """Print JSON."""


def data_info(argv: list[str]) -> int:
    """`damorl data info`."""
    args = parse(InfoArgs, "data info", argv)
    from damorl.world.check import summary
    from damorl.world.datasets import load_dataset

    card = summary(load_dataset(args.source, args.task, args.steps))
    if args.json:
        print(json.dumps(store_plain(card), indent=2))
        return 0
    for line in card_lines(card):
        print(line)
    return 0


def card_lines(card: dict[str, Any]) -> list[str]:
    """One line per fact; distributions as `mean +- std (min to max)`; long metadata left to --json."""
    lines = []
    for key, value in card.items():
        if isinstance(value, dict) and {"mean", "std", "min", "max"} <= value.keys():
            value = f"{value['mean']:.2f} +- {value['std']:.2f} ({value['min']:.2f} to {value['max']:.2f})"
        elif isinstance(value, dict):
            lines += [f"{key + '/' + name:<24} {item}" for name, item in value.items() if len(str(item)) <= 80]
            continue
        lines.append(f"{key:<24} {value}")
    return lines


@dataclasses.dataclass(frozen=True)
class CheckArgs:
    """Report every problem of a dataset file and what training would suffer. Exit code 2 if it cannot be loaded.

    examples:
      damorl data check ~/data/mine.hdf5 --task hopper
    """

    path: tyro.conf.Positional[Path]
    """HDF5 file in D4RL's layout."""
    task: str | None = None
    """Task, where the name does not tell."""
    json: bool = False
    """Print JSON."""


def data_check(argv: list[str]) -> int:
    """`damorl data check`."""
    args = parse(CheckArgs, "data check", argv)
    from damorl.world.check import find_problems

    problems = find_problems(args.path, args.task)
    if args.json:
        print(json.dumps([dataclasses.asdict(problem) for problem in problems], indent=2))
    else:
        for problem in problems:
            print(f"{problem.severity}: {problem.message}\n  consequence: {problem.consequence}")
        if not problems:
            print(f"{args.path}: no problems found")
    return 2 if any(problem.severity == "error" for problem in problems) else 0


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
    out = args.out or Path("behaviours") / f"{task.name}-{args.seed}"
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

    examples:
      damorl bench
      damorl bench --json > bench.json
    """

    seconds: float = 3.0
    """Time spent on each measurement."""
    json: bool = False
    """Print JSON."""


def bench_verb(argv: list[str]) -> int:
    """`damorl bench`."""
    args = parse(BenchArgs, "bench", argv)
    from damorl.experiment.bench import format_bench, run_bench

    figures = run_bench(args.seconds, quiet=args.json)
    print(json.dumps(store_plain(figures), indent=2) if args.json else format_bench(figures))
    return 0


DATA_VERBS: dict[str, Callable[[list[str]], int]] = {
    "list": data_list,
    "make": data_make,
    "info": data_info,
    "check": data_check,
    "train-behaviour": data_train_behaviour,
}


def data_verb(argv: list[str]) -> int:
    """`damorl data`."""
    return dispatch(DATA_VERBS, argv, "damorl data")


VERBS: dict[str, Callable[[list[str]], int]] = {
    "train": train_verb,
    "eval": eval_verb,
    "data": data_verb,
    "bench": bench_verb,
}


def parse(arguments: type, verb: str, argv: list[str], description: str | None = None) -> Any:
    """Parse with tyro; a bad flag exits with code 2 there."""
    return tyro.cli(arguments, prog=f"damorl {verb}", args=argv, description=description)


def store_plain(value: Any) -> Any:
    """JSON-able form."""
    from damorl.record.store import plain

    return plain(value)


def dispatch(verbs: dict[str, Callable[[list[str]], int]], argv: list[str], prog: str) -> int:
    """Call the verb named by the first word."""
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if argv else 2
    if argv[0] not in verbs:
        raise UserError(f"unknown command '{prog} {argv[0]}': choose one of {', '.join(verbs)}")
    return verbs[argv[0]](argv[1:])


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point. Returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["--version"]:
        print(f"damorl {__version__}")
        return 0
    try:
        return dispatch(VERBS, words, "damorl")
    except UserError as error:
        print(f"damorl: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("damorl: interrupted; continue with --resume", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
