"""`damorl report`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import tyro

from damorl.cli.base import parse, print_json


@dataclasses.dataclass(frozen=True)
class ReportArgs:
    """Make one self-contained HTML page of finished and unfinished runs: scores with intervals, curves, settings.

    Beside it go the tables as Markdown and LaTeX, and all numbers as JSON. Only what is named is read:
    run directories, records of runs, and directories of them. What a sweep's directory lacks is listed as missing.

    examples:
      damorl report runs/*
      damorl report sweeps/weights docs/leaderboard/runs
      damorl report runs/damo-hopper-* runs/bc-hopper-* --out hopper.html --title "Hopper"
    """

    run_dirs: tyro.conf.Positional[tuple[Path, ...]]
    """Run directories, records, or directories of them (a sweep's, for instance)."""
    out: Path = Path("report.html")
    """The page; its tables and numbers are written beside it as .md, .tex and .json."""
    title: str | None = None
    """Title of the page."""
    bootstrap_seed: int = 0
    """Seed of every bootstrap."""
    json: bool = False
    """Print all numbers as JSON."""


def report_verb(argv: list[str]) -> int:
    """`damorl report`."""
    args = parse(ReportArgs, "report", argv)
    from damorl.report.page import write_report

    content = write_report(args.run_dirs, args.out, args.title, args.bootstrap_seed, quiet=args.json)
    if args.json:
        print_json(content)
        return 0
    for sentence in content["cautions"]:
        print(f"read with care: {sentence}")
    for entry in content["scores"]:
        print(f"{entry['data_set']}  {entry['method']}  {score_text(entry)}")
    names = ", ".join(args.out.with_suffix(suffix).name for suffix in (".md", ".tex", ".json"))
    print(f"\nreport: {args.out} (and {names})")
    return 0


def score_text(entry: dict) -> str:
    """Mean, interval and number of seeds in one line."""
    found = entry["last_10_mean"]
    if found is None:
        return entry["state"]
    interval = found["interval"]
    ends = f" [{interval[0]:.1f}, {interval[1]:.1f}]" if interval else ""
    mark = "" if entry["state"] == "finished" else f", {entry['state']}"
    return f"{found['value']:.1f}{ends} ({entry['num_seeds']} seeds{mark})".replace("(1 seeds", "(1 seed")
