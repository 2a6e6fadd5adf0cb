"""What each method scored on each data set.

Scores of **finished** seeds count. Where a method has no finished seed on a data set its unfinished ones are shown,
marked, and enter no aggregate. Seeds that were asked for and are not there are counted as missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from damorl.report.collect import RETURN, SCORE, UNITS, Run, SeedScore, Status, seed_scores
from damorl.report.methods import Method
from damorl.report.statistics import Estimate, Floats, estimate, mean, task_stds


@dataclass(frozen=True)
class DataSet:
    """A data set, and in which unit its runs can all be scored."""

    name: str
    sha256: str
    label: str
    """The name, with the front of the hash where it would be ambiguous."""
    metric: str | None

    @property
    def unit(self) -> str:
        """`score` or `return`; nothing where there was no simulator."""
        return UNITS.get(self.metric or "", "")


@dataclass(frozen=True)
class Result:
    """What one method scored on one data set."""

    method: Method
    data: DataSet
    runs: tuple[Run, ...]
    seeds: tuple[tuple[Run, SeedScore], ...] = field(repr=False)
    """Every seed that was asked for."""

    @property
    def counted(self) -> list[SeedScore]:
        """The seeds that the numbers are of: the finished ones or, if there are none, the unfinished."""
        scored = [score for _, score in self.seeds if score.last_10_mean is not None]
        finished = [score for score in scored if score.status is Status.FINISHED]
        return finished or [score for score in scored if score.status in (Status.UNFINISHED, Status.FAILED)]

    @property
    def finished(self) -> bool:
        """Whether the counted seeds are finished."""
        return any(score.status is Status.FINISHED for score in self.counted)

    @property
    def missing(self) -> int:
        """Seeds asked for that are not there, or unfinished and not counted."""
        counted, lacking = self.counted, {Status.MISSING, Status.UNFINISHED, Status.FAILED}
        return sum(score.status in lacking and score not in counted for _, score in self.seeds)

    @property
    def state(self) -> str:
        """Whether all that was asked for is there, in a word or two."""
        statuses = [score.status for _, score in self.seeds]
        if not self.counted:
            worst = (Status.UNFINISHED, Status.FAILED, Status.NOT_SCORED, Status.MISSING)
            return next((str(status) for status in worst if status in statuses), str(Status.MISSING))
        if not self.finished:
            return str(Status.UNFINISHED)
        return f"{self.missing} missing" if self.missing else str(Status.FINISHED)

    @property
    def scores(self) -> Floats:
        """The counted last-10 means as a matrix of one task, `[seeds, 1]`."""
        return np.array([score.last_10_mean for score in self.counted], np.float64)[:, None]

    @property
    def std(self) -> float:
        """Sample standard deviation over the counted seeds; NaN below two."""
        return float(task_stds(self.scores)[0])

    def estimate(self, seed: int) -> Estimate | None:
        """The mean over the counted seeds, its bootstrap decided by `seed`; None if nothing was scored."""
        return estimate(mean, self.scores, seed=seed) if self.counted else None

    def average(self, quantity: str) -> float | None:
        """Mean over the counted seeds of `last` or `best`."""
        values = [getattr(score, quantity) for score in self.counted]
        return float(np.mean(values)) if values else None


def gather_results(runs: Sequence[Run], method_of: Sequence[Method], data: Sequence[DataSet]) -> Iterator[Result]:
    """One result for each data set and method that have runs, in that order; `method_of` has an entry per run."""
    for item in data:
        for method in dict.fromkeys(method_of):
            pairs = zip(runs, method_of, strict=True)
            own = [run for run, its in pairs if its == method and run.data_key == (item.name, item.sha256)]
            if own:
                yield Result(method, item, tuple(own), gather_seeds(own, item.metric))


def data_sets(runs: Sequence[Run]) -> tuple[DataSet, ...]:
    """The data sets by name, each in the best unit that all its scored runs have."""
    keys = sorted({run.data_key for run in runs})
    found = []
    for name, sha256 in keys:
        metrics = {run.metric for run in runs if run.data_key == (name, sha256)} - {None}
        metric = RETURN if RETURN in metrics else SCORE if SCORE in metrics else None
        unique = sum(other == name for other, _ in keys) == 1
        found.append(DataSet(name, sha256, name if unique else f"{name} [{sha256[:8]}]", metric))
    return tuple(found)


def gather_seeds(runs: Sequence[Run], metric: str | None) -> tuple[tuple[Run, SeedScore], ...]:
    """The seeds of one method on one data set. Of a seed that is there twice, the one that came further counts."""
    seeds = [(run, score) for run in runs for score in seed_scores(run, metric)]
    kept: dict[int, int] = {}
    for index, (_, score) in enumerate(seeds):
        best = kept.setdefault(score.seed, index)
        if score.updates > seeds[best][1].updates:
            kept[score.seed] = index
    return tuple(
        (run, score if kept[score.seed] == index else replace(score, status=Status.DUPLICATE))
        for index, (run, score) in enumerate(seeds)
    )


class Lack(NamedTuple):
    """A seed that was asked for and has no final score."""

    result: Result
    run: Run
    score: SeedScore

    @property
    def reason(self) -> str:
        """Why, as far as it is known."""
        if self.run.failure:
            return self.run.failure
        done = self.score.updates
        if done or not self.run.absent:
            return f"{done:,} of {self.run.total_updates:,} updates are done"
        return "asked for, and not begun"


def gather_lacks(results: Sequence[Result]) -> list[Lack]:
    """All seeds that are missing, failed or unfinished."""
    lacking = {Status.MISSING, Status.FAILED, Status.UNFINISHED}
    return [Lack(r, run, score) for r in results for run, score in r.seeds if score.status in lacking]
