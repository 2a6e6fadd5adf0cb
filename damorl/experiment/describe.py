"""What a run directory tells of the run before it begins: settings, provenance, and the card of its data."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from damorl.data.card import card_and_arrays
from damorl.data.datasets import Dataset
from damorl.data.stored import StoredDataset
from damorl.errors import UserError
from damorl.experiment.algorithms import origin_of_algorithm
from damorl.experiment.config import RunConfig
from damorl.parts.start import known_rows
from damorl.record import store
from damorl.world.evaluate import Episodes
from damorl.world.task import action_bounds
from damorl.world.tasks import Task, find_task, normalised_score, normalised_std
from damorl.world.units import from_metadata

CARD, CARD_PICTURE = "dataset.json", "dataset.png"


def describe_dataset(dataset: Dataset | StoredDataset, gamma: float) -> dict[str, Any]:
    """What the run directory remembers of its data. The actions' bounds are those of the simulator."""
    returns = dataset.episode_returns()
    bounds = from_metadata(dataset.metadata) if dataset.task is None else action_bounds(dataset.task)
    low, high = (np.broadcast_to(bound, dataset.action_dim).tolist() for bound in bounds)
    return {
        "name": dataset.name,
        "sha256": dataset.sha256,
        "num_transitions": dataset.num_transitions,
        "task": None if dataset.task is None else dataset.task.name,
        "reference_min": None if dataset.task is None else dataset.task.reference_min,
        "reference_max": None if dataset.task is None else dataset.task.reference_max,
        "return_mean": float(np.mean(returns)) if len(returns) else None,
        "return_max": float(np.max(returns)) if len(returns) else None,
        "best_discounted_return": dataset.best_discounted_return(gamma),
        "action_low": low,
        "action_high": high,
        **describe_obs(dataset),
    }


def describe_obs(dataset: Dataset | StoredDataset) -> dict[str, list[float]]:
    """Moments of the states, one number for each of their entries."""
    if isinstance(dataset, StoredDataset):
        own = dataset.obs
        mean, std, low, high = own.mean, own.std, own.low, own.high
    else:
        obs = np.asarray(dataset.transitions.obs)
        mean, std, low, high = obs.mean(axis=0, dtype=np.float64), obs.std(axis=0), obs.min(axis=0), obs.max(axis=0)
    return {
        f"obs_{name}": value.tolist()
        for name, value in zip(("mean", "std", "min", "max"), (mean, std, low, high), strict=True)
    }


def simulator_of(run_dir: Path) -> Task:
    """The task that a run's policies play, scored as when it was trained. UserError if it has no simulator."""
    data = store.read_json(run_dir / store.CONFIG)["data"]
    task = None if data["task"] is None else find_task(data["task"])
    if task is None or task.env_id is None:
        found = "no known task" if task is None else f"task {task.name}, which has none"
        raise UserError(
            f"cannot score {run_dir}: expected data of a task with a simulator, found {found}; "
            "train with --task (a built-in task or a Gymnasium id), or use `damorl select`, which needs no simulator"
        )
    references = {key: data.get(key, getattr(task, key)) for key in ("reference_min", "reference_max")}
    return dataclasses.replace(task, **references)


def describe_episodes(task: Task, played: Episodes) -> dict[str, Any]:
    """Mean and deviation over episodes of return and, where the task has references, of the normalised score."""
    row: dict[str, Any] = {"return_mean": float(played.returns.mean()), "return_std": float(played.returns.std())}
    row |= {"length_mean": float(played.lengths.mean()), "falls": int(played.terminated.sum())}
    if task.reference_min is not None:
        row["score"] = normalised_score(task, row["return_mean"])
        row["score_std"] = normalised_std(task, row["return_std"])
    return row


def describe_run(
    config: RunConfig,
    dataset: Dataset | StoredDataset,
    run_dir: Path,
    pictures: bool = True,
    more: Mapping[str, Any] | None = None,
) -> None:
    """Write the data set's card, provenance and config with `more` entries, unless an earlier call has. The config is
    last: it is what makes a directory a run. There is no card of data that are not in memory."""
    if (run_dir / store.CONFIG).exists():
        return
    gamma = getattr(config.algo_config, "gamma", 0.99)
    device = jax.devices()[0].device_kind
    if isinstance(dataset, Dataset):
        write_card(dataset, run_dir, pictures)
    told = store.provenance(store.own_command(), dataset.sha256, device)
    told |= {"algorithm": origin_of_algorithm(config.algo)}
    store.write_json(run_dir / store.PROVENANCE, told, seal=True)
    described = config.as_dict() | {"data": describe_dataset(dataset, gamma), **(more or {})}
    store.write_json(run_dir / store.CONFIG, described, seal=True)


def write_card(dataset: Dataset, run_dir: Path, pictures: bool) -> None:
    """The data set's card, and its picture if there are to be pictures."""
    card, arrays = card_and_arrays(dataset)
    store.write_json(run_dir / CARD, card, seal=True)
    if pictures:
        from damorl.report.card import draw_card

        draw_card(card, arrays, run_dir / CARD_PICTURE)


def remarks(dataset: Dataset | StoredDataset, settings: Any) -> Iterator[str]:
    """What training with an algorithm's `settings` has to do without on this data: said once, when it begins."""
    if getattr(settings, "reference_share", 1.0) < 1.0 and not len(dataset.episode_returns()):
        yield (
            f"no episode of {dataset.name} is complete, so no return is known: all of the data is cloned instead of "
            "its best share; mark where episodes end (terminals, timeouts)"
        )
    if getattr(settings, "critic_start", "none") == "returns" and isinstance(dataset, Dataset):
        terminal = np.asarray(dataset.transitions.terminal)
        if not known_rows(dataset.episode, terminal, settings.gamma).any():
            yield (
                f"episodes of {dataset.name} are cut before their rewards stop to count (gamma {settings.gamma}): the "
                "critics start at random instead of at the returns"
            )
    if dataset.task is None:
        yield (
            f"no task is known for {dataset.name}: no policy is scored in a simulator, and no episode ends in the "
            "model; name one with --task (a built-in task, a Gymnasium id, or mytasks.py:task)"
        )
    elif dataset.task.env_id is None:
        yield f"task {dataset.task.name} has no simulator: policies are not scored"
    if dataset.task is not None and not dataset.task.termination_known:
        yield (
            f"nothing tells when an episode of {dataset.task.name} ends, so none ends in the model; if some do, write "
            "a Task with a termination function into a file and name it, --task mytasks.py:task"
        )
