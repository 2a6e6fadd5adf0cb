"""The history of speed: python docs/draw_speed.py [--collect | --check].

Draws docs/speed.png and the tables of docs/speed.md from docs/results/speed_history.json, which holds the figures of
every version of the records docs/results/bench.json, bench_algorithms.json and compare_*.json that was ever committed.
With --collect it first adds what git or docs/results has and the file lacks. With --check it writes nothing and exits
with 1 where file, page or picture is not what the records say.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from marks import between, is_drawn_from, source
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter

from damorl.files import atomic_file
from damorl.report.curves import BLUE, GREY, INK, RED, STYLE

DOCS = Path(__file__).resolve().parent
RESULTS = DOCS / "results"
HISTORY, PAGE, PICTURE = RESULTS / "speed_history.json", DOCS / "speed.md", DOCS / "speed.png"
PATTERNS = ("bench.json", "bench_algorithms.json", "compare_*.json")
SHOWN = ("damo", "mopo", "sac", "td3bc", "bc")
"""Algorithms whose line has a name; the others are grey."""
Record = dict[str, Any]


def figures_of(told: Record) -> dict[str, dict[str, Any]]:
    """Updates per second, and their share of the matrix rate, by what was measured; nothing for other records."""
    if "updates" in told:
        return {
            f"damo, {row['num_seeds']} seed{'s' if row['num_seeds'] > 1 else ''}": {
                "per_second": row["per_second"],
                "share": row["share_of_matrix_rate"],
            }
            for row in told["updates"]
        }
    if "algorithms" in told:
        return {
            row["algo"]: {"per_second": row["updates_per_second"], "share": row["share_of_matrix_rate"]}
            for row in told["algorithms"]
        }
    if "compared" in told:
        rates = {row["algo"]: row["updates_per_second"] for row in told["compared"] if "updates_per_second" in row}
        return {algo: {"per_second": now, "other_per_second": before} for algo, (now, before) in rates.items()}
    return {}


def record_of(name: str, told: Record, committed: str, date: str) -> Record:
    """What the history keeps of one version of a record."""
    git = told.get("git") or {}
    return {
        "file": name,
        "date": told.get("started", date)[:10],
        "revision": (git.get("revision") or committed)[:7],
        "other": told.get("other"),
        "preset": told.get("preset") or "paper",
        "device": told.get("device_kind"),
        "cpus": told.get("usable_cpus"),
        "matrix_gflops": max(told.get("matrix_gflops", {}).values(), default=None),
        "figures": figures_of(told),
    }


def versions() -> Iterator[Record]:
    """Every committed version of every record, the oldest first."""
    git = lambda *words: subprocess.run(["git", *words], cwd=DOCS, capture_output=True, text=True, check=True).stdout
    for path in records():
        place = path.relative_to(DOCS.parent).as_posix()
        for line in reversed(git("log", "--format=%h %cs", "--", f":/{place}").splitlines()):
            committed, date = line.split()
            yield record_of(path.name, json.loads(git("show", f"{committed}:{place}")), committed, date)


def current() -> Iterator[Record]:
    """Every record as it is now."""
    return (record_of(path.name, json.loads(path.read_text(encoding="utf-8")), "", "") for path in records())


def records() -> list[Path]:
    """The records that are there now and hold figures of speed."""
    found = [path for pattern in PATTERNS for path in sorted(RESULTS.glob(pattern))]
    return [path for path in found if figures_of(json.loads(path.read_text(encoding="utf-8")))]


def collected(history: list[Record], found: Iterator[Record]) -> list[Record]:
    """The history with what it lacks of `found`, by date."""
    known = {json.dumps([record["file"], record["figures"]], sort_keys=True) for record in history}
    new = [r for r in found if json.dumps([r["file"], r["figures"]], sort_keys=True) not in known]
    return sorted([*history, *new], key=lambda record: (record["date"], record["file"]))


def rows_of(history: list[Record], file: str) -> list[Record]:
    """The versions of one record, the oldest first; a name that ends with `*` stands for several files."""
    return [record for record in history if re.fullmatch(file.replace("*", ".*"), record["file"])]


def tables(history: list[Record]) -> Iterator[str]:
    """One table of shares over time per record, and one of what was measured in turns."""
    for file in ("bench.json", "bench_algorithms.json"):
        versions_of = rows_of(history, file)
        yield f"| {file}, {versions_of[-1]['preset']} | " + " | ".join(when(r) for r in versions_of) + " |"
        yield "|---" * (len(versions_of) + 1) + "|"
        for name in dict.fromkeys(name for record in versions_of for name in record["figures"]):
            yield f"| {name} | " + " | ".join(cell(record["figures"].get(name)) for record in versions_of) + " |"
        yield (
            "| matrix rate | " + " | ".join(f"{record['matrix_gflops']:,.0f} GFLOP/s" for record in versions_of) + " |"
        )
        yield ""
    yield "| in turns | of | before | now | times |"
    yield "|---|---|---|---|---|"
    for record in rows_of(history, "compare_*"):
        for name, own in record["figures"].items():
            now, before = own["per_second"], own["other_per_second"]
            pair = f"{record['other']}, {record['revision']}"
            yield f"| {pair} | {name} | {before:,.0f} | {now:,.0f} | {now / before:.2f} |"


def when(record: Record) -> str:
    """Day and revision of a measurement."""
    return f"{record['date']}, {record['revision']}"


def cell(own: dict[str, Any] | None) -> str:
    """Updates per second, and their share of the matrix rate."""
    return "" if own is None else f"{own['per_second']:,.0f}/s, {100 * own['share']:.0f} %"


def page(history: list[Record], text: str) -> str:
    """The page with what stands between its markers made anew."""
    return between(text, "tables", [*tables(history)])


def draw(history: list[Record], path: Path) -> None:
    """Shares of the matrix rate over the revisions, and rates in turns."""
    with plt.rc_context(STYLE):
        figure, (full, quick, turns) = plt.subplots(1, 3, figsize=(13, 4.2), layout="constrained")
        draw_shares(full, rows_of(history, "bench.json"), "DAMO at the paper's size", ())
        draw_shares(quick, rows_of(history, "bench_algorithms.json"), "All algorithms at quick size", SHOWN)
        draw_turns(turns, rows_of(history, "compare_*"))
        figure.savefig(path, format="png", dpi=130, metadata=source(history))
        plt.close(figure)


def draw_shares(axes: Axes, versions_of: list[Record], title: str, shown: tuple[str, ...]) -> None:
    """A line for each thing that was measured; with `shown`, only those have a name."""
    names = list(dict.fromkeys(name for record in versions_of for name in record["figures"]))
    ends = []
    for number, name in enumerate(names):
        at = [index for index, record in enumerate(versions_of) if name in record["figures"]]
        shares = [versions_of[index]["figures"][name]["share"] for index in at]
        named = not shown or name in shown
        colour = (BLUE, RED)[number % 2] if not shown else INK if named else GREY
        axes.plot(at, shares, "o-", color=colour, markersize=4, alpha=1.0 if named else 0.45)
        ends += [(shares[-1], name, colour)] if named else []
    top = 1.08 * axes.get_ylim()[1]
    heights = apart([share for share, _, _ in sorted(ends)], 0.05 * top)
    for height, (_, name, colour) in zip(heights, sorted(ends), strict=True):
        axes.annotate(name, (len(versions_of) - 1, height), (7, 0), "data", "offset points", va="center", color=colour)
    axes.set(title=title, ylim=(0.0, top), xlim=(-0.2, len(versions_of) - 0.35), ylabel="share of the matrix rate")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xticks(range(len(versions_of)), [when(record).replace(", ", "\n") for record in versions_of])


def apart(heights: list[float], space: float) -> list[float]:
    """Ascending heights, moved up and down until any two neighbours have `space` between them."""
    moved = list(heights)
    for _ in range(200):
        for low in range(len(moved) - 1):
            push = max(0.0, space - (moved[low + 1] - moved[low])) / 2
            moved[low], moved[low + 1] = moved[low] - push, moved[low + 1] + push
    return moved


def draw_turns(axes: Axes, compared: list[Record]) -> None:
    """Updates per second before and now, of each pair that was measured in turns."""
    rows = [(record, name, own) for record in compared for name, own in record["figures"].items()]
    rows.sort(key=lambda row: row[2]["per_second"])
    for height, (_, _, own) in enumerate(rows):
        now, before = own["per_second"], own["other_per_second"]
        axes.plot([before, now], [height, height], "-", color=GREY, linewidth=1.5, zorder=1)
        axes.plot(before, height, "o", color=GREY, markersize=5, label="before" if height == 0 else None)
        axes.plot(now, height, "o", color=BLUE, markersize=5, label="now" if height == 0 else None)
        text = f"{now / before:.2f} times"
        axes.annotate(text, (max(now, before), height), (8, 0), "data", "offset points", va="center", fontsize=8.5)
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.set_xlim(low, high * 1.9)
    axes.xaxis.set_major_locator(FixedLocator([100, 200, 500, 1000, 2000, 5000]))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_yticks(range(len(rows)), [name for _, name, _ in rows])
    pairs = ", ".join(dict.fromkeys(f"{record['other']} and {record['revision']}" for record in compared))
    axes.set(title="Two revisions in turns, quick", xlabel=f"updates per second: {pairs}")
    axes.legend(loc="lower right")


def stale(history: list[Record]) -> list[str]:
    """What is not as the records say."""
    found = [] if len(collected(history, current())) == len(history) else [f"{HISTORY.name} lacks a record"]
    if PAGE.read_text(encoding="utf-8") != page(history, PAGE.read_text(encoding="utf-8")):
        found.append(f"{PAGE.name} is not what {HISTORY.name} says")
    if not is_drawn_from(PICTURE, history):
        found.append(f"{PICTURE.name} was drawn from other figures")
    return found


def main() -> int:
    """Collect, draw and write, or compare."""
    history: list[Record] = json.loads(HISTORY.read_text(encoding="utf-8")) if HISTORY.exists() else []
    if "--check" in sys.argv:
        found = stale(history)
        print("\n".join(found))
        return 1 if found else 0
    if "--collect" in sys.argv:
        history = collected(collected(history, versions()), current())
        with atomic_file(HISTORY) as new:
            new.write_text(json.dumps(history, indent=1) + "\n", encoding="utf-8")
    with atomic_file(PICTURE) as new:
        draw(history, new)
    text = page(history, PAGE.read_text(encoding="utf-8"))
    with atomic_file(PAGE) as new:
        new.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
