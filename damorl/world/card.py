"""What is in a data set: the facts that `damorl data info` prints and that every run keeps of its data."""

from __future__ import annotations

from typing import Any

import numpy as np

from damorl.world.datasets import Dataset
from damorl.world.tasks import Task, normalised_score, normalised_std

SATURATED = 0.99
BINS = 20


def summary(dataset: Dataset) -> dict[str, Any]:
    """The facts of a data set, ready for `json.dumps`; None where a number is unknown."""
    lengths, action = dataset.episode_lengths(), np.asarray(dataset.transitions.action)
    return {
        "name": dataset.name,
        "path": str(dataset.path) if dataset.path else None,
        "task": dataset.task.name if dataset.task else None,
        "sha256": dataset.sha256,
        "dtype": "float32",
        "transitions": dataset.num_transitions,
        "obs_dim": dataset.obs_dim,
        "action_dim": dataset.action_dim,
        "episodes": int(dataset.episode_start.sum()),
        "complete_episodes": len(lengths),
        "terminals": int(np.asarray(dataset.transitions.terminal).sum()),
        "truncations": int(dataset.truncated.sum()),
        "episode_length": _statistics(lengths),
        "return": _statistics(dataset.episode_returns()),
        "score": _score_statistics(dataset.task, dataset.episode_returns()),
        "reward": _statistics(np.asarray(dataset.transitions.reward)),
        "action_coverage": _action_coverage(action),
        "action_saturation": float(np.mean(np.abs(action) > SATURATED)),
        "metadata": dict(dataset.metadata),
    }


def _statistics(values: np.ndarray) -> dict[str, float] | None:
    if not len(values):
        return None
    values = values.astype(np.float64)
    return {name: float(getattr(values, name)()) for name in ("mean", "std", "min", "max")}


def _score_statistics(task: Task | None, returns: np.ndarray) -> dict[str, float] | None:
    """The statistics of the returns as normalised scores; None for a task without reference returns."""
    raw = _statistics(returns)
    if raw is None or task is None or task.reference_min is None or task.reference_max is None:
        return None
    scale = {"std": normalised_std}
    return {name: scale.get(name, normalised_score)(task, value) for name, value in raw.items()}


def _action_coverage(action: np.ndarray) -> float:
    """The share of 20 equal bins of [-1, 1] that the data visit, averaged over the action's dimensions."""
    bins = np.minimum((action + 1) / 2 * BINS, BINS - 1).astype(int)
    return float(np.mean([len(np.unique(column)) / BINS for column in bins.T]))
