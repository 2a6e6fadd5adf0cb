"""`damorl leaderboard ...`: what stores of runs say together."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

import tyro

from damorl.cli.base import parse, print_json
from damorl.errors import UserError


@dataclasses.dataclass(frozen=True)
class CompareArgs:
    """Compare two stores of runs seed by seed: what did a change of the code or of the settings do?

    A store is a directory of run directories, of their records, or of both. Rows match by algorithm, data set (name and
    sha256) and seed. Shown are the differences B - A with 95 % intervals, the settings that differ, and every seed that
    finds no partner.

    examples:
      damorl leaderboard compare docs/leaderboard/runs sweeps/new
      damorl leaderboard compare before after --out difference.html
      damorl leaderboard compare sweeps/w sweeps/w --a-setting gamma=0.99 --b-setting gamma=0.97 --json
    """

    a: tyro.conf.Positional[Path]
    """The first store."""
    b: tyro.conf.Positional[Path]
    """The second store, with the change under test."""
    a_setting: tuple[str, ...] = ()
    """Only the runs of A with these settings: key=value key=value."""
    b_setting: tuple[str, ...] = ()
    """Only the runs of B with these settings."""
    out: Path | None = None
    """A page (HTML) to write, too."""
    bootstrap_seed: int = 0
    """Seed of every bootstrap."""
    json: bool = False
    """Print JSON."""


def leaderboard_compare(argv: list[str]) -> int:
    """`damorl leaderboard compare`."""
    args = parse(CompareArgs, "leaderboard compare", argv)
    from damorl.report.paired import compare
    from damorl.report.paired_page import as_data, note, text, write_page

    narrowed = [
        settings(words, flag) for words, flag in ((args.a_setting, "--a-setting"), (args.b_setting, "--b-setting"))
    ]
    paired = compare(args.a, args.b, *narrowed, seed=args.bootstrap_seed)
    if args.out is not None:
        write_page(paired, args.out)
    if args.json:
        print_json(as_data(paired))
        return 0
    print(f"{text(paired)}\n\n{note(paired)}")
    if args.out is not None:
        print(f"\npage: {args.out}")
    return 0


@dataclasses.dataclass(frozen=True)
class SummaryArgs:
    """Write the scores of stores of runs as a list of objects: preset, dataset, algorithm, variant, seeds, scores.

    One score per seed, the mean of its last ten evaluations; an empty list where a seed is missing, failed or
    unfinished. variant is empty for the preset's own settings, else key=value, ... of what differs.

    examples:
      damorl leaderboard summary docs/leaderboard/runs --out summary.json
      damorl leaderboard summary sweeps/new --reference docs/leaderboard/runs --out summary.json
    """

    stores: tyro.conf.Positional[tuple[Path, ...]]
    """Run directories, records, or directories of them."""
    out: Path = Path("summary.json")
    """Where to write it."""
    reference: tuple[Path, ...] = ()
    """Stores whose scores of the same entry become reference_scores; by default these are the scores of cloning the
    share of the data that a method starts from."""
    json: bool = False
    """Print it, too."""


def leaderboard_summary(argv: list[str]) -> int:
    """`damorl leaderboard summary`."""
    args = parse(SummaryArgs, "leaderboard summary", argv)
    from damorl.experiment.summary import write_summary

    if not args.stores:
        raise UserError("leaderboard summary: expected at least one store, found none; name a directory of runs")
    entries = write_summary(args.stores, args.out, args.reference)
    lacking = sum(not entry["scores"] for entry in entries)
    if args.json:
        print_json(entries)
    print(f"{args.out}: {len(entries)} entries, {lacking} without scores", file=sys.stderr if args.json else sys.stdout)
    return 0


def settings(words: tuple[str, ...], flag: str) -> dict[str, str]:
    """`key=value` words."""
    found: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not key or not equals or not value:
            raise UserError(f"{flag}: expected key=value, found '{word}'; write for instance {flag} gamma=0.99")
        found[key] = value
    return found


VERBS: dict[str, Callable[[list[str]], int]] = {"compare": leaderboard_compare, "summary": leaderboard_summary}
