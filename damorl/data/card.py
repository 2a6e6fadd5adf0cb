"""What is in a data set: the facts that `damorl data info` prints and that every run keeps of its data."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from damorl.data.datasets import Dataset
from damorl.world.task import Task, normalised_score, normalised_std

SATURATED = 0.99
BINS = 20
PICTURED = 10_000
"""At most so many rows are embedded."""
QUANTILES = {"min": 0.0, "q25": 0.25, "median": 0.5, "q75": 0.75, "max": 1.0}


class Steps(Protocol):
    """What `duplicate_share` looks at, NumPy float32: `types.Transition` of a data set, or `examine.Rows`."""

    @property
    def obs(self) -> Any: ...

    @property
    def action(self) -> Any: ...

    @property
    def next_obs(self) -> Any: ...


def card_and_arrays(dataset: Dataset) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """All that `report.card.draw_card` needs: the card and the arrays of its picture."""
    return summary(dataset), picture_arrays(dataset)


def summary(dataset: Dataset) -> dict[str, Any]:
    """The card: the facts of a data set, ready for `json.dumps`; None where a number is unknown."""
    task, lengths, action = dataset.task, dataset.episode_lengths(), np.asarray(dataset.transitions.action)
    episodes = int(dataset.episode_start.sum())
    return {
        "name": dataset.name,
        "path": str(dataset.path) if dataset.path else None,
        "task": task.name if task else None,
        "reference_min": task.reference_min if task else None,
        "reference_max": task.reference_max if task else None,
        "sha256": dataset.sha256,
        "dtypes": dict(dataset.dtypes),
        "non_finite_rows": dataset.non_finite_rows,
        "transitions": dataset.num_transitions,
        "obs_dim": dataset.obs_dim,
        "action_dim": dataset.action_dim,
        "episodes": episodes,
        "complete_episodes": len(lengths),
        "incomplete_episodes": episodes - len(lengths),
        "terminals": int(np.asarray(dataset.transitions.terminal).sum()),
        "truncations": int(dataset.truncated.sum()),
        "episode_length": statistics(lengths),
        "return": statistics(dataset.episode_returns()),
        "score": _score_statistics(task, dataset.episode_returns()),
        "reward": statistics(np.asarray(dataset.transitions.reward)),
        "action_coverage": float(np.mean(_coverage(action))),
        "action_coverage_per_dim": _coverage(action).tolist(),
        "action_saturation": float(np.mean(_saturation(action))),
        "action_saturation_per_dim": _saturation(action).tolist(),
        "duplicates": duplicate_share(dataset.transitions),
        "metadata": dict(dataset.metadata),
    }


def statistics(values: np.ndarray) -> dict[str, float] | None:
    """Mean, standard deviation, extremes and quartiles of `values` `[N]`; None if there are none."""
    if not len(values):
        return None
    values = values.astype(np.float64)
    quantiles = np.quantile(values, list(QUANTILES.values())).tolist()
    return {"mean": float(values.mean()), "std": float(values.std()), **dict(zip(QUANTILES, quantiles, strict=True))}


def _score_statistics(task: Task | None, returns: np.ndarray) -> dict[str, float] | None:
    """The statistics of the returns as normalised scores; None for a task without reference returns."""
    raw = statistics(returns)
    if raw is None or task is None or task.reference_min is None or task.reference_max is None:
        return None
    scale = {"std": normalised_std}
    return {name: scale.get(name, normalised_score)(task, value) for name, value in raw.items()}


def _coverage(action: np.ndarray) -> np.ndarray:
    """The share of 20 equal bins of [-1, 1] that the data visit, of each action dimension."""
    bins = np.minimum((action + 1) / 2 * BINS, BINS - 1).astype(int)
    return np.array([len(np.unique(column)) / BINS for column in bins.T])


def _saturation(action: np.ndarray) -> np.ndarray:
    """The share of rows at either bound, of each action dimension."""
    return np.mean(np.abs(action) > SATURATED, axis=0)


def duplicate_share(steps: Steps) -> float:
    """The share of rows whose `(obs, action, next_obs)` an earlier row already has, by a random hash of their bits."""
    columns = [np.asarray(column, np.float32) for column in (steps.obs, steps.action, steps.next_obs)]
    bits = np.hstack(columns).view(np.uint32)
    factors = np.random.default_rng(0).integers(1, 2**63, bits.shape[1], dtype=np.uint64) | np.uint64(1)
    hashes = np.sort(bits @ factors)  # many times as fast as np.unique
    return float(np.count_nonzero(hashes[1:] == hashes[:-1]) / len(hashes))


def picture_arrays(dataset: Dataset) -> dict[str, np.ndarray]:
    """What the card's picture shows, for N rows, E complete episodes and M of the rows, evenly spaced.

    `returns` and `lengths` `[E]`, `rewards` `[N]`, `actions` `[N, action_dim]`; `embedding` `[M, 2]`, the principal
    components of state and action, `embedding_share` `[2]`, how much of the variance each holds, and for its colours
    `embedding_return` `[M]`, of the row's episode (NaN if incomplete), and `embedding_step` `[M]`, since its start.
    """
    rows = np.arange(dataset.num_transitions)
    kept = np.linspace(0, len(rows) - 1, min(len(rows), PICTURED)).astype(int)
    starts = np.flatnonzero(dataset.episode_start)
    episode = np.searchsorted(starts, kept, side="right") - 1
    returns, transitions = dataset.episode_returns(), dataset.transitions
    points, share = embed(np.hstack([transitions.obs, transitions.action])[kept])
    return {
        "returns": returns,
        "lengths": dataset.episode_lengths(),
        "rewards": np.asarray(transitions.reward),
        "actions": np.asarray(transitions.action),
        "embedding": points,
        "embedding_share": share,
        "embedding_return": np.append(returns, np.nan)[episode],
        "embedding_step": kept - starts[episode],
    }


def embed(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first two principal components of `points` `[M, dim >= 2]`, each column standardised: `[M, 2]`, and their
    shares of the variance `[2]`. A component's largest weight is positive, so the picture never flips."""
    centred = points.astype(np.float64) - points.mean(axis=0, dtype=np.float64)
    scale = centred.std(axis=0)
    variances, axes = np.linalg.eigh(np.cov(centred / np.where(scale > 0, scale, 1.0), rowvar=False))
    first_two = axes[:, [-1, -2]]
    signs = np.sign(first_two[np.abs(first_two).argmax(axis=0), [0, 1]])
    standard = centred / np.where(scale > 0, scale, 1.0)
    return standard @ (first_two * signs), variances[[-1, -2]] / max(variances.sum(), np.finfo(float).tiny)
