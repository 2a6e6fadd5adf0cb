"""A data set of ours as one of Minari's (`damorl[minari]`)."""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from damorl.bars import Bar
from damorl.data.contents import COLUMNS
from damorl.data.datasets import Dataset
from damorl.data.minari_store import NOT_KEPT, ROWS, SHA256, SLOW, import_minari
from damorl.data.rows import continues
from damorl.data.store import hash_columns
from damorl.errors import UserError
from damorl.files import sync, writing
from damorl.world.units import Bounds, from_metadata, from_unit, is_unit

if TYPE_CHECKING:
    from gymnasium.envs.registration import EnvSpec
    from minari.data_collector import EpisodeBuffer

FORMATS = ("hdf5", "arrow")


def export_minari(dataset: Dataset, dataset_id: str, data_format: str | None = None) -> Path:
    """Write `dataset` into Minari's local store, wholly or not at all, and return its folder.

    Read back it has the same rows in the same order, and so the same hash, except that an episode which is not
    complete counts as truncated at its last row. Actions are stored in the simulator's units (`Dataset.metadata`). The
    environment, the reference returns (as `ref_min_score` and `ref_max_score`) and the other metadata go with it.

    `data_format` is `"hdf5"` (the default) or `"arrow"`. UserError if Minari is not installed, if the id is malformed
    or taken, if rows inside an episode do not continue one another, or if the folder cannot be written.
    """
    import_minari(dataset.name)
    from minari.storage.datasets_root_dir import get_dataset_path

    _check(dataset, dataset_id, data_format)
    target = get_dataset_path(dataset_id)
    if target.exists():
        raise UserError(f"minari:{dataset_id}: expected an id that is free, found {target}; choose another version")
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with writing(target):
            _make_namespace(dataset_id)
            temporary.mkdir(parents=True)
            _write(dataset, dataset_id, data_format or FORMATS[0], temporary / "data")
            os.rename(temporary, target)
            sync(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _check(dataset: Dataset, dataset_id: str, data_format: str | None) -> None:
    from minari.dataset.minari_dataset import parse_dataset_id

    if data_format not in (None, *FORMATS):
        raise UserError(f"data_format: expected one of {', '.join(FORMATS)}, found {data_format!r}; choose one")
    try:
        parse_dataset_id(dataset_id)
    except (ValueError, TypeError) as reason:
        example = f"damorl/{dataset.name.replace('/', '-')}-v0"
        raise UserError(
            f"Minari id {dataset_id!r}: expected words of two letters or more joined by slashes, and a version at the "
            f"end; write one such as {example}"
        ) from reason
    transitions = dataset.transitions
    inside = ~dataset.episode_end[:-1]
    breaks = np.flatnonzero(inside & ~continues(np.asarray(transitions.next_obs)[:-1], np.asarray(transitions.obs)[1:]))
    if len(breaks):
        raise UserError(
            f"{dataset.name}: expected each row of an episode to begin in the state that the one before led to, found "
            f"another after row {breaks[0]} ({len(breaks)} such rows); mark those rows as truncated first"
        )


def _make_namespace(dataset_id: str) -> None:
    from minari.namespace import create_namespace, list_local_namespaces

    namespace = dataset_id.rpartition("/")[0]
    if namespace and namespace not in list_local_namespaces():
        create_namespace(namespace)


def _write(dataset: Dataset, dataset_id: str, data_format: str, folder: Path) -> None:
    import minari
    from gymnasium.spaces import Box
    from minari.dataset.minari_storage import MinariStorage

    bounds = from_metadata(dataset.metadata)
    kind = np.float32 if is_unit(bounds) else np.float64  # other units must not be rounded a second time
    low, high = (np.broadcast_to(bound, dataset.action_dim).astype(kind) for bound in bounds)
    storage = MinariStorage.new(
        folder,
        observation_space=Box(-np.inf, np.inf, (dataset.obs_dim,), np.float32),
        action_space=Box(low, high, dtype=kind),
        env_spec=_env_spec(dataset),
        data_format=data_format,
    )
    own = {"dataset_id": dataset_id, "minari_version": minari.__version__}
    storage.update_metadata({**_metadata(dataset), **own, SHA256: _sha256(dataset), ROWS: dataset.num_transitions})
    ends = int(dataset.episode_start.sum())
    episodes = _episodes(dataset, bounds, kind)
    storage.update_episodes(Bar(episodes, "write episodes", ends, leave=False, disable=None, delay=SLOW))


def _episodes(dataset: Dataset, bounds: Bounds, kind: type) -> Iterator[EpisodeBuffer]:
    from minari.data_collector import EpisodeBuffer

    obs, action, reward, next_obs, terminal = (np.asarray(column) for column in dataset.transitions)
    if not is_unit(bounds):
        action = from_unit(bounds, action)
    starts = np.flatnonzero(dataset.episode_start)
    for start, end in zip(starts, [*starts[1:], dataset.num_transitions], strict=True):
        terminations, truncations = terminal[start:end] > 0, dataset.truncated[start:end].copy()
        truncations[-1] |= not terminations[-1]
        columns: dict[str, Any] = {  # arrays serve where Minari's types say lists
            "observations": np.append(obs[start:end], next_obs[end - 1 : end], axis=0),
            "actions": action[start:end].astype(kind),
            "rewards": reward[start:end],
            "terminations": terminations,
            "truncations": truncations,
        }
        yield EpisodeBuffer(**columns)


def _sha256(dataset: Dataset) -> str:
    """Of the rows as they are read back: an incomplete last episode counts as truncated."""
    obs, action, reward, next_obs, terminal = (np.asarray(column) for column in dataset.transitions)
    truncated = dataset.truncated.copy()
    truncated[-1] |= not terminal[-1] > 0
    return hash_columns(dict(zip(COLUMNS, (obs, action, reward, next_obs, terminal > 0, truncated), strict=True)))


def _env_spec(dataset: Dataset) -> EnvSpec | None:
    """The environment that the data were recorded in, or their task's; None if Gymnasium knows neither."""
    import gymnasium
    from gymnasium.envs.registration import EnvSpec

    if "env_spec" in dataset.metadata:
        return EnvSpec.from_json(str(dataset.metadata["env_spec"]))
    task = dataset.task
    if task is None or task.env_id is None:
        return None
    try:
        spec = copy.deepcopy(gymnasium.spec(task.env_id))
    except (gymnasium.error.Error, ImportError):
        return None
    spec.max_episode_steps = task.max_episode_steps
    return spec


def _metadata(dataset: Dataset) -> dict[str, Any]:
    """What Minari does not write by itself."""
    task, own = dataset.task, ("env_spec", "data_format", "dataset_id", "minari_version", *NOT_KEPT)
    metadata: dict[str, Any] = {key: value for key, value in dataset.metadata.items() if key not in own}
    for key in ("author", "author_email"):
        if key in metadata:
            metadata[key] = {str(metadata[key])}
    if task and task.reference_min is not None and task.reference_max is not None:
        metadata |= {"ref_min_score": task.reference_min, "ref_max_score": task.reference_max}
    return metadata
