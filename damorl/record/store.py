"""The run directory: everything one training process leaves behind, for all its seeds.

    config.json       the resolved settings
    provenance.json   versions, git revision, command, machine, dataset hash
    metrics.jsonl     one line per seed and epoch: {"step": gradient updates, "seed": 0, "critic/loss": 0.12, ...}
                      (with "setting", its number, in a population, whose events are in tb/VALUES/seed_K/)
    metrics.crc       a checksum of each of its lines, see `record.sums`
    tb/seed_K/        the same numbers as TensorBoard events
    checkpoint/       the training state
    result.json       the final scores; those so far, and why, of a run that a callback stopped (see `ending`)
    models.json       what the preparation took, and the hash of each seed's fitted dynamics
    dynamics.json     the course of each seed's fit: {"settings": {...}, "seeds": {"0": FIGURES}}, as
                      `parts.dynamics_fit.fit_members` gives them; {"missing": why} for a seed without
    dataset.json      the data set's card, dataset.png its picture
    policies.safetensors, policies/  the last policy, and those kept on the way
    selection.json    what `damorl select` thinks of them; early_stop.json the scores that early stopping went by
    ope.json          off-policy estimates of them, as `damorl ope` made them
    model.json        how well its model predicts, as `damorl model` found; model.png is the picture
    curves.png        the learning curves
    .lock             held by the process that makes the run, for as long as it lives
    log.txt, failure.json  of a sweep: what the run's process said, and why its last try failed

What the loop writes as JSON ends with a hash of the rest, see `record.seal`.

JSON has no NaN and no infinity, so they are stored as the strings "nan", "inf" and "-inf"; `read_metrics` turns them
back into floats. This module does not import jax: a report must stay light.
"""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from damorl._version import __version__
from damorl.errors import UserError
from damorl.files import atomic_file, writing
from damorl.record.seal import sealed, unsealed
from damorl.record.sums import SUMS, check_sums, sums_of

CONFIG, PROVENANCE, METRICS, RESULT = "config.json", "provenance.json", "metrics.jsonl", "result.json"
LOCK, MODELS, DYNAMICS = ".lock", "models.json", "dynamics.json"
LOG, FAILURE, SWEEP = "log.txt", "failure.json", "sweep.json"
BESIDE = (LOCK, LOG, FAILURE)
"""What may be in a run directory before the run is: its lock, and what a sweep keeps there."""
BEFORE_CONFIG = ("dataset.json", "dataset.png", PROVENANCE, MODELS)
"""What a run writes before its config: all that is there if it was killed right then."""
Row = dict[str, Any]
"""One line of metrics: `step`, `seed` and any number of `part/quantity` floats."""

