"""What can be wrong with the arrays of a data set: one rule after another, each with its sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from damorl.data.contents import BOUNDARIES, COLUMNS, Contents, Unreadable
from damorl.data.names import DONE, NAMES, WIDE
from damorl.world.task import Task
from damorl.world.units import Bounds, show

ACTION_TOLERANCE = 1e-4
"""How far beyond [-1, 1] an action may be, by rounding; it is then clipped."""
REQUIRED = ("observations", "actions", "rewards", "terminals")
FLAGS = ("terminals", "timeouts")
STATES = ("observations", "next_observations")

Columns = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Problem:
    """Something wrong with a data set. An error means that it cannot be loaded."""

    key: str
    """Which array, or `file`."""
    severity: Literal["error", "warning"]
    message: str
    """One sentence: where, what was expected, what was found, what to do."""
    consequence: str
    """What training would suffer."""


def error(label: str, key: str, expected: str, found: str, remedy: str, consequence: str) -> Problem:
    """An error whose message is `label: key: expected ..., found ...; remedy`."""
    return Problem(key, "error", f"{label}: {key}: expected {expected}, found {found}; {remedy}", consequence)


def too_few(label: str, count: int, when: str) -> Problem:
    """The error of a data set with so few rows that there is nothing to learn."""
    found = f"{count or 'no'} {'row' if count == 1 else 'rows'}{when}"
    return error(label, "observations", "at least 2 rows", found, "give a larger data set", "nothing to learn from")


def flaw(key: str, column: np.ndarray | Unreadable) -> Unreadable | None:
    """What is wrong with one array by itself, or None. `[rows]` and `[rows, 1]` are the same."""
    shape = "[rows, dimension]" if key in WIDE else "[rows]"
    expected, remedy = f"numbers of shape {shape}", "store one row per transition"
    if isinstance(column, Unreadable):
        return Unreadable(column.found, column.expected or expected, column.remedy or remedy)
    kind, found = column.dtype.kind, f"{column.dtype} of shape {column.shape}"
    is_single = column.ndim > 0 and column.size == len(column)
    if key in STATES and (column.dtype == np.uint8 or (column.ndim > 2 and kind in "iuf")):
        remedy = "damorl learns from state vectors, not from images or stacks: encode them as a few numbers"
        return Unreadable(f"{found}, as images are", f"state vectors, {expected}", remedy)
    if key == "actions" and kind in "biu" and is_single:
        remedy = "damorl is for continuous actions, not for discrete ones: store them as floats if they are continuous"
        return Unreadable(f"{found}, as discrete actions are", f"continuous actions, {expected}", remedy)
    if kind not in ("biuf" if key in FLAGS else "iuf"):
        return Unreadable(f"values of type {column.dtype}", expected, remedy)
    if column.ndim not in (1, 2) or 0 in column.shape[1:] or not (is_single or key in WIDE):
        return Unreadable(f"shape {column.shape}", expected, remedy)
    return None


def key_problems(label: str, contents: Contents) -> Iterator[Problem]:
    """Arrays that are missing, hold something else than numbers, or have the wrong shape."""
    for key in (*COLUMNS, *BOUNDARIES):
        if key not in contents.columns:
            yield from _missing(label, key, contents)
        elif wrong := flaw(key, contents.columns[key]):
            yield error(label, key, wrong.expected, wrong.found, wrong.remedy, "the array has no meaning")


def _missing(label: str, key: str, contents: Contents) -> Iterator[Problem]:
    present = ", ".join(contents.keys[:8]) or "nothing"
    tells_cuts = not contents.columns.keys().isdisjoint(("timeouts", *BOUNDARIES))
    if key == "terminals" and tells_cuts:
        message = f"{label}: {key} is missing: every end of an episode is taken for a time limit"
        yield Problem(key, "warning", message, "nothing in the data says what a fall costs, if there was one")
    elif key in REQUIRED:
        spread = f" (or spread over {NAMES[key][-1]}_0, {NAMES[key][-1]}_1, ...)" if key in WIDE else ""
        remedy = f"store it under the name {key}{spread}, or say how it is called: columns={{{key!r}: ...}}"
        if any(re.fullmatch(r"episode_\d+", name) for name in contents.keys):
            remedy = "this looks like a Minari file: load it by its id, as minari:ID"
        yield error(label, key, "this array", f"only {present}", remedy, "a transition is incomplete")
    elif key == "next_observations" and not tells_cuts:
        yield error(
            label,
            key,
            "next_observations or timeouts",
            "neither",
            "store one of them: without both nobody can tell where an episode ended",
            "the next episode's start would pass for a state that an action led to",
        )
    elif key == "next_observations":
        message = f"{label}: {key} is missing and is rebuilt from the following row, dropping each episode's last row"
        yield Problem(key, "warning", message, "terminal rows are lost: what a fall costs is not in the data")
    elif key == "timeouts" and not tells_cuts and "next_observations" in contents.columns:
        message = f"{label}: {key} is missing: an episode counts as cut where the next row does not continue it"
        yield Problem(key, "warning", message, "episode returns and initial states rest on that guess")
    if key == "timeouts" and not tells_cuts and contents.names.get("terminals") in DONE:
        message = f"{label}: terminals: taken from {contents.names['terminals']}, and no timeouts are there to tell "
        message += "episodes that were cut from those that ended; store both apart"
        yield Problem("terminals", "warning", message, "a time limit that is in there is learnt as a fall")


def length_problems(label: str, columns: Columns) -> Iterator[Problem]:
    """Arrays of different lengths, or hardly any rows."""
    if not columns:
        return
    first, *others = columns
    rows = len(columns[first])
    if rows < 2:
        yield too_few(label, rows, "")
    for key in others:
        if key != "starts" and (found := len(columns[key])) != rows:
            expected = f"{rows} rows as in {first}"
            yield error(label, key, expected, f"{found} rows", "store one row per transition", "rows do not belong")


def size_problems(label: str, columns: Columns, task: Task | None, bounds: Bounds) -> Iterator[Problem]:
    """Dimensions that differ from the task's or the bounds', or between the states before and after."""
    obs_dim, action_dim, next_dim = (columns[key].shape[1] if key in columns else None for key in WIDE)
    if next_dim is not None and obs_dim is not None and next_dim != obs_dim:
        expected, remedy = f"{obs_dim} columns as in observations", "store states of the same task"
        yield error(label, "next_observations", expected, f"{next_dim} columns", remedy, "states cannot be compared")
    if task and obs_dim is not None and action_dim is not None and (obs_dim, action_dim) != task.spec:
        yield error(
            label,
            "observations and actions",
            f"{task.obs_dim} and {task.action_dim} columns as in task {task.name}",
            f"{obs_dim} and {action_dim}",
            "name the task that the data come from, or 'none' to train without a simulator",
            "the policy could not act in the task",
        )
    elif action_dim is not None and bounds.low.size not in (1, action_dim):
        expected, remedy = f"{bounds.low.size} columns as there are action bounds", "give one bound for each action"
        yield error(label, "actions", expected, f"{action_dim} columns", remedy, "their units would be unknown")


def value_problems(label: str, stored: Columns, cast: Columns, bounds: Bounds) -> Iterator[Problem]:
    """Numbers that are not finite, flags that are not flags, actions out of range, episodes in disorder.

    `stored` are the arrays as they are, `cast` the same with numbers as float32 and actions in [-1, 1].
    """
    for key, column in cast.items():
        if key in FLAGS:
            rule = ("only 0 and 1", "store true or false", "episodes would end at random")
            yield from _wrong_values(label, key, column, (column != 0) & (column != 1), rule)
            continue
        rule = ("finite float32 numbers", "remove those rows", "every loss would become NaN")
        yield from _wrong_values(label, key, column, ~np.isfinite(column), rule)
        if key == "actions":
            wrong = np.isfinite(column) & (np.abs(column) > 1 + ACTION_TOLERANCE)
            remedy = "divide them by the task's action bound, or state the bounds: action_bounds=(low, high)"
            rule = (f"values in {show(bounds)}", remedy, "the policy could never choose them")
            yield from _wrong_values(label, key, stored[key], wrong, rule)
    yield from _disorder(label, cast)


def _disorder(label: str, columns: Columns) -> Iterator[Problem]:
    consequence = "rows of different episodes would be joined"
    if len(columns.get("episodes", ())):
        episodes = columns["episodes"]
        first_rows = np.flatnonzero(np.append(True, episodes[1:] != episodes[:-1]))
        _, first_seen = np.unique(episodes[first_rows], return_index=True)
        again = np.setdiff1d(first_rows, first_rows[first_seen])
        if len(again):
            expected, remedy = "the rows of each episode one after another", "sort the rows by episode and time"
            yield error(
                label, "episodes", expected, f"{episodes[again[0]]:g} again in row {again[0]}", remedy, consequence
            )
    if "starts" in columns and "rewards" in columns:
        starts, rows = columns["starts"], len(columns["rewards"])
        is_ascending = np.all(starts == np.floor(starts)) and np.all(starts[1:] > starts[:-1])
        if not (is_ascending and np.all((starts >= 0) & (starts <= rows))):
            expected = f"ascending row numbers from 0 to {rows}, those that episodes start at"
            yield error(
                label, "starts", expected, f"{starts[:8]}", "correct the array `index` or leave it out", consequence
            )


def _wrong_values(
    label: str, key: str, column: np.ndarray, wrong: np.ndarray, rule: tuple[str, str, str]
) -> Iterator[Problem]:
    expected, remedy, consequence = rule
    if wrong.any():
        yield error(label, key, expected, _first_wrong(column, wrong), remedy, consequence)


def _first_wrong(column: np.ndarray, wrong: np.ndarray) -> str:
    rows = np.flatnonzero(wrong.reshape(len(wrong), -1).any(axis=1))
    where = tuple(np.argwhere(wrong)[0])
    place = f"row {where[0]}" + (f", column {where[1]}" if len(where) > 1 else "")
    return f"{column[where]} in {place} ({len(rows)} such {'row' if len(rows) == 1 else 'rows'})"
