"""Data sets as files: D4RL's flat HDF5 layout, read key by key and written atomically."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from damorl.files import atomic_file, writing

Metadata = dict[str, str | int | float]

COLUMNS: dict[str, type] = {
    "observations": np.float32,
    "actions": np.float32,
    "rewards": np.float32,
    "next_observations": np.float32,
    "terminals": np.bool_,
    "timeouts": np.bool_,
}
"""The arrays of a data set and the type each is hashed in, in the order of hashing."""
EXTRAS = ("infos/qpos", "infos/qvel", "infos/action_log_probs")


@dataclass(frozen=True)
class Unreadable:
    """Stands for a key that is there but is no array that can be read; `found` says what it is."""

    found: str


@dataclass(frozen=True)
class Contents:
    """What a file holds: each key of `COLUMNS` that is there, the scalars under `metadata/`, and all top-level keys."""

    columns: dict[str, np.ndarray | Unreadable]
    metadata: Metadata
    keys: tuple[str, ...]


def read_contents(path: Path) -> Contents | Unreadable:
    """Read the file at `path`, whatever it is; one that cannot be opened as HDF5 comes back as `Unreadable`."""
    if not os.path.exists(path):  # unlike Path.exists, False also for names that no file can have
        return Unreadable("no such file")
    if not path.is_file():
        return Unreadable("a directory" if path.is_dir() else "something that is not a file")
    try:
        with h5py.File(path, "r") as file:
            columns = {key: _read_column(file, key) for key in COLUMNS if key in file}
            return Contents(columns, _read_metadata(file), tuple(map(_printable, file)))
    except PermissionError:
        return Unreadable("a file that may not be read")
    except Exception as reason:  # on damaged bytes HDF5 raises nearly anything
        return Unreadable(_describe_damage(path, reason))


def _read_column(file: h5py.File, key: str) -> np.ndarray | Unreadable:
    try:
        item = file[key]
        if not isinstance(item, h5py.Dataset):
            return Unreadable("a group")
        if item.shape is None:
            return Unreadable("an array without a shape")
        return np.asarray(item[()])
    except MemoryError:
        return Unreadable("more than fits in memory")
    except Exception as reason:
        return Unreadable(f"damaged or unsupported bytes ({_first_line(reason)})")


def _read_metadata(file: h5py.File) -> Metadata:
    """Every scalar under `metadata/` that is text or a number; what cannot be read is left out."""
    metadata: Metadata = {}

    def visit(name: str, item: object) -> None:
        if not isinstance(item, h5py.Dataset) or item.shape != ():
            return
        try:
            value = item[()]
        except Exception:
            return
        value = value.decode(errors="replace") if isinstance(value, bytes) else value
        value = value.item() if isinstance(value, np.generic) else value
        if isinstance(value, str | int | float):
            metadata[_printable(name)] = value

    group = file.get("metadata")
    if isinstance(group, h5py.Group):
        group.visititems(visit)
    return metadata


def _printable(name: object) -> str:
    """A key's name, which may be any bytes, as text that every terminal can print."""
    return ascii(name)[1:-1] if isinstance(name, str) else ascii(name)


def _describe_damage(path: Path, reason: Exception) -> str:
    if not path.stat().st_size:
        return "an empty file"
    if not h5py.is_hdf5(path):
        return "a file that is not HDF5"
    if "truncated" in str(reason):
        return "a truncated HDF5 file"
    return f"a damaged HDF5 file ({_first_line(reason)})"


def _first_line(reason: Exception) -> str:
    return (str(reason) or type(reason).__name__).splitlines()[0]


def hash_columns(columns: Mapping[str, np.ndarray]) -> str:
    """The sha256 of type, shape and values of the arrays of `COLUMNS`, cast to the types given there.

    It depends neither on the file's compression nor on its other keys: a set hashes the same before it is written and
    after it is read.
    """
    digest = hashlib.sha256()
    for key, dtype in COLUMNS.items():
        column = np.ascontiguousarray(columns[key], dtype)
        digest.update(f"{key} {column.dtype.name} {column.shape} ".encode())
        digest.update(column.data if column.size else b"")
    return digest.hexdigest()


def write_dataset(path: str | Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str | int | float]) -> str:
    """Write a data set at `path`, wholly or not at all, and return the sha256 of its arrays (`hash_columns`).

    `arrays` holds every key of `COLUMNS` (`[N, dim]` or `[N]`, stored in the types given there) and may hold those of
    `EXTRAS` (`[N, ...]`, stored as they are). `metadata` is stored under `metadata/`, and the hash with it. Folders
    are made as needed. UserError if the file cannot be written; ValueError if `arrays` is not such a set or has actions
    beyond [-1, 1].
    """
    path = Path(path)
    _require_columns(arrays)
    sha256 = hash_columns(arrays)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary:
        _write_file(temporary, arrays, {**metadata, "sha256": sha256})
    return sha256


def _require_columns(arrays: Mapping[str, np.ndarray]) -> None:
    missing = [key for key in COLUMNS if key not in arrays]
    unknown = [key for key in arrays if key not in COLUMNS and key not in EXTRAS]
    lengths = {key: len(value) for key, value in arrays.items()}
    if missing or unknown or len(set(lengths.values())) != 1:
        raise ValueError(f"not a data set: missing {missing}, unknown {unknown}, lengths {lengths}")
    if np.any(np.abs(arrays["actions"]) > 1):
        raise ValueError("not a data set: actions beyond [-1, 1]")


def _write_file(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str | int | float]) -> None:
    image = io.BytesIO()  # in memory first: HDF5 itself can crash the process when the disk is full
    with h5py.File(image, "w") as file:
        for key, value in arrays.items():
            stored = np.asarray(value, COLUMNS.get(key))
            # gzip at its fastest is what every HDF5 reader has; the checksum turns rot into a read error
            options = {"chunks": True, "compression": "gzip", "compression_opts": 1, "shuffle": True}
            file.create_dataset(key, data=stored, fletcher32=True, **(options if stored.size else {}))
        for key, value in metadata.items():
            fixed = h5py.string_dtype("utf-8", len(value.encode())) if isinstance(value, str) and value else None
            file.create_dataset(f"metadata/{key}", data=value, dtype=fixed)  # damage to text of free length hangs HDF5
    path.write_bytes(image.getbuffer())
