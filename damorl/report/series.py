"""Learning curves of several seeds: their mean and its band."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from damorl.record.store import Row
from damorl.report.collect import Status
from damorl.report.curves import Curve, curve
from damorl.report.results import Result
from damorl.report.statistics import Floats, mean_band, task_means

MAX_POINTS = 150  # more cannot be seen; longer curves are averaged in that many bins


@dataclass(frozen=True)
class Band:
    """One metric over training; all arrays end in the axis of `steps` and hold NaN where nothing is known."""

    steps: Floats
    seeds: Floats = field(repr=False)
    """`[num_seeds, num_steps]`."""
    mean: Floats = field(repr=False)
    low: Floats = field(repr=False)
    high: Floats = field(repr=False)
    averaged: int = 1
    """How many neighbouring points of the log each point is the mean of."""


def result_band(result: Result, key: str, seed: int = 0) -> Band | None:
    """The mean over seeds of one metric with its pointwise 95 % bootstrap band; None if it was not recorded."""
    data = curve(result_rows(result), key)
    if not data.steps.size:
        return None
    size = -(-len(data.steps) // MAX_POINTS)
    thin = thinned(data, size)
    return Band(thin.steps, thin.values, task_means(thin.values), *mean_band(thin.values, seed), size)


def result_rows(result: Result) -> list[Row]:
    """The rows of all seeds of a result, each seed once."""
    own = [(run, score.seed) for run, score in result.seeds if score.status is not Status.DUPLICATE]
    return [row for run, seed in own for row in run.rows if row["seed"] == seed]


def thinned(data: Curve, size: int) -> Curve:
    """Means of `size` neighbouring points each, placed at the last step of theirs."""
    last = np.minimum(np.arange(size - 1, len(data.steps) + size - 1, size), len(data.steps) - 1)
    padding = (-len(data.steps)) % size
    padded = np.pad(data.values, ((0, 0), (0, padding)), constant_values=np.nan)
    binned = padded.reshape(len(padded), -1, size).swapaxes(1, 2)
    return Curve(data.steps[last].astype(np.float64), task_means(binned))
