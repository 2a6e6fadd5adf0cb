"""A Ray cluster: the same worker processes, each inside a Ray task that only waits for it.

Ray finds the room and tells when a node is lost; which run is done, and where one goes on, the run directories tell as
everywhere. So `out` and the cache folder (`$DAMORL_HOME`, else `.cache` inside `out`) must be places that every
node sees.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from damorl.errors import UserError
from damorl.sweeps.plan import Job
from damorl.sweeps.process import Outcome, outcome_of, payload, spawn, stop, thread_limits

MANY = 10_000  # tasks that wait in Ray's own queue


def cluster_environment(out: Path, cpus: float) -> dict[str, str]:
    """Of a worker on a node: its threads, and a cache that all nodes share."""
    home = os.environ.get("DAMORL_HOME") or str(out.resolve() / ".cache")
    return thread_limits(max(1, int(cpus))) | {"DAMORL_HOME": home}


def wait_for_worker(told: Mapping[str, Any], environment: Mapping[str, str]) -> int:
    """On the node: start the worker and return its exit code. If this process dies, so does the worker."""
    process = spawn(told, environment)
    try:
        return process.wait()
    finally:
        stop(process)


class Ray:
    """Runs as Ray tasks."""

    def __init__(
        self, out: Path, workers: int | None, cpus: float, gpus: float, address: str | None, refit: bool
    ) -> None:
        try:
            import ray
        except ImportError as error:
            raise UserError(
                "backend ray: expected the package ray, found none; install it with: pip install 'damorl[ray]'"
            ) from error
        self.ray, self.out, self.refit = ray, out.resolve(), refit
        self.began = not ray.is_initialized()
        if self.began:
            ray.init(address=address, log_to_driver=False, configure_logging=False)
        self.environment = cluster_environment(out, cpus)
        self.slots = workers or self.room(cpus, gpus)
        options = {"num_cpus": cpus, "num_gpus": gpus, "max_retries": 0}  # the engine retries, and keeps the reasons
        self.task = ray.remote(**options)(wait_for_worker)
        self.jobs: dict[Any, Job] = {}

    def room(self, cpus: float, gpus: float) -> int:
        """Runs that the cluster has room for as it is now; a cluster that may grow is given more to do than that."""
        have = self.ray.cluster_resources()
        rooms = [have.get(name, 0.0) // need for name, need in (("CPU", cpus), ("GPU", gpus)) if need > 0]
        return max(1, int(min(rooms, default=MANY)))

    def start(self, jobs: Sequence[Job]) -> list[Any]:
        """A task for each job."""
        handles = []
        for job in jobs:
            handle = self.task.remote(payload(job, self.out, self.refit), self.environment)
            self.jobs[handle] = job
            handles.append(handle)
        return handles

    def ended(self, handles: Sequence[Any]) -> list[tuple[Any, Outcome]]:
        """Those whose task has returned, or is lost with its worker or node."""
        if not handles:
            return []
        ready, _ = self.ray.wait(list(handles), num_returns=len(handles), timeout=0)
        return [(next(h for h in handles if h == one), self.outcome(one)) for one in ready]

    def outcome(self, handle: Any) -> Outcome:
        """How a task ended."""
        job = self.jobs.pop(handle)
        try:
            return outcome_of(self.ray.get(handle), self.out / job.name)
        except self.ray.exceptions.RayTaskError as error:
            return Outcome("crashed", str(error.cause or error).splitlines()[-1])
        except self.ray.exceptions.RayError as error:  # worker, node or object store
            return Outcome("lost", f"its node or worker was lost ({type(error).__name__})")

    def close(self) -> None:
        """Cancel what runs; leave a cluster that was there before."""
        for handle in self.jobs:
            self.ray.cancel(handle, force=True)
        self.jobs.clear()
        if self.began:
            self.ray.shutdown()
