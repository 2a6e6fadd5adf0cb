"""The model zoo: small trained policies that come with the package, each with a card, both checked by their hashes.

`NAME.safetensors` holds the network in float32 and the SHA-256 of its content, `NAME.json` the card, which is sealed
(`record.seal`) and names the hash of the whole other file. There is no pickle in either.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

from damorl.behaviour.host_policy import NumpyPolicy, from_arrays
from damorl.errors import UserError
from damorl.record import safe, store

FOLDER = Path(__file__).resolve().parents[1] / "zoo"
PREFIX = "zoo:"
FORMAT = "damorl-zoo"
REMEDY = "install damorl anew, or take the file from where damorl comes from"


class Entry(NamedTuple):
    """A policy of the zoo."""

    layers: NumpyPolicy
    card: dict[str, Any]


def is_zoo(path: Path) -> bool:
    """Whether the path is a name of the zoo, `zoo:walker2d-medium-expert`."""
    return str(path).startswith(PREFIX)


def name_of(path: Path) -> str:
    """The name behind `zoo:`."""
    return str(path).removeprefix(PREFIX)


def entry_names(folder: Path = FOLDER) -> tuple[str, ...]:
    """What is in the zoo, in the order of the names."""
    return tuple(sorted(path.stem for path in folder.glob("*.safetensors")))


def entry_paths(name: str, folder: Path = FOLDER) -> tuple[Path, Path]:
    """The arrays and the card of an entry."""
    return folder / f"{name}.safetensors", folder / f"{name}.json"


def read_card(name: str, folder: Path = FOLDER) -> dict[str, Any]:
    """The card of an entry. UserError, with the names that there are, for another name, and for a damaged card."""
    if name not in (known := entry_names(folder)):
        raise UserError(
            f"{PREFIX}{name}: expected a policy of the zoo, found none of that name; choose one of "
            f"{', '.join(known) or 'none: the zoo is empty'}"
        )
    path = entry_paths(name, folder)[1]
    card = store.read_json(path)
    if not isinstance(card, dict) or card.get("format") != f"{FORMAT}-1" or card.get("name") != name:
        raise UserError(f"{path}: expected the card of {name}, found something else; {REMEDY}")
    return card


def read_entry(name: str, folder: Path = FOLDER) -> Entry:
    """A policy of the zoo with its card. UserError as `read_card`, and for arrays that are not those of the card."""
    card, path = read_card(name, folder), entry_paths(name, folder)[0]
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != card["file_sha256"]:
        raise UserError(f"{path}: expected the SHA-256 {card['file_sha256']} of its card, found {found}; {REMEDY}")
    try:
        arrays, _ = safe.read(path, FORMAT)
        return Entry(from_arrays(arrays), card)
    except safe.DAMAGED as error:
        raise UserError(f"{path}: expected the network of {name}, found a damaged file ({error}); {REMEDY}") from error
