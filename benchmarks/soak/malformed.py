"""Malformed data files by a seed: a small sound data set in any of the formats, spoilt in up to three ways.

The same `(seed, number)` gives the same file. About one file in eight is left sound.
"""

from __future__ import annotations

import io
import os
import shutil
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

Columns = dict[str, Any]
Rng = np.random.Generator
KINDS = ("hdf5", "ours", "npz", "csv", "parquet", "minari-hdf5", "minari-arrow")
CANNOT_HOLD = (TypeError, ValueError, OSError, AttributeError, RuntimeError)
"""What h5py raises for values that have no place in a file."""
ODD_NUMBERS = (np.nan, np.inf, -np.inf, 1e300, 1e-300, 1.00005, 1.001, 2.0, -3e38, 0.5)
ODD_TYPES = ("f2", "f4", "f8", ">f4", ">f8", "i1", "u1", "i4", "u8", "?", "c8", "S3", "V4", "U2", "O", "M8[s]", "f4,i2")
SYNONYMS = {
    "observations": "obs",
    "actions": "action",
    "rewards": "reward",
    "next_observations": "next_obs",
    "terminals": "done",
    "timeouts": "truncated",
}
ODD_NAMES = ("r\u00e9wards", "observations ", "\U0001f600", "a/b", "obs_0", "obs_2", "", "x" * 3000, "metadata", "\n")


def make(folder: Path, seed: int, number: int) -> tuple[Path, str, list[str]]:
    """Write file `number` into `folder`: its path, its kind and what was done to it."""
    rng = np.random.default_rng((seed, number))
    kind, done = str(rng.choice(KINDS)), list[str]()
    if kind.startswith("minari"):
        path = _minari(folder, kind.removeprefix("minari-"), number, rng, done)
    else:
        path = folder / f"f{number}.{'hdf5' if kind == 'ours' else kind}"
        columns = sound(rng)
        if kind == "ours":
            _write_ours(path, columns)
        else:
            for _ in range(rng.choice([0, 1, 1, 2])):
                spoil(rng, columns, done)
            write(path, columns, rng, done)
    targets = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    if rng.random() < (0.8 if kind == "ours" or path.is_dir() else 0.4):
        damage(rng, targets[rng.integers(len(targets))], done)
    return path, kind, done


def sound(rng: Rng) -> Columns:
    """A small data set of random numbers on a coarse grid, which float32 holds exactly."""
    rows, obs_dim, action_dim = rng.integers(0, 12), rng.integers(1, 4), rng.integers(1, 3)
    states = rng.integers(-3, 4, (rows + 1, obs_dim)) / 2
    columns = {
        "observations": states[:-1],
        "actions": rng.integers(-2, 3, (rows, action_dim)) / 2,
        "rewards": rng.integers(-3, 4, rows) / 2,
        "next_observations": states[1:] + (rng.random(rows) < 0.2)[:, None],
        "terminals": rng.random(rows) < 0.3,
        "timeouts": rng.random(rows) < 0.3,
    }
    if rng.random() < 0.3:
        columns["episodes"] = np.sort(rng.integers(0, 4, rows))
    if rng.random() < 0.1:
        columns["index"] = np.unique(rng.integers(0, rows + 1, 3))
    columns.pop(str(rng.choice(["next_observations", "timeouts", "terminals", "none"])), None)
    return columns


