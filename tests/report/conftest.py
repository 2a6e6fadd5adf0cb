"""Run directories as training leaves them, small and made by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from damorl.record.store import append_metrics, write_json

MakeRun = Callable[..., Path]
STEPS = range(1000, 13_000, 1000)


def config_of(algo: str, data: str, seeds: list[int], total: int, **changes: Any) -> dict[str, Any]:
    """A run's config with the keys that reports need, and some more."""
    return {
        "algo": algo,
        "dataset": data,
        "task": None,
        "preset": "quick",
        "seeds": seeds,
        "loop": {"total_updates": total, "refresh_interval": 1000, "eval_interval": 1000, "eval_episodes": 10},
        "algo_config": {"gamma": 0.99, "hidden": [64, 64], "dynamics": {"num_members": 7}, **changes},
        "data": {
            "name": data,
            "sha256": f"{len(data):02d}" * 32,
            "num_transitions": 2000,
            "task": data.split("-")[0],
            "return_mean": 250.0,
            "return_max": 900.0,
            "best_discounted_return": 130.0,
        },
    }


PROVENANCE = {
    "started": "2026-01-02T03:04:05+00:00",
    "command": ["damorl", "train", "damo", "--dataset", "my data.hdf5"],
    "dataset_sha256": "12" * 32,
    "git": {"revision": "0123456789abcdef0123456789abcdef01234567", "dirty": False},
    "versions": {"damorl": "0.1.0", "jax": "0.10.2"},
    "python": "3.11.7",
    "platform": "Linux",
    "cpu_count": 2,
    "device_kind": "cpu",
}


def write_run(
    parent: Path,
    name: str,
    algo: str = "damo",
    data: str = "hopper-medium",
    levels: Mapping[int, float] | None = None,
    total: int = 12_000,
    **changes: Any,
) -> Path:
    """A run whose seed k scores around `levels[k]` at 12 steps; `changes` are settings of the algorithm."""
    levels = {0: 50.0} if levels is None else levels
    run_dir = parent / name
    run_dir.mkdir(parents=True)
    write_json(run_dir / "config.json", config_of(algo, data, list(levels), total, **changes))
    write_json(run_dir / "provenance.json", PROVENANCE)
    append_metrics(run_dir, [row(seed, step, level) for step in STEPS for seed, level in levels.items()])
    return run_dir


def row(seed: int, step: int, level: float) -> dict[str, Any]:
    """Scores climb by one at every step and end ten above the level, five and a half above it on average."""
    score = level + step / 1000 - 2
    return {
        "step": step,
        "seed": seed,
        "eval/score": score,
        "eval/return_mean": 30.0 * score,
        "eval/episode_length": 10 * score + 5,
        "critic/q_mean": step / 100,
        "classifier/accuracy": 0.7,
        "classifier/log_ratio_real": 0.5,
        "classifier/log_ratio_synthetic": -0.5,
        "actor/temperature": 0.1,
    }


CARD = {
    "name": "hopper-medium",
    "transitions": 2000,
    "episodes": 12,
    "return": {"mean": 250.0, "std": 30.0, "min": 10.0, "max": 900.0},
    "return_histogram": {"edges": [0.0, 300.0, 600.0, 900.0], "counts": [5, 4, 3]},
    "sha256": "13" * 32,
}
SELECTION = {
    "policies": [
        {"seed": 0, "step": 6000, "fqe": 101.3, "model_value": None, "score": 54.0},
        {"seed": 0, "step": 12000, "fqe": 99.5, "model_value": 80.0, "score": None},
    ],
    "rank_correlation": {"fqe": 0.75, "model_value": None, "num_policies": 2},
}


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """`write_run` into the test's own folder."""
    return partial(write_run, tmp_path)


@pytest.fixture(scope="module")
def two_by_two(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two methods on two data sets, three seeds each; the first run has all that one can hold. Do not write."""
    parent = tmp_path_factory.mktemp("two-by-two")
    run_dirs = [
        write_run(parent, f"{algo}-{data}", algo, data, {seed: level + 5.0 * seed for seed in range(3)})
        for algo, level in (("damo", 50.0), ("bc", 20.0))
        for data in ("hopper-medium", "walker2d-medium")
    ]
    for run_dir in run_dirs[:2]:
        write_json(run_dir / "dataset.json", CARD)
    write_json(run_dirs[0] / "selection.json", SELECTION)
    Image.new("RGB", (40, 20), "white").save(run_dirs[0] / "dataset.png")
    return run_dirs


@pytest.fixture(scope="session")
def run_writer() -> MakeRun:
    """`write_run` itself, for fixtures that live longer than a test."""
    return write_run
