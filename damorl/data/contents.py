"""What a data set holds, whatever it is stored in: the record between those who read formats and the one who judges."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from damorl.world.units import Bounds

if TYPE_CHECKING:
    from gymnasium.envs.registration import EnvSpec

Metadata = dict[str, str | int | float]

COLUMNS: dict[str, type] = {
    "observations": np.float32,
    "actions": np.float32,
    "rewards": np.float32,
    "next_observations": np.float32,
    "terminals": np.bool_,
    "timeouts": np.bool_,
}
"""The arrays of a data set and the type each is hashed in, in the order of hashing."""
BOUNDARIES = ("episodes", "starts")
"""Two other ways to say where episodes end: each row's episode, and the rows that episodes start at."""

ARRAYS_SHA256 = "damorl_sha256"
"""In the metadata of a format that is not ours: the hash of the arrays as they are read back. Our own has `sha256`."""


@dataclass(frozen=True)
class Unreadable:
    """Stands for a file or an array that cannot be read: what it is, what it should be and what to do about it."""

    found: str
    expected: str = ""
    remedy: str = ""


class Raw(NamedTuple):
    """An open file or a mapping: arrays under names of the user's choice."""

    keys: tuple[str, ...]
    """Printable."""
    read: Callable[[str], np.ndarray | Unreadable | None]
    """The array of that name; None if there is none."""
    metadata: Metadata = {}  # noqa: RUF012 (nobody writes to it)


@dataclass(frozen=True)
class Contents:
    """What was found: arrays by their names in `COLUMNS` and `BOUNDARIES`, just as they are stored."""

    columns: Mapping[str, np.ndarray | Unreadable]
    metadata: Metadata
    keys: tuple[str, ...]
    """All that is there, also what is no array of a data set."""
    names: Mapping[str, str] = field(default_factory=dict)
    """What each of `columns` is called where it is stored."""
    bounds: Bounds | None = None
    """Of the actions, if the source states them."""


@dataclass(frozen=True)
class Source:
    """A data set that was found and read, not yet judged."""

    label: str
    """How messages call it."""
    name: str
    contents: Contents | Unreadable
    path: Path | None = None
    env_spec: EnvSpec | None = None
    """The environment that it says it was recorded in."""


def first_line(reason: BaseException) -> str:
    """The first line of what an exception says, or its type."""
    return (str(reason).strip() or type(reason).__name__).splitlines()[0]


def printable(name: object) -> str:
    """A name, which may be any bytes, as text that every terminal can print."""
    return ascii(name)[1:-1] if isinstance(name, str) else ascii(name)
