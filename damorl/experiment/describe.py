"""What a run directory tells of the run before it begins: settings, provenance, and the card of its data."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from damorl.experiment.config import RunConfig
from damorl.record import store
from damorl.world.card import summary
from damorl.world.datasets import Dataset

CARD, CARD_PICTURE = "dataset.json", "dataset.png"


def describe_dataset(dataset: Dataset, gamma: float) -> dict[str, Any]:
    """What the run directory remembers of its data."""
    returns = dataset.episode_returns()
    return {
        "name": dataset.name,
        "sha256": dataset.sha256,
        "num_transitions": dataset.num_transitions,
        "task": None if dataset.task is None else dataset.task.name,
        "return_mean": float(np.mean(returns)) if len(returns) else None,
        "return_max": float(np.max(returns)) if len(returns) else None,
        "best_discounted_return": dataset.best_discounted_return(gamma),
        "obs_std": np.std(dataset.transitions.obs, axis=0).tolist(),
    }


def describe_run(config: RunConfig, dataset: Dataset, run_dir: Path) -> None:
    """Write the data set's card, provenance and config, unless an earlier call has. The config is last: it is what
    makes a directory a run."""
    if (run_dir / store.CONFIG).exists():
        return
    gamma = getattr(config.algo_config, "gamma", 0.99)
    device = jax.devices()[0].device_kind
    command = [Path(sys.argv[0]).name, *sys.argv[1:]]
    store.write_json(run_dir / CARD, summary(dataset))
    store.write_json(run_dir / store.PROVENANCE, store.provenance(command, dataset.sha256, device))
    store.write_json(run_dir / store.CONFIG, config.as_dict() | {"data": describe_dataset(dataset, gamma)})


def remarks(dataset: Dataset) -> Iterator[str]:
    """What training has to do without on this data: said once, when it begins."""
    if dataset.task is None:
        yield (
            f"no task is known for {dataset.name}: no policy is scored in a simulator, and no episode ends in the "
            "model; name one with --task (a built-in task, a Gymnasium id, or mytasks.py:task)"
        )
    elif dataset.task.env_id is None:
        yield f"task {dataset.task.name} has no simulator: policies are not scored"
