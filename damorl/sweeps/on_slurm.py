"""A Slurm cluster, through submitit: the jobs that are ready become array jobs, a run each.

`out` and the cache folder must be on a file system that every node sees, see `on_ray`. The scheduler's own output is
kept in `out/slurm`.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from damorl.errors import UserError
from damorl.sweeps.on_ray import cluster_environment, wait_for_worker
from damorl.sweeps.plan import Job
from damorl.sweeps.process import Outcome, outcome_of, payload

MANY = 1000  # jobs submitted at once, if nobody says how many


class Slurm:
    """Runs as array jobs."""

    def __init__(
        self,
        out: Path,
        workers: int | None,
        cpus: float,
        gpus: float,
        words: Mapping[str, str],
        refit: bool,
        cluster: str = "slurm",
    ) -> None:
        """`cluster` is submitit's: `slurm`, or `local` and `debug` for tests."""
        try:
            import submitit
        except ImportError as error:
            raise UserError(
                "backend slurm: expected the package submitit, found none; install it with: pip install 'damorl[slurm]'"
            ) from error
        self.out, self.refit, self.slots = out.resolve(), refit, workers or MANY
        self.environment = cluster_environment(out, cpus)
        try:
            self.executor = submitit.AutoExecutor(folder=self.out / "slurm" / "%j", cluster=cluster)
            self.executor.update_parameters(
                name=f"damorl-{out.name}",
                cpus_per_task=max(1, int(cpus)),
                gpus_per_node=int(gpus),
                slurm_array_parallelism=self.slots,
                **{"timeout_min": 24 * 60} | {key: number(value) for key, value in words.items()},
            )
        except (RuntimeError, TypeError, NameError) as error:
            raise UserError(
                f"backend slurm: submitit refuses: {error}; correct --slurm, or run where sbatch is"
            ) from error
        self.submitted: dict[int, tuple[Any, Job]] = {}

    def start(self, jobs: Sequence[Job]) -> list[Any]:
        """One array job for all that are ready."""
        told = [payload(job, self.out, self.refit) for job in jobs]
        handles = self.executor.map_array(wait_for_worker, told, [self.environment] * len(told))
        self.submitted |= {id(handle): (handle, job) for handle, job in zip(handles, jobs, strict=True)}
        return handles

    def ended(self, handles: Sequence[Any]) -> list[tuple[Any, Outcome]]:
        """Those that Slurm says have ended."""
        return [(handle, self.outcome(handle)) for handle in handles if handle.done()]

    def outcome(self, handle: Any) -> Outcome:
        """How a job ended."""
        _, job = self.submitted.pop(id(handle))
        error = handle.exception()
        if error is None:
            return outcome_of(handle.result(), self.out / job.name)
        return Outcome("lost", f"Slurm lost it ({handle.state}): {str(error).splitlines()[0]}")

    def close(self) -> None:
        """Cancel what was submitted and has not ended."""
        for handle, _ in self.submitted.values():
            with suppress(OSError, subprocess.SubprocessError):  # scancel is gone, or the job is
                handle.cancel()
        self.submitted.clear()


def number(value: str) -> Any:
    """A word from the command line, as a whole number where it is one."""
    return int(value) if str(value).lstrip("-").isdigit() else value
