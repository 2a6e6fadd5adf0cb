"""What others call the arrays of a data set: one table, and the search through it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from damorl.data.contents import Contents, Raw, Unreadable
from damorl.errors import UserError

ColumnMap = Mapping[str, str | Sequence[str]]
"""Which array is which: `{"rewards": "r", "observations": ["angle", "speed"]}`; several are put side by side."""

DONE = ("dones", "done")
NAMES: dict[str, tuple[str, ...]] = {
    "observations": ("observations", "observation", "obs"),
    "actions": ("actions", "action"),
    "rewards": ("rewards", "reward"),
    "next_observations": ("next_observations", "next_observation", "next_obs"),
    "terminals": ("terminals", "terminal", "terminations", "termination", "terminated", *DONE),
    "timeouts": ("timeouts", "timeout", "truncations", "truncation", "truncated"),
    "episodes": ("episodes", "episode", "episode_ids", "episode_id"),  # where it changes, an episode ended
    "starts": ("index",),  # NeoRL's: the rows that episodes start at
}
"""Our name (D4RL's), and every name that means the same. Vectors may also be spread: obs_0, obs_1, ..."""
WIDE = ("observations", "actions", "next_observations")


def gather(raw: Raw, columns: ColumnMap | None = None) -> Contents:
    """Everything in `raw` that is an array of a data set, under our names.

    `columns` names arrays that are called something else; its keys may be any name in `NAMES`. An array that is there
    under two names is `Unreadable`: nobody can tell which is meant. UserError if `columns` has other keys.
    """
    chosen = _check_map(columns or {})
    taken = {name for names in chosen.values() for name in names}
    free = [key for key in raw.keys if key not in taken]
    found: dict[str, np.ndarray | Unreadable] = {}
    names: dict[str, str] = {}
    for key in NAMES:
        spellings = [chosen[key]] if key in chosen else _spellings(key, free)
        if spellings:
            found[key] = _read(raw, key, spellings, key in chosen)
            names[key] = ", ".join(spellings[0])
    return Contents(found, raw.metadata, raw.keys, names)


def _check_map(columns: ColumnMap) -> dict[str, tuple[str, ...]]:
    ours = {name: key for key, synonyms in NAMES.items() for name in synonyms}
    chosen: dict[str, tuple[str, ...]] = {}
    for name, value in columns.items():
        if name not in ours or ours[name] in chosen or not value:
            raise UserError(
                f"columns: expected each of {', '.join(NAMES)} at most once, with the name of an array or several, "
                f"found {name!r}: {value!r}; correct it"
            )
        chosen[ours[name]] = (value,) if isinstance(value, str) else tuple(value)
    return chosen


def _spellings(key: str, present: Sequence[str]) -> list[tuple[str, ...]]:
    """Each way the array is there: `("obs",)`, or `("obs_0", "obs_1")`."""
    whole = [(name,) for name in NAMES[key] if name in present]
    spread = [_numbered(name, present) for name in NAMES[key] if key in WIDE]
    return whole + [names for names in spread if names]


def _numbered(name: str, present: Sequence[str]) -> tuple[str, ...]:
    matches = filter(None, (re.fullmatch(rf"{name}_([0-9]{{1,9}})", key) for key in present))
    return tuple(match[0] for match in sorted(matches, key=lambda match: int(match[1])))


def _read(raw: Raw, key: str, spellings: list[tuple[str, ...]], is_chosen: bool) -> np.ndarray | Unreadable:
    names, *others = spellings
    if others:
        remedy = f"remove one, or say which it is with columns={{{key!r}: ...}}"
        return Unreadable(f"both {names[0]} and {others[0][0]}", "one array", remedy)
    if is_chosen or names[0] in NAMES[key]:
        return _side_by_side(raw, names, max_rank=2)
    stem = names[0].rpartition("_")[0]
    if {int(name.rpartition("_")[2]) for name in names} != set(range(len(names))):
        return Unreadable(", ".join(names[:8]), f"{stem}_0, {stem}_1, ... without a gap", "name them so")
    return _side_by_side(raw, names, max_rank=1)  # wider ones are not columns: others number their episodes so


def _side_by_side(raw: Raw, names: tuple[str, ...], max_rank: int) -> np.ndarray | Unreadable:
    """The arrays as the columns of one; a single one as it is."""
    if len(names) == 1:
        return _read_one(raw, names[0])
    parts: list[np.ndarray] = []
    for name in names:
        part = _read_one(raw, name)
        if isinstance(part, Unreadable):
            return replace(part, found=part.found if name in part.found else f"{part.found} in {name}")
        if not (0 < part.ndim <= max_rank and part.dtype.kind in "biuf"):
            return Unreadable(f"{part.dtype} of shape {part.shape} in {name}", "columns of numbers")
        parts.append(part)
    if len({len(part) for part in parts}) > 1:
        lengths = ", ".join(f"{len(part)} rows in {name}" for name, part in zip(names, parts, strict=True))
        return Unreadable(lengths, "columns of one length", "store one row per transition")
    return np.column_stack(parts)


def _read_one(raw: Raw, name: str) -> np.ndarray | Unreadable:
    array = raw.read(name)
    if array is None:
        found = f"no {name!r} among {', '.join(raw.keys[:8]) or 'nothing'}"
        return Unreadable(found, "what `columns` names", "correct the name")
    return array
