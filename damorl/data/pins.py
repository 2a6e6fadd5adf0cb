"""The registry of downloaded data sets: the bytes a name meant when it was first used, which it means ever after."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from damorl.data.cache import cache_dir
from damorl.errors import UserError
from damorl.files import atomic_file, writing


@dataclass(frozen=True)
class Pin:
    """What a name means."""

    sha256: str
    """Of the file's bytes."""
    size: int
    """Of the file, in bytes."""
    url: str
    """Where the bytes came from."""
    date: str
    """When the name was first used, ISO 8601, UTC."""
    files: Mapping[str, int] = field(default_factory=dict)
    """Paths that were found to hold these bytes, each with its modification time then, in nanoseconds."""


def registry_path() -> Path:
    """The registry: JSON, one entry per name with the fields of `Pin`."""
    return cache_dir() / "registry.json"


def read_pins() -> dict[str, Pin]:
    """Every pinned name. UserError if the registry cannot be read."""
    path = registry_path()
    if not path.exists():
        return {}
    try:
        pins = {name: Pin(**entry) for name, entry in json.loads(path.read_bytes()).items()}
        if not all(isinstance(pin.files, dict) for pin in pins.values()):
            raise TypeError("an entry whose 'files' is no table")
        return pins
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: expected damorl's registry of downloads, found {error}; correct it, or delete it and the files "
            "here are pinned anew when next used"
        ) from error


def differs(name: str, size: int, sha256: str) -> str | None:
    """What to say about bytes that are not those `name` is pinned to; None if they are, or `name` is not pinned."""
    pin = read_pins().get(name)
    if pin is None or pin.sha256 == sha256:
        return None
    return (
        f"expected the {pin.size} bytes with sha256 {pin.sha256} that {name} was pinned to on {pin.date[:10]} "
        f"({pin.url}), found {size} bytes with sha256 {sha256} (if you trust these instead, delete the entry "
        f"{name} from {registry_path()})"
    )


def is_verified(name: str, path: Path) -> bool:
    """Was the file seen to hold the pinned bytes, and has its size and modification time since?"""
    pin, stat = read_pins().get(name), path.stat()
    return pin is not None and pin.size == stat.st_size and pin.files.get(str(path)) == stat.st_mtime_ns


def claim(name: str, path: Path, stat: os.stat_result, sha256: str, url: str) -> str | None:
    """Pin `name` to these bytes if it is not pinned, and record that `path` holds them as of `stat`.

    If the name is pinned to other bytes, nothing is recorded and what `differs` says comes back.
    """
    registry = registry_path()
    with locked(registry.with_name(".registry.lock")):
        if difference := differs(name, stat.st_size, sha256):
            return difference
        pins = read_pins()
        pin = pins.get(name) or Pin(sha256, stat.st_size, url, datetime.now(UTC).isoformat(timespec="seconds"))
        pins[name] = replace(pin, files={**pin.files, str(path): stat.st_mtime_ns})
        text = json.dumps({name: asdict(pin) for name, pin in sorted(pins.items())}, indent=2)
        with atomic_file(registry) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
    return None


def hash_file(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Be alone inside, among all threads and processes that name the same `path`; wait while another is.

    The lock is SQLite's on an empty file that stays: it is in the standard library, works on every system, and the
    system frees it when its holder dies, however it dies, so that no stale lock is ever left. UserError if `path`
    cannot be made or locked.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with closing(sqlite3.connect(path, timeout=0.5, isolation_level=None)) as connection:
            if not _take(connection):
                print(f"waiting for another process that holds {path}", file=sys.stderr)
                while not _take(connection):
                    pass
            yield  # closing the connection ends the transaction and so the lock
    except sqlite3.Error as error:
        raise UserError(
            f"{path}: expected a file that can be locked, found '{error}'; choose a folder that can be written and "
            "whose file system has locks"
        ) from error


def _take(connection: sqlite3.Connection) -> bool:
    """Try for half a second, the connection's timeout: short, since it cannot be interrupted."""
    try:
        connection.execute("PRAGMA journal_mode = MEMORY")  # no second file
        connection.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
            raise
        return False
    return True
