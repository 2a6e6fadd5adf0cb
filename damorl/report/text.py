"""Tables as Markdown and as LaTeX."""

from __future__ import annotations

import math
from collections.abc import Iterator

from damorl.report.aggregate import Aggregate
from damorl.report.compare import Comparison, cautions
from damorl.report.results import DataSet, Result
from damorl.report.tables import (
    Cell,
    Table,
    aggregate_table,
    grid_table,
    interval_text,
    lack_table,
    pair_table,
    score_table,
    seed_table,
)

LATEX_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "_": r"\_",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def markdown(comparison: Comparison, title: str, notes: str) -> str:
    """The tables of a report, with its cautions, as one Markdown document."""
    tables = [grid_table(comparison), score_table(comparison)]
    if comparison.aggregate is not None:
        tables += [aggregate_table(comparison, comparison.aggregate), pair_table(comparison, comparison.aggregate)]
    tables += [lack_table(comparison), seed_table(comparison)]
    warnings = "".join(f"- {sentence}\n" for sentence in cautions(comparison))
    parts = [f"# {title}\n", notes + "\n", f"## Read with care\n\n{warnings}" if warnings else ""]
    parts += [f"## {table.title}\n\n{markdown_table(table)}" for table in tables if table.rows]
    return "\n".join(part for part in parts if part)


def markdown_table(table: Table) -> str:
    """One table; number columns to the right."""
    names = [markdown_cell(Cell(column.name, detail=column.detail)) for column in table.columns]
    rules = ["---:" if column.number else "---" for column in table.columns]
    lines = [names, rules, *([markdown_cell(cell) for cell in row] for row in table.rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def markdown_cell(cell: Cell) -> str:
    """The text with its detail."""
    detail = cell.detail if cell.detail.startswith("[") else f"({cell.detail})"
    text = f"{cell.text} {detail}" if cell.detail else cell.text
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("_", "\\_").replace("\n", " ")


def latex(comparison: Comparison) -> str:
    """The score table for a paper: data sets down, methods across, mean and deviation over seeds. Needs `booktabs`."""
    header = " & ".join(["Data set", *(latex_text(method.label) for method in comparison.methods)])
    body = [" & ".join(latex_row(comparison, data)) for data in comparison.data]
    foot = (
        [] if comparison.aggregate is None else ["\\midrule", " & ".join(latex_iqm(comparison, comparison.aggregate))]
    )
    lines = [
        "% needs \\usepackage{booktabs}",
        "% Per seed the mean of the last 10 evaluations; of these the mean, the sample standard deviation (n - 1) and,",
        "% in parentheses, the number of seeds. Normalised scores, unless a data set is marked as return.",
        f"\\begin{{tabular}}{{l{'r' * len(comparison.methods)}}}",
        "\\toprule",
        header,
        "\\midrule",
        *body,
        *foot,
        "\\bottomrule",
        "\\end{tabular}",
    ]
    return "".join(f"{line} \\\\\n" if " & " in line else f"{line}\n" for line in lines)


def latex_row(comparison: Comparison, data: DataSet) -> Iterator[str]:
    """The data set's name and one cell per method."""
    found = {result.method: result for result in comparison.results if result.data == data}
    yield latex_text(data.label) + (" (return)" if data.unit == "return" else "")
    yield from (latex_cell(found.get(method)) for method in comparison.methods)


def latex_cell(result: Result | None) -> str:
    """Mean and deviation with the number of seeds, or what there is instead."""
    if result is None:
        return "not run"
    if not result.counted:
        return result.state
    spread = "" if math.isnan(result.std) else f" \\pm {result.std:.1f}"
    mark = "" if result.finished else "\\,\\textit{unfinished}"
    return f"${float(result.scores.mean()):.1f}{spread}$ ({len(result.counted)}){mark}"


def latex_iqm(comparison: Comparison, aggregate: Aggregate) -> Iterator[str]:
    """The interquartile mean over the data sets that the methods share, with its interval."""
    sets = len(aggregate.data)
    yield f"IQM of {sets} data set{'s' * (sets > 1)} [95\\,\\%]"
    for method in comparison.methods:
        found = aggregate.estimates.get(method)
        ends = "" if found is None or found["iqm"].interval is None else f"\\ {interval_text(found['iqm'])}"
        yield "--" if found is None else f"${found['iqm'].value:.1f}${ends}"


def latex_text(text: str) -> str:
    """Text that LaTeX prints as it is."""
    return "".join(LATEX_SPECIAL.get(letter, letter) for letter in text)
