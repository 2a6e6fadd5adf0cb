"""A training that is cut off right after a checkpoint, and what such a one leaves on the disk."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from damorl.record import checkpoint


class InterruptError(Exception):
    """Ends the training."""


@contextmanager
def cut_off_after(step: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever trains in the body must not get further than the checkpoint of `step`."""
    save: Callable[..., Any] = checkpoint.save

    def save_and_stop(directory: Path, state: Any, at: int, identity: Any) -> None:
        save(directory, state, at, identity)
        if at == step:
            raise InterruptError

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", save_and_stop)
        with pytest.raises(InterruptError):
            yield


@contextmanager
def copied_after(step: int, out: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever trains in the body leaves in `out` a copy of its run directory as it is after the checkpoint of `step`,
    which is what a crash at that moment would leave; it needs no training of its own."""
    save: Callable[..., Any] = checkpoint.save

    def save_and_copy(directory: Path, state: Any, at: int, identity: Any) -> None:
        save(directory, state, at, identity)
        if at == step:
            shutil.copytree(directory.parent, out / directory.parent.name)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", save_and_copy)
        yield
