"""A small data set that the loop can train on."""

from __future__ import annotations

from pathlib import Path

import pytest

from damorl.data.datasets import Dataset, load_dataset


@pytest.fixture(scope="session")
def data_path(hopper_toy: Path) -> Path:
    return hopper_toy


@pytest.fixture(scope="session")
def dataset(data_path: Path) -> Dataset:
    return load_dataset(data_path)
