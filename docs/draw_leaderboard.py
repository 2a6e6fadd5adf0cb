"""The leaderboard from docs/leaderboard/runs: python docs/draw_leaderboard.py [--check].

Writes docs/leaderboard/summary.json, docs/leaderboard.png, and what stands between the markers of docs/leaderboard.md
and README.md. With --check it writes nothing and exits with 1 where one of them is not what the records say.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")
import numpy as np
from marks import between, is_drawn_from, source
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from damorl.experiment.summary import summary, variant_of
from damorl.files import atomic_file
from damorl.record.store import plain
from damorl.report.curves import BLUE, GREY, INK, RED, STYLE
from damorl.report.statistics import Estimate, Floats, aggregates, mean, task_means
from damorl.sweeps.grid import expand, read_grid

DOCS = Path(__file__).resolve().parent
PAGE, README, PICTURE = DOCS / "leaderboard.md", DOCS.parent / "README.md", DOCS / "leaderboard.png"
RUNS, SUMMARY = DOCS / "leaderboard/runs", DOCS / "leaderboard/summary.json"
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
Rows = dict[Row, dict[str, list[float]]]
"""Scores by row and data set, one per seed."""
DRAWN = {
    CLONE: ("cloning the best tenth", GREY, -0.25),
    ("mopo", ""): ("MOPO", RED, 0.0),
    ("damo", ""): ("DAMO", BLUE, 0.25),
}
"""Name, colour and place of what the picture shows."""


def scores_of(entries: list[dict[str, Any]], preset: str) -> Rows:
    """The finished scores of each row by data set; rows with the most sets first, the better mean before the worse."""
    found: Rows = {}
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


def tables(rows: Rows) -> Iterator[str]:
    """One table per robot: the mean over seeds, then each seed."""
    for robot in ROBOTS:
        yield f"| {robot} | {' | '.join(KINDS)} |"
        yield "|---" * (len(KINDS) + 1) + "|"
        best = {kind: best_mean(rows, f"{robot}-{kind}") for kind in KINDS}
        for row, own in rows.items():
            cells = [cell(own.get(f"{robot}-{kind}"), best[kind]) for kind in KINDS]
            yield f"| {label(row)} | {' | '.join(cells)} |"
        yield ""


def best_mean(rows: Rows, dataset: str) -> float | None:
    """The highest mean on a data set; None where nobody has any."""
    return max((float(np.mean(own[dataset])) for own in rows.values() if dataset in own), default=None)


def cell(scores: list[float] | None, best: float | None) -> str:
    """Mean, bold where it is the best, and each seed."""
    if not scores:
        return "missing"
    value = f"{np.mean(scores):.1f}"
    return f"{f'**{value}**' if np.mean(scores) == best else value} ({', '.join(f'{s:.0f}' for s in scores)})"


class Standing(NamedTuple):
    """A row that has all of some sets."""

    row: Row
    mean: Estimate
    iqm: Estimate
    held_out: float | None
    """Its mean over those sets that no setting was looked for on."""


def standings(rows: Rows, names: list[str]) -> list[Standing]:
    """The rows that have all sets in `names`, the best mean first, with bootstrap intervals."""
    held_out = [names.index(name) for name in names if name in HELD_OUT]
    found = {row: matrix([own[name] for name in names]) for row, own in rows.items() if set(names) <= set(own)}
    standing = []
    for row in sorted(found, key=lambda row: -float(mean(found[row]))):
        numbers, rest = aggregates(found[row], seed=0), np.mean(task_means(found[row])[held_out]) if held_out else None
        standing.append(Standing(row, numbers["mean"], numbers["iqm"], None if rest is None else float(rest)))
    return standing


def overall(rows: Rows) -> Iterator[str]:
    """Mean and interquartile mean with 95 % intervals over the sets that DAMO has; rows that lack one say so."""
    names = [name for name in SETS if name in rows.get(("damo", ""), {})]
    if not names:
        return
    yield f"| over {len(names)} sets | mean | 95 % | IQM | 95 % | over those that no setting was looked for on |"
    yield "|---" * 6 + "|"
    standing = standings(rows, names)
    for own in standing:
        rest = "" if own.held_out is None else f"{own.held_out:.1f}"
        yield f"| {label(own.row)} | {interval(own.mean)} | {interval(own.iqm)} | {rest} |"
    for row in rows:
        if row not in [own.row for own in standing]:
            yield f"| {label(row)} | missing |  |  |  |  |"
    yield ""


def matrix(columns: list[list[float]]) -> Floats:
    """`[seeds, sets]`, NaN where a set has fewer."""
    runs = max(map(len, columns))
    return np.array([[*own, *[np.nan] * (runs - len(own))] for own in columns]).T


def interval(found: Estimate) -> str:
    """The value and its interval, as two cells."""
    return f"{found.value:.1f} | " + (f"{found.interval[0]:.1f} to {found.interval[1]:.1f}" if found.interval else "")


def against_clone(rows: Rows, preset: str) -> Iterator[str]:
    """DAMO set by set beside cloning of the same share, and beside what it is to reach."""
    damo, clone = rows.get(("damo", ""), {}), rows.get(CLONE, {})
    both = [name for name in SETS if name in damo and name in clone]
    if not both:
        return
    bars = preset == "standard"
    yield "| | seeds | damo | its clone | difference |" + (" to reach |" if bars else "")
    yield "|---" * (6 if bars else 5) + "|"
    gains = {name: float(np.mean(damo[name]) - np.mean(clone[name])) for name in both}
    for name in both:
        star = "" if name in HELD_OUT else " *"
        bar = f" {BARS.get(name, '')} |" if bars else ""
        means = f"{np.mean(damo[name]):.1f} | {np.mean(clone[name]):.1f} | {gains[name]:+.1f}"
        yield f"| {name}{star} | {len(damo[name])} | {means} |{bar}"
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
            text = between(text, name, lines or ["Not run yet."])
    return text


def readme(entries: list[dict[str, Any]], text: str) -> str:
    """The README with its tables made anew: the demo, the rows of `quick` that are complete, DAMO at `standard`."""
    demo, clone = (json.loads((DOCS / f"results/{name}.json").read_text())["scores"] for name in ("demo", "demo-bc"))
    told = [f"{own['last_10_mean']:.1f} +- {own['last_10_std']:.1f}" for own in (demo, clone)]
    shown = [f"| {demo['dataset']}, {demo['num_seeds']} seeds | DAMO | cloning |", "|---|---|---|",
             f"| score (100: upright to the end) | **{told[0]}** | {told[1]} |"]  # fmt: skip
    lines = ["| `quick`, 3 seeds | 12 sets, mean | 95 % | the 6 shaded sets |", "|---|---|---|---|"]
    for own in standings(scores_of(entries, "quick"), SETS):
        name = label(own.row).replace("(algorithms/", "(docs/algorithms/")
        lines.append(f"| {name} | {interval(own.mean)} | {own.held_out:.1f} |")
    standard = [*against_clone(scores_of(entries, "standard"), "")]
    return between(between(between(text, "leaderboard", lines), "standard", standard), "demo", shown)


def draw(entries: list[dict[str, Any]], path: Path) -> None:
    """DAMO, MOPO and the clone on every set: each seed a dot, their mean a line."""
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(2, 1, figsize=(11, 6.6), sharex=True, layout="constrained")
        for axes, preset in zip(panels, ("quick", "standard"), strict=True):
            draw_preset(axes, scores_of(entries, preset))
            axes.set(title=f"{preset} (shaded: sets that no setting was looked for on)", ylabel="normalised score")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper right", ncols=len(DRAWN))
        panels[1].set_xticks(range(len(SETS)), [name.replace("-", "\n") for name in SETS])
        figure.savefig(path, format="png", dpi=130, metadata=source(entries))
        plt.close(figure)


def draw_preset(axes: Axes, rows: Rows) -> None:
    """One panel; the sets that no setting was looked for on are shaded."""
    for row, (name, colour, shift) in DRAWN.items():
        own = rows.get(row, {})
        places = [SETS.index(dataset) + shift for dataset in own]
        axes.hlines(
            [np.mean(s) for s in own.values()], [x - 0.1 for x in places], [x + 0.1 for x in places], colour, lw=3
        )
        for place, scores in zip(places, own.values(), strict=True):
            axes.plot([place] * len(scores), scores, "o", color=colour, markersize=3.5, alpha=0.6)
        axes.plot([], [], "o-", color=colour, label=name)
    for number, name in enumerate(SETS):
        if name in HELD_OUT:
            axes.axvspan(number - 0.5, number + 0.5, color=INK, alpha=0.05, lw=0)
        if not any(name in own for own in rows.values()):
            axes.annotate("missing", (number, 50), ha="center", va="center", color=GREY)
    axes.grid(visible=False, axis="x")
    axes.set(ylim=(0, 105), xlim=(-0.5, len(SETS) - 0.5))


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
    wanted = {
        SUMMARY: json.dumps(entries, indent=1) + "\n",
        PAGE: page(entries, PAGE.read_text(encoding="utf-8")),
        README: readme(entries, README.read_text(encoding="utf-8")),
    }
    if "--check" in sys.argv:
        stale = [path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
        if not is_drawn_from(PICTURE, entries):
            stale.append(PICTURE)
        print("\n".join(f"{path.relative_to(DOCS.parent)}: not what docs/leaderboard/runs says" for path in stale))
        return 1 if stale else 0
    for path, text in wanted.items():
        with atomic_file(path) as new:
            new.write_text(text, encoding="utf-8")
    with atomic_file(PICTURE) as new:
        draw(entries, new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
