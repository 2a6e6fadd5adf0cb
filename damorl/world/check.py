"""What may be wrong with a data set: `damorl data check`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from damorl.world.datasets import Dataset, find_dataset, make_dataset, resolve_task
from damorl.world.examine import Problem as Problem
from damorl.world.examine import Rows, continues, examine

DUPLICATES, SHORT_EPISODE = 0.01, 5


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
