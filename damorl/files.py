"""Files that appear whole or not at all, and locks that make one process wait for another."""

from __future__ import annotations

import errno
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from damorl.errors import LockedError, UserError

NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)
"""How a file system says that it knows no locks."""
POLL_SECONDS, OWNER_TRIES = 0.2, 5


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


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """Yield a folder beside `path` to build in, and remove it with all that is still in it. OSError as it comes."""
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent) as folder:
        yield Path(folder)


def remove_leftovers(folder: Path, name: str = "*") -> None:
    """Remove the temporary files and folders that killed processes left in `folder`, those for `name` or for any.

    Only for who knows that no other process is writing there: by a lock. UserError if they cannot be removed.
    """
    with writing(folder):
        for path in folder.glob(f".{name}.*.tmp"):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a directory, are on the disk."""
    if path.is_dir() and os.name == "nt":  # Windows cannot open directories and orders renames itself
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def take(path: Path, wait: bool) -> Any:
    """Lock the file `path`, whose directory must exist, with a `release`; None on a file system that knows no locks.

    The system ends the lock with its process, however that ends. Raises LockedError if another holds it and `wait` is
    not set, UserError if the file cannot be written. Without the package filelock nothing is locked.
    """
    try:
        from filelock import FileLock, Timeout
    except ImportError:  # the GPU kit does without
        return None
    # The library's stand-in where there are no locks, a marker file, would outlive a killed process.
    lock = FileLock(path, timeout=-1 if wait else 0, fallback_to_soft=False)
    try:
        lock.acquire(poll_interval=POLL_SECONDS)
    except Timeout as error:  # which is an OSError too
        raise LockedError(str(path)) from error
    except NotImplementedError:
        return None
    except OSError as error:
        if error.errno in NO_LOCKS:
            return None
        with writing(path):
            raise
    return lock


@contextmanager
def locked(path: Path, on_note: Callable[[str], None], what: str) -> Iterator[bool]:
    """Do the body in one process at a time, on this machine or a file system that it shares; makes the directory.

    Who has to wait is told once, to `on_note`, and goes on when the other has ended, finished or killed: so look then
    whether there is anything left to do. `what` names the work, as in "making hopper-medium". Where there are no locks
    the body is done all the same, and `on_note` hears that. Yields whether the process is alone. UserError if `path`
    cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock = take(path, wait=False)
    except LockedError:
        on_note(f"{owner(path)} is {what} already: waiting for it")
        lock = take(path, wait=True)
    if lock is None:
        on_note(f"{path.parent} is on a file system without locks: {what} without asking whether another process is")
        yield False
        return
    try:
        with suppress(OSError):  # only a word for those who wait
            path.write_text(f"process {os.getpid()} on {platform.node()}", encoding="utf-8")
        yield True
    finally:
        lock.release()


def owner(path: Path) -> str:
    """Who holds a lock, in words. One that has only just taken it gets a moment to write its name."""
    for _ in range(OWNER_TRIES):
        with suppress(OSError, ValueError):
            if name := path.read_text(encoding="utf-8"):
                return name
        time.sleep(POLL_SECONDS)
    return "another process"
