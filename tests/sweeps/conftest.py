"""What the sweeps of the tests run: 24 runs of seconds on small builds of two data sets."""

from __future__ import annotations

from pathlib import Path

import pytest

from damorl.behaviour.recipe import make_dataset

GRID = """
algorithms = ["bc", "td3bc", "mopo", "damo"]
datasets = ["hopper-medium-replay", "halfcheetah-medium"]
preset = "smoke"
seeds = [0, 1, 2]
"""


@pytest.fixture(scope="session")
def data_sets() -> None:
    for name in ("hopper-medium-replay", "halfcheetah-medium"):
        make_dataset(name, 2000, workers=1, progress=False)


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    path = tmp_path / "grid.toml"
    path.write_text(GRID)
    return path
