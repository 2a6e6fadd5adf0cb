"""The one place that decides whether something is a data set, and turns it into rows, whatever format it came in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from damorl.data.contents import ARRAYS_SHA256, COLUMNS, Contents, Metadata, Unreadable
from damorl.data.faults import (
    FLAGS,
    WIDE,
    error,
    flaw,
    key_problems,
    length_problems,
    size_problems,
    too_few,
    value_problems,
)
from damorl.data.faults import Problem as Problem
from damorl.data.formats import read_file
from damorl.data.rows import Rows as Rows
from damorl.data.rows import assemble
from damorl.data.store import hash_columns
from damorl.world.task import Task
from damorl.world.task import action_bounds as bounds_of_task
from damorl.world.units import UNIT, Bounds, as_metadata, is_unit, to_unit


@dataclass(frozen=True)
class Examination:
    """What a source turned out to be. `rows` is None exactly when there is an error among the problems."""

    problems: tuple[Problem, ...]
    rows: Rows | None = None
    metadata: Metadata = field(default_factory=dict)
    sha256: str = ""
    """Of the rows, see `store.hash_columns`."""
    dtypes: Mapping[str, str] = field(default_factory=dict)
    """The type that each array is stored in."""
    non_finite_rows: int = 0
    """Rows in which some number is not finite as float32: none, if there are `rows`."""


def examine(path: Path, task: Task | None) -> Examination:
    """`judge` of a file in any of `formats.FORMATS`."""
    return judge(str(path), read_file(path), task)


def judge(
    label: str, contents: Contents | Unreadable, task: Task | None, action_bounds: Bounds | None = None
) -> Examination:
    """Find the errors of a source, the warnings of its layout and, if there is no error, its rows.

    Each message begins with `label`. Actions are brought to [-1, 1] from `action_bounds` or, without them, from the
    bounds that the source states, or the task's. What `write_dataset` wrote is in [-1, 1] already.
    """
    if isinstance(contents, Unreadable):
        message = f"{label}: expected {contents.expected}, found {contents.found}; {contents.remedy}"
        return Examination((Problem("file", "error", message, "nothing can be read"),))
    contents = _without_row_counter(contents)
    units, bounds = units_of(contents, task, action_bounds)
    stored = _sound_columns(contents)
    cast = _cast(stored, bounds)
    problems = [*key_problems(label, contents), *length_problems(label, stored)]
    problems += [*size_problems(label, stored, task, bounds), *value_problems(label, stored, cast, bounds)]
    facts = {"dtypes": _dtypes(contents), "non_finite_rows": _count_non_finite(cast)}
    if any(problem.severity == "error" for problem in problems):
        return Examination(tuple(problems), **facts)
    rows = assemble(cast)
    sha256 = hash_columns(dict(zip(COLUMNS, rows, strict=True)))  # both stand in the same order
    keys = ("sha256",) if action_bounds else ("sha256", ARRAYS_SHA256)  # other bounds make other actions
    recorded = {key: contents.metadata.get(key) for key in keys}
    if late := [*_row_problems(label, rows, sha256, recorded)]:
        return Examination((*problems, *late), **facts)
    metadata = contents.metadata | ({} if "next_observations" in stored else {"next_observations": "rebuilt"})
    if not is_unit(units):
        metadata |= as_metadata(units, rows.action.shape[1])
    return Examination(tuple(problems), rows, metadata, sha256, **facts)


def units_of(contents: Contents, task: Task | None, action_bounds: Bounds | None) -> tuple[Bounds, Bounds]:
    """The bounds of the simulator's actions, and those that the actions in the source have."""
    units = action_bounds or contents.bounds or (Bounds(*bounds_of_task(task)) if task else UNIT)
    return units, UNIT if "sha256" in contents.metadata and action_bounds is None else units


def _without_row_counter(contents: Contents) -> Contents:
    """A table's `index` that counts its rows does not tell where episodes start."""
    starts, rewards = contents.columns.get("starts"), contents.columns.get("rewards")
    if not (
        isinstance(starts, np.ndarray) and isinstance(rewards, np.ndarray) and starts.shape[:1] == rewards.shape[:1]
    ):
        return contents
    kept = {key: column for key, column in contents.columns.items() if key != "starts"}
    return replace(contents, columns=kept)


def _sound_columns(contents: Contents) -> dict[str, np.ndarray]:
    """The arrays without a flaw as they are stored, `[N, dim]` or `[N]`."""
    return {
        key: np.atleast_2d(column.T).T if key in WIDE else column.reshape(len(column))
        for key, column in contents.columns.items()
        if isinstance(column, np.ndarray) and flaw(key, column) is None
    }


def _cast(stored: Mapping[str, np.ndarray], bounds: Bounds) -> dict[str, np.ndarray]:
    """Numbers as float32, rounded once; actions in [-1, 1]. All else stays as it is until its values are known."""
    cast = dict(stored)
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows becomes infinite, and infinities are reported
        if "actions" in cast and not is_unit(bounds) and bounds.low.size in (1, cast["actions"].shape[1]):
            cast["actions"] = to_unit(bounds, cast["actions"])
        for key in (key for key in COLUMNS if key in cast and key not in FLAGS):
            cast[key] = cast[key].astype(np.float32, copy=False)
    return cast


def _dtypes(contents: Contents) -> dict[str, str]:
    return {key: str(column.dtype) for key, column in contents.columns.items() if isinstance(column, np.ndarray)}


def _count_non_finite(columns: Mapping[str, np.ndarray]) -> int:
    numbers = [columns[key] for key in COLUMNS if key in columns and key not in FLAGS]
    if len({len(column) for column in numbers}) != 1:
        return 0
    finite = np.hstack([np.isfinite(np.atleast_2d(column.T).T) for column in numbers])
    return int(np.count_nonzero(~finite.all(axis=1)))


def _row_problems(label: str, rows: Rows, sha256: str, recorded: Mapping[str, Any]) -> Iterator[Problem]:
    """Errors that show only in the rows as a whole: hardly any is left, or they are not those that were written."""
    if len(rows.reward) < 2:
        yield too_few(label, len(rows.reward), " once each episode's last one is dropped")
    for key, value in recorded.items():
        if value not in (None, sha256):
            remedy = f"make the data set again or, if you changed it on purpose, delete metadata/{key}"
            yield error(label, f"metadata/{key}", f"arrays that hash to {value}", sha256, remedy, "damaged numbers")
