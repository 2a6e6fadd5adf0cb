"""A small data set that the loop can train on, and what a run on it keeps of its model."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest

from damorl.data.datasets import Dataset, load_dataset
from damorl.experiment.config import resolve
from damorl.experiment.describe import describe_run
from damorl.experiment.inputs import make_problem, to_device
from damorl.experiment.train import PREPARE_STREAM
from damorl.experiment.units import in_units
from damorl.parts.dynamics import Dynamics, DynamicsConfig
from damorl.parts.model_data import fit_model
from damorl.record import checkpoint

SEEDS = (3, 5)
TINY = DynamicsConfig(num_members=3, num_elites=2, hidden=(8,), batch_size=32, max_batches=20, epoch_batches=10)


@pytest.fixture(scope="session")
def data_path(hopper_toy: Path) -> Path:
    return hopper_toy


@pytest.fixture(scope="session")
def dataset(data_path: Path) -> Dataset:
    return load_dataset(data_path)


class OnlyModel(NamedTuple):
    """What is asked of a run's state."""

    model: Dynamics


@pytest.fixture(scope="session")
def run_dir(hopper_toy: Path, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run of two seeds in units of its own keeps of its model, made without the training."""
    directory = tmp_path_factory.mktemp("run")
    changes = {f"dynamics.{name}": getattr(TINY, name) for name in vars(TINY)}
    units = {"standardise_observations": True, "reward_factor": "auto"}
    config = resolve("mopo", str(hopper_toy), "smoke", SEEDS, changes | units)
    describe_run(config, dataset, directory, pictures=False)
    models = []
    for seed in SEEDS:
        work = in_units(config, make_problem(dataset), to_device(dataset))
        key = jax.random.fold_in(jax.random.key(seed), PREPARE_STREAM)
        models.append(fit_model(key, config.algo_config.dynamics, work.problem, work.data, lambda *_: None))
    state = OnlyModel(jax.tree.map(lambda *leaves: jnp.stack(leaves), *models))
    checkpoint.save(directory / "checkpoint", state, 0, {"config": config.digest()})
    return directory
