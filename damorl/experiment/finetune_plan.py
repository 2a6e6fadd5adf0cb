"""A fine-tuning, resolved once: which run goes on, with what settings, where, and on which further data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from damorl.data.datasets import Dataset
from damorl.errors import UserError
from damorl.experiment.config import RunConfig, dataset_stem
from damorl.experiment.finetune_settings import FinetuneSettings, finetuned_config, settings_from
from damorl.experiment.parent import FINETUNE, Parent, load_parent_data, read_parent
from damorl.experiment.progress import tell
from damorl.experiment.sources import load_dataset
from damorl.record import seal, store
from damorl.world.simulators import simulator_of
from damorl.world.task import Task
from damorl.world.tasks import find_task


class Plan(NamedTuple):
    """A fine-tuning, resolved."""

    parent: Parent
    config: RunConfig
    settings: FinetuneSettings
    dataset: Dataset
    """The data of the offline run, with the task that is fine-tuned in."""
    env: Task | None = None
    """Where real steps are taken."""
    more: Dataset | None = None
    """Further offline data."""

    @property
    def num_more(self) -> int:
        """Rows of the further data."""
        return 0 if self.more is None else self.more.num_transitions

    @property
    def told(self) -> dict[str, Any]:
        """What config.json says of it besides the run's settings."""
        more = None if self.more is None else {"name": self.more.name, "sha256": self.more.sha256}
        env = None if self.env is None else self.env.name
        return {
            "parent": self.parent.identity,
            "env": env,
            "dataset": more,
            "settings": store.plain(vars(self.settings)),
        }

    def digest(self) -> str:
        """Eight hex digits that change with anything that decides the run."""
        described = self.config.as_dict() | {FINETUNE: self.told}
        return seal.digest(store.plain(described))[:8]

    def name(self) -> str:
        """Directory name of the run."""
        return f"{self.config.algo}-{dataset_stem(self.config.dataset)}-finetune-{self.digest()}"


class Sources(NamedTuple):
    """Where data are."""

    more: str | Dataset | None
    """Further offline data."""
    own: str | Dataset | None
    """Those of the offline run, if not where they were in training."""
    make: bool
    """Whether a built-in data set that is not on this machine is made."""


def make_plan(run_dir: Path, env: str | None, data: Sources, given: Mapping[str, Any], quiet: bool) -> Plan:
    """The plan for the run in `run_dir`; `given` are settings of the fine-tuning and, dots as double underscores, of
    the algorithm.

    UserError for a run that cannot be fine-tuned, for unknown settings, for an environment or data of another size,
    and with neither of the two.
    """
    if env is None and data.more is None:
        raise UserError(
            f"finetune {run_dir}: expected an environment, more data or both, found neither; give --env or --dataset"
        )
    parent = read_parent(run_dir, tell)
    settings, changes = settings_from(given)
    config = finetuned_config(
        parent.config, settings, {key.replace("__", "."): value for key, value in changes.items()}
    )
    task = None if env is None else find_task(env)
    own = load_parent_data(parent, data.own, data.make, quiet)
    if task is not None:
        simulator_of(task)
        own = check_env(own, task)
    more = None if data.more is None else load_more(data.more, own, config, data.make, quiet)
    return Plan(parent, config, settings, own, task, more)


def load_more(source: str | Dataset, own: Dataset, config: RunConfig, make: bool, quiet: bool) -> Dataset:
    """The further data set. UserError if its sizes are not those of the run's `own` data."""
    if isinstance(source, Dataset):
        found = source
    else:
        task = None if own.task is None else own.task.name
        found = load_dataset(source, task, config.loop.dataset_steps, make=make, quiet=quiet)
    if found.spec != own.spec:
        raise UserError(
            f"--dataset {found.name}: expected {own.obs_dim} observations and {own.action_dim} actions, as in "
            f"{own.name}, found {found.obs_dim} and {found.action_dim}; choose data of the same task"
        )
    return found


def check_env(dataset: Dataset, env: Task) -> Dataset:
    """The offline data with the task that real steps are taken in: its ends, references and scores are the run's.

    UserError for an environment of other sizes or action bounds.
    """
    if env.spec != dataset.spec:
        raise UserError(
            f"--env {env.name}: expected {dataset.obs_dim} observations and {dataset.action_dim} actions, as in "
            f"{dataset.name}, found {env.obs_dim} and {env.action_dim}; choose the environment of the data"
        )
    task = dataset.task
    if task is not None and (task.action_low, task.action_high) != (env.action_low, env.action_high):
        raise UserError(
            f"--env {env.name}: expected actions from {task.action_low} to {task.action_high}, as in {task.name}, "
            f"found {env.action_low} to {env.action_high}; choose the environment of the data"
        )
    return dataclasses.replace(dataset, task=env)
