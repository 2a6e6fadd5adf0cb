"""The one place that decides whether a file is a data set, and turns it into rows. Loader and checker both ask here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from damorl.world.store import COLUMNS, Contents, Metadata, Unreadable, hash_columns, read_contents
from damorl.world.tasks import Task

ACTION_TOLERANCE = 1e-4
"""How far beyond [-1, 1] an action may be, by rounding; it is then clipped."""
REQUIRED = ("observations", "actions", "rewards", "terminals")
FLAGS = ("terminals", "timeouts")
RANKS = {key: 2 if key in ("observations", "actions", "next_observations") else 1 for key in COLUMNS}
SHAPES = {1: "[rows]", 2: "[rows, dimension]"}
FILE_REMEDY = "check the path, or make or download the file again"

Columns = dict[str, np.ndarray]


@dataclass(frozen=True)
class Problem:
    """Something wrong with a file. An error means that it cannot be loaded."""

    key: str
    """Which array, or `file`."""
    severity: Literal["error", "warning"]
    message: str
    """One sentence: where, what was expected, what was found, what to do."""
    consequence: str
    """What training would suffer."""


class Rows(NamedTuple):
    """A data set's rows as NumPy arrays: float32, and bool for the two flags."""

    obs: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    next_obs: np.ndarray
    terminal: np.ndarray
    truncated: np.ndarray


@dataclass(frozen=True)
class Examination:
    """What a file turned out to be. `rows` is None exactly when there is an error among the problems."""

    problems: tuple[Problem, ...]
    rows: Rows | None = None
    metadata: Metadata = field(default_factory=dict)
    sha256: str = ""
    """Of the rows, see `store.hash_columns`."""


def examine(path: Path, task: Task | None) -> Examination:
    """Read the file, find its errors and the warnings of its layout and, if there is no error, its rows."""
    contents = read_contents(path)
    if isinstance(contents, Unreadable):
        message = f"{path}: expected an HDF5 file in D4RL's layout, found {contents.found}; {FILE_REMEDY}"
        return Examination((Problem("file", "error", message, "nothing can be read"),))
    sound = _sound_columns(contents)
    problems = [*_key_problems(path, contents), *_length_problems(path, sound)]
    problems += [*_size_problems(path, sound, task), *_value_problems(path, sound)]
    if any(problem.severity == "error" for problem in problems):
        return Examination(tuple(problems))
    rows = assemble(sound)
    sha256 = _hash_rows(rows)
    late = [*_row_problems(path, rows, sha256, contents.metadata)]
    if late:
        return Examination((*problems, *late))
    rebuilt: Metadata = {} if "next_observations" in sound else {"next_observations": "rebuilt"}
    return Examination(tuple(problems), rows, {**contents.metadata, **rebuilt}, sha256)


def _error(path: Path, key: str, expected: str, found: str, remedy: str, consequence: str) -> Problem:
    return Problem(key, "error", f"{path}: {key}: expected {expected}, found {found}; {remedy}", consequence)


def _too_few(path: Path, count: int, when: str) -> Problem:
    found = f"{count or 'no'} {'row' if count == 1 else 'rows'}{when}"
    return _error(path, "observations", "at least 2 rows", found, "give a larger data set", "nothing to learn from")


def _key_problems(path: Path, contents: Contents) -> Iterator[Problem]:
    """Keys that are missing or hold something else than numbers of the right rank."""
    columns = contents.columns
    for key in COLUMNS:
        if key not in columns:
            yield from _missing_key(path, key, contents)
        elif (flaw := _flaw(key, columns[key])) is not None:
            expected = f"numbers of shape {SHAPES[RANKS[key]]}"
            yield _error(path, key, expected, flaw, "store one row per transition", "the array has no meaning")


def _missing_key(path: Path, key: str, contents: Contents) -> Iterator[Problem]:
    present = ", ".join(contents.keys[:8]) or "nothing"
    if key in REQUIRED:
        remedy = f"store it under the name {key}"
        if any(name.startswith("episode_") for name in contents.keys):
            remedy = "this looks like a Minari file: store its episodes one after another as flat arrays"
        yield _error(path, key, "this array", f"only {present}", remedy, "a transition is incomplete")
    elif key == "next_observations" and "timeouts" not in contents.columns:
        yield _error(
            path,
            key,
            "next_observations or timeouts",
            "neither",
            "store one of them: without both nobody can tell where an episode ended",
            "the next episode's start would pass for a state that an action led to",
        )
    elif key == "next_observations":
        message = f"{path}: {key} is missing and is rebuilt from the following row, dropping each episode's last row"
        yield Problem(key, "warning", message, "terminal rows are lost: what a fall costs is not in the data")
    elif "next_observations" in contents.columns:
        message = f"{path}: {key} is missing: an episode counts as cut where the next row does not continue it"
        yield Problem(key, "warning", message, "episode returns and initial states rest on that guess")


def _flaw(key: str, column: np.ndarray | Unreadable) -> str | None:
    """What is wrong with one array by itself, or None."""
    if isinstance(column, Unreadable):
        return column.found
    if column.dtype.kind not in ("biuf" if key in FLAGS else "iuf"):
        return f"values of type {column.dtype}"
    if column.ndim != RANKS[key] or 0 in column.shape[1:]:
        return f"shape {column.shape}"
    return None


