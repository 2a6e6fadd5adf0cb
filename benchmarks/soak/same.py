"""Whether two runs are the same but for their times, and whether what a run left behind can be used."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from damorl.errors import UserError
from damorl.record import checkpoint, store

TIMES = {"result.json": ("eval_share", "provenance"), "models.json": ("prepare_seconds",), "dataset.json": ("path",)}
"""What differs between two runs of the same settings in two places."""
TEMPORARY = ".tmp"


def content(run_dir: Path) -> dict[str, Any]:
    """All that a run says, by file, without times: rows, JSON, and the SHA-256 of checkpoints and policies."""
    found: dict[str, Any] = {}
    for path in sorted(run_dir.rglob("*")):
        name = path.relative_to(run_dir).as_posix()
        if path.suffix == ".json":
            told = store.read_json(path)
            found[name] = {key: value for key, value in told.items() if key not in TIMES.get(name, ())}
        elif path.suffix == ".safetensors" and not path.name.startswith("."):
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    found.pop(store.PROVENANCE, None)
    return found | {store.METRICS: rows(run_dir)}


def rows(run_dir: Path) -> list[dict[str, Any]]:
    """The metrics without times; none without a file."""
    return numbers(run_dir) if (run_dir / store.METRICS).exists() else []


def numbers(run_dir: Path) -> list[dict[str, Any]]:
    """The metrics of a run that has some, without those that depend on the clock."""
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in store.read_metrics(run_dir)]


def differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """The files in which two runs differ."""
    return sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))


def leftovers(folder: Path) -> list[str]:
    """Temporary files that nothing will remove."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob(f"*{TEMPORARY}"))


def lost(run_dir: Path, expected: Mapping[str, Any], step: int | None) -> list[str]:
    """What is wrong with a run that was cut off after its checkpoint of `step` (None: before any).

    What is there must be readable and what the whole run has at that place, and that checkpoint be the newest.
    """
    faults, warnings = list[str](), list[str]()
    try:
        found = content(run_dir) if run_dir.exists() else {store.METRICS: []}
        newest = checkpoint.newest(run_dir / "checkpoint", warnings.append)
    except UserError as error:
        return [str(error)]
    for name in found.keys() & expected.keys() - {store.METRICS, "policies.safetensors"}:
        if found[name] != expected[name]:
            faults.append(f"{name} is another")
    if found[store.METRICS] != expected[store.METRICS][: len(found[store.METRICS])]:
        faults.append("the metrics are others")
    at = None if newest is None else int(newest[2]["step"])
    if at != step:
        faults.append(f"the newest checkpoint is that of {at}, not {step}")
    return faults + warnings
