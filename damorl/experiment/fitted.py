"""The learned model of a run, or one that is fitted to a data set, in the data's own units."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from damorl.algos.base import OfflineData
from damorl.data.datasets import Dataset
from damorl.errors import UserError
from damorl.experiment.config import defaults, run_config_from_dict
from damorl.experiment.inputs import make_problem, to_device
from damorl.experiment.progress import bar, tell
from damorl.experiment.remember import remember
from damorl.experiment.sources import load_dataset, load_run_dataset
from damorl.experiment.train import PREPARE_STREAM
from damorl.experiment.units import find_units
from damorl.parts.dynamics import Dynamics, DynamicsConfig, first_members, init_members
from damorl.parts.holdout import Split, hold_out
from damorl.parts.model_data import FIT_STREAM, fit_model
from damorl.parts.model_units import from_units
from damorl.record import checkpoint, store
from damorl.record.members import find_member, members_of
from damorl.types import Key

OnNote = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class FittedModel:
    """A learned model with what it was fitted to. States, rewards and the model are in the data's own units."""

    elites: Dynamics
    dataset: Dataset
    data: OfflineData
    """The same on the device."""
    settings: DynamicsConfig
    """Of the fit."""
    seed: int
    """Of the run, or of the fit: equal seeds, settings and data give the same fit."""
    run_dir: Path | None = None
    """The run that it belongs to."""
    moved: bool = False
    """Whether its algorithm went on changing it after the fit (RAMBO)."""


def find_model(
    source: str | Path | Dataset,
    seed: int | None = None,
    setting: int | None = None,
    dynamics: DynamicsConfig | None = None,
    dataset: str | Path | None = None,
    quiet: bool = False,
    make: bool = True,
) -> FittedModel:
    """The model of a run directory, or one fitted to a data set (a `Dataset`, or the name or path of one).

    Of a run: that of one `seed` and one `setting` of a population, the first ones by default; `dataset` says where its
    data is, if not where it was in training. Of a data set: fitted as `fit_to` does. `make` and `quiet` are as in
    `load_dataset`. UserError for a run without a model, and for settings that do not apply.
    """
    if isinstance(source, Dataset):
        return fit_to(source, dynamics, seed or 0, quiet)
    if not Path(source).is_dir():
        return fit_to(load_dataset(source, make=make, quiet=quiet), dynamics, seed or 0, quiet)
    if not (Path(source) / store.CONFIG).exists():
        raise UserError(
            f"{source}: expected a run directory or a data set, found a directory without {store.CONFIG}; name the run "
            "inside it, or a data file"
        )
    if dynamics is not None:
        raise UserError(
            f"{source}: expected no dynamics settings for a run, which has its model, found some; leave them out, or "
            "give the data set instead"
        )
    return model_of_run(Path(source), seed, setting, dataset, quiet, make)


def fit_to(dataset: Dataset, settings: DynamicsConfig | None = None, seed: int = 0, quiet: bool = False) -> FittedModel:
    """A model fitted to `dataset`, or found in the cache of fits.

    It is the very model of a run on these data with this seed and these `settings`, by default those of the preset
    `quick`.
    """
    if settings is None:
        settings = preset_settings(dataset, "quick")
    data = to_device(dataset)
    problem = make_problem(dataset, remember(dataset.sha256, _on_note(quiet)))
    key = jax.random.fold_in(jax.random.key(seed), PREPARE_STREAM)
    with bar(f"dynamics, seed {seed}", settings.max_batches, "batch", quiet) as advance:
        elites = fit_model(key, settings, problem, data, lambda stage, done, total, figures: advance(done))
    return FittedModel(elites, dataset, data, settings, seed)


def preset_settings(dataset: Dataset, preset: str) -> DynamicsConfig:
    """The settings that a `preset` fits models to these data with."""
    return defaults("mopo", preset, dataset.name)[1].dynamics


def fit_held_out(dataset: Dataset, preset: str, seed: int = 0, quiet: bool = False) -> FittedModel:
    """A model with the settings of `preset`, but one that goes by whole held-out episodes, if there are at least two:
    then there is something to judge it by."""
    settings = preset_settings(dataset, preset)
    whole = dataset.episode[-1] > 0
    return fit_to(dataset, dataclasses.replace(settings, early_stop="k_step") if whole else settings, seed, quiet)


def model_of_run(
    run_dir: Path,
    seed: int | None = None,
    setting: int | None = None,
    dataset: str | Path | None = None,
    quiet: bool = False,
    make: bool = True,
) -> FittedModel:
    """The model in the newest checkpoint of a run; see `find_model`.

    Without a checkpoint the fit is found in the cache or made again. UserError if the algorithm has no model, or if
    there is no checkpoint of one that changes its model.
    """
    stored = store.read_json(run_dir / store.CONFIG)
    config = run_config_from_dict(stored)
    settings = getattr(config.algo_config, "dynamics", None)
    if settings is None:
        raise UserError(
            f"{run_dir}: expected a run of an algorithm with a dynamics model, found {config.algo}, which has none; "
            "name another run, or the data set to fit a model to it"
        )
    member, moved = find_member(stored, seed, setting, run_dir), getattr(config.algo_config, "model_moves", False)
    loaded = load_run_dataset(run_dir, stored, dataset, make, quiet)
    found = checkpoint.newest(run_dir / "checkpoint", _on_note(quiet))
    if found is None and moved:
        raise UserError(
            f"{run_dir}: expected a checkpoint, for {config.algo} changes its model while it trains, found none; train "
            "it again, or name the data set to fit a model to it"
        )
    if found is None:
        return dataclasses.replace(fit_to(loaded, settings, member.seed, quiet), run_dir=run_dir)
    path, leaves, _ = found
    model = read_model(path, leaves, members_of(stored).index(member), settings, loaded)
    data = to_device(loaded)
    elites = from_units(first_members(model, settings.num_elites), find_units(config.loop, data))
    return FittedModel(elites, loaded, data, settings, member.seed, run_dir, moved)


def read_model(
    path: Path, leaves: checkpoint.Leaves, index: int, settings: DynamicsConfig, dataset: Dataset
) -> Dynamics:
    """The model of the member at `index` among the `leaves` of a checkpoint, in the units that the run worked in."""
    template = jax.eval_shape(lambda: init_members(jax.random.key(0), settings, *dataset.spec))
    names = [f"model/{name}" for name in checkpoint.named_leaves(template)]
    if missing := [name for name in names if name not in leaves]:
        raise UserError(f"{path}: expected a dynamics model, found no {missing[0]}; train the run again")
    arrays: list[Any] = [jnp.asarray(leaves[name][index]) for name in names]
    return jax.tree.unflatten(jax.tree.structure(template), arrays)


def fit_split(model: FittedModel) -> Split:
    """The rows that the fit of the model held out, and those that it was made on."""
    key = jax.random.fold_in(jax.random.key(model.seed), PREPARE_STREAM)
    return hold_out(split_key(key), model.settings, model.data.rows, model.data.episode)


def split_key(key: Key) -> Key:
    """The key that `dynamics_fit.fit_members` splits the rows with, from that of a run's preparation."""
    return jax.random.split(jax.random.fold_in(key, FIT_STREAM), 4)[1]


def _on_note(quiet: bool) -> OnNote:
    return (lambda note: None) if quiet else tell