def _sound_columns(contents: Contents) -> Columns:
    """The arrays without a flaw; numbers cast to float32, flags left as they are until their values are known."""
    sound: Columns = {}
    for key, column in contents.columns.items():
        if isinstance(column, np.ndarray) and _flaw(key, column) is None:
            with np.errstate(over="ignore"):  # what overflows becomes infinite, and infinities are reported
                sound[key] = column if key in FLAGS else column.astype(np.float32, copy=False)
    return sound


def _length_problems(path: Path, columns: Columns) -> Iterator[Problem]:
    if not columns:
        return
    first, *others = columns
    rows = len(columns[first])
    if rows < 2:
        yield _too_few(path, rows, "")
    for key in others:
        if (found := len(columns[key])) != rows:
            expected = f"{rows} rows as in {first}"
            yield _error(path, key, expected, f"{found} rows", "store one row per transition", "rows do not belong")


def _size_problems(path: Path, columns: Columns, task: Task | None) -> Iterator[Problem]:
    """Dimensions that differ from the task's, or between the states before and after."""
    obs_dim, action_dim, next_dim = (_width(columns, key) for key in ("observations", "actions", "next_observations"))
    if next_dim is not None and obs_dim is not None and next_dim != obs_dim:
        expected, remedy = f"{obs_dim} columns as in observations", "store states of the same task"
        yield _error(path, "next_observations", expected, f"{next_dim} columns", remedy, "states cannot be compared")
    if task is None or obs_dim is None or action_dim is None:
        return
    if (obs_dim, action_dim) != (task.obs_dim, task.action_dim):
        yield _error(
            path,
            "observations and actions",
            f"{task.obs_dim} and {task.action_dim} columns as in task {task.name}",
            f"{obs_dim} and {action_dim}",
            "name the task that the data come from",
            "the policy could not act in the task",
        )


def _width(columns: Columns, key: str) -> int | None:
    return columns[key].shape[1] if key in columns else None


def _value_problems(path: Path, columns: Columns) -> Iterator[Problem]:
    """Numbers that are not finite, flags that are not flags, actions out of range."""
    for key, column in columns.items():
        if key in FLAGS:
            wrong = (column != 0) & (column != 1)
            rule = ("only 0 and 1", "store true or false", "episodes would end at random")
            yield from _wrong_values(path, key, column, wrong, rule)
            continue
        rule = ("finite float32 numbers", "remove those rows", "every loss would become NaN")
        yield from _wrong_values(path, key, column, ~np.isfinite(column), rule)
        if key == "actions":
            wrong = np.isfinite(column) & (np.abs(column) > 1 + ACTION_TOLERANCE)
            rule = ("values in [-1, 1]", "divide them by the task's action bound", "the policy could never choose them")
            yield from _wrong_values(path, key, column, wrong, rule)


def _wrong_values(
    path: Path, key: str, column: np.ndarray, wrong: np.ndarray, rule: tuple[str, str, str]
) -> Iterator[Problem]:
    expected, remedy, consequence = rule
    if wrong.any():
        yield _error(path, key, expected, _first_wrong(column, wrong), remedy, consequence)


def _first_wrong(column: np.ndarray, wrong: np.ndarray) -> str:
    rows = np.flatnonzero(wrong.reshape(len(wrong), -1).any(axis=1))
    value = column[rows[0]][wrong[rows[0]]].flat[0]
    return f"{value} in row {rows[0]} ({len(rows)} such {'row' if len(rows) == 1 else 'rows'})"


def assemble(columns: Mapping[str, np.ndarray]) -> Rows:
    """Rows from sound columns (`timeouts` or `next_observations` may be absent, see `datasets.load_dataset`)."""
    obs, terminal = columns["observations"], columns["terminals"].astype(bool)
    action, reward = np.clip(columns["actions"], -1.0, 1.0), columns["rewards"]
    next_obs, timeout = columns.get("next_observations"), columns.get("timeouts")
    if next_obs is not None:
        if timeout is None:
            timeout = np.append(~continues(next_obs[:-1], obs[1:]) & ~terminal[:-1], False)
        return Rows(obs, action, reward, next_obs, terminal, timeout.astype(bool))
    assert timeout is not None  # a file with neither is refused
    ended = terminal | timeout.astype(bool)
    kept = np.flatnonzero(~ended[:-1])  # the state after an episode's last row, or the file's, is not in the file
    return Rows(obs[kept], action[kept], reward[kept], obs[kept + 1], terminal[kept], ended[kept + 1])


def _hash_rows(rows: Rows) -> str:
    return hash_columns(dict(zip(COLUMNS, rows, strict=True)))  # both stand in the same order


def _row_problems(path: Path, rows: Rows, sha256: str, metadata: Metadata) -> Iterator[Problem]:
    """Errors that show only in the rows as a whole: hardly any is left, or they are not those that were written."""
    if len(rows.reward) < 2:
        yield _too_few(path, len(rows.reward), " once each episode's last one is dropped")
    recorded = metadata.get("sha256", sha256)
    if recorded != sha256:
        remedy = "make the data set again or, if you changed it on purpose, delete metadata/sha256"
        yield _error(path, "metadata/sha256", f"arrays that hash to {recorded}", sha256, remedy, "damaged numbers")


def continues(reached: np.ndarray, following: np.ndarray) -> np.ndarray:
    """Row by row, `[N, dim] -> [N]`: is the state reached the state that follows, up to float rounding?"""
    with np.errstate(over="ignore"):
        return np.all(np.abs(reached - following) <= 1e-5 + 1e-5 * np.abs(following), axis=1)