def spoil(rng: Rng, columns: Columns, done: list[str]) -> None:
    """Do one thing to one of the columns."""
    key = str(rng.choice(list(columns)))
    column = columns[key]
    column = column if isinstance(column, np.ndarray) else np.zeros(3)
    ways: dict[str, Callable[[], Any]] = {
        "odd number": lambda: _with_odd_number(rng, column),
        "type": lambda: column.astype(str(rng.choice(ODD_TYPES))),
        "shorter": lambda: column[: rng.integers(8)],
        "one more axis": lambda: column[..., None],
        "one axis less": lambda: column[:, 0] if column.ndim == 2 else column[:-1],
        "twice as wide": lambda: np.repeat(column, 2, axis=-1),
        "transposed": lambda: column.T,
        "nested": lambda: {"inner": column, "deeper": {"more": column}},
        "words": lambda: np.array(["words"] * len(column), object),
        "lists": lambda: np.array([[1], [2, 3]] * len(column), object),
        "scalar": lambda: np.float64(0.5),
        "huge": lambda: "huge",
    }
    renames: dict[str, str] = {
        "synonym": SYNONYMS.get(key, key),
        "odd name": str(rng.choice(ODD_NAMES)),
        "upper case": key.upper(),
    }
    way = str(rng.choice([*ways, *renames, "dropped", "twice"]))
    done.append(f"{key}: {way}")
    if way in ways:
        try:
            columns[key] = ways[way]()
        except (ValueError, TypeError):  # this column has no such form
            columns.pop(key)
    elif way == "twice":
        columns[SYNONYMS.get(key, "episode")] = column
    else:
        columns.pop(key)
        if way in renames:
            columns[renames[way]] = column


def _with_odd_number(rng: Rng, column: np.ndarray) -> np.ndarray:
    column = column.astype(float)
    if column.size:
        column.flat[rng.integers(column.size)] = rng.choice(ODD_NUMBERS)
    return column


def damage(rng: Rng, path: Path, done: list[str]) -> None:
    """Do one thing to the bytes of a file."""
    content = bytearray(path.read_bytes())
    if not content:
        return
    way, at = str(rng.choice(["flip", "flip", "flips", "cut", "zeros", "more", "shifted"])), rng.integers(len(content))
    done.append(f"bytes: {way}")
    if way.startswith("flip"):
        for place in rng.integers(len(content), size=1 if way == "flip" else 8):
            content[place] ^= 1 << int(rng.integers(8))
    elif way == "cut":
        del content[at:]
    elif way == "zeros":
        content[at : at + 64] = bytes(len(content[at : at + 64]))
    elif way == "more":
        content += rng.bytes(50)
    else:
        content[at:at] = rng.bytes(int(rng.integers(1, 9)))
    path.write_bytes(content)


def write(path: Path, columns: Columns, rng: Rng, done: list[str]) -> None:
    """The columns as they are in a file of the path's kind; what the format cannot hold is left out."""
    WRITERS[path.suffix](path, columns, rng, done)


def _write_hdf5(path: Path, columns: Columns, rng: Rng, done: list[str]) -> None:
    packed = bool(rng.random() < 0.5)
    with h5py.File(path, "w", libver="latest" if rng.random() < 0.3 else "earliest") as file:
        for key, value in columns.items():
            try:
                _put(file, key, value, packed)
            except CANNOT_HOLD:
                done.append(f"{key}: left out")
        with suppress(*CANNOT_HOLD):  # a column may be called so
            file["metadata/note"] = "random"
        if rng.random() < 0.2:
            file.attrs["odd"] = np.full(5, np.nan)
            done.append("attributes")
        if rng.random() < 0.1:
            _lead_away(file, rng, done)


def _put(group: h5py.Group, key: str, value: Any, packed: bool) -> None:
    if isinstance(value, dict):
        inner = group.create_group(key)
        for name, item in value.items():
            _put(inner, name, item, packed)
    elif isinstance(value, str):
        group.create_dataset(key, (2**40, 3), "f4", chunks=(1024, 3))
    elif isinstance(value, np.ndarray) and value.dtype.kind == "U":
        group[key] = value.astype("S")
    else:
        is_packed = packed and isinstance(value, np.ndarray) and value.size > 0 and value.ndim > 0
        group.create_dataset(key, data=value, **({"compression": "gzip", "fletcher32": True} if is_packed else {}))


def _lead_away(file: h5py.File, rng: Rng, done: list[str]) -> None:
    key = str(rng.choice(list(file)))
    links = (h5py.ExternalLink("/dev/zero", "x"), h5py.SoftLink(f"/{key}"), h5py.ExternalLink("not there", "x"))
    del file[key]
    with suppress(*CANNOT_HOLD):
        file[key] = links[rng.integers(len(links))]
    done.append(f"{key}: a link")


