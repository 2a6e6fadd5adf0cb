"""Where data sets are kept on this machine."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from damorl.world.tasks import DatasetName

DEFAULT_NUM_STEPS = 200_000
"""Transitions per part of a built-in data set."""


def cache_dir() -> Path:
    """Where built-in data sets are kept: `$DAMORL_HOME`, or the user's cache folder."""
    home = os.environ.get("DAMORL_HOME")
    return Path(os.path.expanduser(home)) if home else Path(platformdirs.user_cache_dir("damorl"))


def dataset_path(name: str, num_steps: int = DEFAULT_NUM_STEPS, seed: int = 0) -> Path:
    """The file of a built-in data set, whether it exists or not. UserError if there is no set of that name."""
    return cache_dir() / "datasets" / f"{DatasetName.parse(name)}-{num_steps}-seed{seed}.hdf5"
