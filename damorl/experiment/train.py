"""Training on fixed data. The loop owns jit, vmap, time, checkpoints and the run directory; algorithms own none.

One epoch is a refresh (model rollouts) and `refresh_interval` updates, in one compiled call for all seeds and, in a
population, all settings. Keys derive from (seed, epoch), so a run continued from a checkpoint is the same run, bit for
bit.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from damorl.algos.base import OfflineData, Problem
from damorl.data.datasets import Dataset
from damorl.data.stored import StoredDataset
from damorl.errors import NotFiniteError
from damorl.experiment.callbacks import Callback, Callbacks
from damorl.experiment.config import RunConfig
from damorl.experiment.course import Course, Rows, conduct
from damorl.experiment.describe import describe_run
from damorl.experiment.inputs import make_problem, supply
from damorl.experiment.population import member_settings, over_members, sharing_fits, stacked_values, with_traced
from damorl.experiment.progress import Progress, until
from damorl.experiment.recorder import metric_rows, writers
from damorl.experiment.remember import model_hashes, noting_fits, remember
from damorl.experiment.resident import DataOf
from damorl.experiment.result import Result
from damorl.experiment.units import Work, own_actor, own_metrics
from damorl.record import checkpoint, store
from damorl.types import Key, Metrics, Units

INIT_STREAM, PREPARE_STREAM, FIRST_EPOCH_STREAM = 0, 1, 2  # what a seed's key is folded with

Epoch = Callable[[Any, OfflineData, Key, Any], tuple[Any, Metrics, Metrics]]


def seed_keys(seeds: tuple[int, ...]) -> Key:
    """One key per seed, `[num_seeds]`."""
    return jax.vmap(jax.random.key)(jnp.asarray(seeds))


def member_keys(config: RunConfig) -> Key:
    """The key of each member's seed, `[num_members]`."""
    return seed_keys(tuple(member.seed for member in config.members))


def make_epoch(config: RunConfig, problem: Problem, own_data: bool = False) -> Epoch:
    """The compiled epoch: `(state, data, keys, epoch) -> (state, refresh metrics [member], metrics [member, update])`.

    The state is donated. Its leaves, and the keys, have a leading axis of members; the data is shared, unless each
    member has `own_data`: then its leaves have that axis, too.
    """
    algorithm, varied = config.algorithm, stacked_values(config.members)

    def one_member(state: Any, data: OfflineData, key: Key, epoch: Any, values: Any) -> tuple[Any, Metrics, Metrics]:
        settings = with_traced(config.algo_config, values)
        refresh_key, update_key = jax.random.split(jax.random.fold_in(key, FIRST_EPOCH_STREAM + epoch))
        state, refresh_metrics = algorithm.refresh(settings, problem, state, data, refresh_key)
        step = lambda s, k: algorithm.update(settings, problem, s, data, k)
        state, metrics = jax.lax.scan(step, state, jax.random.split(update_key, config.loop.refresh_interval))
        return state, refresh_metrics, metrics

    together = over_members(one_member, len(config.members), (0, 0 if own_data else None, 0, None, 0))
    return jax.jit(lambda state, data, keys, epoch: together(state, data, keys, epoch, varied), donate_argnums=0)


def init_state(config: RunConfig, problem: Problem, data: OfflineData) -> Any:
    """Fresh states of all members, stacked."""
    keys = jax.vmap(lambda key: jax.random.fold_in(key, INIT_STREAM))(member_keys(config))
    varied, settings = stacked_values(config.members), config.algo_config
    init = lambda key, data, values: config.algorithm.init(key, with_traced(settings, values), problem, data)
    return jax.jit(lambda k, data: jax.vmap(init, in_axes=(0, None, 0))(k, data, varied))(
        keys, data
    )  # data as an argument: XLA would fold a constant


def prepare_states(
    config: RunConfig,
    problem: Problem,
    data: OfflineData,
    state: Any,
    progress: Progress,
    deadline: float | None = None,
    fits: dict[str, Any] | None = None,
) -> Any:
    """The host-side stage, one member after the other, stacked again; those of one seed share its fit.

    `fits` is given the figures of each seed's fit, where one is made.
    """
    fits = {} if fits is None else fits
    prepared, members = [], config.members
    problem = sharing_fits(problem) if config.population else problem
    for index, key in enumerate(member_keys(config)):
        own = jax.tree.map(lambda leaf, i=index: leaf[i], state)
        key = jax.random.fold_in(key, PREPARE_STREAM)
        on_progress = until(deadline, progress.stage(members[index].label))
        noting = noting_fits(problem, partial(fits.__setitem__, str(members[index].seed)))
        own = config.algorithm.prepare(key, member_settings(config, members[index]), noting, own, data, on_progress)
        prepared.append(own)
    progress.close()
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *prepared)


