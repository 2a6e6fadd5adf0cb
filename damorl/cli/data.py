"""`damorl data ...`: make, fetch, describe and check data sets."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import tyro

from damorl.cli.base import column_map, parse, print_json
from damorl.errors import UserError

if TYPE_CHECKING:
    from damorl.data.check import Problem

T = TypeVar("T")
Flat = Annotated[T, tyro.conf.arg(name="")]
"""Arguments that several verbs share, without a prefix."""


@dataclasses.dataclass(frozen=True)
class MakeArgs:
    """Build built-in data sets on this machine from the behaviour policies that ship with the package.

    What needs a set makes it by itself; this makes one in advance, or another size or seed.

    examples:
      damorl data make hopper-medium-expert
      damorl data make walker2d-medium --steps 1000000
      damorl data make --all
    """

    name: tyro.conf.Positional[str | None] = None
    """Name from `damorl data list`."""
    all: bool = False
    """Every built-in set that is not there yet. Goes on after a failure; the exit code is then 2."""
    steps: int = 200_000
    """Transitions per part."""
    seed: int = 0
    """Seed of the collection."""
    json: bool = False
    """Print JSON."""


def data_make(argv: list[str]) -> int:
    """`damorl data make`."""
    args = parse(MakeArgs, "data make", argv)
    if (args.name is None) != args.all:
        raise UserError("data make: expected either a name from `damorl data list` or --all; give one of them")
    if args.all:
        return _make_all(args)
    from damorl.behaviour.recipe import make_dataset

    path = make_dataset(args.name, args.steps, args.seed, progress=not args.json)
    print_json({"path": path}) if args.json else print(path)
    return 0


def _make_all(args: MakeArgs) -> int:
    """Each built-in set in turn, whatever becomes of the others, and at the end a line for each."""
    from damorl.world.tasks import DATASET_NAMES

    rows = []
    for number, name in enumerate(DATASET_NAMES, start=1):
        if not args.json:
            print(f"[{number}/{len(DATASET_NAMES)}] {name}", file=sys.stderr, flush=True)
        rows.append({"name": name, **_make_one(name, args)})
    if args.json:
        print_json(rows)
    for row in [] if args.json else rows:
        print(f"{row['name']:<42} {row['status']}{': ' + row['error'] if row['error'] else ''}")
    return 2 if any(row["error"] for row in rows) else 0


def _make_one(name: str, args: MakeArgs) -> dict[str, Any]:
    from damorl.behaviour.recipe import make_dataset
    from damorl.data.datasets import dataset_path

    target = dataset_path(name, args.steps, args.seed)
    before = target.stat().st_mtime_ns if target.exists() else None
    try:
        path = make_dataset(name, args.steps, args.seed, progress=not args.json)
    except Exception as error:  # whatever it is, the other sets can still be made
        return {"path": None, "status": "failed", "error": str(error) or type(error).__name__}
    status = "was there" if path.stat().st_mtime_ns == before else "made"
    return {"path": path, "status": status, "error": None}


@dataclasses.dataclass(frozen=True)
class ListArgs:
    """List the built-in data sets and whether they are on this machine, and which of D4RL's are.

    examples:
      damorl data list
      damorl data list --json
    """

    json: bool = False
    """Print JSON."""


def data_list(argv: list[str]) -> int:
    """`damorl data list`."""
    args = parse(ListArgs, "data list", argv)
    from damorl.data.datasets import dataset_path
    from damorl.data.download import D4RL_NAMES, downloaded_path
    from damorl.world.tasks import DATASET_NAMES

    rows: list[dict[str, Any]] = []
    for name in DATASET_NAMES:
        rows.append({"name": name, "path": dataset_path(name), "made": dataset_path(name).exists()})
    for name in D4RL_NAMES:
        with suppress(UserError):  # it is not here, or not what it was
            rows.append({"name": name, "path": downloaded_path(name), "downloaded": True})
    if args.json:
        print_json(rows)
        return 0
    for row in rows:
        print(f"{row['name']:<42} {row['path'] if row.get('made', True) else 'damorl data make ' + row['name']}")
    print(f"{'of D4RL':<42} damorl data download NAME")
    return 0


@dataclasses.dataclass(frozen=True)
class ReadingArgs:
    """How a data set is to be read."""

    task: str | None = None
    """Task, where the name does not tell; "none" for none."""
    steps: int = 200_000
    """Which build of a built-in set."""
    columns: tuple[str, ...] = ()
    """What arrays or columns are called: observations=angle,speed rewards=r."""
    action_bounds: tuple[float, float] | None = None
    """Lowest and highest action, where they are not -1 and 1 and the task does not tell."""

    make: bool = True
    """Make a built-in set that is not on this machine. Without: refuse."""
    allow_external: bool = False
    """Read values that an HDF5 file keeps in other files, each named before it is read. Without: refuse."""

    def options(self, quiet: bool) -> dict[str, Any]:
        """The keywords of `load_dataset` and `find_problems`."""
        how = {"columns": column_map(self.columns), "allow_external": self.allow_external}
        bounds = {"action_bounds": self.action_bounds}
        return {"task": self.task, "num_steps": self.steps, "make": self.make, "quiet": quiet, **bounds, **how}


@dataclasses.dataclass(frozen=True)
class InfoArgs:
    """Print the card of a data set and draw its picture. Of one that cannot be loaded, its problems; exit code 2.

    examples:
      damorl data info hopper-medium-expert
      damorl data info ~/data/hopper_medium-v2.hdf5 --picture card.png
      damorl data info log.csv --columns observations=angle,speed actions=torque --action-bounds -2 2 --json
    """

    source: tyro.conf.Positional[str]
    """Name from `damorl data list`, path (HDF5, npz, CSV, Parquet) or Minari id."""
    reading: Flat[ReadingArgs]
    picture: Path | None = None
    """Where to draw the picture (PNG); by default in damorl's cache."""
    json: bool = False
    """Print JSON."""


