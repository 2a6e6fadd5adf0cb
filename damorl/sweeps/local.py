"""The machine itself: one process per core, or per GPU, each kept to its own.

A run of `quick` size gains nothing from a second core, so several side by side use a machine that one alone leaves
half idle. On a GPU it is the other way round: seeds trained together are nearly free, and a second process would only
fight for memory.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from damorl.errors import UserError
from damorl.sweeps.plan import Job
from damorl.sweeps.process import Outcome, outcome_of, payload, spawn, stop, thread_limits

PROBE = "import jax, json; d = jax.local_devices(); print(json.dumps([d[0].platform, len(d)]))"


@dataclass(frozen=True)
class Device:
    """What JAX finds on this machine."""

    platform: str
    count: int

    @property
    def accelerated(self) -> bool:
        """Whether it is more than a CPU."""
        return self.platform != "cpu"


def find_device() -> Device:
    """Ask JAX in a process of its own: asking here would take the GPU's memory from the workers."""
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        return Device("cpu", 1)
    found = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True)
    if found.returncode:
        reason = (found.stderr.strip().splitlines() or ["no word"])[-1]
        raise UserError(f"JAX does not start on this machine: '{reason}'; set JAX_PLATFORMS=cpu to use the CPU")
    platform, count = json.loads(found.stdout.splitlines()[-1])
    return Device(platform, count)


def usable_cores() -> list[int]:
    """The cores that this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def share(cores: Sequence[int], slot: int, slots: int) -> list[int]:
    """The slot's own cores, neighbours where it has several; with more slots than cores, slots share one."""
    if slots >= len(cores):
        return [cores[slot % len(cores)]]
    each = len(cores) // slots
    return list(cores[slot * each : (slot + 1) * each])


def visible_device(index: int) -> str:
    """What CUDA calls the device of that number among those that this process may see."""
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return named[index] if index < len(named) else str(index)


@dataclass(eq=False)
class Worker:
    """A job's process, in its slot."""

    job: Job
    slot: int
    process: subprocess.Popen[bytes]


@dataclass
class Local:
    """Worker processes on this machine."""

    out: Path
    device: Device
    slots: int
    refit: bool = False
    workers: list[Worker] = field(default_factory=list)

    def start(self, jobs: Sequence[Job]) -> list[Worker]:
        """One process for each job, in a free slot."""
        return [self.start_one(job) for job in jobs]

    def start_one(self, job: Job) -> Worker:
        """A worker's cores and threads are its slot's."""
        taken = {worker.slot for worker in self.workers}
        slot = next(number for number in range(self.slots) if number not in taken)
        cores = share(usable_cores(), slot, self.slots)
        environment = thread_limits(len(cores))
        if self.device.accelerated:
            environment["CUDA_VISIBLE_DEVICES"] = visible_device(slot % self.device.count)
        pinned = cores if hasattr(os, "sched_setaffinity") else ()
        worker = Worker(job, slot, spawn(payload(job, self.out, self.refit, pinned), environment))
        self.workers.append(worker)
        return worker

    def ended(self, handles: Sequence[Worker]) -> list[tuple[Worker, Outcome]]:
        """Those whose process has an exit code."""
        gone = [worker for worker in self.workers if worker.process.poll() is not None]
        self.workers = [worker for worker in self.workers if worker not in gone]
        return [(worker, self.outcome(worker)) for worker in gone]

    def outcome(self, worker: Worker) -> Outcome:
        """How a dead worker ended."""
        stop(worker.process)
        return outcome_of(worker.process.returncode, self.out / worker.job.name)

    def close(self) -> None:
        """Let all go, and wait until they are gone."""
        for worker in self.workers:
            if worker.process.stdin is not None:
                worker.process.stdin.close()
        for worker in self.workers:
            stop(worker.process)
        self.workers = []
