"""How a run ended: `result.json` of one that a callback stopped has `stopped`, that of a finished run has not.

A stopped run is not finished, whatever its `result.json` says of its scores: sweeps and `--resume` go on with it, and
no record is made of it. While it goes on, it has no `result.json`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from damorl.errors import UserError
from damorl.files import writing
from damorl.record.store import CONFIG, RESULT, read_json

STOPPED = "stopped"


class Stopped(NamedTuple):
    """What ended a run before its last update."""

    by: str
    """The callback's name."""
    reason: str


def finished(run_dir: Path) -> bool:
    """Whether the run made all its updates and was summed up."""
    result = _read_result(run_dir)
    return result is not None and STOPPED not in result


def stopped(run_dir: Path) -> Stopped | None:
    """What ended the run early; None if it is finished, or has no end yet."""
    told = (_read_result(run_dir) or {}).get(STOPPED)
    return None if told is None else Stopped(told["by"], told["reason"])


def final_step(run_dir: Path) -> int | None:
    """The updates that the last policy was trained with; None for a run that neither finished nor was stopped."""
    result = _read_result(run_dir)
    if result is None:
        return None
    return result["updates"] if STOPPED in result else read_json(run_dir / CONFIG)["loop"]["total_updates"]


def forget_stop(run_dir: Path) -> None:
    """Remove the result of a stopped run that goes on; that of a finished one stays."""
    if stopped(run_dir) is not None:
        with writing(run_dir / RESULT):
            (run_dir / RESULT).unlink(missing_ok=True)


def _read_result(run_dir: Path) -> dict[str, Any] | None:
    """The result, or None where there is none to read: a run with a damaged one is summed up again when it goes on."""
    try:
        result = read_json(run_dir / RESULT)
    except UserError:
        return None
    return result if isinstance(result, dict) else None
