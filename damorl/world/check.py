"""What may be wrong with a data set (`damorl data check`) and what is in it (`damorl data info`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from damorl.world.datasets import Dataset, find_dataset, make_dataset, resolve_task
from damorl.world.examine import Problem as Problem
from damorl.world.examine import Rows, continues, examine
from damorl.world.tasks import Task, normalised_score, normalised_std

DUPLICATES, SHORT_EPISODE = 0.01, 5
SATURATED = 0.99
BINS = 20


def find_problems(path: str | Path, task: str | None = None) -> list[Problem]:
    """Every problem of a file (or of a built-in set that is made), errors first.

    `load_dataset` refuses the file exactly if one of them is an error, with the first one's message: both take the
    errors from `examine`. UserError if `task`, or a bare word for `path`, is no known name.
    """
    file, name = find_dataset(path)
    resolved = resolve_task(name, task)
    examination = examine(file, resolved)
    problems = list(examination.problems)
    if examination.rows is not None:
        problems += find_oddities(make_dataset(name, resolved, file, examination), examination.rows)
    return sorted(problems, key=lambda problem: problem.severity == "warning")


def find_oddities(dataset: Dataset, rows: Rows) -> Iterator[Problem]:
    """What can be loaded but is worth a look: warnings about the values of a data set and its `rows`."""
    share = 1 - _count_distinct(rows) / dataset.num_transitions
    if share > DUPLICATES:
        yield _warning(dataset, "observations", f"{share:.1%} of the rows repeat another row", "they weigh double")
    for key, column in (("observations", rows.obs), ("actions", rows.action)):
        constant = np.flatnonzero((column == column[0]).all(axis=0)).tolist()
        if constant:
            yield _warning(dataset, key, f"columns {constant} never change", "nothing can be learnt about them")
    jumps = ~dataset.episode_end[:-1] & ~continues(rows.next_obs[:-1], rows.obs[1:])
    if jumps.any():
        found = f"{jumps.mean():.1%} of the rows inside episodes do not lead to the row after them"
        yield _warning(dataset, "next_observations", found, "episode returns and lengths mix different episodes")
    if (rows.reward == rows.reward[0]).all():
        yield _warning(dataset, "rewards", f"every reward is {rows.reward[0]}", "no action is better than another")
    yield from _episode_oddities(dataset)


def _episode_oddities(dataset: Dataset) -> Iterator[Problem]:
    lengths = dataset.episode_lengths()
    if not len(lengths):
        yield _warning(dataset, "timeouts", "no episode is marked as ended", "the data's returns are unknown")
    elif lengths.mean() < SHORT_EPISODE:
        found = f"episodes last {lengths.mean():.1f} steps on average"
        yield _warning(dataset, "timeouts", found, "long-term consequences are not in the data; check the flags")


def _warning(dataset: Dataset, key: str, found: str, consequence: str) -> Problem:
    return Problem(key, "warning", f"{dataset.path or dataset.name}: {key}: {found}", consequence)


def _count_distinct(rows: Rows) -> int:
    """How many different `(obs, action, next_obs)` there are, by a random linear hash of their bits."""
    bits = np.hstack([rows.obs, rows.action, rows.next_obs]).view(np.uint32)
    factors = np.random.default_rng(0).integers(1, 2**63, bits.shape[1], dtype=np.uint64) | np.uint64(1)
    return len(np.unique(bits @ factors))


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
