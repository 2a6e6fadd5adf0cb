"""The tables of a report, as plain cells that Markdown, LaTeX and the page all print."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from damorl.report.aggregate import Aggregate
from damorl.report.collect import Run, Status
from damorl.report.compare import Comparison
from damorl.report.methods import ABSENT, Method, flatten
from damorl.report.results import DataSet, Result, gather_lacks
from damorl.report.statistics import Estimate, num_missing

MISSING = "missing"
FINISHED = str(Status.FINISHED)
AGGREGATE_NAMES = {"iqm": "IQM", "mean": "Mean", "median": "Median", "optimality_gap": "Optimality gap"}


class Cell(NamedTuple):
    """What is printed and, where that is a number, the number to sort by."""

    text: str
    number: float | None = None
    detail: str = ""
    """Said smaller, after the text."""
    whisker: tuple[float, float, float] | None = None
    """Where a low end, a value and a high end lie, in percent of the column's width."""
    method: int | None = None
    """Whose colour it bears."""
    alert: bool = False
    """Whether it should catch the eye."""


class Column(NamedTuple):
    """A column's head."""

    name: str
    number: bool = False
    """Whether its cells are numbers."""
    detail: str = ""
    """Said smaller, below the name."""


class Table(NamedTuple):
    """Cells in rows, each with one cell per column."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]


SCORE = Column("Score", True, "mean of last 10")
LAST = Column("Last", True)
BEST = Column("Best", True, "not to be quoted")


def number(value: float | None, digits: int = 1) -> Cell:
    """A number, or the word that there is none."""
    if value is None or not math.isfinite(value):
        return Cell(MISSING if value is None or math.isnan(value) else str(value))
    return Cell(f"{value:,.{digits}f}", value)


def interval_text(estimate: Estimate, digits: int = 1) -> str:
    """The ends in brackets, or why there are none."""
    if estimate.interval is None:
        return "too few seeds"
    return f"[{estimate.interval[0]:,.{digits}f}, {estimate.interval[1]:,.{digits}f}]"


def interval(estimate: Estimate | None, span: tuple[float, float], digits: int = 1) -> Cell:
    """The interval of an estimate, drawn on a line from one end of `span` to the other."""
    if estimate is None or not math.isfinite(estimate.value):
        return Cell(MISSING)
    ends = estimate.interval or (estimate.value, estimate.value)
    place = lambda value: 100.0 * (value - span[0]) / ((span[1] - span[0]) or 1.0)
    whisker = place(ends[0]), place(estimate.value), place(ends[1])
    return Cell(interval_text(estimate, digits), None if estimate.interval is None else ends[0], whisker=whisker)


def count(value: int) -> Cell:
    """A whole number."""
    return Cell(f"{value:,}", value)


def method_cell(comparison: Comparison, method: Method) -> Cell:
    """A method's name, its settings smaller."""
    return Cell(method.algo, detail=method.settings, method=comparison.methods.index(method))


def state_cell(state: str) -> Cell:
    """What is not finished catches the eye."""
    return Cell(state, alert=state != FINISHED)


def data_cell(data: DataSet) -> Cell:
    """A data set's name, with the unit where it is not the usual one."""
    return Cell(data.label, detail="return" if data.unit == "return" else "")


def grid_table(comparison: Comparison) -> Table:
    """Data sets down, methods across: mean and deviation over seeds, and where nothing was run."""
    found = {(result.data, result.method): result for result in comparison.results}
    rows = [
        [data_cell(data), *(grid_cell(found.get((data, method))) for method in comparison.methods)]
        for data in comparison.data
    ]
    columns = [Column("Data set"), *(Column(method.algo, True, method.settings) for method in comparison.methods)]
    return Table("Scores at a glance", columns, rows)


def grid_cell(result: Result | None) -> Cell:
    """Mean and sample standard deviation, and how many seeds they are of."""
    if result is None:
        return Cell("not run")
    if not result.counted:
        return Cell(result.state)
    value, seeds = float(result.scores.mean()), len(result.counted)
    spread = f" ± {result.std:,.1f}" if seeds > 1 else ""
    detail = f"{seeds} seed{'s' * (seeds > 1)}" + (f", {result.state}" if result.state != "finished" else "")
    return Cell(f"{value:,.1f}{spread}", value, detail)


def score_table(comparison: Comparison) -> Table:
    """The headline: one row for each data set and method."""
    pairs = list(zip(comparison.results, comparison.estimates, strict=True))
    rows = []
    for result, estimate in pairs:
        # scores have one scale, returns of different data sets have none in common
        alike = [e for r, e in pairs if e and r.data.unit == result.data.unit and r.data.unit == "score"]
        alike = alike or [e for r, e in pairs if e and r.data == result.data]
        rows.append(
            [
                data_cell(result.data),
                method_cell(comparison, result.method),
                number(estimate.value if estimate else None),
                number(result.std) if len(result.counted) > 1 else Cell("-"),
                interval(estimate, span_of(alike)),
                count(len(result.counted)),
                number(result.average("last")),
                number(result.average("best")),
                count(max(run.total_updates for run in result.runs)),
                state_cell(result.state),
            ]
        )
    columns = [Column("Data set"), Column("Method"), SCORE, Column("Std", True), Column("95 % interval", True)]
    columns += [Column("Seeds", True), LAST, BEST, Column("Updates", True), Column("State")]
    return Table("Scores in full", columns, rows)


