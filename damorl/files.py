"""Files that appear whole or not at all: the one atomic writer of the house."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from damorl.errors import UserError


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an `OSError` of the body into a `UserError` that names `path`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(
            f"cannot write {path}: expected a writable place with free space, found '{reason}'; "
            "free some space or choose another place (--out for runs, DAMORL_HOME for data)"
        ) from error


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; once the body has filled it, it takes `path`'s place, durably.

    A reader sees the old content or the new, never a half. If anything fails the temporary file is removed and
    `path` stays as it was; `OSError` becomes `UserError`.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with writing(path):
            yield temporary
            sync(temporary)
            os.replace(temporary, path)
            sync(path.parent)
    finally:
        with suppress(OSError):
            temporary.unlink()


def sync(path: Path) -> None:
    """Wait until a file, or the names in a directory, are on the disk."""
    if path.is_dir() and os.name == "nt":  # Windows cannot open directories and orders renames itself
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
