"""What may be wrong with a data set: `damorl data check`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from damorl.data.card import duplicate_share
from damorl.data.datasets import DEFAULT_NUM_STEPS, Dataset, examine_source, make_dataset
from damorl.data.examine import Problem as Problem
from damorl.data.examine import Rows
from damorl.data.recorded import resolve_task
from damorl.data.rows import continues
from damorl.data.sources import Reading, open_source

if TYPE_CHECKING:
    from minari import MinariDataset

DUPLICATES, SHORT_EPISODE, MANY_FALLS = 0.01, 5, 10


def find_problems(
    source: str | Path | Mapping[str, Any] | MinariDataset,
    task: str | None = None,
    num_steps: int = DEFAULT_NUM_STEPS,
    seed: int = 0,
    **reading: Unpack[Reading],
) -> list[Problem]:
    """Every problem of a data set, errors first. The arguments are those of `load_dataset`.

    `load_dataset` refuses the data set exactly if one of them is an error, with the first one's message: both take the
    errors from `examine.judge`. UserError if an argument is unusable or there is no such data set.
    """
    found = open_source(source, num_steps, seed, reading)
    resolved, remark = resolve_task(found, task)
    examination = examine_source(found, resolved, reading.get("action_bounds"))
    problems = list(examination.problems)
    if remark:
        problems.append(Problem("env_spec", "warning", remark, "policies are not scored in a simulator"))
    if examination.rows is not None:
        dataset = make_dataset(found, resolved, examination)
        problems += find_oddities(found.label, dataset, examination.rows)
    return sorted(problems, key=lambda problem: problem.severity == "warning")


def find_oddities(label: str, dataset: Dataset, rows: Rows) -> Iterator[Problem]:
    """What can be loaded but is worth a look: warnings about the values of a data set and its `rows`."""
    share = duplicate_share(rows)
    if share > DUPLICATES:
        yield _warning(label, "observations", f"{share:.1%} of the rows repeat another row", "they weigh double")
    for key, column in (("observations", rows.obs), ("actions", rows.action)):
        constant = np.flatnonzero((column == column[0]).all(axis=0)).tolist()
        if constant:
            yield _warning(label, key, f"columns {constant} never change", "nothing can be learnt about them")
    jumps = ~dataset.episode_end[:-1] & ~continues(rows.next_obs[:-1], rows.obs[1:])
    if jumps.any():
        found = f"{jumps.mean():.1%} of the rows inside episodes do not lead to the row after them"
        yield _warning(label, "next_observations", found, "episode returns and lengths mix different episodes")
    if (rows.reward == rows.reward[0]).all():
        yield _warning(label, "rewards", f"every reward is {rows.reward[0]}", "no action is better than another")
    yield from _episode_oddities(label, dataset)
    yield from _learnt_as_falls(label, dataset, rows)


def _episode_oddities(label: str, dataset: Dataset) -> Iterator[Problem]:
    lengths = dataset.episode_lengths()
    if not len(lengths):
        yield _warning(label, "timeouts", "no episode is marked as ended", "the data's returns are unknown")
    elif lengths.mean() < SHORT_EPISODE:
        found = f"episodes last {lengths.mean():.1f} steps on average"
        yield _warning(label, "timeouts", found, "long-term consequences are not in the data; check the flags")


def _learnt_as_falls(label: str, dataset: Dataset, rows: Rows) -> Iterator[Problem]:
    """Time limits that are marked as terminal, which they should not be: nothing is worth anything after a fall."""
    consequence = "the time limit is learnt as a fall; mark as terminal only where the task itself ended"
    if rows.truncated.any() and rows.terminal[rows.truncated].all():
        found = f"all {rows.truncated.sum()} truncated rows are terminal as well, and count as both"
        yield _warning(label, "terminals", found, consequence)
    lengths = dataset.episode_lengths()
    fallen = lengths[rows.terminal[dataset.episode_end]]
    if len(fallen) >= MANY_FALLS and (fallen == lengths.max()).all():
        found = f"all {len(fallen)} terminal rows end episodes of the same length, {fallen[0]} steps"
        yield _warning(label, "terminals", found, consequence)


def _warning(label: str, key: str, found: str, consequence: str) -> Problem:
    return Problem(key, "warning", f"{label}: {key}: {found}", consequence)