def data_info(argv: list[str]) -> int:
    """`damorl data info`."""
    args = parse(InfoArgs, "data info", argv)
    from damorl.cli.card import card_lines
    from damorl.data.card import card_and_arrays
    from damorl.data.datasets import cache_dir
    from damorl.experiment.sources import find_problems, load_dataset
    from damorl.report.card import draw_card

    options = args.reading.options(args.json)
    try:
        dataset = load_dataset(args.source, **options)
    except UserError:
        problems = find_problems(args.source, **options)
        if not any(problem.severity == "error" for problem in problems):
            raise
        return _report_problems(args.source, problems, args.json)
    card, arrays = card_and_arrays(dataset)
    if not args.json:
        print("\n".join(card_lines(card)))
    file_name = re.sub(r"[^-.\w]", "-", f"{dataset.name}-{dataset.sha256[:8]}.png")  # Minari's names have slashes
    picture = draw_card(card, arrays, args.picture or cache_dir() / "cards" / file_name)
    print_json(card | {"picture": picture}) if args.json else print(f"{'picture':<18}{picture}")
    return 0


@dataclasses.dataclass(frozen=True)
class CheckArgs:
    """Report every problem of a data set and what training would suffer. Exit code 2 if it cannot be loaded.

    examples:
      damorl data check ~/data/mine.hdf5 --task hopper
      damorl data check log.csv --columns observations=angle,speed actions=torque --action-bounds -2 2
    """

    source: tyro.conf.Positional[str]
    """Name from `damorl data list`, path (HDF5, npz, CSV, Parquet) or Minari id."""
    reading: Flat[ReadingArgs]
    json: bool = False
    """Print JSON."""


def data_check(argv: list[str]) -> int:
    """`damorl data check`."""
    args = parse(CheckArgs, "data check", argv)
    from damorl.experiment.sources import find_problems

    problems = find_problems(args.source, **args.reading.options(args.json))
    return _report_problems(args.source, problems, args.json)


def _report_problems(source: str, problems: list[Problem], json: bool) -> int:
    """Print each problem with its consequence; 2 if one of them is an error."""
    if json:
        print_json([dataclasses.asdict(problem) for problem in problems])
    else:
        for problem in problems:
            print(f"{problem.severity}: {problem.message}\n  consequence: {problem.consequence}")
        if not problems:
            print(f"{source}: no problems found")
    return 2 if any(problem.severity == "error" for problem in problems) else 0


@dataclasses.dataclass(frozen=True)
class ExportArgs:
    """Write a data set into Minari's local store, under an id of yours (needs `pip install damorl[minari]`).

    examples:
      damorl data export hopper-medium minari damorl/hopper/medium-v0
      damorl data export mine.npz minari lab/arm-v0 --task none --storage arrow
    """

    source: tyro.conf.Positional[str]
    """Name from `damorl data list`, path (HDF5, npz, CSV, Parquet) or Minari id."""
    kind: tyro.conf.Positional[Literal["minari"]]
    """Whose format."""
    id: tyro.conf.Positional[str]
    """Minari id: words joined by slashes, and a version."""
    reading: Flat[ReadingArgs]
    storage: Literal["hdf5", "arrow"] = "hdf5"
    """Minari's storage format."""
    json: bool = False
    """Print JSON."""


def data_export(argv: list[str]) -> int:
    """`damorl data export`."""
    args = parse(ExportArgs, "data export", argv)
    from damorl.data.minari_export import export_minari
    from damorl.experiment.sources import load_dataset

    path = export_minari(load_dataset(args.source, **args.reading.options(args.json)), args.id, args.storage)
    print_json({"id": args.id, "path": path}) if args.json else print(path)
    return 0


def data_download(argv: list[str]) -> int:
    """`damorl data download`."""
    from damorl.cli.fetch import data_download as download

    return download(argv)


VERBS: dict[str, Callable[[list[str]], int]] = {
    "list": data_list,
    "make": data_make,
    "download": data_download,
    "info": data_info,
    "check": data_check,
    "export": data_export,
}
