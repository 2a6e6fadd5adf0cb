"""A paired comparison as tables, as one page, and as plain data."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from damorl.files import atomic_file, writing
from damorl.record.store import plain
from damorl.report.html import render, require_html
from damorl.report.paired import Paired, PairedRow
from damorl.report.statistics import AGGREGATE_REPS, CONFIDENCE, Estimate
from damorl.report.tables import Cell, Column, Table, interval_text, number


def as_data(paired: Paired) -> dict[str, Any]:
    """What `--json` prints."""
    data = dataclasses.asdict(paired)
    for row, entry in zip(paired.rows, data["rows"], strict=True):
        entry["difference"] = None if row.difference is None else row.difference._asdict()
    data["overall"] = [item._asdict() | {"difference": item.difference._asdict()} for item in paired.overall]
    bootstrap = {"seed": data.pop("seed"), "confidence": CONFIDENCE, "reps": AGGREGATE_REPS}
    return plain({"names": data.pop("names"), "num_pairs": paired.num_pairs, "bootstrap": bootstrap} | data)


def tables(paired: Paired) -> list[Table]:
    """Over all data sets, each data set, the settings that differ, and what has no partner."""
    found = [overall_table(paired), row_table(paired), settings_table(paired), unmatched_table(paired)]
    return [table for table in found if table.rows]


def overall_table(paired: Paired) -> Table:
    """Each algorithm over its data sets."""
    rows = [
        [
            Cell(item.algorithm),
            Cell(str(len(item.datasets)), len(item.datasets)),
            Cell(str(item.num_pairs), item.num_pairs),
            signed(item.difference),
            ends(item.difference),
        ]
        for item in paired.overall
    ]
    columns = [Column("Algorithm"), Column("Data sets", True), Column("Pairs", True), Column("B - A", True)]
    return Table("Over all data sets", [*columns, Column("95 % interval", True)], rows)


def row_table(paired: Paired) -> Table:
    """Each algorithm on each data set."""
    rows = [
        [
            Cell(row.algorithm),
            Cell(row.dataset, detail="return" if row.metric == "eval/return_mean" else ""),
            Cell(str(len(row.seeds)), len(row.seeds)),
            number(mean_of(row.a)),
            number(mean_of(row.b)),
            signed(row.difference),
            ends(row.difference),
            Cell("; ".join(row.notes)),
        ]
        for row in paired.rows
    ]
    columns = [Column("Algorithm"), Column("Data set"), Column("Pairs", True), Column("A", True), Column("B", True)]
    return Table(
        "Each data set", [*columns, Column("B - A", True), Column("95 % interval", True), Column("Note")], rows
    )


def settings_table(paired: Paired) -> Table:
    """The settings that differ; once where all data sets of an algorithm agree."""
    grouped: dict[tuple[str, str, str, str], list[PairedRow]] = {}
    for row in paired.rows:
        for key, (a, b) in row.settings.items():
            grouped.setdefault((row.algorithm, key, a, b), []).append(row)
    total = {row.algorithm: sum(other.algorithm == row.algorithm for other in paired.rows) for row in paired.rows}
    rows = [
        [
            Cell(algorithm),
            Cell(key),
            Cell(a),
            Cell(b),
            Cell("all" if len(own) == total[algorithm] else ", ".join(row.dataset for row in own)),
        ]
        for (algorithm, key, a, b), own in grouped.items()
    ]
    return Table("Settings that differ", [Column(name) for name in ("Algorithm", "Setting", "A", "B", "On")], rows)


def unmatched_table(paired: Paired) -> Table:
    """The seeds without a partner, those with one reason together."""
    grouped: dict[tuple[str, str, str], list[int]] = {}
    for item in paired.unmatched:
        grouped.setdefault((item.algorithm, item.dataset, item.reason), []).append(item.seed)
    rows = [
        [Cell(algorithm), Cell(dataset), Cell(", ".join(map(str, seeds))), Cell(reason, alert=True)]
        for (algorithm, dataset, reason), seeds in grouped.items()
    ]
    return Table("Without a partner", [Column(name) for name in ("Algorithm", "Data set", "Seeds", "Why")], rows)


def note(paired: Paired) -> str:
    """How the numbers were made."""
    return (
        "A seed's score is the mean of its last 10 evaluations; a pair is the same algorithm, data and seed in both "
        "stores, whose model may be another fit. "
        "Intervals are 95 % percentile intervals of the bootstrap over pairs, drawn within each data set "
        f"({AGGREGATE_REPS:,} draws from seed {paired.seed}); with few seeds they are too narrow. An interval that "
        "leaves 0 out speaks for a difference on these data sets, one that holds it does not speak for none."
    )


def mean_of(values: tuple[float, ...]) -> float | None:
    """The mean; None of nothing."""
    return sum(values) / len(values) if values else None


def signed(estimate: Estimate | None) -> Cell:
    """A difference with its sign."""
    return Cell("-") if estimate is None else Cell(f"{estimate.value:+,.1f}", estimate.value)


def ends(estimate: Estimate | None) -> Cell:
    """Its interval."""
    if estimate is None or estimate.interval is None:
        return Cell("too few pairs")
    return Cell(interval_text(estimate), estimate.interval[0])


def text(paired: Paired) -> str:
    """All tables for a terminal, columns aligned."""
    head = [f"A: {paired.names[0]}", f"B: {paired.names[1]}", f"{paired.num_pairs} pairs"]
    return "\n".join([*head, *(f"\n{table.title}\n{aligned(table)}" for table in tables(paired))])


def aligned(table: Table) -> str:
    """A table in columns as wide as they need be, numbers to the right."""
    words = lambda cell: f"{cell.text} ({cell.detail})" if cell.detail else cell.text
    lines = [[column.name for column in table.columns], *([words(cell) for cell in row] for row in table.rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(table.columns))]
    place = [str.rjust if column.number else str.ljust for column in table.columns]
    shown = (
        "  ".join(put(word, width) for put, word, width in zip(place, line, widths, strict=True)) for line in lines
    )
    return "\n".join(f"  {line}".rstrip() for line in shown)


def write_page(paired: Paired, out: Path) -> Path:
    """The comparison as one self-contained page. UserError if it cannot be written."""
    require_html(out)
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(out) as temporary:
        temporary.write_text(page(paired), encoding="utf-8")
    return out


def page(paired: Paired) -> str:
    """The page as text."""
    return render("paired.html.j2", paired=paired, tables=tables(paired), note=note(paired))
