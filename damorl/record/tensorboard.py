"""The numbers of a run as TensorBoard events."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from damorl.errors import UserError
from damorl.files import writing
from damorl.record.store import Row

if TYPE_CHECKING:
    from tensorboardX.event_file_writer import EventsWriter


@dataclass(frozen=True)
class TensorBoard:
    """Scalars of one member, written in the calling thread: the usual writer's thread hangs when the disk is full."""

    directory: Path
    events: EventsWriter

    def write(self, row: Row) -> None:
        """One point for every number of the row, at its step; on the disk when this returns."""
        from tensorboardX.summary import scalar

        with writing(self.directory):
            for name in [name for name in row if name not in ("step", "seed", "setting")]:
                summary = scalar(name, float(row[name]))
                self.events.write_event(protos().Event(wall_time=time.time(), step=row["step"], summary=summary))
            self.events.flush()

    def close(self) -> None:
        """Flush and close the event file. If it cannot be flushed it is closed all the same."""
        try:
            with writing(self.directory):
                self.events.close()
        finally:
            with suppress(OSError):
                self.events._py_recordio_writer.close()  # the library leaves it open if flushing fails


def protos() -> Any:
    """TensorBoard's record types, which are built at run time and so unknown to a type checker."""
    return import_module("tensorboardX.proto.event_pb2")


def open_tensorboard(run_dir: Path, folder: str, purge_step: int | None = None) -> TensorBoard:
    """Open a new event file in `tb/FOLDER`. A run resumed at step S passes `purge_step` S + 1: viewers then forget
    what earlier files hold from that step on."""
    from tensorboardX.event_file_writer import EventsWriter

    directory = run_dir / "tb" / folder
    with writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
        # the time is in the name by the second only: the process number keeps a quick resume from overwriting
        events = EventsWriter(str(directory / "events"), filename_suffix=f".{os.getpid()}.{purge_step or 0}")
    board = TensorBoard(directory, events)
    try:
        with writing(directory):
            if purge_step is not None:
                start = protos().SessionLog(status=protos().SessionLog.START)
                events.write_event(protos().Event(wall_time=time.time(), step=purge_step, session_log=start))
            events.flush()
    except UserError:
        with suppress(UserError):
            board.close()
        raise
    return board
