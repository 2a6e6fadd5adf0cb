"""`damorl paper`: the paper's figures and tables."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import tyro

from damorl.cli.base import parse, print_json


@dataclasses.dataclass(frozen=True)
class PaperArgs:
    """Make a figure or table of the paper: train what it needs, measure, draw. Without a name: list them.

    Finished runs are used again, interrupted ones continue, and figures share their runs. Each experiment leaves its
    numbers (NAME-SCALE.json) and its picture (NAME-SCALE.png) in the directory.

    examples:
      damorl paper list
      damorl paper fig2
      damorl paper fig3 --scale quick --out paper
      damorl paper table2 --scale full --algos damo mopo --datasets hopper-medium
      damorl paper table2 --no-train --given runs/mopo-hopper-medium-expert-quick-*
    """

    name: tyro.conf.Positional[str] = "list"
    """fig1, fig2, fig3, fig4, fig5, table1, table2, or list."""
    scale: str = "quick"
    """smoke (seconds), quick (a laptop), full (the paper's settings; for a GPU)."""
    seeds: tuple[int, ...] | None = None
    """Seeds, trained together. By default the scale's: 1, 2 or 4 of them."""
    datasets: tuple[str, ...] | None = None
    """Other data sets than the experiment's own."""
    algos: tuple[str, ...] | None = None
    """Of table2 and fig1: which algorithms."""
    updates: int | None = None
    """Another number of gradient updates than the preset's."""
    given: tuple[Path, ...] = ()
    """Of table2: finished run directories to list as well."""
    train: bool = True
    """Make missing runs first. Without, table2, fig1 and fig5 mark them missing and the others refuse."""
    make: bool = True
    """Make built-in data sets that are not on this machine."""
    out: Path = Path("paper")
    """Directory of the runs and of the results."""
    json: bool = False
    """Print JSON, without progress bars."""


def paper_verb(argv: list[str]) -> int:
    """`damorl paper`."""
    args = parse(PaperArgs, "paper", argv)
    from damorl.paper.experiments import find_experiment, format_list, list_experiments, make_experiment
    from damorl.paper.plan import Request

    request = Request(args.scale, args.seeds, args.datasets, args.algos, args.updates)
    if args.name == "list":
        rows = list_experiments(request, args.out)
        print_json(rows) if args.json else print(format_list(rows, request))
        return 0
    find_experiment(args.name)
    content = make_experiment(args.name, request, args.out, args.train, args.json, args.given, args.make)
    if args.json:
        print_json(content)
        return 0
    print("\n" + "\n".join(content["lines"]))
    print(f"\nnumbers: {content['json']}\npicture: {content['picture']}")
    return 0
