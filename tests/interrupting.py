"""A training that is cut off right after a checkpoint."""

from __future__ import annotations

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
