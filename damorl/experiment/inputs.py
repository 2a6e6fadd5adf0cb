"""What a run is given: its data on the device, and what the algorithm may know of the task."""

from __future__ import annotations

import jax.numpy as jnp

from damorl.algos.base import OfflineData, Problem
from damorl.data.datasets import Dataset
from damorl.data.stored import StoredDataset
from damorl.experiment.config import RunConfig
from damorl.experiment.resident import DataOf, resident_work
from damorl.experiment.units import Work, in_units
from damorl.parts.start import rank_episodes
from damorl.types import Recall, Transition
from damorl.world.tasks import never_ended


def to_device(dataset: Dataset) -> OfflineData:
    """Copy a dataset to the device once."""
    rows = Transition(*(jnp.asarray(column) for column in dataset.transitions))
    returns = dataset.episode_returns()
    return OfflineData(
        rows,
        jnp.asarray(dataset.initial_obs()),
        jnp.asarray(dataset.episode),
        jnp.asarray(returns, jnp.float32) if len(returns) else None,
        rank_episodes(dataset.episode, returns),
    )


def make_problem(dataset: Dataset | StoredDataset, recall: Recall | None = None) -> Problem:
    """What the algorithm may know of the task; without a known task, nothing ever terminates in the model."""
    return Problem(dataset.spec, never_ended if dataset.task is None else dataset.task.termination, recall)


def supply(config: RunConfig, problem: Problem, dataset: Dataset | StoredDataset) -> tuple[Work, DataOf]:
    """The run in its units, and the data of each epoch: all of it, or new rows of a data set on the disk."""
    if isinstance(dataset, StoredDataset):
        return resident_work(config, problem, dataset)
    work = in_units(config, problem, to_device(dataset))
    return work, lambda epoch: work.data
