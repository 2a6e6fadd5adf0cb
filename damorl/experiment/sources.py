"""Data sets where a missing built-in one is no obstacle: it is made by its recipe, and then loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from damorl.data import check, datasets
from damorl.data.check import Problem
from damorl.data.datasets import DEFAULT_NUM_STEPS, Dataset, dataset_path
from damorl.data.sources import Reading
from damorl.errors import UserError
from damorl.world.tasks import DATASET_NAMES

if TYPE_CHECKING:
    from minari import MinariDataset


def load_dataset(
    source: str | Path | Mapping[str, Any] | MinariDataset,
    task: str | None = None,
    num_steps: int = DEFAULT_NUM_STEPS,
    seed: int = 0,
    make: bool = True,
    quiet: bool = False,
    **reading: Unpack[Reading],
) -> Dataset:
    """Load a data set as `damorl.data.datasets.load_dataset`, which tells the rest, and make a missing built-in one.

    Making takes a minute or so on all cores, once on a machine; a bar on standard error shows it unless `quiet`.
    Without `make` a built-in set that is not there raises UserError.
    """
    if make:
        make_missing(source, num_steps, seed, quiet)
    return datasets.load_dataset(source, task, num_steps, seed, **reading)


def load_run_dataset(
    run_dir: Path,
    config: Mapping[str, Any],
    source: Path | str | None,
    make: bool = True,
    quiet: bool = True,
    option: str = "--dataset",
) -> Dataset:
    """The data that the run of a stored `config` was trained on, from `source` or where it was then. UserError, naming
    the `option` that gives the source, if that is other data."""
    try:
        dataset = load_dataset(
            source or config["dataset"],
            config["data"]["task"] or config.get("task"),
            config["loop"]["dataset_steps"],
            columns=config.get("columns") or None,
            action_bounds=config.get("action_bounds"),
            make=make,
            quiet=quiet,
        )
    except UserError as error:
        raise UserError(f"{run_dir}: its data cannot be loaded ({error}): say where it is with {option}") from error
    check_data(run_dir, config, dataset, option)
    return dataset


def check_data(run_dir: Path, config: Mapping[str, Any], dataset: Dataset, option: str) -> None:
    """UserError unless these are the data that the run of a stored `config` was trained on."""
    expected = config["data"]["sha256"]
    if dataset.sha256 != expected:
        raise UserError(
            f"{run_dir}: expected the data that it was trained on, with sha256 {expected[:12]}, found "
            f"{dataset.sha256[:12]} in {dataset.path or dataset.name}: give the same data with {option}"
        )


def find_problems(
    source: str | Path | Mapping[str, Any] | MinariDataset,
    task: str | None = None,
    num_steps: int = DEFAULT_NUM_STEPS,
    seed: int = 0,
    make: bool = True,
    quiet: bool = False,
    **reading: Unpack[Reading],
) -> list[Problem]:
    """Every problem of a data set, as `damorl.data.check.find_problems`; `make` and `quiet` as in `load_dataset`."""
    if make:
        make_missing(source, num_steps, seed, quiet)
    return check.find_problems(source, task, num_steps, seed, **reading)


def make_missing(source: object, num_steps: int = DEFAULT_NUM_STEPS, seed: int = 0, quiet: bool = False) -> None:
    """Make the data set if it is a built-in one that is not there; anything else is left alone."""
    if not is_missing(source, num_steps, seed):
        return
    from damorl.behaviour.recipe import make_dataset, say

    if not quiet:
        say(f"{source} is not on this machine yet and is made now, once: {dataset_path(str(source), num_steps, seed)}")
    try:
        make_dataset(str(source), num_steps, seed, progress=not quiet)
    except UserError as error:
        raise UserError(f"data set '{source}' is not made yet, and cannot be: {error}") from error


def is_missing(source: object, num_steps: int = DEFAULT_NUM_STEPS, seed: int = 0) -> bool:
    """Whether `source` names a built-in data set that is not there yet."""
    return isinstance(source, str) and source in DATASET_NAMES and not dataset_path(source, num_steps, seed).exists()
