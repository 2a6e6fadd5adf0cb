"""The loop itself: epoch after epoch, with evaluations, checkpoints and callbacks, whatever an epoch is.

`experiment.train` trains on fixed data, `experiment.finetune` lets new data join; both are a `Course`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from damorl.data.datasets import Dataset
from damorl.data.stored import StoredDataset
from damorl.experiment.callbacks import Callbacks, Status
from damorl.experiment.config import RunConfig
from damorl.experiment.describe import remarks
from damorl.experiment.evaluation import evaluate_actors
from damorl.experiment.progress import Progress
from damorl.experiment.recorder import marked
from damorl.experiment.result import POLICIES, Result, kept_policy_path, save_policies, summarise
from damorl.record import checkpoint, ending, store
from damorl.world.evaluate import Evaluator

CHECKPOINT_SECONDS = 300.0  # between two checkpoints at most, however slow the machine

Rows = list[dict[str, float]]
"""What was measured, one dictionary per member."""
Evaluate = Callable[[list[Any], Rows, int], Rows]
"""`(actors, rows, step) -> rows` with the scores of this evaluation."""


class Course(NamedTuple):
    """A run as the loop sees it."""

    config: RunConfig
    template: Any
    """The state as shapes and types: what a checkpoint is restored into."""
    begin: Callable[[Evaluate], Any]
    """A fresh state, saved as that of update 0."""
    advance: Callable[[Any, int], tuple[Any, Rows]]
    """`(state, updates so far) -> (state an epoch later, each member's means)`."""
    actors: Callable[[Any], list[Any]]
    """`state -> the policies to save`: one per member, on the host, for observations in the data's own units."""


def conduct(
    course: Course,
    dataset: Dataset | StoredDataset,
    told: Callbacks,
    progress: Progress,
    identity: dict[str, str],
    deadline: float | None,
    without: Collection[str],
) -> Result:
    """Make the run in `told.run_dir`, or continue what is there, to its end, the deadline or a callback's stop."""
    restored = restore_run(course.template, identity, told.run_dir, progress.warn)
    task = None if "simulator" in without else dataset.task
    with told.told_of_failure():
        told.start(0 if restored is None else restored[1], dataset)
        evaluator = None if task is None or task.env_id is None else Evaluator(task, dataset.spec)
        evaluate = partial(evaluate_actors, course.config, dataset, evaluator)
        if restored is None:
            restored = course.begin(evaluate), 0
            told.saved()
        for remark in remarks(dataset, course.config.algo_config):
            progress.warn(remark)
        progress.begin(restored[1])
        state, step = run_epochs(course, identity, told, restored, deadline, evaluate)
        actors = course.actors(state)
        status, result = finish(course.config, told.run_dir, actors, step, told.stopped, "curves" not in without)
        told.end(status, result.summary)
    return result


def restore_run(
    template: Any, identity: dict[str, str], run_dir: Path, on_warning: Callable[[str], None]
) -> tuple[Any, int] | None:
    """The state to continue from and its update count, None without a checkpoint; later metrics are dropped."""
    restored = checkpoint.restore(run_dir / "checkpoint", template, identity, on_warning)
    if restored is not None:
        checkpoint.prune(run_dir / "checkpoint", restored[1])
    store.truncate_metrics(run_dir, -1 if restored is None else restored[1])
    ending.forget_stop(run_dir)
    return restored


def run_epochs(
    course: Course,
    identity: dict[str, str],
    told: Callbacks,
    start: tuple[Any, int],
    deadline: float | None,
    evaluate: Evaluate,
) -> tuple[Any, int]:
    """Train from a state and its update count to the last update, the deadline or a callback's stop: where it stands.

    That state is on the disk.
    """
    (state, step), run_dir, config, loop = start, told.run_dir, course.config, course.config.loop
    saved, late = time.monotonic(), False
    while step < loop.total_updates and not late and told.stopped is None:
        state, rows = course.advance(state, step)
        step += loop.refresh_interval
        evaluated = step % loop.eval_interval == 0
        if evaluated:
            actors = course.actors(state)
            keep_policies(config, run_dir, actors, step)
            rows = evaluate(actors, rows, step)
        told.epoch(step, marked(step, config.members, rows), evaluated)
        now = time.monotonic()
        late = deadline is not None and now >= deadline
        due = late or told.stopped is not None or now - saved >= CHECKPOINT_SECONDS
        if due or step % loop.checkpoint_interval == 0 or step == loop.total_updates:
            checkpoint.save(run_dir / "checkpoint", state, step, identity)
            saved = time.monotonic()
            told.saved()
    return state, step


def keep_policies(config: RunConfig, run_dir: Path, actors: list[Any], step: int) -> None:
    """Save the policies of this evaluation; those of every `keep_policy_every`-th are kept for good."""
    save_policies(run_dir / POLICIES, actors, config.members)
    if step % (config.loop.eval_interval * config.loop.keep_policy_every) == 0:
        save_policies(kept_policy_path(run_dir, step), actors, config.members)


def finish(
    config: RunConfig, run_dir: Path, actors: list[Any], step: int, stop: ending.Stopped | None, curves: bool
) -> tuple[Status, Result]:
    """Policies and picture of where the run stands, and its result if that is the end or a callback stopped it."""
    save_policies(run_dir / POLICIES, actors, config.members)
    store.append_metrics(run_dir, [])  # there is a file, too, if the run was stopped before its first epoch
    if curves:
        from damorl.report.curves import draw_curves

        draw_curves(run_dir)
    if step >= config.loop.total_updates:
        return "finished", summarise(run_dir)
    if stop is not None:
        return "stopped", summarise(run_dir, stop, step)
    return "paused", Result(run_dir, {"stopped_at": step})
