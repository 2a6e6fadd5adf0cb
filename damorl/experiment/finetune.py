"""Fine-tuning: an offline run goes on learning while real steps, or more offline data, join its data.

Before each epoch the policies that `experiment.acting` chooses take `interval` real steps; then critics, actor, model
and whatever else the algorithm trains are updated on old and new rows in a declared share. Everything follows from the
parent's state, the settings and the seeds; a run continued from a checkpoint is the same run, bit for bit, where the
simulator plays an episode again in the same way.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from damorl.core import buffer as ring
from damorl.experiment.acting import Acting, begin_acting
from damorl.experiment.callbacks import Callback, Callbacks
from damorl.experiment.course import Course, Evaluate, Rows, conduct, keep_policies
from damorl.experiment.describe import describe_run
from damorl.experiment.finetune_plan import Plan
from damorl.experiment.finetune_state import check_reference, make_tools, to_layers
from damorl.experiment.inputs import make_problem, supply
from damorl.experiment.parent import FINETUNE, learner_of
from damorl.experiment.progress import Progress
from damorl.experiment.real_steps import Stage, take_steps
from damorl.experiment.recorder import marked, writers
from damorl.experiment.result import Result
from damorl.experiment.train import host_actors, init_state, make_epoch, member_keys, one_epoch
from damorl.experiment.units import Work
from damorl.record import checkpoint, store
from damorl.types import Transition
from damorl.world.playing import open_simulator

FINETUNE_STREAM = 10**9 + 3  # what a seed's key is folded with; training folds in its epochs, selection up to 10^9 + 2
JOIN_STREAM, REFIT_STREAM = 0, 1  # and that key, beside the epochs


class State(NamedTuple):
    """Everything that changes."""

    learner: Any
    """The algorithm's state, all members stacked."""
    new: ring.RingBuffer
    """Per member the new rows, in the environment's own units: those of the further data set, then real steps."""
    acting: tuple[Acting, ...]
    """One per member; empty without an environment."""


def finetune(plan: Plan, run_dir: Path, quiet: bool = False, callbacks: Sequence[Callback] = ()) -> Result:
    """Make the run of `plan` in `run_dir` (made by `store.create_run_dir`), or continue what is there.

    Raises what `train.train` raises, and UserError for settings that do not fit the parent's state, for a reference
    that cannot move, and for an environment that breaks the rules.
    """
    progress, identity = Progress(plan.config, quiet), {"config": plan.digest()}
    describe_run(plan.config, plan.dataset, run_dir, more={FINETUNE: plan.told})
    work, _ = supply(plan.config, make_problem(plan.dataset), plan.dataset)
    told = Callbacks(run_dir, [*writers(work.config, ()), progress], callbacks)
    course = make_course(plan, work, identity, run_dir, progress)
    return conduct(course, plan.dataset, told, progress, identity, None, ())


def make_course(plan: Plan, work: Work, identity: dict[str, str], run_dir: Path, progress: Progress) -> Course:
    """The run for the loop."""
    template = jax.eval_shape(partial(init_state, *work))
    if plan.settings.reference == "moves":
        check_reference(plan.config.algo, template, plan.env is not None)
    epochs = Epochs(plan, work, run_dir, progress)

    def begin(evaluate: Evaluate) -> State:
        state = first_state(plan, work)
        actors = epochs.actors(state)
        rows = evaluate(actors, [{} for _ in actors], 0)
        if rows[0]:
            store.append_metrics(run_dir, marked(0, work.config.members, rows))
        keep_policies(work.config, run_dir, actors, 0)
        checkpoint.save(run_dir / "checkpoint", state, 0, identity)
        return state

    return Course(work.config, shape_of(plan, work, template), begin, epochs.advance, epochs.actors)


def capacity_of(plan: Plan) -> int:
    """Rows that the new data may grow to."""
    return plan.num_more + (0 if plan.env is None else plan.settings.steps)


def shape_of(plan: Plan, work: Work, template: Any) -> State:
    """The state as shapes and types; what the host works with as NumPy arrays."""
    num_members = len(plan.config.members)
    new = jax.eval_shape(lambda: empty_rings(plan, num_members))
    actor = jax.eval_shape(work.config.algorithm.actor, template)
    one = jax.tree.map(lambda leaf: np.zeros(leaf.shape[1:], leaf.dtype), actor)
    acting = () if plan.env is None else (jax.tree.map(np.asarray, begin_acting(one)),) * num_members
    return State(template, new, acting)


def empty_rings(plan: Plan, num_members: int) -> ring.RingBuffer:
    """No new rows yet, for each member."""
    one = ring.init_buffer(capacity_of(plan), *plan.dataset.spec)
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (num_members, *leaf.shape)), one)


def first_state(plan: Plan, work: Work) -> State:
    """The parent's state, with the rows of the further data set as the first new ones."""
    members = plan.config.members
    new, learner = empty_rings(plan, len(members)), learner_of(plan.parent, plan.dataset, work)
    if plan.more is not None:
        new = add_rows(new, [plan.more.transitions] * len(members))
    if plan.env is None:
        return State(learner, new, ())
    stacked = jax.device_get(work.config.algorithm.actor(learner))
    return State(learner, new, tuple(begin_acting(actor) for actor in unstacked(stacked, len(members))))


def unstacked(tree: Any, count: int) -> list[Any]:
    """The parts of each member."""
    return [jax.tree.map(lambda leaf, i=i: leaf[i], tree) for i in range(count)]


