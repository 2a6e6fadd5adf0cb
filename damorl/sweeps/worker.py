"""One run in a process of its own: `python -m damorl.sweeps.worker`, the job as a line of JSON on standard input.

The line is all that is ever sent; that the pipe then ends means that whoever started the process is gone, and so the
process goes too: no orphan holds a core or a lock. What it says goes to standard output and error, which the starter
keeps as the run's log. The exit code tells how it ended (`Ending`).
"""

from __future__ import annotations

import json
import os
import sys
import threading
from enum import IntEnum
from pathlib import Path
from typing import Any


class Ending(IntEnum):
    """Exit codes."""

    DONE = 0
    CRASH = 1
    USER_ERROR = 2
    NOT_FINITE = 3
    NO_MEMORY = 4
    ELSEWHERE = 5
    """Another process is making this very run."""


def main() -> int:
    """Read the job, run it, say how it ended."""
    job = json.loads(sys.stdin.readline())
    threading.Thread(target=leave_with_starter, daemon=True).start()
    if job.get("cores"):
        os.sched_setaffinity(0, job["cores"])  # before JAX counts the cores it may use
    sys.argv = ["damorl", *job.get("command", [])]  # what the run directory says it was made with
    from damorl.errors import BusyError, NotFiniteError, UserError

    try:
        run(job)
    except UserError as error:
        print(f"damorl: {error}", file=sys.stderr, flush=True)
        kinds = {BusyError: Ending.ELSEWHERE, NotFiniteError: Ending.NOT_FINITE}
        return kinds.get(type(error), Ending.USER_ERROR)
    except MemoryError:
        print("damorl: out of memory", file=sys.stderr, flush=True)
        return Ending.NO_MEMORY
    except RuntimeError as error:  # XLA's has this type, and only its text tells
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        print(f"damorl: out of memory: {str(error).splitlines()[0]}", file=sys.stderr, flush=True)
        return Ending.NO_MEMORY
    return Ending.DONE


def run(job: dict[str, Any]) -> None:
    """Begin or continue the run."""
    from damorl import api
    from damorl.experiment.config import run_config_from_dict

    config, refit = run_config_from_dict(job["config"]), job.get("refit", False)
    # Data sets are made before any worker starts: one that made them here would take every core from the others.
    api.run(config, Path(job["out"]), resume=True, quiet=True, refit=refit, make=False)


def leave_with_starter() -> None:
    """Wait for the end of the pipe, which nothing but the starter's death brings, and leave at once."""
    sys.stdin.read()
    os._exit(130)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # the waiting thread holds standard input, which an ordinary exit would wait for
