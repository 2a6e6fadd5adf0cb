"""The folder that a behaviour training run leaves behind.

`run.json` says how it was started, `step_0010000.npz` holds the actor after so many environment steps, and `log.jsonl`
has a line per snapshot: step, deterministic returns, their mean, seconds since the start, metrics.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from damorl.behaviour.host_policy import NumpyPolicy, from_arrays, rounded, to_arrays
from damorl.errors import UserError
from damorl.files import atomic_file


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record atomically, indented for the eye."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an npz atomically."""
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **dict(arrays))  # pyright: ignore[reportArgumentType]


def write_snapshot(folder: Path, step: int, layers: NumpyPolicy, returns: Sequence[float], **notes: float) -> None:
    """Add the policy of `step` and its line in the log."""
    write_arrays(snapshot_path(folder, step), to_arrays(layers))
    row = {"step": step, "returns": list(returns), "mean": float(np.mean(returns)), **notes}
    with (folder / "log.jsonl").open("a", encoding="utf-8") as log:
        log.write(json.dumps(row) + "\n")


def read_snapshot(folder: Path, step: int) -> NumpyPolicy:
    """The policy of `step`, rounded to float16 as it would ship."""
    with np.load(snapshot_path(folder, step), allow_pickle=False) as arrays:
        return rounded(from_arrays(arrays))


def read_log(folder: Path) -> dict[int, float]:
    """Mean logged return by step, in order, of the snapshots that are there. UserError if there are none.

    A line that is not JSON is the torn end of a run that was killed, and is passed over.
    """
    log = folder / "log.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    rows = [row for row in map(_parsed, lines) if row and snapshot_path(folder, row["step"]).is_file()]
    if not rows:
        raise UserError(
            f"{folder}: expected the snapshots and log.jsonl of a behaviour run, found none; make them with "
            "'damorl data train-behaviour'"
        )
    return {row["step"]: row["mean"] for row in sorted(rows, key=lambda row: row["step"])}


def read_run(folder: Path) -> dict[str, Any]:
    """What `run.json` says of the run. UserError if it is missing or unreadable."""
    try:
        return json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as reason:
        raise UserError(
            f"{folder / 'run.json'}: expected the seed and settings of a behaviour run, found {reason}; train with "
            "'damorl data train-behaviour', which writes it"
        ) from reason


def snapshot_path(folder: Path, step: int) -> Path:
    """Where the policy of `step` is stored."""
    return folder / f"step_{step:07d}.npz"


def versions() -> dict[str, str]:
    """Versions of the packages that decide what a behaviour or a data set looks like."""
    return {name: metadata.version(name) for name in ("gymnasium", "mujoco", "numpy", "jax")}


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        return json.loads(line)
    except ValueError:
        return None
