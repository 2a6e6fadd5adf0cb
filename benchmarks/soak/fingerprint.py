"""The numbers of a few fixed short runs, and how far those of two machines agree.

The same code on the same machine gives the same bits. Another CPU may add up in another order, so that the first update
differs in the last digits, and later ones more.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.soak import same
from damorl.errors import UserError
from damorl.record import seal

FORMAT = "damorl-fingerprint-1"
ALGORITHMS = ("bc", "mopo")
SETTINGS: dict[str, Any] = {
    "preset": "smoke",
    "total_updates": 100,
    "refresh_interval": 10,
    "eval_interval": 100,
    "checkpoint_interval": 100,
    "eval_episodes": 1,
}
SMALL = 1e-6
"""Numbers below are compared as if they were this large."""


def take(machine: dict[str, Any], algorithms: Sequence[str] = ALGORITHMS) -> dict[str, Any]:
    """Train, and return what the runs say: by algorithm the metrics of each epoch and the policy."""
    from damorl.testing.algorithms import write_toy

    began, runs = time.monotonic(), dict[str, Any]()
    with tempfile.TemporaryDirectory() as name:
        data = write_toy(Path(name) / "hopper-toy.hdf5")
        for algo in algorithms:
            runs[algo] = numbers(algo, data, Path(name))
    flags = os.environ.get("XLA_FLAGS", "")
    return {"format": FORMAT, "machine": machine, "xla_flags": flags, "seconds": time.monotonic() - began, "runs": runs}


def numbers(algo: str, data: Path, folder: Path) -> dict[str, Any]:
    """Those of one run."""
    from damorl import api
    from damorl.experiment.result import load_arrays

    run_dir = api.train(algo, str(data), out=folder / "runs", quiet=True, refit=True, **SETTINGS).run_dir
    arrays, _ = load_arrays(run_dir)
    policy = {name: np.asarray(array, np.float64).ravel().tolist() for name, array in sorted(arrays.items())}
    rows = same.rows(run_dir)
    digest = seal.digest([rows, policy])
    return {"sha256": digest, "rows": rows, "policy": policy}


def read(path: Path) -> dict[str, Any]:
    """What `take` returned, from a file. UserError if it is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"cannot read {path}: expected a fingerprint, found {error}; write it with --fingerprint"
        ) from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise UserError(f"cannot use {path}: expected a fingerprint, found other JSON; write it with --fingerprint")
    return found


def compare(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """How far two fingerprints agree: by algorithm the largest relative difference of any metric after each epoch and
    of the policy, whose unit is the largest weight of its layer. None of what both have is left out."""
    runs = {}
    for algo in [algo for algo in one["runs"] if algo in other["runs"]]:
        left, right = one["runs"][algo], other["runs"][algo]
        steps = {}
        for a, b in zip(left["rows"], right["rows"], strict=True):
            names = [name for name in a.keys() & b.keys() if name not in ("step", "seed")]
            steps[str(a["step"])] = max(relative(np.array([a[name]]), np.array([b[name]])) for name in names)
        policy = max(
            relative(np.array(left["policy"][name]), np.array(right["policy"][name])) for name in left["policy"]
        )
        runs[algo] = {"same_bits": left["sha256"] == right["sha256"], "policy": policy, "metrics_by_step": steps}
    sides = [{"machine": side["machine"], "xla_flags": side["xla_flags"]} for side in (one, other)]
    return {"sides": sides, "runs": runs, "faults": []}


def relative(left: np.ndarray, right: np.ndarray) -> float:
    """The largest difference over the largest number; 0.0 for what is the same, NaN and infinities included."""
    if np.array_equal(left, right, equal_nan=True):
        return 0.0
    return float(np.abs(left - right).max() / max(np.abs(left).max(), np.abs(right).max(), SMALL))