def add_rows(new: ring.RingBuffer, rows: Sequence[Transition]) -> ring.RingBuffer:
    """The rings with each member's own `rows` `[N, ...]` added."""
    stacked = Transition(*(jnp.asarray(np.stack(column)) for column in zip(*rows, strict=True)))
    return _add(new, stacked)


@partial(jax.jit, donate_argnums=0)
def _add(new: ring.RingBuffer, rows: Transition) -> ring.RingBuffer:
    return jax.vmap(lambda one, own: ring.add(one, own, jnp.ones(own.reward.shape, bool)))(new, rows)


class Epochs:
    """What an epoch is: real steps, the model fitted on when it is time, and updates on old and new rows.

    It holds compiled functions and open simulators; all that decides the run is in the `State`.
    """

    def __init__(self, plan: Plan, work: Work, run_dir: Path, progress: Progress) -> None:
        self.plan, self.work, self.run_dir, self.progress = plan, work, run_dir, progress
        self.tools = make_tools(work, plan.settings)
        self.epoch_fn = make_epoch(work.config, work.problem, own_data=True)
        self.keys = jax.vmap(lambda key: jax.random.fold_in(key, FINETUNE_STREAM))(member_keys(work.config))
        self.stages: list[Stage] = []

    def actors(self, state: State) -> list[Any]:
        """The policies to save: those that act or, without an environment, the algorithm's own choice."""
        if not state.acting:
            return host_actors(self.work.config, state.learner, self.work.data.units)
        return [self.to_layers(acting.incumbent) for acting in state.acting]

    def to_layers(self, actor: Any) -> Any:
        """One member's actor on the host, for observations in the environment's own units."""
        return to_layers(actor, self.work.data.units)

    def advance(self, state: State, step: int) -> tuple[State, Rows]:
        """The state an epoch after `step` updates, and each member's means."""
        epoch = step // self.work.config.loop.refresh_interval
        state, changed, measured = self.with_real_steps(state)
        key_of = lambda stream: jax.vmap(lambda key: jax.random.fold_in(jax.random.fold_in(key, stream), epoch))
        learner, refitted = state.learner, self.is_time_to_refit(epoch, state)
        if refitted:
            learner, errors = self.tools.refit(learner, state.new, self.work.data, key_of(REFIT_STREAM)(self.keys))
            rows = [{name: float(value[i]) for name, value in errors.items()} for i in range(len(measured))]
            measured = [one | own for one, own in zip(measured, rows, strict=True)]
        data = self.tools.join(self.work.data, state.new, key_of(JOIN_STREAM)(self.keys))
        learner = self.tools.judge_again(learner, state.acting, data, changed, refitted)
        learner, rows = one_epoch(self.work, data, self.epoch_fn, self.keys, learner, step, self.run_dir)
        rows = [row | own for row, own in zip(rows, measured, strict=True)]
        return state._replace(learner=learner), rows

    def is_time_to_refit(self, epoch: int, state: State) -> bool:
        """Whether the model is fitted on before this epoch."""
        interval, taken = self.plan.settings.refit_interval, epoch * self.plan.settings.interval
        return interval is not None and self.tools.has_model and taken > 0 and taken % interval == 0

    def with_real_steps(self, state: State) -> tuple[State, list[bool], Rows]:
        """The state after the real steps of one epoch, whose incumbent has changed, and what was measured."""
        if not state.acting:
            return state, [False] * len(self.plan.config.members), [{} for _ in self.plan.config.members]
        began = time.perf_counter()
        if not self.stages:
            state = self.on_stage(state)
        latest = unstacked(self.tools.latest(state.learner), len(state.acting))
        steps = zip(self.stages, state.acting, latest, strict=True)
        found = [take_steps(stage, acting, actor, self.plan.settings.interval) for stage, acting, actor in steps]
        after, rows = [acting for acting, _ in found], [own for _, own in found]
        changed = [bool(now.changes != was.changes) for now, was in zip(after, state.acting, strict=True)]
        state = State(state.learner, add_rows(state.new, rows), tuple(after))
        steps_taken, seconds = float(state.new.size[0]) - self.plan.num_more, time.perf_counter() - began
        return state, changed, [{"time/env_seconds": seconds} | figures(acting, steps_taken) for acting in after]

    def on_stage(self, state: State) -> State:
        """Open the simulators, in the middle of the episodes that the state is in."""
        assert self.plan.env is not None
        acting = []
        for index, (member, own) in enumerate(zip(self.plan.config.members, state.acting, strict=True)):
            stage = Stage(open_simulator(self.plan.env), member.seed, self.plan.settings, self.to_layers)
            self.stages.append(stage)
            end = int(state.new.next_index[index]) or capacity_of(self.plan)
            rows = jax.tree.map(lambda leaf, i=index, n=int(own.step), e=end: leaf[i, e - n : e], state.new.rows)
            if own.step > 0 and not stage.resume(own, rows):
                self.progress.warn(
                    f"{self.plan.env.name} does not play an episode again in the same way: {member.label} begins a new "
                    f"one after {int(own.step)} steps of episode {int(own.episode)}"
                )
                own = own._replace(step=0)
            acting.append(own)
        return state._replace(acting=tuple(acting))


def figures(acting: Acting, steps: float) -> dict[str, float]:
    """What is known of those who act, as metrics; mean returns of those who have played without noise."""
    known = {"offline": acting.offline_record, "incumbent": acting.incumbent_record}
    means = {f"online/{name}_return": float(record.mean) for name, record in known.items() if record.count > 0}
    counts = {"steps": steps, "episodes": float(acting.episode), "changes": float(acting.changes)}
    return means | {f"online/{name}": count for name, count in counts.items()}
