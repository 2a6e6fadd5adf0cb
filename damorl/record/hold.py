"""A run directory belongs to one process at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from damorl.errors import BusyError, LockedError
from damorl.files import take, writing
from damorl.record.store import LOCK


@contextmanager
def held(run_dir: Path) -> Iterator[None]:
    """Hold the run directory, so that no other process makes the same run meanwhile; the hold dies with its process.

    Makes the directory. Raises BusyError if another holds it, UserError if it cannot be written. A place that knows no
    locks is used without.
    """
    with writing(run_dir):
        run_dir.mkdir(parents=True, exist_ok=True)
    try:
        lock = take(run_dir / LOCK, wait=False)
    except LockedError as error:
        raise BusyError(
            f"cannot use {run_dir}: expected it to be free, found another process making this very run; wait for it"
        ) from error
    try:
        yield
    finally:
        if lock is not None:
            lock.release()
