"""What a data file means, read again by h5py, NumPy, pyarrow and the csv module alone: nothing of damorl is used.

It knows the documented rules (docs/own-data.md) and is only asked about files that damorl has loaded: there it must
find the same rows.
"""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import h5py
import numpy as np
import pyarrow.ipc
import pyarrow.parquet

Columns = dict[str, np.ndarray]
NAMES = {
    "observations": ("observations", "observation", "obs"),
    "actions": ("actions", "action"),
    "rewards": ("rewards", "reward"),
    "next_observations": ("next_observations", "next_observation", "next_obs"),
    "terminals": ("terminals", "terminal", "terminations", "termination", "terminated", "dones", "done"),
    "timeouts": ("timeouts", "timeout", "truncations", "truncation", "truncated"),
    "episodes": ("episodes", "episode", "episode_ids", "episode_id"),
    "starts": ("index",),
}
WIDE = ("observations", "actions", "next_observations")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*([eE][+-]?\d+)?|\.\d+([eE][+-]?\d+)?|inf|nan)")


def rows_of(path: Path, kind: str) -> tuple[np.ndarray, ...]:
    """Observations, actions, rewards, next observations, terminal and truncated. Raises anything if there are none."""
    if kind.startswith("minari"):
        return _minari_rows(path, kind.removeprefix("minari-"))
    readers = {".hdf5": _hdf5, ".npz": _npz, ".csv": _csv, ".parquet": _parquet}
    return _assembled(_named(readers[path.suffix](path)))


def _hdf5(path: Path) -> Columns:
    with h5py.File(path, "r") as file:
        found = {}
        for name in file:
            if _spelling(name) and isinstance(file.get(name, getlink=True), h5py.HardLink):
                item = file[name]
                found[name] = item[()] if isinstance(item, h5py.Dataset) else np.array("a group")
        return found


def _npz(path: Path) -> Columns:
    with np.load(path) as archive:
        return {name: archive[name] for name in archive.files if _spelling(name)}


def _parquet(path: Path) -> Columns:
    with pyarrow.parquet.ParquetFile(path) as file:
        table = file.read([name for name in file.schema_arrow.names if _spelling(name)])
    return {name: table.column(name).to_numpy() for name in table.column_names}


def _csv(path: Path) -> Columns:
    text = path.read_text(encoding="utf-8", errors="replace")  # a column that is no array may hold anything
    header = text.splitlines()[0]
    lines = [line for line in csv.reader(text.splitlines(), delimiter=max(",;\t", key=header.count)) if line]
    names, *rows = lines
    assert all(len(row) == len(names) for row in rows)
    return {
        name: np.array([_number(row[place]) for row in rows]) for place, name in enumerate(names) if _spelling(name)
    }


def _number(cell: str) -> float:
    cell = cell.strip().lower()
    if cell in ("true", "false"):
        return float(cell == "true")
    if not NUMBER.fullmatch(cell):
        raise ValueError(cell)
    return float(cell)


def _spelling(name: str) -> tuple[str, int | None] | None:
    """Which array a name belongs to, and which of its columns it is."""
    stem, _, number = name.rpartition("_")
    for key, spellings in NAMES.items():
        if name in spellings:
            return key, None
        if key in WIDE and stem in spellings and re.fullmatch(r"[0-9]{1,9}", number):
            return key, int(number)
    return None


def _named(raw: Columns) -> Columns:
    """The arrays under our names; those spread over columns put side by side."""
    found: dict[str, list[tuple[int | None, np.ndarray]]] = {}
    for name, array in raw.items():
        spelling = _spelling(name)
        assert spelling is not None
        found.setdefault(spelling[0], []).append((spelling[1], array))
    columns = {}
    for key, parts in found.items():
        whole = [array for number, array in parts if number is None]
        spread = [array for number, array in sorted(((n, a) for n, a in parts if n is not None), key=lambda p: p[0])]
        if len(whole) + bool(spread) != 1:
            raise ValueError(f"{key} is there twice")
        columns[key] = whole[0] if whole else np.column_stack(spread)
    return columns


def _assembled(columns: Columns) -> tuple[np.ndarray, ...]:
    """The rows, by the rules of episodes and of missing columns."""
    obs, action, reward = (columns[key] for key in ("observations", "actions", "rewards"))
    count = len(reward)
    obs, action = obs.reshape(count, -1), action.reshape(count, -1)
    reward = reward.reshape(count)
    obs, action, reward = (column.astype(np.float32) for column in (obs, action, reward))
    action = np.minimum(np.maximum(action, -1), 1)
    flag = lambda key: columns[key].reshape(count).astype(bool) if key in columns else np.zeros(count, bool)
    terminal, cut = flag("terminals"), flag("timeouts")
    known = "timeouts" in columns
    if "episodes" in columns:
        numbers, known = columns["episodes"].reshape(count), True
        for row in range(count - 1):
            cut[row] |= numbers[row] != numbers[row + 1] and not terminal[row]
    starts = columns.get("starts")
    if starts is not None and starts.shape[0] != count:
        known = True
        for last in [int(start) - 1 for start in starts.reshape(-1)] + [count - 1]:
            if 0 <= last < count:
                cut[last] |= not terminal[last]
    if "next_observations" in columns:
        reached = columns["next_observations"].reshape(count, -1).astype(np.float32)
        for row in range(count - 1 if not known else 0):
            gap = np.abs(reached[row] - obs[row + 1])
            cut[row] = not terminal[row] and not np.all(gap <= 1e-5 + 1e-5 * np.abs(obs[row + 1]))
        return obs, action, reward, reached, terminal, cut
    ended = terminal | cut
    kept = np.array([row for row in range(count - 1) if not ended[row]], int)
    return obs[kept], action[kept], reward[kept], obs[kept + 1], terminal[kept], ended[kept + 1]


def _minari_rows(path: Path, storage: str) -> tuple[np.ndarray, ...]:
    told = json.loads((path / "data" / "metadata.json").read_text())
    space = json.loads(told["action_space"])
    low, high = np.array(space["low"], float), np.array(space["high"], float)
    episodes = (_hdf5_episode if storage == "hdf5" else _arrow_episode)(path / "data", told["total_episodes"])
    parts: list[list[np.ndarray]] = [[] for _ in range(6)]
    for obs, action, reward, terminal, truncated in episodes:
        truncated = truncated.copy()
        truncated[-1] |= not terminal[-1]
        unit = 2 * (action - low) / (high - low) - 1
        for part, column in zip(parts, (obs[:-1], unit, reward, obs[1:], terminal, truncated), strict=True):
            part.append(column)
    obs, action, reward, reached, terminal, truncated = (np.concatenate(part) for part in parts)
    obs, action, reward, reached = (column.astype(np.float32) for column in (obs, action, reward, reached))
    return obs, np.clip(action, -1, 1), reward, reached, terminal.astype(bool), truncated.astype(bool)


KEYS = ("observations", "actions", "rewards", "terminations", "truncations")


def _hdf5_episode(folder: Path, count: int) -> list[tuple[np.ndarray, ...]]:
    with h5py.File(folder / "main_data.hdf5", "r") as file:
        return [tuple(np.asarray(file[f"episode_{i}/{key}"]) for key in KEYS) for i in range(count)]


def _arrow_episode(folder: Path, count: int) -> list[tuple[np.ndarray, ...]]:
    found = []
    for number in range(count):
        with pyarrow.ipc.open_file(folder / str(number) / "part-0.arrow") as reader:
            table = reader.read_all()
        obs, *others = (np.array(table.column(key).to_pylist()) for key in KEYS)
        found.append((obs, *(column[:-1] for column in others)))
    return found
