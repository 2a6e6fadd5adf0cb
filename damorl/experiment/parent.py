"""The run that a fine-tuning begins with: its settings, its data and the state in its newest checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from damorl.data.datasets import Dataset
from damorl.errors import UserError
from damorl.experiment.config import RunConfig, run_config_from_dict
from damorl.experiment.inputs import make_problem, to_device
from damorl.experiment.sources import check_data, load_run_dataset
from damorl.experiment.train import init_state
from damorl.experiment.units import Work, in_units
from damorl.record import checkpoint, store

FINETUNE = "finetune"
"""The entry of a fine-tuned run's config that tells what it began with."""
NEEDS_ORDER = {"rebrac": "its critic needs the data's next actions"}
"""Built-in algorithms for which a row alone is not enough, and why."""


class Parent(NamedTuple):
    """An offline run that can go on."""

    run_dir: Path
    config: RunConfig
    path: Path
    """Its newest checkpoint."""
    identity: dict[str, Any]
    """What a fine-tuned run says of it: name, hash of its settings, updates, and hash of that state."""


def read_config(run_dir: Path) -> RunConfig:
    """The settings of the run in `run_dir`. UserError if there is none, or if its kind cannot be fine-tuned."""
    if not (run_dir / store.CONFIG).exists():
        raise UserError(f"{run_dir}: expected a run directory, found no {store.CONFIG} in it; name a trained run")
    stored = store.read_json(run_dir / store.CONFIG)
    config = run_config_from_dict(stored)
    check_kind(run_dir, config, stored)
    return config


def read_parent(run_dir: Path, on_warning: Callable[[str], None]) -> Parent:
    """The run in `run_dir`. UserError as `read_config`, and if it kept no state."""
    config = read_config(run_dir)
    found = checkpoint.newest(run_dir / "checkpoint", on_warning)
    if found is None:
        raise UserError(
            f"{run_dir}: expected a checkpoint, for critics and model go on learning, found none; train the run again, "
            "or restore its folder checkpoint from a copy"
        )
    path, leaves, metadata = found
    identity = {
        "run": run_dir.resolve().name,
        "digest": config.digest(),
        "updates": int(metadata["step"]),
        "sha256": checkpoint.digest(leaves, {}),
    }
    return Parent(run_dir, config, path, identity)


def check_kind(run_dir: Path, config: RunConfig, stored: Mapping[str, Any]) -> None:
    """UserError for a run that cannot be fine-tuned, with the reason."""
    reason = None
    if config.algorithm.planner is not None:
        reason = f"found {config.algo}, which plans and learns from whole episodes"
    elif config.algo in NEEDS_ORDER:
        reason = f"found {config.algo}: {NEEDS_ORDER[config.algo]}"
    if reason is not None:
        raise UserError(f"{run_dir}: expected an algorithm that learns row by row, {reason}; use damo, sac or td3bc")
    if FINETUNE in stored:
        reason = "found one that was fine-tuned; fine-tune its parent with more --steps"
    elif config.population:
        reason = "found a population; train the setting that you choose alone"
    elif config.resident_rows is not None:
        reason = "found one with resident_rows; train it with all rows in memory"
    if reason is not None:
        raise UserError(f"{run_dir}: expected an offline run, {reason}")


def load_parent_data(parent: Parent, source: str | Dataset | None, make: bool, quiet: bool) -> Dataset:
    """The data of the offline run, from `source` or where they were in training. UserError if they are gone, or
    others."""
    stored = store.read_json(parent.run_dir / store.CONFIG)
    if not isinstance(source, Dataset):
        return load_run_dataset(parent.run_dir, stored, source, make, quiet, "--data")
    check_data(parent.run_dir, stored, source, "data")
    return source


def learner_of(parent: Parent, dataset: Dataset, work: Work) -> Any:
    """The parent's state, all members stacked, as one of the run `work`, which may have other settings.

    Optimisers go on where they were; a schedule of their rate begins again. UserError for settings that change the
    state's shape.
    """
    before = in_units(parent.config, make_problem(dataset), to_device(dataset))
    had = checkpoint.named_leaves(jax.eval_shape(partial(init_state, *before)))
    leaves, _ = checkpoint.read(parent.path)
    checkpoint.check_leaves(parent.path, leaves, had)
    template = jax.eval_shape(partial(init_state, *work))
    wanted = checkpoint.named_leaves(template)
    fresh = checkpoint.named_leaves(init_state(*work)) if wanted.keys() - had.keys() else {}
    arrays = [goes_on(parent, name, like, leaves.get(name), fresh) for name, like in wanted.items()]
    if lost := [name for name in had.keys() - wanted.keys() if "/opt_state/" not in name]:
        raise UserError(changed_shape(parent, sorted(lost)[0]))
    return jax.tree.unflatten(jax.tree.structure(template), arrays)


def goes_on(parent: Parent, name: str, like: Any, found: Any, fresh: Mapping[str, Any]) -> Any:
    """The array of that name to begin with: the one that was `found` in the checkpoint."""
    if found is None and "/opt_state/" in name:
        return fresh[name]
    if found is None or (found.shape, found.dtype) != (like.shape, like.dtype):
        raise UserError(changed_shape(parent, name))
    if name.endswith("/opt_state/1/count"):  # of a schedule: Adam's own is in 0
        return jnp.zeros(like.shape, like.dtype)
    return jnp.array(found)


def changed_shape(parent: Parent, name: str) -> str:
    """The sentence for a setting that does not fit the state."""
    return (
        f"cannot fine-tune {parent.run_dir}: expected settings that fit its state, found one that changes {name}; "
        "leave out settings that shape networks, buffers or the model, or decide what is kept"
    )
