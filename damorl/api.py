"""The Python API: what the command line does, as functions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from damorl.data.datasets import Dataset, cache_dir
from damorl.data.sources import Reading
from damorl.data.stored import StoredDataset, load_stored
from damorl.errors import UserError
from damorl.experiment.callbacks import Callback
from damorl.experiment.config import RunConfig, resolve
from damorl.experiment.evaluation import EVAL_SEED
from damorl.experiment.own_evaluation import score_by, score_in
from damorl.experiment.policy import Policy
from damorl.experiment.population import with_population
from damorl.experiment.progress import tell
from damorl.experiment.resident import check_resident
from damorl.experiment.result import KEPT, Result, summarise
from damorl.experiment.scoring import Scoring, score
from damorl.experiment.sources import load_dataset, make_missing
from damorl.experiment.train import train as run_training
from damorl.experiment.varied import score_varied
from damorl.files import remove_leftovers
from damorl.record import store
from damorl.record.ending import finished
from damorl.record.hold import held
from damorl.world.play import MAX_STEPS
from damorl.world.tasks import find_task

if TYPE_CHECKING:
    from damorl.experiment.ope_settings import OPEConfig
    from damorl.experiment.select import SelectConfig


def train(
    algo: str = "damo",
    dataset: str | Dataset = "hopper-medium-expert",
    preset: str = "quick",
    seeds: Sequence[int] = (0,),
    out: str | Path = "runs",
    callbacks: Sequence[Callback] = (),
    **settings: Any,
) -> Result:
    """Train and score in the simulator; returns the result with its run directory.

    A built-in data set that is not on this machine is made first, unless `make=False`. `callbacks` are called while it
    trains and may stop it early: see docs/callbacks.md. `settings` may also hold
    `task`, `resume`, `quiet`, `refit`, `population` (settings that vary within the run, with their values:
    `{"divergence_weight": [0.3, 1.0]}`, see docs/population.md), `resident_rows` (rows of a large HDF5 file in memory,
    see docs/own-data.md), and any field of the loop's or the algorithm's config by its (dotted) name, with dots written
    as double underscores: `total_updates=20_000, dynamics__max_batches=2000`.
    Raises UserError for unusable input, and CallbackError for a callback that fails.
    """
    task, population = settings.pop("task", None), settings.pop("population", None) or {}
    how = {name: settings.pop(name, False) for name in ("resume", "quiet", "refit")}
    make, resident_rows = settings.pop("make", True), settings.pop("resident_rows", None)
    name = dataset if isinstance(dataset, str) else dataset.name
    changes = {key.replace("__", "."): value for key, value in settings.items()}
    config = dataclasses.replace(resolve(algo, name, preset, seeds, changes, task), resident_rows=resident_rows)
    config = with_population(config, population)
    if isinstance(dataset, str):
        return run(config, Path(out), make=make, callbacks=callbacks, **how)
    return run_on(config, dataset, Path(out), callbacks=callbacks, **how)


def finetune(
    run_dir: str | Path,
    env: str | None = None,
    dataset: str | Dataset | None = None,
    out: str | Path = "runs",
    callbacks: Sequence[Callback] = (),
    **settings: Any,
) -> Result:
    """Let an offline run go on learning while real steps in `env`, rows of `dataset`, or both join its data; returns
    the result of the new run.

    `env` is the name of a task, a Gymnasium id or a task in a file (`mytasks.py:task`). `settings` are fields of
    `damorl.experiment.finetune_settings.FinetuneSettings` (`steps=50_000`, `reference="moves"`) and of the algorithm's
    config (`actor_lr=1e-4`, dots as double underscores), whose defaults are the offline run's; `data`, where the data
    of the offline run are, if not where they were in training (a name, a path or a `Dataset`); and `resume`, `quiet`
    and `make`, as in `train`. See docs/finetune.md. Raises UserError for unusable input, and CallbackError for a
    callback that fails.
    """
    from damorl.experiment.finetune import finetune as run_finetuning
    from damorl.experiment.finetune_plan import Sources, make_plan

    keep_compiled_programs()
    resume, quiet = settings.pop("resume", False), settings.pop("quiet", False)
    data = Sources(dataset, settings.pop("data", None), settings.pop("make", True))
    plan = make_plan(Path(run_dir), env, data, settings, quiet)
    make = lambda own_dir: run_finetuning(plan, own_dir, quiet, callbacks)
    return once(Path(out), plan.name(), resume, plan.dataset, make)


def select(
    run_dirs: Sequence[str | Path],
    settings: SelectConfig | None = None,
    force: bool = False,
    quiet: bool = False,
    make: bool = True,
) -> list[dict[str, Any]]:
    """Judge the kept policies of finished runs without a simulator, by fitted Q evaluation and in a learned model.

    A built-in data set that is not on this machine is made first if `make`. One dictionary per run, also written to
    its `selection.json`: see `damorl.experiment.select.select`.
    """
    from damorl.experiment.select import select as run_selection

    keep_compiled_programs()
    return run_selection([Path(run_dir) for run_dir in run_dirs], settings, force=force, quiet=quiet, make=make)


def ope(
    run_dirs: Sequence[str | Path],
    settings: OPEConfig | None = None,
    force: bool = False,
    quiet: bool = False,
    make: bool = True,
) -> list[dict[str, Any]]:
    """Off-policy estimates of what the kept policies of runs are worth: by importance weights, doubly robust, by a
    ratio of occupancies, by fitted Q evaluation and in a learned model.

    One dictionary per run, also written to its `ope.json`: see `damorl.experiment.ope.ope` and docs/ope.md.
    """
    from damorl.experiment.ope import ope as run_estimates

    keep_compiled_programs()
    return run_estimates([Path(run_dir) for run_dir in run_dirs], settings, force=force, quiet=quiet, make=make)


def keep_compiled_programs() -> None:
    """Let JAX keep compiled programs in damorl's cache directory, unless the user has set a place for them.

    Compiling takes longer than a short run; the second run of a kind then starts at once.
    """
    import jax

    if getattr(jax.config, "jax_compilation_cache_dir", None) is None:
        jax.config.update("jax_compilation_cache_dir", str(cache_dir() / "compiled"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def run(
    config: RunConfig,
    out: Path,
    resume: bool = False,
    quiet: bool = False,
    refit: bool = False,
    make: bool = True,
    callbacks: Sequence[Callback] = (),
) -> Result:
    """`run_on` the data that the config names. With `make` a built-in data set that is not on this machine is made
    first."""
    keep_compiled_programs()
    config = with_full_task(config)
    return run_on(config, load_data(config, make, quiet), out, resume, quiet, refit, callbacks)


def load_data(config: RunConfig, make: bool, quiet: bool, allow_external: bool = False) -> Dataset | StoredDataset:
    """The data that the config names: all rows, or a data set on the disk that is read a few rows at a time.

    With `allow_external` all rows may be in other files that the data set names, see `load_dataset`.
    """
    place = config.dataset, config.task, config.loop.dataset_steps
    columns, bounds = config.columns or None, config.action_bounds
    if config.resident_rows is None:
        how: Reading = {"columns": columns, "action_bounds": bounds, "allow_external": allow_external}
        return load_dataset(*place, make=make, quiet=quiet, **how)
    check_resident(config)
    if make:
        make_missing(config.dataset, config.loop.dataset_steps, quiet=quiet)
    return load_stored(*place, columns=columns, action_bounds=bounds, on_note=tell)


def with_full_task(config: RunConfig) -> RunConfig:
    """The config with its task's whole name: the path of a task file then holds from any directory."""
    if config.task in (None, "none"):
        return config
    return dataclasses.replace(config, task=find_task(config.task).name)


