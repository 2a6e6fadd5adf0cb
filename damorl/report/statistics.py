"""Scores of several runs on several tasks, as numbers a reviewer would trust.

Scores are a matrix `[runs, tasks]` with at least one column: a column per task (here: a data set), an entry per run (a
seed) of it. Entries of one row have nothing to do with each other. An entry that is NaN or infinite is a run that is
**missing**:

- a column that lacks some runs is judged by those that it has,
- a column that lacks all of them makes every aggregate NaN: nobody knows what the missing task would have scored,
- no run is made up and none is dropped in silence: whoever prints a result prints `num_missing` beside it.

Every statistic reads the last two axes, so the same function takes a matrix and a stack of resampled ones. The
estimators, and the stratified percentile bootstrap around them, are those of Agarwal et al., "Deep Reinforcement
Learning at the Edge of the Statistical Precipice" (arXiv 2108.13264) and of its library `rliable`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
Statistic = Callable[..., Floats]
"""From one or more `[..., runs, tasks]` to `[...]`, or to `[..., k]` for k numbers at once."""

CONFIDENCE = 0.95
AGGREGATE_REPS, PAIR_REPS = 50_000, 2_000  # as in the paper
TARGET = 100.0  # the expert's normalised score, which the optimality gap is measured from
CHUNK = 2_000_000  # entries that are resampled at once: 16 MB


class Estimate(NamedTuple):
    """A number and its 95 % interval, which is None where too few runs were made to tell."""

    value: float
    interval: tuple[float, float] | None = None


class Profile(NamedTuple):
    """The share of runs that score more than each threshold, with pointwise bounds (None: too few runs)."""

    thresholds: Floats
    values: Floats
    low: Floats | None = None
    high: Floats | None = None


def num_runs(scores: Floats) -> NDArray[np.int64]:
    """Runs that each task has, `[..., runs, tasks] -> [..., tasks]`."""
    return np.isfinite(scores).sum(axis=-2)


def num_missing(scores: Floats) -> int:
    """Entries of a matrix that have no score."""
    return int(scores.size - num_runs(scores).sum())


def task_means(scores: Floats) -> Floats:
    """Mean over the runs of each task, `[..., runs, tasks] -> [..., tasks]`; NaN for a task without runs."""
    total = np.where(np.isfinite(scores), scores, 0.0).sum(axis=-2)
    with np.errstate(invalid="ignore"):
        return total / num_runs(scores)


def task_stds(scores: Floats) -> Floats:
    """Sample standard deviation over the runs of each task, `[..., runs, tasks] -> [..., tasks]`.

    It divides by one less than the number of runs (`ddof=1`), as seeds are a sample of all seeds; NaN below two runs.
    """
    count = num_runs(scores)
    squares = np.where(np.isfinite(scores), (scores - task_means(scores)[..., None, :]) ** 2, 0.0).sum(axis=-2)
    return np.sqrt(np.where(count > 1, squares, np.nan) / np.maximum(count - 1, 1))


def mean(scores: Floats) -> Floats:
    """Mean over tasks of the task means."""
    return task_means(scores).mean(axis=-1)


def median(scores: Floats) -> Floats:
    """Median over tasks of the task means."""
    return np.median(task_means(scores), axis=-1)


def iqm(scores: Floats) -> Floats:
    """Interquartile mean: the mean of the middle half of all runs of all tasks (25 % trimmed at either end)."""
    return np.asarray(stats.trim_mean(_pooled(scores), 0.25, axis=-1))


def optimality_gap(scores: Floats, target: float = TARGET) -> Floats:
    """How far runs stay below `target` on average; more than `target` earns nothing."""
    return target - np.minimum(_pooled(scores), target).mean(axis=-1)


def probability_of_improvement(scores: Floats, others: Floats) -> Floats:
    """Chance that a run of `scores` beats a run of `others` on the same task, averaged over tasks; a tie counts half.

    `[..., runs, tasks]` and `[..., other_runs, tasks]` to `[...]`: the Mann-Whitney U divided by its maximum.
    """
    pairs = np.sign(scores[..., :, None, :] - others[..., None, :, :])
    wins = task_means(pairs.reshape(*pairs.shape[:-3], -1, pairs.shape[-1]))
    return ((1.0 + wins) / 2.0).mean(axis=-1)


def score_distribution(scores: Floats, thresholds: Floats) -> Floats:
    """Share of all runs of all tasks that score more than each threshold, `[..., runs, tasks] -> [..., thresholds]`."""
    pooled = _pooled(scores)
    above = [np.where(np.isnan(pooled), np.nan, pooled > level).mean(axis=-1) for level in thresholds]
    return np.stack(above, axis=-1)


AGGREGATES: Mapping[str, Statistic] = {
    "iqm": iqm,
    "mean": mean,
    "median": median,
    "optimality_gap": optimality_gap,
}


def bootstrap(
    statistic: Statistic, *matrices: Floats, seed: int, reps: int, confidence: float = CONFIDENCE
) -> tuple[Floats, Floats]:
    """The lower and upper ends of the stratified percentile bootstrap, each in the shape of one statistic.

    Each of `reps` times the runs of every task are drawn anew from the runs of that same task, with replacement, and
    independently in each matrix. `seed` decides all draws; the order of the runs within a task does not matter.
    """
    rng = np.random.default_rng(seed)
    ordered = [np.sort(np.where(np.isfinite(scores), scores, np.nan), axis=0) for scores in matrices]
    chunk = max(1, CHUNK // max(scores.size for scores in ordered))
    draws = [
        statistic(*(resample(scores, rng, min(chunk, reps - done)) for scores in ordered))
        for done in range(0, reps, chunk)
    ]
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(np.concatenate(draws), [tail, 1.0 - tail], axis=0)
    return low, high


def resample(ordered: Floats, rng: np.random.Generator, reps: int) -> Floats:
    """`[reps, runs, tasks]` drawn from a matrix whose missing entries come last in their column, and still do."""
    runs, _ = ordered.shape
    count = num_runs(ordered)
    index = rng.integers(0, np.maximum(count, 1), size=(reps, *ordered.shape))
    drawn = np.take_along_axis(ordered[None], index, axis=1)
    return np.where(np.arange(runs)[:, None] < count, drawn, np.nan)


def estimate(statistic: Statistic, *matrices: Floats, seed: int = 0, reps: int = AGGREGATE_REPS) -> Estimate:
    """One number with its interval. No interval where a task has fewer than two runs: its spread is unknown."""
    value = float(statistic(*matrices))
    if not all(can_resample(scores) for scores in matrices):
        return Estimate(value)
    low, high = bootstrap(statistic, *matrices, seed=seed, reps=reps)
    return Estimate(value, (float(low), float(high)))


def can_resample(scores: Floats) -> bool:
    """Whether every task has at least two runs."""
    return bool((num_runs(scores) > 1).all())


def aggregates(scores: Floats, seed: int = 0, reps: int = AGGREGATE_REPS) -> dict[str, Estimate]:
    """Each of `AGGREGATES` with its interval, all from the same draws."""
    together = lambda stack: np.stack([statistic(stack) for statistic in AGGREGATES.values()], axis=-1)
    values = [float(value) for value in together(scores)]
    if not can_resample(scores):
        return {name: Estimate(value) for name, value in zip(AGGREGATES, values, strict=True)}
    ends = np.stack(bootstrap(together, scores, seed=seed, reps=reps), axis=-1)
    return {
        name: Estimate(value, (float(low), float(high)))
        for name, value, (low, high) in zip(AGGREGATES, values, ends, strict=True)
    }


def performance_profile(scores: Floats, thresholds: Floats, seed: int = 0, reps: int = PAIR_REPS) -> Profile:
    """The score distribution at each threshold, with pointwise bounds."""
    values = score_distribution(scores, thresholds)
    if not can_resample(scores):
        return Profile(thresholds, values)
    statistic = lambda stack: score_distribution(stack, thresholds)
    return Profile(thresholds, values, *bootstrap(statistic, scores, seed=seed, reps=reps))


def mean_band(values: Floats, seed: int = 0, reps: int = PAIR_REPS) -> tuple[Floats, Floats]:
    """Pointwise bounds of the mean curve, `[seeds, steps]` to two `[steps]`; NaN at steps that fewer than two have."""
    low, high = bootstrap(task_means, values, seed=seed, reps=reps)
    enough = num_runs(values) > 1
    return np.where(enough, low, np.nan), np.where(enough, high, np.nan)


def _pooled(scores: Floats) -> Floats:
    """All runs of all tasks in one axis, `[..., runs, tasks] -> [..., present]`; one NaN if a task has none.

    A stack must lack the same entries in each of its matrices.
    """
    lead = scores.shape[:-2]
    seen = np.isfinite(scores[(0,) * len(lead)])
    if not seen.any(axis=0).all():
        return np.full((*lead, 1), np.nan)
    return scores[..., seen]


def paired_difference(scores: Floats, others: Floats) -> Floats:
    """`others - scores` entry by entry, `[runs, tasks]`; a pair that lacks one of its two is missing, NaN."""
    whole = np.isfinite(scores) & np.isfinite(others)
    return np.where(whole, np.where(whole, others, 0.0) - np.where(whole, scores, 0.0), np.nan)


def estimate_paired(scores: Floats, others: Floats, seed: int = 0, reps: int = AGGREGATE_REPS) -> Estimate:
    """Mean over tasks of the mean difference `others - scores` of runs that belong together, with its interval.

    Both are `[runs, tasks]`, and row r of a task is the same run (a seed) before and after a change. Pairs are drawn
    anew within each task, so what the two have in common (the data, the seed's luck) does not widen the interval.
    """
    return estimate(mean, paired_difference(scores, others), seed=seed, reps=reps)
