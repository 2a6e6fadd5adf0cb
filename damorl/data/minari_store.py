"""Minari's data sets (`damorl[minari]`): episodes of T actions and T + 1 states, in either of its storage formats."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from damorl.bars import Bar
from damorl.data.contents import ARRAYS_SHA256, Contents, Metadata, Source, Unreadable, first_line
from damorl.data.links import file_fault, leads_out
from damorl.data.names import ColumnMap
from damorl.errors import UserError
from damorl.world.units import Bounds

if TYPE_CHECKING:
    from minari import EpisodeData, MinariDataset

EXPECTED = "a Minari data set of state vectors and continuous actions"
SHA256, ROWS = ARRAYS_SHA256, "damorl_rows"
"""What damorl writes of a set that it exports: the hash of the arrays, and of how many rows that is."""
NOT_KEPT = (
    "total_episodes",
    "total_steps",
    "dataset_size",
    "jpeg_encoding",
    "sha256",
    "action_low",
    "action_high",
    SHA256,
    ROWS,
)
NAMES = {"terminals": "terminations", "timeouts": "truncations"}
SLOW = 2.0
"""Seconds before a progress bar appears."""


def open_minari(source: str | MinariDataset, columns: ColumnMap | None = None) -> Source:
    """Read a Minari data set: by its id, with or without `minari:` before it, or the object itself.

    UserError if Minari is not installed, if there is no data set of that id on this machine, or with `columns`.
    """
    if columns:
        raise UserError("columns: expected none for a Minari data set, whose arrays have fixed names; leave it out")
    if not isinstance(source, str):
        return _source(source.id, source)
    dataset_id = source.removeprefix("minari:")
    minari = import_minari(f"minari:{dataset_id}")
    try:
        _check_files(dataset_id)
        return _source(dataset_id, minari.load_dataset(dataset_id))
    except FileNotFoundError:
        raise UserError(_not_here(dataset_id, minari)) from None
    except Exception as reason:  # damaged or foreign files make Minari raise nearly anything
        contents = _damaged(dataset_id, f"one that Minari cannot open ({first_line(reason)})")
        return Source(f"minari:{dataset_id}", dataset_id, contents)


def import_minari(label: str) -> Any:
    """The library. UserError naming `label` if it is not installed."""
    try:
        import minari
    except ImportError as reason:
        raise UserError(
            f"{label}: Minari's data sets need minari, which is missing: pip install 'damorl[minari]'"
        ) from (reason)
    return minari


def _check_files(dataset_id: str) -> None:
    """Minari opens whatever lies in its folder and follows every link: ValueError for what it should not."""
    from minari.storage.datasets_root_dir import get_dataset_path

    for path in (Path(get_dataset_path(dataset_id)) / "data").glob("**/*"):
        if not path.is_dir() and (fault := file_fault(path)):
            raise ValueError(f"{path.name} is {fault}")
        if path.suffix == ".hdf5" and h5py.is_hdf5(path):
            found = None
            with suppress(OSError, RuntimeError), h5py.File(path, "r") as file:  # Minari says what is damaged
                found = leads_out(file)
            if found:
                raise ValueError(f"{path.name} holds {found}")


def _not_here(dataset_id: str, minari: Any) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Minari's remarks on other data sets that it cannot read
            local = list(minari.list_local_datasets())
    except Exception:
        local = []
    near = difflib.get_close_matches(dataset_id, local, n=3, cutoff=0.4)
    here = f"; on this machine there are {', '.join(near)}" if near else ""
    return (
        f"minari:{dataset_id}: expected a Minari data set on this machine, or a file of that name, found neither; run "
        f"`minari download {dataset_id}`{here}"
    )


def _damaged(dataset_id: str, found: str) -> Unreadable:
    return Unreadable(found, EXPECTED, f"make it again, or `minari download {dataset_id} --force`")


def _source(dataset_id: str, dataset: MinariDataset) -> Source:
    name = dataset_id if "/" in dataset_id else f"minari:{dataset_id}"  # by this name it is found again
    try:
        contents = _read(dataset)
    except Exception as reason:
        contents = _damaged(dataset_id, f"episodes that cannot be read ({first_line(reason)})")
    return Source(f"minari:{dataset_id}", name, contents, Path(dataset.storage.data_path), dataset.env_spec)


def _read(dataset: MinariDataset) -> Contents | Unreadable:
    if flaw := _wrong_space(dataset):
        return flaw
    if not len(dataset):
        return Unreadable("no episodes", EXPECTED, "give a larger data set")
    episodes = Bar(dataset.iterate_episodes(), "read episodes", len(dataset), leave=False, disable=None, delay=SLOW)
    parts = [_columns(episode) for episode in episodes]
    columns = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    if (found := len(columns["rewards"])) != dataset.total_steps:
        raise ValueError(f"{found} of {dataset.total_steps} steps")
    names, stored = {key: NAMES.get(key, key) for key in columns}, dataset.storage.metadata
    metadata = _metadata(stored)
    if SHA256 in stored and stored.get(ROWS) == found:  # neither a part of it nor continued
        metadata[SHA256] = str(stored[SHA256])
    return Contents(columns, metadata, tuple(names.values()), names, _bounds(dataset))


def _columns(episode: EpisodeData) -> dict[str, np.ndarray]:
    """The rows of one episode. One that just stops counts as truncated there."""
    steps, states = len(episode.rewards), len(episode.observations)
    if not steps:
        raise ValueError(f"episode {episode.id} has no steps")
    if states != steps + 1 or len(episode.actions) != steps:
        raise ValueError(f"episode {episode.id} has {states} observations and {len(episode.actions)} actions")
    truncations = np.array(episode.truncations)
    truncations[-1] |= not episode.terminations[-1]
    return {
        "observations": episode.observations[:-1],
        "actions": episode.actions,
        "rewards": episode.rewards,
        "next_observations": episode.observations[1:],
        "terminals": episode.terminations,
        "timeouts": truncations,
    }


def _wrong_space(dataset: MinariDataset) -> Unreadable | None:
    from gymnasium.spaces import Box

    spaces = {"observations": dataset.observation_space, "actions": dataset.action_space}
    for kind, space in spaces.items():
        is_vector = isinstance(space, Box) and len(space.shape) == 1 and space.dtype != np.uint8
        if not is_vector or (kind == "actions" and space.dtype.kind != "f"):
            found = f"{kind} in {' '.join(str(space).split())}"
            remedy = "damorl takes neither images, dictionaries and tuples of states nor discrete actions"
            return Unreadable(found, EXPECTED + " (Box spaces of one axis)", remedy)
    return None


def _bounds(dataset: MinariDataset) -> Bounds | None:
    """Those of the action space, unless it has none."""
    low, high = (np.asarray(bound, np.float64) for bound in (dataset.action_space.low, dataset.action_space.high))
    return Bounds(low, high) if np.isfinite([low, high]).all() and np.all(low < high) else None


def _metadata(stored: Mapping[str, Any]) -> Metadata:
    """What is text or a number, and sets of text joined."""
    joined = {key: ", ".join(sorted(value)) if isinstance(value, set) else value for key, value in stored.items()}
    return {
        key: value
        for key, value in joined.items()
        if isinstance(value, str | int | float) and not isinstance(value, bool) and key not in NOT_KEPT
    }