def check_finite(metrics: Metrics, config: RunConfig, first_update: int, run_dir: Path) -> None:
    """Stop at the first NaN or infinity: UserError naming update, member and term. `[member, update]` each."""
    worst: tuple[int, str, int] | None = None
    for name, values in metrics.items():
        bad = np.argwhere(~np.isfinite(np.asarray(values)))
        for index, update in bad[:1] if not bad.size else bad[np.argsort(bad[:, 1], kind="stable")][:1]:
            if worst is None or update < worst[0]:
                worst = (int(update), name, int(index))
    if worst is None:
        return
    update, name, index = worst
    raise NotFiniteError(
        f"training stopped: {name} of {config.members[index].label} was not finite at update "
        f"{first_update + update + 1}; the last good checkpoint is kept in {run_dir / 'checkpoint'}: "
        "lower the learning rates or the divergence weight and start a new run"
    )


def host_actors(config: RunConfig, state: Any, units: Units | None = None) -> list[Any]:
    """The actors on the host, one per member, for observations in the data's own units."""
    stacked = jax.device_get(own_actor(config.algorithm.actor(state), units))
    return [jax.tree.map(lambda leaf, i=i: leaf[i], stacked) for i in range(len(config.members))]


def prepare_run(
    work: Work, identity: dict[str, str], run_dir: Path, progress: Progress, deadline: float | None = None
) -> Any:
    """A freshly prepared state, saved as that of update 0."""
    began, fits = time.perf_counter(), dict[str, Any]()
    state = prepare_states(*work, init_state(*work), progress, deadline, fits)
    told = {"prepare_seconds": time.perf_counter() - began, "sha256": model_hashes(work.config, state)}
    store.write_json(run_dir / store.MODELS, told, seal=True)
    if fits:
        settings = dataclasses.asdict(work.config.algo_config.dynamics)
        store.write_json(run_dir / store.DYNAMICS, {"settings": settings, "seeds": fits}, seal=True)
    checkpoint.save(run_dir / "checkpoint", state, 0, identity)
    return state


def one_epoch(
    work: Work, data: OfflineData, epoch_fn: Epoch, keys: Key, state: Any, step: int, run_dir: Path
) -> tuple[Any, Rows]:
    """The state an epoch after `step`, trained on `data`, and each member's means. NotFiniteError if one is no
    number."""
    began, interval = time.perf_counter(), work.config.loop.refresh_interval
    state, refreshed, updates = epoch_fn(state, data, keys, step // interval)
    check_finite(updates, work.config, step, run_dir)
    groups = (own_metrics(metrics, work.data.units) for metrics in (refreshed, updates))
    rows = metric_rows(len(work.config.members), *groups)
    seconds = time.perf_counter() - began
    times = {"time/updates_per_second": interval / seconds, "time/train_seconds": seconds}
    return state, [row | times for row in rows]


def offline_course(
    work: Work, data_of: DataOf, identity: dict[str, str], run_dir: Path, progress: Progress, deadline: float | None
) -> Course:
    """Training on fixed data, after `prepare`."""
    epoch_fn, keys = make_epoch(work.config, work.problem), member_keys(work.config)

    def advance(state: Any, step: int) -> tuple[Any, Rows]:
        data = data_of(step // work.config.loop.refresh_interval)
        return one_epoch(work, data, epoch_fn, keys, state, step, run_dir)

    return Course(
        work.config,
        jax.eval_shape(partial(init_state, *work)),
        lambda evaluate: prepare_run(work, identity, run_dir, progress, deadline),
        advance,
        lambda state: host_actors(work.config, state, work.data.units),
    )


def train(
    config: RunConfig,
    dataset: Dataset | StoredDataset,
    run_dir: Path,
    quiet: bool = False,
    deadline: float | None = None,
    without: Collection[str] = (),
    callbacks: Sequence[Callback] = (),
) -> Result:
    """Run `config` on `dataset` in `run_dir` (made by `store.create_run_dir`), or continue what is there.

    The first epoch that ends after `deadline` (of `time.monotonic`) is saved and ends the call: no result.json is
    written, the result's summary is `{"stopped_at": updates}`, and calling again continues bit for bit. So does a run
    that one of the `callbacks` stopped, but it has a result.json until then, see `record.ending`. `without` names
    what the machine lacks the packages for: `simulator`, `tensorboard`, `curves`; and `cache` to fit a model that was
    fitted before, to the same data with the same settings and seed, again instead of reading it, see `remember`.
    Raises UserError for a loss that is not finite, a foreign checkpoint, or a disk that cannot be written, and
    CallbackError for a callback that fails.
    """
    progress, identity = Progress(config, quiet), {"config": config.digest()}
    problem = make_problem(dataset, None if "cache" in without else remember(dataset.sha256, progress.warn))
    describe_run(config, dataset, run_dir, "curves" not in without)
    work, data_of = supply(config, problem, dataset)
    told = Callbacks(run_dir, [*writers(work.config, without), progress], callbacks)
    course = offline_course(work, data_of, identity, run_dir, progress, deadline)
    return conduct(course, dataset, told, progress, identity, deadline, without)
