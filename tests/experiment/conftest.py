"""A small data set that the loop can train on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from damorl.data.datasets import Dataset, load_dataset
from damorl.data.store import write_dataset

ROWS, EPISODE = 600, 50


@pytest.fixture(scope="session")
def data_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hopper-shaped dataset of short episodes that drift upright, some of which fall."""
    rng = np.random.default_rng(0)
    obs = rng.normal(0, 0.05, (ROWS, 11)).astype(np.float32)
    obs[:, 0] += 1.25
    next_obs = obs + rng.normal(0, 0.01, obs.shape).astype(np.float32)
    last = np.arange(ROWS) % EPISODE == EPISODE - 1
    terminal = last & (np.arange(ROWS) // EPISODE % 2 == 0)
    path = tmp_path_factory.mktemp("data") / "hopper-toy.hdf5"
    write_dataset(
        path,
        {
            "observations": obs,
            "actions": rng.uniform(-0.9, 0.9, (ROWS, 3)).astype(np.float32),
            "rewards": rng.uniform(0.5, 1.5, ROWS).astype(np.float32),
            "next_observations": next_obs,
            "terminals": terminal,
            "timeouts": last & ~terminal,
        },
        {},
    )
    return path


@pytest.fixture(scope="session")
def dataset(data_path: Path) -> Dataset:
    return load_dataset(data_path)
