"""Starting a worker, and telling from its exit code and its log how it ended: the same on every backend."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from damorl.files import writing
from damorl.record.store import LOG
from damorl.sweeps.plan import Job
from damorl.sweeps.worker import Ending

TAIL_LINES, TAIL_BYTES = 20, 8192
KINDS = {
    Ending.DONE: "done",
    Ending.CRASH: "crashed",
    Ending.USER_ERROR: "user error",
    Ending.NOT_FINITE: "not finite",
    Ending.NO_MEMORY: "out of memory",
    Ending.ELSEWHERE: "elsewhere",
}
REPEATABLE = ("crashed", "killed", "out of memory", "lost")
"""Kinds of failure that another try may not meet. A user's mistake, or a loss that was not finite, would come again:
a run is a function of its key."""


class Outcome(NamedTuple):
    """How an attempt ended."""

    kind: str
    """`done`, `user error`, `not finite`, `out of memory`, `crashed`, `killed`, `lost` or `elsewhere`."""
    reason: str = ""
    """One sentence; nothing if it is done."""


def payload(job: Job, out: Path, refit: bool = False, cores: Sequence[int] = ()) -> dict[str, Any]:
    """What a worker is told, as plain JSON."""
    from damorl.experiment.command import train_command

    words = train_command(job.config) + (["--out", str(out)] if out != Path("runs") else [])
    return {
        "config": job.config.as_dict(),
        "out": str(out),
        "refit": refit,
        "cores": list(cores),
        "command": words[1:],
        "name": job.name,
    }


def spawn(told: Mapping[str, Any], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a worker. It ends when this process does; its words go to the run's log."""
    run_dir = Path(told["out"]) / told["name"]
    with writing(run_dir):
        run_dir.mkdir(parents=True, exist_ok=True)
        with open(run_dir / LOG, "ab") as log:
            log.write(f"--- {datetime.now(UTC).isoformat(timespec='seconds')}\n".encode())
            log.flush()
            process = subprocess.Popen(
                [sys.executable, "-m", "damorl.sweeps.worker"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | dict(environment),
                start_new_session=True,  # Ctrl-C is for the starter, who then lets go of the pipe
            )
    assert process.stdin is not None
    try:
        process.stdin.write(json.dumps(told).encode() + b"\n")
        process.stdin.flush()
    except BrokenPipeError:
        pass  # it is dead already, and its exit code tells why
    return process


def stop(process: subprocess.Popen[bytes]) -> None:
    """Let go of a worker, which then leaves; what it did since its last checkpoint is lost."""
    if process.stdin is not None and not process.stdin.closed:
        process.stdin.close()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def thread_limits(cores: int) -> dict[str, str]:
    """What keeps every library of a worker to so many threads."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NPROC")
    return dict.fromkeys(names, str(cores))


def outcome_of(code: int, run_dir: Path) -> Outcome:
    """What an exit code means."""
    if code < 0 or code > 128:  # a signal, told by Popen or by a shell
        number = -code if code < 0 else code - 128
        name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
        hint = "; the system does that when memory runs out" if name == "SIGKILL" else ""
        return Outcome("killed", f"the process was ended by {name}{hint}")
    kind = KINDS[Ending(code)] if code in set(Ending) else "crashed"
    return Outcome(kind, "" if kind == "done" else last_words(run_dir))


def last_words(run_dir: Path) -> str:
    """The last line of a run's log without the program's name."""
    lines = log_tail(run_dir)
    return lines[-1].removeprefix("damorl: ") if lines else "it left no word"


def log_tail(run_dir: Path, lines: int = TAIL_LINES) -> list[str]:
    """The last lines of a run's log."""
    try:
        with open(run_dir / LOG, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    return [line for line in text.splitlines() if line.strip()][-lines:]
