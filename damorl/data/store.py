"""Data sets as files: D4RL's flat HDF5 layout, read key by key and written atomically."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from damorl.data.contents import COLUMNS, Contents, Metadata, Raw, Unreadable, first_line, printable
from damorl.data.links import OnOutside, follow, value_fault
from damorl.data.names import ColumnMap, gather
from damorl.files import atomic_file, writing

EXTRAS = ("infos/qpos", "infos/qvel", "infos/action_log_probs")


def read_hdf5(path: Path, columns: ColumnMap | None = None, on_outside: OnOutside = None) -> Contents:
    """Contents of an HDF5 file: its arrays, and the scalars under `metadata/`. Raises anything on damaged bytes.

    Values in other files are refused, unless `on_outside` is there to be told of each.
    """
    with h5py.File(path, "r") as file:
        return read_rows(file, columns, on_outside=on_outside)


def read_rows(
    file: h5py.File, columns: ColumnMap | None = None, rows: slice | None = None, on_outside: OnOutside = None
) -> Contents:
    """As `read_hdf5`, from an open file; with `rows` no more than those of each array is read."""
    keys = tuple(map(printable, file))
    read = partial(_read_column, file, rows=rows, on_outside=on_outside)
    return gather(Raw(keys, read, _read_metadata(file)), columns)


def count_rows(file: h5py.File, columns: ColumnMap | None = None) -> dict[str, int]:
    """How many rows each array of a data set in an open file has, by the name that it has there; none is read."""
    found: dict[str, int] = {}

    def read(name: str) -> np.ndarray | Unreadable | None:
        column = _read_column(file, name, slice(0, 0))
        if isinstance(column, np.ndarray):
            follow(file, name, partial(count, name))
        return column

    def count(name: str, item: h5py.Dataset) -> np.ndarray:
        found[name] = item.shape[0] if item.shape else 0
        return np.empty(0)

    gather(Raw(tuple(map(printable, file)), read), columns)
    return found


def read_array(path: Path, name: str) -> np.ndarray | None:
    """One array of an HDF5 file, one that is no part of a data set say; None if there is none that can be read."""
    try:
        with h5py.File(path, "r") as file:
            found = _read_column(file, name)
    except OSError:
        return None
    return found if isinstance(found, np.ndarray) else None


def why_not_hdf5(path: Path, reason: Exception) -> str:
    """What a file is that made `read_hdf5` raise `reason`."""
    if not h5py.is_hdf5(path):
        return "a file that is not HDF5"
    return "a truncated HDF5 file" if "truncated" in str(reason) else f"a damaged HDF5 file ({first_line(reason)})"


def _read_column(
    file: h5py.File, name: str, rows: slice | None = None, on_outside: OnOutside = None
) -> np.ndarray | Unreadable | None:
    def read(item: Any) -> np.ndarray | Unreadable:
        if not isinstance(item, h5py.Dataset):
            return Unreadable("a group")
        fault = value_fault(item, rows is None, on_outside)
        return fault or np.asarray(item[()] if rows is None or item.shape == () else item[rows])

    try:
        return follow(file, name, read, on_outside)
    except MemoryError:
        return Unreadable("more than fits in memory")
    except Exception as reason:
        return Unreadable(f"damaged or unsupported bytes ({first_line(reason)})")


def _read_metadata(file: h5py.File) -> Metadata:
    """Every scalar under `metadata/` that is text or a number; what cannot be read, or is not in the file, is left
    out."""
    metadata: Metadata = {}

    def visit(name: str, item: object) -> None:
        if not isinstance(item, h5py.Dataset) or item.shape != () or item.external or item.is_virtual:
            return
        try:
            value = item[()]
        except Exception:
            return
        value = value.decode(errors="replace") if isinstance(value, bytes) else value
        value = value.item() if isinstance(value, np.generic) else value
        if isinstance(value, str | int | float):
            metadata[printable(name)] = value

    def visit_all(group: object) -> Unreadable:
        if isinstance(group, h5py.Group):
            group.visititems(visit)  # which follows no link out of the file
        return Unreadable("metadata")

    follow(file, "metadata", visit_all)
    return metadata


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