PACKAGES = (
    "damorl",
    "jax",
    "jaxlib",
    "optax",
    "numpy",
    "gymnasium",
    "mujoco",
    "h5py",
    "scipy",
    "safetensors",
    "tensorboardX",
)
"""Whose versions a run records."""
NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def write_json(path: Path, obj: Any, seal: bool = False) -> None:
    """Write `obj` atomically as indented JSON. Paths, NumPy and JAX values become plain; see above for NaN.

    With `seal` a mapping carries its hash, which `read_json` checks.
    """
    content = sealed(plain(obj)) if seal else plain(obj)
    text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False)
    with atomic_file(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def known(value: float) -> float | None:
    """None for what is no number."""
    return float(value) if math.isfinite(value) else None


def plain(value: Any) -> Any:
    """`value` in JSON's own types, arrays as lists, non-finite floats as strings."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # NumPy and JAX, arrays and scalars alike
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def append_metrics(run_dir: Path, rows: Sequence[Row]) -> None:
    """Add one line per row and wait until they are on the disk; if that fails, the file is cut back to what it was.

    Append before saving the checkpoint of the same step: then a checkpoint never outlives its metrics.
    """
    lines = [(json.dumps(plain(row), allow_nan=False) + "\n").encode() for row in rows]
    if not (run_dir / METRICS).exists():
        with writing(run_dir / SUMS):
            (run_dir / SUMS).write_bytes(b"")
    _append(run_dir / METRICS, b"".join(lines))
    if (run_dir / SUMS).exists():  # not in a run that an earlier version began
        _append(run_dir / SUMS, sums_of(lines))


def _append(path: Path, data: bytes) -> None:
    with writing(path), open(path, "ab", buffering=0) as file:
        size = file.tell()
        try:
            while data:
                data = data[file.write(data) :]
            os.fsync(file.fileno())
        except OSError:
            with suppress(OSError):
                file.truncate(size)
            raise


def truncate_metrics(run_dir: Path, step: int) -> None:
    """Drop every row after `step`, and a torn last line, atomically: what stays is byte for byte what was written.

    A resumed run calls this with its checkpoint's step. Without a metrics file there is nothing to do.
    """
    path = run_dir / METRICS
    if not path.exists():
        return
    kept = [line for line, row in _metric_lines(path) if row["step"] <= step]
    with writing(run_dir / SUMS):
        (run_dir / SUMS).unlink(missing_ok=True)  # lines without a sum are read; sums of other lines are a fault
    with atomic_file(path) as temporary:
        temporary.write_bytes(b"".join(kept))
    with atomic_file(run_dir / SUMS) as temporary:
        temporary.write_bytes(sums_of(kept))


def create_run_dir(out: Path, name: str, resume: bool = False) -> Path:
    """Make `out/name`, or accept it as it stands when it is empty, holds what a run leaves that was killed before it
    began, or holds a run and `resume` is set.

    Raises `UserError` for a directory in use and for one that cannot be written.
    """
    run_dir = out / name
    with writing(run_dir):
        run_dir.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=run_dir).close()  # a read-only directory is found now, not after an hour
    names = {entry.name for entry in run_dir.iterdir() if entry.suffix != ".tmp"}
    if names <= {*BESIDE, *BEFORE_CONFIG}:
        return run_dir
    if not (run_dir / CONFIG).exists():
        raise UserError(
            f"cannot use {run_dir} as a run directory: expected it to be new, empty or a run, "
            f"found other files and no {CONFIG}; choose another --out"
        )
    if not resume:
        raise UserError(
            f"cannot start a new run in {run_dir}: expected it to be empty, found an earlier run; "
            "pass --resume to continue that run, or choose another --out"
        )
    return run_dir


def read_json(path: Path) -> Any:
    """The content of a JSON file without its seal; `UserError` if it is missing, damaged, or of a newer version."""
    try:
        return unsealed(path, json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"invalid JSON, {error}"
        raise UserError(
            f"cannot read {path}: expected a JSON file written by damorl, found '{reason}'; "
            "check that its directory is a run directory, or run the training again"
        ) from error


def read_metrics(run_dir: Path) -> list[Row]:
    """All rows in the order they were written, without a torn last line. `UserError` if missing or damaged."""
    rows = [row for _, row in _metric_lines(run_dir / METRICS)]
    return [{key: NOT_FINITE.get(str(value), value) for key, value in row.items()} for row in rows]


def _metric_lines(path: Path) -> list[tuple[bytes, Row]]:
    """Each whole line with its parsed row. A last line that was cut short by a kill is left out."""
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise UserError(
            f"cannot read {path}: expected the metrics of a run, found '{error.strerror}'; "
            "check that its directory is a run directory"
        ) from error
    check_sums(path, lines)
    parsed = [(line, _parse_row(line)) for line in lines]
    if parsed and parsed[-1][1] is None:
        parsed.pop()
    for number, (_, row) in enumerate(parsed, start=1):
        if row is None:
            raise UserError(
                f"cannot read {path}: expected a JSON object with step and seed in line {number}, "
                "found something else; remove that line or run the training again"
            )
    return parsed  # pyright: ignore[reportReturnType]


def _parse_row(line: bytes) -> Row | None:
    try:
        row = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return row if isinstance(row, dict) and {"step", "seed"} <= row.keys() else None


def own_command() -> list[str]:
    """The command line of this process without its folder; `python -m damorl` is the command `damorl`."""
    name = Path(sys.argv[0]).name
    return ["damorl" if name == "__main__.py" else name, *sys.argv[1:]]


def provenance(command: Sequence[str], dataset_sha256: str, device_kind: str) -> dict[str, Any]:
    """What is needed to run it again: versions, machine, revision, command, data and the time it began (UTC)."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": list(command),
        "dataset_sha256": dataset_sha256,
        "git": git_revision(Path(__file__)),
        "versions": {name: version_of(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "device_kind": device_kind,
    }


def git_revision(source: Path) -> dict[str, Any] | None:
    """`{"revision", "dirty"}` of the checkout that tracks the file `source`, or None. Never fails.

    Tracked, so that a copy installed inside somebody's repository does not claim that repository's revision.
    """
    try:
        _git(source, "ls-files", "--error-unmatch", source.name)
        changed = _git(source, "status", "--porcelain", "--", "..")  # of the package, not of runs beside it
        return {"revision": _git(source, "rev-parse", "HEAD"), "dirty": bool(changed)}
    except (OSError, subprocess.SubprocessError):
        return None


def _git(source: Path, *arguments: str) -> str:
    command = ["git", "-C", str(source.parent), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout.strip()


def version_of(package: str) -> str | None:
    """The installed version, None without; damorl's is that of its sources, which an editable installation may lag."""
    if package == "damorl":
        return __version__
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