def run_on(
    config: RunConfig,
    dataset: Dataset | StoredDataset,
    out: Path,
    resume: bool = False,
    quiet: bool = False,
    refit: bool = False,
    callbacks: Sequence[Callback] = (),
) -> Result:
    """Run a resolved config below `out`, or continue it. A finished run is not run again: its result is returned, and
    no callback hears of it.

    With `refit` the dynamics are fitted even if the cache has them. BusyError if another process is making the same
    run in the same place.
    """
    keep_compiled_programs()
    if config.resident_rows is not None and isinstance(dataset, Dataset):
        raise UserError(
            f"resident_rows: expected the path of an HDF5 file, found {dataset.name} in memory: leave it out"
        )
    config = with_full_task(config)
    without = ("cache",) if refit else ()
    make = lambda run_dir: run_training(config, dataset, run_dir, quiet, without=without, callbacks=callbacks)
    return once(out, config.name(), resume, dataset, make)


def once(
    out: Path, name: str, resume: bool, dataset: Dataset | StoredDataset, make: Callable[[Path], Result]
) -> Result:
    """What `make` makes of the run directory `name` in `out`, or what is there if that is finished.

    BusyError if another process is making it, UserError if it was begun with other data.
    """
    with held(out / name):
        run_dir = store.create_run_dir(out, name, resume)
        if (run_dir / store.CONFIG).exists():
            check_same_data(run_dir, dataset)
        if finished(run_dir):
            return summarise(run_dir)
        for folder in (run_dir, run_dir / KEPT):  # what killed processes left half-written
            remove_leftovers(folder)
        return make(run_dir)


