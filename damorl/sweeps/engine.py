"""Runs the jobs of a plan on a backend: starts what is ready, retries what may succeed, records what failed.

It keeps nothing that matters: whatever moment it is stopped at, the run directories tell the next call what is left.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from damorl.record import ending, store
from damorl.record.store import FAILURE
from damorl.sweeps.plan import Job
from damorl.sweeps.process import REPEATABLE, Outcome, log_tail

POLL_SECONDS = 0.2
ELSEWHERE_SECONDS = 5.0  # between two looks at a run that another sweep is making


class Backend(Protocol):
    """Where jobs run."""

    slots: int
    """How many can be under way at once."""

    def start(self, jobs: Sequence[Job]) -> list[Any]:
        """Begin jobs; a handle for each, compared by identity."""
        ...

    def ended(self, handles: Sequence[Any]) -> list[tuple[Any, Outcome]]:
        """Those of the handles that have ended since, without waiting."""
        ...

    def close(self) -> None:
        """End whatever still runs and give everything back."""
        ...


@dataclass
class Attempt:
    """A job under way."""

    job: Job
    handle: Any
    began: float


@dataclass
class Progress:
    """Where a sweep stands; the display reads it, the engine writes it."""

    out: Path
    slots: int
    waiting: list[Job]
    running: list[Attempt] = field(default_factory=list)
    done: list[tuple[Job, float]] = field(default_factory=list)
    """Jobs done in this call, each with the seconds of its last attempt."""
    failed: list[tuple[Job, Outcome]] = field(default_factory=list)
    elsewhere: list[tuple[Job, float]] = field(default_factory=list)
    """Jobs that another process makes, each with the time of the next look."""
    tries: dict[str, int] = field(default_factory=dict)
    """Attempts that ended, by name."""

    @property
    def over(self) -> bool:
        """Whether nothing is left to do."""
        return not (self.waiting or self.running or self.elsewhere)


Show = Callable[[str, Job | None, Outcome | None], None]
"""Called with `started`, `done`, `failed`, `retry`, `elsewhere` and the job, or with `tick` many times a second."""


def run_jobs(progress: Progress, backend: Backend, retries: int, show: Show) -> None:
    """Work until every job is done or has failed for good; leaves the backend closed, also when interrupted."""
    try:
        while not progress.over:
            look_elsewhere(progress)
            start_ready(progress, backend, show)
            for handle, outcome in backend.ended([attempt.handle for attempt in progress.running]):
                settle(progress, handle, outcome, retries, show)
            show("tick", None, None)
            if not progress.over:
                time.sleep(POLL_SECONDS)
    finally:
        backend.close()


def look_elsewhere(progress: Progress) -> None:
    """Jobs that another process made, or let go of, come back to the front."""
    now = time.monotonic()
    due = [job for job, when in progress.elsewhere if now >= when]
    progress.elsewhere = [(job, when) for job, when in progress.elsewhere if now < when]
    progress.waiting[:0] = due


def start_ready(progress: Progress, backend: Backend, show: Show) -> None:
    """Fill the free slots. A job whose fit of the dynamics is being made goes after those that need not wait."""
    batch: list[Job] = []
    while progress.waiting and len(progress.running) + len(batch) < backend.slots:
        being_made = [job.fits for job in [*batch, *(a.job for a in progress.running if not begun(progress, a.job))]]
        free = [job for job in progress.waiting if not any(job.fits & fits for fits in being_made)]
        job = free[0] if free else progress.waiting[0]
        progress.waiting.remove(job)
        if ending.finished(progress.out / job.name):  # another sweep was there first
            progress.done.append((job, 0.0))
            show("done", job, None)
            continue
        batch.append(job)
    for job, handle in zip(batch, backend.start(batch) if batch else [], strict=True):
        progress.running.append(Attempt(job, handle, time.monotonic()))
        show("started", job, None)


def begun(progress: Progress, job: Job) -> bool:
    """Whether a run is past its preparation, so that its fit is there for others."""
    return any((progress.out / job.name / "checkpoint").glob("step_*"))


def settle(progress: Progress, handle: Any, outcome: Outcome, retries: int, show: Show) -> None:
    """What becomes of a job whose attempt ended."""
    attempt = next(attempt for attempt in progress.running if attempt.handle is handle)
    progress.running.remove(attempt)
    job, run_dir = attempt.job, progress.out / attempt.job.name
    if outcome.kind == "done":
        (run_dir / FAILURE).unlink(missing_ok=True)
        progress.done.append((job, time.monotonic() - attempt.began))
        show("done", job, outcome)
        return
    if outcome.kind == "elsewhere":
        progress.elsewhere.append((job, time.monotonic() + ELSEWHERE_SECONDS))
        show("elsewhere", job, outcome)
        return
    progress.tries[job.name] = tries = progress.tries.get(job.name, 0) + 1
    record_failure(run_dir, job, outcome, tries)
    if outcome.kind in REPEATABLE and tries <= retries:
        progress.waiting.append(job)
        show("retry", job, outcome)
    else:
        progress.failed.append((job, outcome))
        show("failed", job, outcome)


def record_failure(run_dir: Path, job: Job, outcome: Outcome, tries: int) -> None:
    """Write `failure.json` beside the log: what happened, after how many tries, and the log's last lines."""
    run_dir.mkdir(parents=True, exist_ok=True)
    store.write_json(
        run_dir / FAILURE,
        {
            "algo": job.config.algo,
            "dataset": job.config.dataset,
            "seeds": job.config.seeds,
            "settings": job.config.as_dict(),
            "kind": outcome.kind,
            "reason": outcome.reason,
            "attempts": tries,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "log": log_tail(run_dir),
        },
    )
