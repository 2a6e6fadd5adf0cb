"""Methods compared over several data sets at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import NamedTuple

import numpy as np

from damorl.report.collect import SCORE
from damorl.report.methods import Method
from damorl.report.results import DataSet, Result
from damorl.report.statistics import (
    PAIR_REPS,
    TARGET,
    Estimate,
    Floats,
    Profile,
    aggregates,
    estimate,
    performance_profile,
    probability_of_improvement,
)

PROFILE_POINTS = 101


class Pair(NamedTuple):
    """How likely a run of the first method beats one of the second."""

    first: Method
    second: Method
    probability: Estimate


@dataclass(frozen=True)
class Aggregate:
    """Methods compared over several data sets: the largest block of both in which no cell is empty."""

    methods: tuple[Method, ...]
    data: tuple[DataSet, ...]
    scores: Mapping[Method, Floats] = field(repr=False)
    """`[seeds, data sets]`, NaN where a method has fewer seeds than the one with most."""
    estimates: Mapping[Method, Mapping[str, Estimate]] = field(repr=False)
    pairs: tuple[Pair, ...] = field(repr=False)
    profiles: Mapping[Method, Profile] = field(repr=False)


def make_aggregate(results: Iterable[Result], seed: int) -> Aggregate | None:
    """Compare over the best full block of finished, normalised scores; None if that is a single cell.

    `seed` decides every bootstrap.
    """
    cells = {(r.method, r.data): r for r in results if r.data.metric == SCORE and r.finished}
    methods, data = best_block(cells)
    if len(methods) * len(data) < 2:
        return None
    runs = max(len(cells[key].counted) for key in cells if key[0] in methods and key[1] in data)
    pad = lambda column: np.pad(column, ((0, runs - len(column)), (0, 0)), constant_values=np.nan)
    scores = {m: np.concatenate([pad(cells[m, d].scores) for d in data], axis=1) for m in methods}
    highest = max(TARGET, *(float(np.nanmax(matrix)) for matrix in scores.values()))
    lowest = min(0.0, *(float(np.nanmin(matrix)) for matrix in scores.values()))
    thresholds = np.linspace(lowest, highest, PROFILE_POINTS)
    return Aggregate(
        methods,
        data,
        scores,
        {m: aggregates(scores[m], seed) for m in methods},
        tuple(compare_pair(first, second, scores, seed) for first, second in combinations(methods, 2)),
        {m: performance_profile(scores[m], thresholds, seed) for m in methods},
    )


def best_block(cells: Iterable[tuple[Method, DataSet]]) -> tuple[tuple[Method, ...], tuple[DataSet, ...]]:
    """The methods and data sets with most cells in which every method has every data set.

    A block of several methods on several data sets is better than any other, and of two equal ones that with more data.
    """
    covered: dict[Method, frozenset[DataSet]] = {}
    for method, data in cells:
        covered[method] = covered.get(method, frozenset()) | {data}
    blocks = set(covered.values())
    for own in covered.values():
        blocks |= {block & own for block in blocks}
    able = lambda block: [method for method in covered if block <= covered[method]]
    names = lambda block: sorted(data.label for data in block)
    size = lambda block: (min(len(able(block)), len(block)) > 1, len(able(block)) * len(block), len(block))
    best = max(sorted(blocks, key=names), key=size, default=frozenset())
    return tuple(able(best)) if best else (), tuple(sorted(best, key=lambda data: data.label))


def compare_pair(first: Method, second: Method, scores: Mapping[Method, Floats], seed: int) -> Pair:
    """The likelier winner comes first."""
    ahead = probability_of_improvement(scores[first], scores[second]) >= 0.5
    first, second = (first, second) if ahead else (second, first)
    return Pair(
        first,
        second,
        estimate(probability_of_improvement, scores[first], scores[second], seed=seed, reps=PAIR_REPS),
    )
