"""What a process does to the files below one folder, counted, so that it can be stopped or refused at any of them.

Python tells an audit hook of every file it opens, renames and removes, whichever library asks. `os.fsync` and the
writing of safetensors files, which happens in Rust, are wrapped besides. A hook stays for good, but does nothing
unless somebody is `watching`.
"""

from __future__ import annotations

import errno
import os
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

ANYTHING_WRITTEN = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Call(NamedTuple):
    """One call that changes what is on the disk, just before it is made."""

    kind: str
    """`open`, `mkdir`, `rename`, `remove`, `fsync` or `save`."""
    path: Path
    """For a rename, the new name."""


OnCall = Callable[[Call], None]
_watcher: list[tuple[str, OnCall]] = []
_hooked: list[bool] = []


@contextmanager
def watching(folder: Path, on_call: OnCall) -> Iterator[None]:
    """Tell `on_call` of every call below `folder` that the body is about to make. What it raises, the call raises."""
    if not _hooked:
        sys.addaudithook(_audit)
        _hooked.append(True)
    from damorl.record import safe

    fsync, save_file = os.fsync, safe.save_file

    def told_fsync(handle: int) -> None:
        _tell("fsync", os.readlink(f"/proc/self/fd/{handle}"))
        fsync(handle)

    def told_save(leaves: Any, path: Path, metadata: Any) -> None:
        _tell("save", path)
        save_file(leaves, path, metadata)

    os.fsync, safe.save_file = told_fsync, told_save
    _watcher.append((f"{os.path.realpath(folder)}{os.sep}", on_call))
    try:
        yield
    finally:
        _watcher.pop()
        os.fsync, safe.save_file = fsync, save_file


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watcher:
        return
    if event == "open" and isinstance(arguments[0], str) and arguments[2] & ANYTHING_WRITTEN:
        _tell("open", arguments[0])
    elif event == "os.rename":
        _tell("rename", arguments[1])
    elif event in ("os.mkdir", "os.remove"):
        _tell(event.removeprefix("os."), arguments[0])


def _tell(kind: str, path: Any) -> None:
    """Pass a call on if it is below the folder; what the listener itself does is not told."""
    where, (folder, on_call) = os.path.abspath(os.fspath(path)), _watcher[-1]
    if where.startswith(folder):
        _watcher.append(("\0", on_call))
        try:
            on_call(Call(kind, Path(where)))
        finally:
            _watcher.pop()


@contextmanager
def full_disk(folder: Path, after: int, room: int | None, calls: list[Call]) -> Iterator[None]:
    """From call number `after` below `folder` on, the disk is full for the body. `calls` is given the calls made.

    With `room` None, opening for writing, making folders, renaming and syncing raise ENOSPC; removing does not. With a
    number the kernel lets no file grow beyond so many bytes, so that each write from then on ends short, in any
    language; its error is EFBIG.
    """
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def on_call(call: Call) -> None:
        if len(calls) >= after:
            if room is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
            elif call.kind != "remove":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(call.path))
        calls.append(call)

    try:
        with watching(folder, on_call):
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
