"""Table 2: our scores where runs exist, a mark where none does, and the paper's printed numbers beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from damorl.algos import ALGORITHMS
from damorl.experiment.config import dataset_key
from damorl.paper.plan import Planned
from damorl.report.collect import Status, read_run, seed_scores
from damorl.report.statistics import estimate, mean
from damorl.theory.printed import printed_table

ABBREVIATED = {"trajectorytransformer": "TT"}
"""Where the paper's name of a method is not just ours in other letters."""
MISSING = "no run"


class Row(NamedTuple):
    """One method on one data set."""

    dataset: str
    method: str
    """The paper's name if it has one."""
    algo: str | None
    """Ours, None if it is not in this version."""
    run: str | None
    """The run's directory name, None if there is no finished one."""
    scores: dict[str, float]
    """Mean of the last ten evaluations by seed."""
    printed: float | None
    """What the paper prints."""

    def as_dict(self) -> dict[str, Any]:
        """With mean and 95 % bootstrap interval over the seeds."""
        found = self._asdict() | {"mean": None, "interval": None}
        if self.scores:
            result = estimate(mean, np.array(list(self.scores.values()), np.float64)[:, None])
            found |= {"mean": result.value, "interval": result.interval}
        return found


def plain_name(name: str) -> str:
    """`Algae-DICE` and `algaedice` alike."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


def paper_name(algo: str) -> str:
    """What the paper's Table 2 calls an algorithm of ours; our own name if it has none there."""
    names: dict[str, str] = {plain_name(method): method for method in printed_table(2)["methods"]}
    plain = plain_name(algo)
    return ABBREVIATED[plain] if plain in ABBREVIATED else names.get(plain, algo)


def printed_score(method: str, dataset: str) -> float | None:
    """The printed score; None where the paper has none."""
    table = printed_table(2)
    row = table["rows"].get(dataset_key(dataset))
    return None if row is None or method not in table["methods"] else row[table["methods"].index(method)]


def read_scores(run_dir: Path) -> dict[str, float]:
    """The scores of the finished seeds."""
    run = read_run(run_dir)
    finished = [score for score in seed_scores(run, run.metric) if score.status is Status.FINISHED]
    return {str(score.seed): score.last_10_mean for score in finished if score.last_10_mean is not None}


def table_rows(planned: Sequence[Planned], out: Path, given: Sequence[Path] = ()) -> list[Row]:
    """A row for each method of the paper and each algorithm of ours on every planned data set, then the given runs."""
    algos = {paper_name(algo): algo for algo in ALGORITHMS}
    methods = list(dict.fromkeys([*printed_table(2)["methods"], *algos]))
    rows = []
    for dataset in dict.fromkeys(each.config.dataset for each in planned):
        runs = {each.config.algo: each for each in planned if each.config.dataset == dataset}
        for method in methods:
            algo = algos.get(method)
            run = runs.get(algo) if algo else None
            finished = run is not None and run.finished(out)
            name = run.config.name() if run is not None and finished else None
            scores = read_scores(out / name) if name else {}
            rows.append(Row(dataset, method, algo, name, scores, printed_score(method, dataset)))
    return rows + [given_row(path) for path in given]


def given_row(path: Path) -> Row:
    """A run that somebody made with settings of their own."""
    run = read_run(path)
    name, method = str(run.data["name"]), paper_name(run.algo)
    return Row(name, f"{method} (given)", run.algo, run.name, read_scores(path), printed_score(method, name))


def text_table(rows: Sequence[Row]) -> str:
    """The table as plain text: ours, and the paper's in its own column."""
    lines = [f"{'data set':<28}{'method':<20}{'ours, mean [95 % interval]':<34}{'seeds':>5}{'paper prints':>14}"]
    for row in rows:
        found = row.as_dict()
        ends = "" if found["interval"] is None else " [{:.1f}, {:.1f}]".format(*found["interval"])
        ours = f"{found['mean']:.1f}{ends}" if row.scores else MISSING if row.algo else "not in this version"
        printed = "-" if row.printed is None else f"{row.printed:.1f}"
        lines.append(f"{row.dataset:<28}{row.method:<20}{ours:<34}{len(row.scores):>5}{printed:>14}")
    return "\n".join(lines)
