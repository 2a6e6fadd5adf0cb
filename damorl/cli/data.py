"""`damorl data ...`: make, fetch, describe and check data sets."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tyro

from damorl.cli.base import parse, print_json


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
    print_json({"path": path}) if args.json else print(path)
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
        print_json(rows)
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
    from damorl.world.card import summary
    from damorl.world.datasets import load_dataset

    card = summary(load_dataset(args.source, args.task, args.steps))
    if args.json:
        print_json(card)
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
        print_json([dataclasses.asdict(problem) for problem in problems])
    else:
        for problem in problems:
            print(f"{problem.severity}: {problem.message}\n  consequence: {problem.consequence}")
        if not problems:
            print(f"{args.path}: no problems found")
    return 2 if any(problem.severity == "error" for problem in problems) else 0


VERBS: dict[str, Callable[[list[str]], int]] = {
    "list": data_list,
    "make": data_make,
    "info": data_info,
    "check": data_check,
}