def span_of(estimates: Sequence[Estimate], low: float = 0.0, high: float = 100.0) -> tuple[float, float]:
    """From the lowest to the highest end, `low` and `high` among them."""
    ends = [end for item in estimates for end in (item.value, *(item.interval or ())) if math.isfinite(end)]
    return min([low, *ends]), max([high, *ends])


def seed_table(comparison: Comparison) -> Table:
    """Every seed by itself."""
    columns = [Column("Data set"), Column("Method"), Column("Seed", True), SCORE, Column("Of", True, "evaluations")]
    columns += [LAST, BEST, Column("Updates", True), Column("State"), Column("Run")]
    rows = [
        [
            data_cell(result.data),
            method_cell(comparison, result.method),
            count(score.seed),
            number(score.last_10_mean),
            count(score.evaluations),
            number(score.last),
            number(score.best),
            count(score.updates),
            state_cell(str(score.status)),
            Cell(run.name),
        ]
        for result in comparison.results
        for run, score in result.seeds
    ]
    return Table("Every seed", columns, rows)


def lack_table(comparison: Comparison) -> Table:
    """What was asked for and has no final score, with the reason."""
    names = ("Data set", "Method", "Seed", "State", "Reason", "Run")
    rows = [
        [
            data_cell(lack.result.data),
            method_cell(comparison, lack.result.method),
            count(lack.score.seed),
            state_cell(str(lack.score.status)),
            Cell(lack.reason),
            Cell(lack.run.name),
        ]
        for lack in gather_lacks(comparison.results)
    ]
    return Table("What is missing", [Column(name, name == "Seed") for name in names], rows)


def aggregate_table(comparison: Comparison, aggregate: Aggregate) -> Table:
    """One row per method, over all data sets of the block."""
    columns = [Column("Method"), *(Column(name, True) for name in AGGREGATE_NAMES.values())]
    columns += [Column("Seeds", True), Column("Missing", True)]
    spans = {key: span_of([found[key] for found in aggregate.estimates.values()]) for key in AGGREGATE_NAMES}
    rows = []
    for method in aggregate.methods:
        scores, found = aggregate.scores[method], aggregate.estimates[method]
        cells = [
            number(found[key].value)._replace(
                detail=interval_text(found[key]), whisker=interval(found[key], spans[key]).whisker
            )
            for key in AGGREGATE_NAMES
        ]
        missing = num_missing(scores)
        name = Cell(method.algo, detail=method.settings, method=comparison.methods.index(method))
        rows.append(
            [name, *cells, Cell(str(scores.size - missing), scores.size - missing), Cell(str(missing), missing)]
        )
    return Table("Over all data sets", columns, rows)


def pair_table(comparison: Comparison, aggregate: Aggregate) -> Table:
    """How likely a seed of one method beats a seed of another."""
    rows = [
        [
            method_cell(comparison, pair.first),
            method_cell(comparison, pair.second),
            number(pair.probability.value, 2),
            interval(pair.probability, (0.0, 1.0), 2),
        ]
        for pair in aggregate.pairs
    ]
    columns = [Column("A seed of"), Column("beats one of"), Column("with probability", True)]
    return Table("Probability of improvement", [*columns, Column("95 % interval", True)], rows)


def difference_tables(runs: Sequence[Run]) -> list[Table]:
    """For each algorithm with several runs the settings in which they differ: one row each, one column per run."""
    found = []
    for algo in dict.fromkeys(run.algo for run in runs):
        own = [run for run in runs if run.algo == algo]
        configs = [{k: v for k, v in flatten(run.config).items() if not k.startswith("data.")} for run in own]
        keys = dict.fromkeys(key for config in configs for key in config)
        values = {key: [config.get(key, ABSENT) for config in configs] for key in keys}
        rows = [[Cell(key), *map(Cell, row)] for key, row in values.items() if len(set(row)) > 1]
        columns = [Column("Setting"), *(Column(str(run.data["name"]), detail=run.name) for run in own)]
        found += [Table(algo, columns, rows)] if rows else []
    return found


def selection_table(run: Run) -> Table:
    """What can be known of a run's policies without the simulator, beside what the simulator said."""
    marks = {"fqe": "its choice", "model_value": "its choice", "score": "best kept"}
    policies = (run.selection or {}).get("policies") or []
    known = {key: [policy[key] for policy in policies if policy.get(key) is not None] for key in marks}

    def cell(policy: Mapping[str, Any], key: str) -> Cell:
        value = policy.get(key)
        best = value is not None and value == max(known[key])
        return number(value)._replace(detail=marks[key] if best else "")

    rows = [[count(item["seed"]), count(item["step"]), *(cell(item, key) for key in marks)] for item in policies]
    names = ("Seed", "Updates", "Fitted Q", "Value in the model", "Real score")
    return Table(f"Policies of {run.name}", [Column(name, True) for name in names], rows)
