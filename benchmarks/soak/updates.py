"""Millions of tiny updates: the memory of the process that makes them stays what it is.

The training runs in a process of its own through the Python API, with a callback that reads its resident memory. The
first quarter is left out, for caches fill; a line through the rest tells the growth.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
INTERVAL, SAMPLES = 1000, 400
MOST = 8.0
"""MiB that memory may grow by, along the line, and still be called constant: Python's allocator alone moves by one."""


def train(algo: str, updates: int, data: str) -> None:
    """In the process of its own: print `[updates, resident bytes]` for about `SAMPLES` epochs, as one line of JSON."""
    import damorl

    samples, every = list[tuple[int, int]](), max(1, updates // INTERVAL // SAMPLES)

    class Sample(damorl.Callback):
        def on_epoch(self, event: Any) -> None:
            if event.step // INTERVAL % every == 0:
                samples.append((event.step, resident()))

    settings: dict[str, Any] = {"total_updates": updates, "refresh_interval": INTERVAL, "keep_policy_every": 10}
    settings |= {"eval_interval": max(INTERVAL, updates // 30), "checkpoint_interval": max(INTERVAL, updates // 60)}
    with tempfile.TemporaryDirectory() as out:
        damorl.train(algo, data, "smoke", out=out, quiet=True, callbacks=[Sample()], **settings)
    print(json.dumps(samples))


def resident() -> int:
    """Bytes of memory that this process holds (Linux)."""
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def growth(samples: np.ndarray) -> tuple[float, float]:
    """MiB by which the line through the last three quarters of `[updates, bytes]` rises, and its standard error."""
    late = samples[len(samples) // 4 :].astype(float)
    steps, mebibytes = late[:, 0], late[:, 1] / 2**20
    centred = steps - steps.mean()
    slope = centred @ mebibytes / (centred @ centred)
    residual = mebibytes - mebibytes.mean() - slope * centred
    error = np.sqrt(residual @ residual / max(len(late) - 2, 1) / (centred @ centred))
    span = steps[-1] - steps[0]
    return float(slope * span), float(error * span)


def soak(updates: int, algo: str, data: Path) -> dict[str, Any]:
    """So many updates of an algorithm at the sizes of the preset `smoke`: the report."""
    began = time.monotonic()
    updates = -(-updates // (60 * INTERVAL)) * 60 * INTERVAL
    command = [sys.executable, "-m", "benchmarks.soak.updates", algo, str(updates), str(data)]
    found = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
    samples = np.array(json.loads(found.stdout.splitlines()[-1]))
    risen, error = growth(samples)
    return {
        "algo": algo,
        "updates": updates,
        "samples": len(samples),
        "resident_mib": {name: round(float(samples[at, 1]) / 2**20, 1) for name, at in (("first", 0), ("last", -1))},
        "growth_mib": round(risen, 2),
        "growth_standard_error_mib": round(error, 2),
        "seconds": round(time.monotonic() - began, 1),
        "faults": [f"memory grows by {risen:.1f} MiB, more than {MOST}"] if risen > MOST else [],
    }


if __name__ == "__main__":
    train(sys.argv[1], int(sys.argv[2]), sys.argv[3])