def check_same_data(run_dir: Path, dataset: Dataset | StoredDataset) -> None:
    """Refuse to continue a run on data that it was not started with."""
    stored = store.read_json(run_dir / store.CONFIG)["data"]["sha256"]
    if stored != dataset.sha256:
        raise UserError(
            f"cannot resume {run_dir}: expected the dataset with sha256 {stored[:12]}, found {dataset.sha256[:12]}; "
            "give the same data, or start a new run with another --out"
        )


class Elsewhere(TypedDict, total=False):
    """Where `evaluate` scores, if not in the simulator of the task."""

    vary: Mapping[str, Sequence[float]]
    env: Any
    evaluator: Callable[[Policy], Mapping[str, float]]
    max_steps: int


def evaluate(
    path: str | Path,
    episodes: int = 10,
    noise: float = 0.0,
    stochastic: bool = False,
    step: int | None = None,
    task: str | None = None,
    eval_seed: int = EVAL_SEED,
    **elsewhere: Unpack[Elsewhere],
) -> list[dict[str, Any]]:
    """Score the policies of a run directory, or an exported file, in the simulator: one dictionary per seed,
    in a population per setting and seed.

    `noise` is measurement noise on the state, as a share of each feature's standard deviation in the data.
    `stochastic` samples actions instead of taking the mode; `step` chooses earlier policies (`list_policies`); `task`
    is the one to play instead of the one trained for. Instead of the task as it is, one of (docs/evaluation.md):

    - `vary`: `{"friction": [0.8, 1.2]}`, the task under changed physics, one more dictionary for each changed world
      (`damorl.experiment.varied.score_varied`);
    - `env`: a Gymnasium environment or vector environment, its id, a function that makes one, or several of these in a
      list or a dictionary by name; `max_steps` (10,000) is the longest that an episode may last;
    - `evaluator`: a function of the `damorl.Policy` that returns numbers by name.

    UserError without a simulator, for an environment or function that fails, and for an exported file with `step`, or
    with `stochastic` where it was exported without its distribution.
    """
    path, how = Path(path), Scoring(episodes, noise, stochastic, step, eval_seed)
    known = sorted(Elsewhere.__optional_keys__)
    if unknown := [name for name in elsewhere if name not in known]:
        raise UserError(
            f"evaluate: unknown argument {', '.join(unknown)}: expected one of {', '.join(known)}; correct it"
        )
    vary, env, evaluator = (elsewhere.get(name) for name in ("vary", "env", "evaluator"))
    kinds = {"task": task, "vary": vary, "env": env, "evaluator": evaluator}
    given = [name for name, value in kinds.items() if value is not None]
    if len(given) > 1 and given != ["task", "vary"]:
        raise UserError(
            f"evaluate: expected one of task, vary, env and evaluator, found {' and '.join(given)}; give one"
        )
    if "max_steps" in elsewhere and env is None:
        raise UserError("evaluate: expected max_steps with env only; leave it out")
    if env is not None:
        return score_in(path, env, how, elsewhere.get("max_steps", MAX_STEPS))
    if evaluator is not None:
        return score_by(path, evaluator, how)
    chosen = find_task(task) if task else None
    return score(path, chosen, how) if vary is None else score_varied(path, chosen, how, vary)
