"""What a sweep shows while it works: a live table, plain lines where there is no terminal, JSON for programs."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Literal, NamedTuple

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from damorl.experiment.command import changed_settings
from damorl.record import store
from damorl.sweeps.clock import duration, expected_seconds
from damorl.sweeps.engine import Attempt, Progress
from damorl.sweeps.plan import Job, Plan
from damorl.sweeps.process import Outcome

Form = Literal["live", "lines", "quiet", "json"]
REFRESH_SECONDS = 1.0
ROWS = 16  # running runs that are shown one by one
SHOWN_SETTINGS = 3
TAIL_BYTES = 65_536


class Standing(NamedTuple):
    """How far a run is, by its last line of metrics."""

    step: int
    updates_per_second: float | None
    score: float | None


def standing(run_dir: Path) -> Standing:
    """Read the end of `metrics.jsonl`, which may be growing right now."""
    try:
        with open(run_dir / store.METRICS, "rb") as file:
            begins = max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES)
            file.seek(begins)
            lines = file.read().split(b"\n")[1 if begins else 0 : -1]  # whole ones
    except OSError:
        return Standing(0, None, None)
    rows = []
    for line in lines:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    if not rows:
        return Standing(0, None, None)
    scores = [row.get("eval/score", row.get("eval/return_mean")) for row in rows]
    score = next((value for value in reversed(scores) if value is not None), None)
    return Standing(int(rows[-1]["step"]), rows[-1].get("time/updates_per_second"), score)


def job_label(job: Job) -> str:
    """Algorithm, data set, seeds, and the first of the settings that are not the preset's."""
    changed = list(changed_settings(job.config).items())
    settings = " ".join(f"{name.split('.')[-1]}={value}" for name, value in changed[:SHOWN_SETTINGS])
    more = " ..." if len(changed) > SHOWN_SETTINGS else ""
    seeds = ",".join(map(str, job.config.seeds))
    return f"{job.config.algo}  {Path(job.config.dataset).name}  seed {seeds}  {settings}{more}".rstrip()


class Counts(NamedTuple):
    """Cells of a sweep."""

    done: int
    running: int
    failed: int
    left: int
    total: int


def counts(plan: Plan, progress: Progress) -> Counts:
    """Where the sweep stands; cells that another process makes count as left."""
    size = lambda jobs: sum(len(job.config.seeds) for job in jobs)
    done = len(plan.done) + len(plan.known) + size(job for job, _ in progress.done)
    running, failed = size(a.job for a in progress.running), size(job for job, _ in progress.failed)
    return Counts(done, running, failed, plan.total - done - running - failed, plan.total)


def remaining_seconds(progress: Progress, timings: list[dict[str, Any]]) -> float | None:
    """From stored timings, and for the running from how far they are; None if nothing is known."""
    seconds = [time_left(attempt, progress.out, timings) for attempt in progress.running]
    seconds += [expected_seconds(job, timings) for job in progress.waiting]
    known = [value for value in seconds if value is not None]
    if not known:
        return None
    total = sum(known) + (len(seconds) - len(known)) * sum(known) / len(known)
    return max(total / max(progress.slots, 1), max(known[: len(progress.running)], default=0.0))


def time_left(attempt: Attempt, out: Path, timings: list[dict[str, Any]]) -> float | None:
    """Of a run: what its rate says once it trains, before that the expectation less what it has had."""
    now = standing(out / attempt.job.name)
    updates = attempt.job.config.loop.total_updates
    if now.step and now.updates_per_second:
        return (updates - now.step) / now.updates_per_second
    expected = expected_seconds(attempt.job, timings)
    return None if expected is None else max(0.0, expected - (time.monotonic() - attempt.began))


class Display:
    """Shows a sweep in one of four forms; call it as the engine's `show`."""

    def __init__(self, form: Form, plan: Plan, progress: Progress, timings: list[dict[str, Any]]) -> None:
        self.form, self.plan, self.progress, self.timings = form, plan, progress, timings
        self.drawn, self.last = 0.0, ""
        self.live = Live(console=Console(stderr=True), auto_refresh=False) if form == "live" else None

    def __enter__(self) -> Display:
        if self.live is not None:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live is not None:
            self.draw(force=True)
            self.live.stop()

    def __call__(self, event: str, job: Job | None, outcome: Outcome | None) -> None:
        """An event of the engine."""
        if event == "tick":
            self.draw()
        elif job is not None and self.form != "quiet":
            reason = outcome.reason if outcome is not None else ""
            self.tell(event, job, reason)

    def tell(self, event: str, job: Job, reason: str) -> None:
        """One line, or one JSON object, for an event."""
        if self.form == "json":
            now = counts(self.plan, self.progress)
            eta = remaining_seconds(self.progress, self.timings)
            told = {"event": event, "run": job.name, "reason": reason} | now._asdict() | {"eta_seconds": eta}
            print(json.dumps(store.plain(told)), flush=True)
            return
        words = {"retry": "failed, tries again", "elsewhere": "is made by another process"}.get(event, event)
        line = f"{words:<8} {job_label(job)}" + (f": {reason}" if reason else "")
        if self.live is not None:
            if event in ("failed", "retry"):
                self.live.console.print(Text(line, style="red"))
        else:
            now = counts(self.plan, self.progress)
            print(f"[{now.done}/{now.total}] {line}", file=sys.stderr, flush=True)

    def draw(self, force: bool = False) -> None:
        """The live table, at most once a second."""
        if self.live is not None and (force or time.monotonic() - self.drawn >= REFRESH_SECONDS):
            self.drawn = time.monotonic()
            self.live.update(picture(self.plan, self.progress, self.timings), refresh=True)


def picture(plan: Plan, progress: Progress, timings: list[dict[str, Any]]) -> Group:
    """The live table: one line of counts and time, one bar, one row for each run under way."""
    now = counts(plan, progress)
    rates = [standing(progress.out / attempt.job.name) for attempt in progress.running]
    speed = sum(rate.updates_per_second or 0.0 for rate in rates)
    head = Text.assemble(
        (f"{now.done} of {now.total} done", "bold green"),
        f", {now.running} running, ",
        (f"{now.failed} failed", "bold red" if now.failed else ""),
        f", {now.left} left   {speed:,.0f} updates/s   ETA {duration(remaining_seconds(progress, timings))}",
    )
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("run", no_wrap=True, overflow="ellipsis")
    for name in ("updates", "/s", "score", "left"):
        table.add_column(name, justify="right", no_wrap=True)
    for attempt, rate in list(zip(progress.running, rates, strict=True))[:ROWS]:
        share = f"{rate.step:,} / {attempt.job.config.loop.total_updates:,}" if rate.step else "preparing"
        speed_text = f"{rate.updates_per_second:,.0f}" if rate.updates_per_second else ""
        score = "" if rate.score is None else f"{rate.score:.1f}"
        left = duration(time_left(attempt, progress.out, timings))
        table.add_row(job_label(attempt.job), share, speed_text, score, left)
    bar = Table.grid()  # a row of a table ends its line, a bar alone does not
    bar.add_row(ProgressBar(total=max(now.total, 1), completed=now.done + now.failed, width=72))
    return Group(head, bar, table)
