"""Metrics on their way from the device to the run directory."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from damorl.experiment.callbacks import Callback, EndEvent, Event, StartEvent
from damorl.experiment.config import RunConfig
from damorl.record import store, tensorboard
from damorl.record.members import Member
from damorl.types import Metrics


class MetricsFile(Callback):
    """Writes every row to metrics.jsonl."""

    def on_epoch(self, event: Event) -> None:
        """On the disk when this returns."""
        store.append_metrics(event.run_dir, event.rows)


class Boards(Callback):
    """Writes every row as TensorBoard events, those of each member into a folder of its own."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.members, self.boards = members, list[tensorboard.TensorBoard]()

    def on_start(self, event: StartEvent) -> None:
        """Open the event files."""
        for member in self.members:
            self.boards.append(tensorboard.open_tensorboard(event.run_dir, member.folder, event.step + 1))

    def on_epoch(self, event: Event) -> None:
        """On the disk when this returns."""
        for board, row in zip(self.boards, event.rows, strict=True):
            board.write(row)

    def on_end(self, event: EndEvent) -> None:
        """Close the event files."""
        while self.boards:
            self.boards.pop().close()


def writers(config: RunConfig, without: Collection[str]) -> list[Callback]:
    """The loop's own: metrics.jsonl and, unless `without` tensorboard, events."""
    return [MetricsFile(), *([] if "tensorboard" in without else [Boards(config.members)])]


def metric_rows(num_members: int, *groups: Metrics) -> list[dict[str, float]]:
    """Device metrics `[member, ...]` to one dictionary of means per member."""
    rows: list[dict[str, float]] = [{} for _ in range(num_members)]
    for name, values in [item for group in groups for item in group.items()]:
        means = np.asarray(values, np.float64).reshape(num_members, -1).mean(axis=1)
        for row, mean in zip(rows, means, strict=True):
            row[name] = float(mean)
    return rows


def marked(step: int, members: Sequence[Member], rows: Sequence[Mapping[str, float]]) -> list[store.Row]:
    """The rows with the number of gradient updates and what says whose they are."""
    return [{"step": step} | member.marks | dict(row) for member, row in zip(members, rows, strict=True)]
