"""`damorl zoo`: the trained policies that come with the package."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import tyro

from damorl.cli.base import parse, print_json


@dataclasses.dataclass(frozen=True)
class ZooArgs:
    """List the trained policies that come with the package, or print the card of one.

    Load one with damorl.load_policy("zoo:NAME"); `damorl eval zoo:NAME` and `damorl film zoo:NAME` take it as well.
    The score is the mean over the seeds of the run, with its 95 % interval. The seed that is in the zoo was chosen
    without the simulator; its own score stands beside it.

    examples:
      damorl zoo
      damorl zoo walker2d-medium-expert
      damorl eval zoo:walker2d-medium-expert --episodes 20
    """

    name: tyro.conf.Positional[str | None] = None
    """Print the card of this one as JSON."""
    json: bool = False
    """Print all cards as JSON."""


def zoo_verb(argv: list[str]) -> int:
    """`damorl zoo`."""
    args = parse(ZooArgs, "zoo", argv)
    from damorl.experiment.zoo import PREFIX, entry_names, read_card, read_entry

    if args.name is not None:
        print_json(read_entry(args.name.removeprefix(PREFIX)).card)
        return 0
    cards = [read_card(name) for name in entry_names()]
    if args.json:
        print_json(cards)
        return 0
    print(table(cards) if cards else "the zoo is empty")
    return 0


def table(cards: Sequence[Mapping[str, Any]]) -> str:
    """One line for each policy."""
    rows = [("name", "algorithm", "preset", "score (95 % interval)", "this seed", "size", "licence"), *map(row, cards)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, cells, widths)).rstrip() for cells in rows)


def row(card: Mapping[str, Any]) -> tuple[str, ...]:
    """Name, algorithm, preset, scores, size and licence of a policy, in words."""
    seeds, size = card["seeds"], f"{card['file_bytes'] / 1e3:.0f} kB"
    own = seeds["scores"].get(str(card["seed"]))
    this = "" if own is None else f"{own:.1f}"
    return card["name"], card["algorithm"], card["preset"], score(seeds), this, size, card["licence"]


def score(seeds: Mapping[str, Any]) -> str:
    """`96.2 (95.0 to 97.9, 3 seeds)`."""
    if seeds["mean"] is None:
        return "not scored"
    low, high = seeds["interval"]
    return f"{seeds['mean']:.1f} ({low:.1f} to {high:.1f}, {len(seeds['scores'])} seeds)"
