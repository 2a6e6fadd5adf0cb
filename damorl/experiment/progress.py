"""Progress bars on standard error: a run's, one per host-side stage and one for the updates; and one for anything."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from damorl.algos.base import OnProgress
from damorl.bars import Bar
from damorl.errors import UserError
from damorl.experiment.callbacks import Callback, EndEvent, Event
from damorl.experiment.config import RunConfig


class Progress(Callback):
    """Bars with rate and time left; silent when `quiet`."""

    def __init__(self, config: RunConfig, quiet: bool) -> None:
        self.config, self.quiet = config, quiet
        self.bar: Any = None
        self.stage_name = ""
        self.score = ""

    def stage(self, member: str) -> OnProgress:
        """A callback for one member's host-side stage."""
        self.close()

        def on_progress(name: str, done: int, total: int | None, figures: dict[str, float]) -> None:
            if self.bar is not None and self.stage_name != name:
                self.close()
            if self.bar is None:
                self.stage_name = name
                self.bar = Bar(total=total, desc=f"{name}, {member}", unit="batch", disable=self.quiet)
            self.bar.set_postfix({key.split("/")[-1]: f"{value:.4f}" for key, value in figures.items()}, refresh=False)
            self.bar.update(done - self.bar.n)

        return on_progress

    def close(self) -> None:
        """Close the bar, if there is one."""
        if self.bar is not None:
            self.bar.close()
        self.bar = None

    def begin(self, step: int) -> None:
        """Open the bar of the updates."""
        total = self.config.loop.total_updates
        count, noun = len(self.config.members), "member" if self.config.population else "seed"
        desc = f"{self.config.algo}, {count} {noun}{'s' if count > 1 else ''}"
        self.bar = Bar(initial=step, total=total, desc=desc, unit="update", disable=self.quiet)

    def on_epoch(self, event: Event) -> None:
        """Move to its step and show the latest score."""
        rows = event.rows
        key = "eval/score" if "eval/score" in rows[0] else "eval/return_mean"
        if key in rows[0]:
            self.score = " ".join(f"{row[key]:.1f}" for row in rows)
        if self.score:
            self.bar.set_postfix_str(f"score {self.score}", refresh=False)
        self.bar.update(event.step - self.bar.n)

    def on_end(self, event: EndEvent) -> None:
        """Close whatever bar is open."""
        self.close()

    def warn(self, message: str) -> None:
        """One line to the user on standard error, above the bar, also when quiet."""
        tell(message)


def tell(message: str) -> None:
    """One line to the user on standard error, above any bar."""
    tqdm.write(f"damorl: {message}", file=sys.stderr)


def until(deadline: float | None, on_progress: OnProgress) -> OnProgress:
    """`on_progress`, which also ends the stage at the deadline with a UserError: half a stage is of no use."""

    def checked(stage: str, done: int, total: int | None, figures: dict[str, float]) -> None:
        on_progress(stage, done, total, figures)
        if deadline is not None and time.monotonic() >= deadline and done != total:
            raise UserError(
                f"the {stage} stage was not finished in the given time, after {done} batches, and nothing of it is "
                "kept: give more time, fewer seeds, or fewer dynamics.max_batches"
            )

    return checked


@contextmanager
def bar(name: str, total: int | None, unit: str, quiet: bool) -> Iterator[Callable[[int], None]]:
    """A progress bar, as a function that is told how far things are."""
    with Bar(total=total, desc=name, unit=unit, disable=quiet) as progress:

        def advance(done: int) -> None:
            progress.update(done - progress.n)

        yield advance