def _write_npz(path: Path, columns: Columns, rng: Rng, done: list[str]) -> None:
    packing = zipfile.ZIP_DEFLATED if rng.random() < 0.5 else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", packing) as archive:
        for key, value in columns.items():
            stored = io.BytesIO()
            if isinstance(value, str):
                shape = {"descr": "<f4", "fortran_order": False, "shape": (2**40, 3)}
                np.lib.format.write_array_header_1_0(stored, shape)
            else:
                np.save(stored, np.asarray(value))
            archive.writestr(f"{key}.npy", stored.getvalue())


def _table(columns: Columns, done: list[str]) -> pa.Table:
    names, arrays = list[str](), list[Any]()
    for key, value in columns.items():
        column = np.asarray(value) if not isinstance(value, dict | str) else np.zeros((3, 3))
        wide = {f"{key}_{i}": column[:, i] for i in range(column.shape[1])} if column.ndim == 2 else {key: column}
        for name, item in wide.items():
            try:
                arrays.append(pa.array(item.tolist() if item.dtype == object else item))
                names.append(name)
            except (pa.ArrowException, ValueError, TypeError, AttributeError, NotImplementedError):
                done.append(f"{name}: left out")
    longest = max(map(len, arrays), default=0)
    arrays = [
        array if len(array) == longest else pa.concat_arrays([array, pa.nulls(longest - len(array), array.type)])
        for array in arrays
    ]
    return pa.table(arrays, names)


def _write_csv(path: Path, columns: Columns, rng: Rng, done: list[str]) -> None:
    delimiter = str(rng.choice([",", ";", "\t"]))
    try:
        pyarrow.csv.write_csv(_table(columns, done), path, pyarrow.csv.WriteOptions(delimiter=delimiter))
    except pa.ArrowException:  # nested columns
        done.append("a table that CSV cannot hold")
        path.write_text("{}\n")


def _write_parquet(path: Path, columns: Columns, rng: Rng, done: list[str]) -> None:
    pyarrow.parquet.write_table(_table(columns, done), path, compression=str(rng.choice(["none", "snappy", "gzip"])))


WRITERS = {".hdf5": _write_hdf5, ".npz": _write_npz, ".csv": _write_csv, ".parquet": _write_parquet}


def _write_ours(path: Path, columns: Columns) -> None:
    from damorl.data.store import write_dataset

    rows = len(columns["rewards"])
    flags = {key: columns.get(key, np.zeros(rows, bool)) for key in ("terminals", "timeouts")}
    states = columns.get("next_observations", columns["observations"])
    own = {key: columns[key] for key in ("observations", "actions", "rewards")}
    write_dataset(path, own | {"next_observations": states} | flags, {"note": "random"})


def _minari(folder: Path, storage: str, number: int, rng: Rng, done: list[str]) -> Path:
    """A copy of a Minari set, made once in the store that MINARI_DATASETS_PATH names."""
    from damorl.data.datasets import load_dataset
    from damorl.data.minari_export import export_minari

    store = Path(os.environ["MINARI_DATASETS_PATH"])
    template = store / "sound" / f"{storage}-v0"
    if not template.exists():
        states, row = np.random.default_rng(1).integers(-3, 4, (13, 2)) / 2, np.arange(12)
        arrays = {"observations": states[:-1], "next_observations": states[1:], "actions": row[:, None] / 8}
        arrays |= {"rewards": row / 2, "terminals": row == 4, "timeouts": row == 8}
        export_minari(load_dataset(arrays, action_bounds=(-2, 2)), f"sound/{storage}-v0", storage)
    target = store / "soak" / f"f{number}-v0"
    shutil.copytree(template, target)
    if storage == "hdf5" and rng.random() < 0.4:
        with h5py.File(target / "data" / "main_data.hdf5", "a") as file:
            episode = file[str(rng.choice(list(file)))]
            columns = {key: item[()] for key, item in episode.items() if isinstance(item, h5py.Dataset)}
            spoil(rng, columns, done)
            for key in [key for key, item in episode.items() if isinstance(item, h5py.Dataset)]:
                del episode[key]
            for key, value in columns.items():
                try:
                    _put(episode, key, value, False)
                except CANNOT_HOLD:
                    done.append(f"{key}: left out")
    return target
