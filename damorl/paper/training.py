"""Score and value while training (Figs. 4 and 5), from the runs' metrics alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from damorl.experiment.result import LAST
from damorl.record import store
from damorl.report.curves import Curve, curve

SCORE, VALUE = "eval/score", "critic/q_mean"


def read_curves(run_dir: Path) -> dict[str, Curve]:
    """Score and mean Q of every seed; the score is the return where the task has no references."""
    rows = store.read_metrics(run_dir)
    score = SCORE if any(SCORE in row for row in rows) else "eval/return_mean"
    return {"score": curve(rows, score), "value": at_steps(curve(rows, VALUE), curve(rows, score).steps)}


def at_steps(data: Curve, steps: np.ndarray) -> Curve:
    """The curve at some of its steps: those of the evaluations, which keeps the file small."""
    kept = np.isin(data.steps, steps)
    return Curve(data.steps[kept], data.values[:, kept])


def describe(run_dir: Path) -> dict[str, Any]:
    """The curves as plain numbers, and per seed the mean of the last ten scores and the last mean Q."""
    curves = read_curves(run_dir)
    score, value = curves["score"], curves["value"]
    return {
        "updates": score.steps,
        "score": np.round(score.values, 2),
        "mean_q": significant(value.values),
        "last_10_mean": [float(np.nanmean(row[-LAST:])) for row in score.values],
        "last_mean_q": significant(value.values[:, -1]),
        "highest_mean_q": significant(np.nanmax(value.values, axis=1)),
    }


def significant(values: np.ndarray, digits: int = 5) -> np.ndarray:
    """Rounded to `digits` significant digits."""
    return np.array([float(f"{x:.{digits}g}") for x in np.ravel(values)]).reshape(np.shape(values))
