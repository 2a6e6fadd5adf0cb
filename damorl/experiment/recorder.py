"""Metrics on their way from the device to the run directory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from damorl.record import store
from damorl.record.members import Member
from damorl.types import Metrics


class Recorder:
    """Writes metrics to the run directory: JSON lines first, TensorBoard beside it."""

    def __init__(self, run_dir: Path, members: Sequence[Member], resumed_at: int, tensorboard: bool = True) -> None:
        self.run_dir, self.members = run_dir, members
        self.boards = [store.open_tensorboard(run_dir, m.folder, resumed_at + 1) for m in members if tensorboard]

    def write(self, step: int, rows: list[dict[str, float]]) -> None:
        """One row per member at `step`, which is a number of gradient updates."""
        full = [{"step": step} | member.marks | row for member, row in zip(self.members, rows, strict=True)]
        store.append_metrics(self.run_dir, full)
        for board, row in zip(self.boards, full, strict=False):  # without TensorBoard there are none
            board.write(row)

    def close(self) -> None:
        """Close the event files."""
        for board in self.boards:
            board.close()


def metric_rows(num_members: int, *groups: Metrics) -> list[dict[str, float]]:
    """Device metrics `[member, ...]` to one dictionary of means per member."""
    rows: list[dict[str, float]] = [{} for _ in range(num_members)]
    for name, values in [item for group in groups for item in group.items()]:
        means = np.asarray(values, np.float64).reshape(num_members, -1).mean(axis=1)
        for row, mean in zip(rows, means, strict=True):
            row[name] = float(mean)
    return rows
