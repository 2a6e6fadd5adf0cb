"""Progress bars on standard error: one per host-side stage, one for the updates."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from damorl.algos.base import OnProgress
from damorl.experiment.config import RunConfig


class Progress:
    """Bars with rate and time left; silent when `quiet`."""

    def __init__(self, config: RunConfig, quiet: bool) -> None:
        self.config, self.quiet = config, quiet
        self.bar: Any = None
        self.stage_name = ""
        self.score = ""

    def stage(self, member: str) -> OnProgress:
        """A callback for one member's host-side stage."""
        self.end_stage()

        def on_progress(name: str, done: int, total: int | None, figures: dict[str, float]) -> None:
            if self.bar is not None and self.stage_name != name:
                self.end_stage()
            if self.bar is None:
                self.stage_name = name
                self.bar = tqdm(total=total, desc=f"{name}, {member}", unit="batch", disable=self.quiet)
            self.bar.set_postfix({key.split("/")[-1]: f"{value:.4f}" for key, value in figures.items()}, refresh=False)
            self.bar.update(done - self.bar.n)

        return on_progress

    def end_stage(self) -> None:
        """Close the current stage's bar, if there is one."""
        if self.bar is not None:
            self.bar.close()
        self.bar = None

    def begin(self, step: int) -> None:
        """Open the bar of the updates."""
        total = self.config.loop.total_updates
        count, noun = len(self.config.members), "member" if self.config.population else "seed"
        desc = f"{self.config.algo}, {count} {noun}{'s' if count > 1 else ''}"
        self.bar = tqdm(initial=step, total=total, desc=desc, unit="update", disable=self.quiet)

    def advance(self, step: int, rows: list[dict[str, float]]) -> None:
        """Move to `step` and show the latest score."""
        key = "eval/score" if "eval/score" in rows[0] else "eval/return_mean"
        if key in rows[0]:
            self.score = " ".join(f"{row[key]:.1f}" for row in rows)
        if self.score:
            self.bar.set_postfix_str(f"score {self.score}", refresh=False)
        self.bar.update(step - self.bar.n)

    def close(self) -> None:
        """Close the bar of the updates."""
        self.bar.close()

    def warn(self, message: str) -> None:
        """One line to the user on standard error, above the bar, also when quiet."""
        tell(message)


def tell(message: str) -> None:
    """One line to the user on standard error, above any bar."""
    tqdm.write(f"damorl: {message}", file=sys.stderr)


@contextmanager
def bar(name: str, total: int | None, unit: str, quiet: bool) -> Iterator[Callable[[int], None]]:
    """A progress bar, as a function that is told how far things are."""
    with tqdm(total=total, desc=name, unit=unit, disable=quiet) as progress:

        def advance(done: int) -> None:
            progress.update(done - progress.n)

        yield advance
