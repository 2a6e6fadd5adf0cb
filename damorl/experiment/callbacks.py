"""Callbacks: a user's own code, called while a run trains, which may end it early.

`Callback` has one method for each moment, and all of them do nothing: a class that derives from it overrides those it
needs. The loop's own writers of metrics and its progress bar are such callbacks, too.

    on_start        once, before anything is fitted
    on_epoch        after every `refresh_interval` updates; the rows are in metrics.jsonl by then
    on_evaluation   after the epochs that end with an evaluation, once the policies are saved
    on_checkpoint   after the state was saved, the first time before the first update
    on_end          once, however the run ends
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from damorl.errors import CallbackError, UserError
from damorl.record import store
from damorl.record.ending import Stopped

if TYPE_CHECKING:
    from damorl.data.datasets import Dataset
    from damorl.data.stored import StoredDataset

Hook = Literal["on_start", "on_epoch", "on_evaluation", "on_checkpoint", "on_end"]
Status = Literal["finished", "stopped", "paused", "failed"]
"""`stopped`: by a callback. `paused`: by the deadline. `failed`: by an exception, Ctrl-C among them."""


HOOKS_OF_EPOCH: tuple[Hook, ...] = ("on_epoch", "on_evaluation")


class Stop(Exception):
    """Raised by a callback, ends the run: its state and policies are saved, and `result.json` keeps the reason.

    The other callbacks still hear of the same moment. Of several reasons the first counts, and none does after the
    last update, or in `on_end`.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class Event:
    """A moment of a run."""

    run_dir: Path
    config: Mapping[str, Any]
    """The content of config.json."""
    step: int
    """Gradient updates that each member has made."""
    rows: Sequence[store.Row] = ()
    """Of the epoch that ended at `step`: for each member (a seed or, in a population, a setting with a seed) its line
    of metrics.jsonl. None before the first epoch of a call."""


@dataclass(frozen=True, kw_only=True)
class StartEvent(Event):
    """A run begins at step 0, or goes on at the step of its checkpoint."""

    dataset: Dataset | StoredDataset


@dataclass(frozen=True, kw_only=True)
class EndEvent(Event):
    """A run ends, for now or for good."""

    status: Status
    reason: str = ""
    """Why, if it is `stopped` or `failed`."""
    summary: Mapping[str, Any] = field(default_factory=dict)
    """The content of result.json if it is `finished` or `stopped`."""


E = TypeVar("E", bound=Event)


class Callback:
    """Derive from this and override what you need. A method may raise `Stop`; any other exception fails the run."""

    def on_start(self, event: StartEvent) -> None:
        """The run begins or goes on; its config and the card of its data are written."""

    def on_epoch(self, event: Event) -> None:
        """An epoch is over and its metrics are written."""

    def on_evaluation(self, event: Event) -> None:
        """The policies of `event.step` were saved and, with a simulator, scored: the rows have `eval/*`."""

    def on_checkpoint(self, event: Event) -> None:
        """A checkpoint of `event.step` is on the disk."""

    def on_end(self, event: EndEvent) -> None:
        """The run is over: release what you hold."""


class Callbacks:
    """The callbacks of one call of the loop: its `own`, then those `given` by the user.

    An exception of one that was given becomes a CallbackError that names it. UserError for one that is no Callback.
    """

    def __init__(self, run_dir: Path, own: Sequence[Callback], given: Sequence[Callback]) -> None:
        for index, callback in enumerate(given):
            if not isinstance(callback, Callback):
                raise UserError(
                    f"callbacks[{index}]: expected an object of a class that derives from damorl.Callback, found "
                    f"{callback!r}; derive its class from it, and give an object of it"
                )
        self.run_dir, self.own, self.given = run_dir, own, given
        self.config = store.read_json(run_dir / store.CONFIG)
        self.step, self.rows = 0, tuple[store.Row, ...]()
        self.started: list[Callback] = []
        self.stopped: Stopped | None = None

    def start(self, step: int, dataset: Dataset | StoredDataset) -> None:
        """Tell all that the run begins, or goes on, at `step`."""
        self.step = step
        event = self._event(StartEvent, dataset=dataset)
        for callback in (*self.own, *self.given):
            self.started.append(callback)
            self._call(callback, "on_start", event)

    def epoch(self, step: int, rows: Sequence[store.Row], evaluated: bool) -> None:
        """Tell all of an epoch, and of the evaluation if it ended with one."""
        self.step, self.rows = step, tuple(rows)
        event = self._event(Event)
        for hook in HOOKS_OF_EPOCH[: 1 + evaluated]:
            self._tell(hook, event)

    def saved(self) -> None:
        """Tell all that the state of the step they last heard of is on the disk."""
        self._tell("on_checkpoint", self._event(Event))

    def end(self, status: Status, summary: Mapping[str, Any]) -> None:
        """Tell all of an end without an error. An error of one of them is raised once the others have heard, too."""
        reason = self.stopped.reason if self.stopped is not None and status == "stopped" else ""
        event = self._event(EndEvent, status=status, reason=reason, summary=summary)
        failed: Exception | None = None
        while self.started:
            try:
                self._call(self.started.pop(0), "on_end", event)
            except Exception as error:
                failed = failed or error
        if failed is not None:
            raise failed

    @contextmanager
    def told_of_failure(self) -> Iterator[None]:
        """If the body raises, all that heard of the start hear that the run failed; the error goes on."""
        try:
            yield
        except BaseException as error:
            event = self._event(EndEvent, status="failed", reason=f"{type(error).__name__}: {error}")
            for callback in self.started:
                try:
                    self._call(callback, "on_end", event)
                except Exception as later:
                    error.add_note(str(later))
            raise

    def _event(self, kind: type[E], **more: Any) -> E:
        return kind(run_dir=self.run_dir, config=self.config, step=self.step, rows=self.rows, **more)

    def _tell(self, hook: Hook, event: Event) -> None:
        for callback in self.started:
            self._call(callback, hook, event)

    def _call(self, callback: Callback, hook: Hook, event: Event) -> None:
        name = type(callback).__name__
        try:
            getattr(callback, hook)(event)
        except Stop as stop:
            self.stopped = self.stopped or Stopped(name, stop.reason)
        except Exception as error:
            if callback in self.own:
                raise
            raise CallbackError(
                f"callback {name} failed in {hook} after {event.step:,} updates, with {type(error).__name__}: {error}; "
                f"what was saved is kept in {self.run_dir / 'checkpoint'}: correct the callback and continue with "
                "resume (--resume)"
            ) from error
