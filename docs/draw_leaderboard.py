"""The tables of docs/leaderboard.md from docs/leaderboard/runs: python docs/draw_leaderboard.py [--check].

Writes docs/leaderboard/summary.json and what stands between the page's markers. With --check it writes nothing and
exits with 1 where either is not what the records say.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from damorl.experiment.summary import summary, variant_of
from damorl.files import atomic_file
from damorl.record.store import plain
from damorl.report.statistics import Estimate, Floats, aggregates, mean, task_means
from damorl.sweeps.grid import expand, read_grid

DOCS = Path(__file__).resolve().parent
PAGE, RUNS, SUMMARY = DOCS / "leaderboard.md", DOCS / "leaderboard/runs", DOCS / "leaderboard/summary.json"
GRIDS, NAMES = ("grid.toml", "standard.toml", "ablations.toml"), ("preset", "dataset", "algorithm", "variant")
ROBOTS, KINDS = ("hopper", "walker2d", "halfcheetah"), ("random", "medium", "medium-replay", "medium-expert")
SETS = [f"{robot}-{kind}" for robot in ROBOTS for kind in KINDS]
CLONE = ("bc", "reference_share=0.1")
HELD_OUT = [name for name in SETS if name.startswith("walker2d") or name.endswith("random")]
"""No setting was looked for on these."""
BARS = {"hopper-medium-replay": 70, "hopper-medium": 65, "hopper-medium-expert": 88,
        "halfcheetah-medium-replay": 36, "halfcheetah-medium-expert": 60, "halfcheetah-medium": 32}  # fmt: skip
"""What DAMO is to reach at `standard`."""
Row = tuple[str, str]
"""Algorithm and variant."""


def scores_of(entries: list[dict[str, Any]], preset: str) -> dict[Row, dict[str, list[float]]]:
    """The finished scores of each row by data set; rows with the most sets first, the better mean before the worse."""
    found: dict[Row, dict[str, list[float]]] = {}
    for entry in entries:
        if entry["preset"] == preset and entry["dataset"] in SETS:
            own = found.setdefault((entry["algorithm"], entry["variant"]), {})
            if entry["scores"]:
                own[entry["dataset"]] = entry["scores"]
    size = lambda row: (-len(found[row]), -np.mean([np.mean(s) for s in found[row].values()] or [0.0]))
    return {row: found[row] for row in sorted(found, key=size)}


def label(row: Row) -> str:
    """As a table names it."""
    return f"[{row[0]}](algorithms/{row[0]}.md)" + (f" `{row[1]}`" if row[1] else "")


def tables(rows: dict[Row, dict[str, list[float]]]) -> Iterator[str]:
    """One table per robot: the mean over seeds, then each seed."""
    for robot in ROBOTS:
        yield f"| {robot} | {' | '.join(KINDS)} |"
        yield "|---" * (len(KINDS) + 1) + "|"
        best = {kind: best_mean(rows, f"{robot}-{kind}") for kind in KINDS}
        for row, own in rows.items():
            cells = [cell(own.get(f"{robot}-{kind}"), best[kind]) for kind in KINDS]
            yield f"| {label(row)} | {' | '.join(cells)} |"
        yield ""


def best_mean(rows: dict[Row, dict[str, list[float]]], dataset: str) -> float | None:
    """The highest mean on a data set; None where nobody has any."""
    return max((float(np.mean(own[dataset])) for own in rows.values() if dataset in own), default=None)


def cell(scores: list[float] | None, best: float | None) -> str:
    """Mean, bold where it is the best, and each seed."""
    if not scores:
        return "missing"
    value = f"{np.mean(scores):.1f}"
    return f"{f'**{value}**' if np.mean(scores) == best else value} ({', '.join(f'{s:.0f}' for s in scores)})"


def overall(rows: dict[Row, dict[str, list[float]]]) -> Iterator[str]:
    """Mean and interquartile mean with 95 % intervals over the sets that DAMO has; rows that lack one say so."""
    names = [name for name in SETS if name in rows.get(("damo", ""), {})]
    if not names:
        return
    yield f"| over {len(names)} sets | mean | 95 % | IQM | 95 % | over those that no setting was looked for on |"
    yield "|---" * 6 + "|"
    held_out = [names.index(name) for name in names if name in HELD_OUT]
    found = {row: matrix([own[name] for name in names]) for row, own in rows.items() if set(names) <= set(own)}
    for row in sorted(found, key=lambda row: -float(mean(found[row]))):
        numbers = aggregates(found[row], seed=0)
        rest = f"{np.mean(task_means(found[row])[held_out]):.1f}" if held_out else ""
        yield f"| {label(row)} | {interval(numbers['mean'])} | {interval(numbers['iqm'])} | {rest} |"
    for row in rows:
        if row not in found:
            yield f"| {label(row)} | missing |  |  |  |  |"
    yield ""


def matrix(columns: list[list[float]]) -> Floats:
    """`[seeds, sets]`, NaN where a set has fewer."""
    runs = max(map(len, columns))
    return np.array([[*own, *[np.nan] * (runs - len(own))] for own in columns]).T


def interval(found: Estimate) -> str:
    """The value and its interval, as two cells."""
    return f"{found.value:.1f} | " + (f"{found.interval[0]:.1f} to {found.interval[1]:.1f}" if found.interval else "")


def against_clone(rows: dict[Row, dict[str, list[float]]], preset: str) -> Iterator[str]:
    """DAMO set by set beside cloning of the same share, and beside what it is to reach."""
    damo, clone = rows.get(("damo", ""), {}), rows.get(CLONE, {})
    both = [name for name in SETS if name in damo and name in clone]
    if not both:
        return
    bars = preset == "standard"
    yield "| | damo | its clone | difference |" + (" to reach |" if bars else "")
    yield "|---" * (5 if bars else 4) + "|"
    gains = {name: float(np.mean(damo[name]) - np.mean(clone[name])) for name in both}
    for name in both:
        star = "" if name in HELD_OUT else " *"
        bar = f" {BARS.get(name, '')} |" if bars else ""
        yield f"| {name}{star} | {np.mean(damo[name]):.1f} | {np.mean(clone[name]):.1f} | {gains[name]:+.1f} |{bar}"
    yield ""
    up, down = sum(g >= 5 for g in gains.values()), sum(g < -3 for g in gains.values())
    yield (f"\\* settings were looked for on these. 5 or more above the clone on {up} of {len(both)} sets, more than 3 "
           f"below it on {down}.")  # fmt: skip
    yield ""


def page(entries: list[dict[str, Any]], text: str) -> str:
    """The page with what stands between its markers made anew."""
    for preset in ("quick", "standard"):
        rows = scores_of(entries, preset)
        head = {row: own for row, own in rows.items() if not row[1] or row == CLONE}
        ablations = {row: own for row, own in rows.items() if row[0] == "damo"}
        parts = {
            f"{preset}": [*overall(head), *tables(head)] if head else [],
            f"{preset} clone": [*against_clone(rows, preset)],
            f"{preset} ablations": [*overall(ablations), *tables(ablations)] if len(ablations) > 1 else [],
        }
        for name, lines in parts.items():
            body = "\n".join(lines).strip() or "Not run yet."
            pattern = rf"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)"
            text = re.sub(pattern, lambda m, body=body: f"{m[1]}{body}\n{m[2]}", text, flags=re.DOTALL)
    return text


def all_entries() -> list[dict[str, Any]]:
    """The summary of the records, with an entry without scores for every run of the grids that is not among them."""
    found = summary([RUNS]) if any(RUNS.glob("*.json")) else []
    known = {tuple(entry[name] for name in NAMES) for entry in found}
    for grid in GRIDS:
        for config in expand(read_grid(DOCS / "leaderboard" / grid)[0]):
            key = (config.preset, config.dataset, config.algo, variant_of(plain(config.as_dict())))
            if key not in known:
                found.append(dict(zip(NAMES, key, strict=True)) | {"seeds": list(config.seeds), "scores": []})
                known.add(key)
    return sorted(found, key=lambda entry: tuple(entry[name] for name in NAMES))


def main() -> int:
    """Write both, or compare."""
    entries = all_entries()
    wanted = {SUMMARY: json.dumps(entries, indent=1) + "\n", PAGE: page(entries, PAGE.read_text(encoding="utf-8"))}
    if "--check" in sys.argv:
        stale = [path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
        print("\n".join(f"{path.relative_to(DOCS.parent)}: not what docs/leaderboard/runs says" for path in stale))
        return 1 if stale else 0
    for path, text in wanted.items():
        with atomic_file(path) as new:
            new.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
