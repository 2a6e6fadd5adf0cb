"""From an HDF5 file of any size to columns on the disk, chunk by chunk.

What is a data set, and which rows it has, is decided by the judge of all others (`examine.judge`): the rows, and so
their hash, are those of the data set that `datasets.load_dataset` reads as a whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from damorl.data.cache import cache_dir
from damorl.data.columnar import CHUNK, Columns, read_columns, write_manifest
from damorl.data.contents import COLUMNS, Contents
from damorl.data.examine import Rows, judge, units_of
from damorl.data.formats import HDF5, REMEDY, format_of, read_file
from damorl.data.names import ColumnMap
from damorl.data.rows import cuts, terminals
from damorl.data.store import count_rows, read_rows, why_not_hdf5
from damorl.errors import UserError
from damorl.files import locked, remove_leftovers, sync, temporary_folder, writing
from damorl.world.task import Task
from damorl.world.units import Bounds, as_metadata, is_unit

VERSION = 1
Note = Callable[[str], None]


def converted(
    path: Path, task: Task | None, columns: ColumnMap | None, bounds: Bounds | None, on_note: Note
) -> Columns:
    """The columns of an HDF5 file, from the cache if they are there and whole, else made now.

    `columns` and `bounds` are those of `load_dataset`. A file that changed, by its size or its time of writing, is
    converted anew. Whatever takes long is told to `on_note`. UserError with the first error of the data.
    """
    place = cache_dir() / "columns" / identity(path, task, columns, bounds)
    with locked(place.with_name(f".{place.name}.lock"), on_note, f"converting {path}") as alone:
        found = read_columns(place)
        if found is not None and is_whole(found):
            return found
        if place.exists():
            on_note(f"{place} is damaged and made again")
            with writing(place):
                shutil.rmtree(place)
        if alone:
            remove_leftovers(place.parent, place.name)
        on_note(f"{path} is converted to columns on the disk, once: {place}")
        with writing(place), temporary_folder(place) as own:
            made = convert(path, own / place.name, task, columns, bounds)
            os.rename(made.folder, place)
            sync(place.parent)
    return replace(made, folder=place)


def is_whole(columns: Columns) -> bool:
    """Whether the files hold what was written: all of it is read and hashed."""
    try:
        return columns.digest() == columns.sha256
    except UserError:
        return False


def identity(path: Path, task: Task | None, columns: ColumnMap | None, bounds: Bounds | None) -> str:
    """Sixteen hex digits of everything that decides the columns."""
    stat = path.stat()
    own = None if task is None else [task.obs_dim, task.action_dim, task.action_low, task.action_high]
    limits = None if bounds is None else [bound.tolist() for bound in bounds]
    told: Any = [VERSION, str(path.resolve()), stat.st_size, stat.st_mtime_ns, own, columns, limits]
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=list).encode()).hexdigest()[:16]


def first_rows(path: Path, columns: ColumnMap | None) -> Contents:
    """What an HDF5 file holds, with the first two rows of each array. UserError for a file of another kind."""
    if format_of(path) is not HDF5:
        raise UserError(
            f"{path}: expected {HDF5.expected} to keep only some rows in memory, found a {path.suffix} file; "
            "store it as HDF5, or leave --resident-rows out"
        )
    if path.is_file():
        with opened(path) as file:
            return read_rows(file, columns, slice(0, 2))
    found: Any = read_file(path, columns)
    raise UserError(f"{path}: expected {found.expected}, found {found.found}; {found.remedy}")


def opened(path: Path) -> h5py.File:
    """The open file. UserError if it is not HDF5 or is damaged."""
    try:
        return h5py.File(path, "r")
    except OSError as reason:
        raise UserError(f"{path}: expected {HDF5.expected}, found {why_not_hdf5(path, reason)}; {REMEDY}") from reason


def convert(path: Path, folder: Path, task: Task | None, columns: ColumnMap | None, bounds: Bounds | None) -> Columns:
    """Write the columns of `path` into `folder`, which is made. UserError with the first error of the data."""
    folder.mkdir(parents=True)
    with opened(path) as file, ExitStack() as stack:
        contents = read_rows(file, columns, slice(0, 2))
        units, stored = units_of(contents, task, bounds)
        outputs = [stack.enter_context((folder / key).open("wb")) for key in COLUMNS]
        widths: list[tuple[int, ...]] = []
        count = 0
        for rows in judged(path, file, task, columns, stored):
            for output, key, column in zip(outputs, COLUMNS, rows, strict=True):
                output.write(np.ascontiguousarray(column, COLUMNS[key]).data)
            widths, count = [column.shape[1:] for column in rows], count + len(rows.reward)
        metadata = contents.metadata | (
            {} if "next_observations" in contents.columns else {"next_observations": "rebuilt"}
        )
    action_dim = widths[1][0]
    metadata |= {} if is_unit(units) else as_metadata(units, action_dim)
    dtypes = {key: str(column.dtype) for key, column in contents.columns.items() if isinstance(column, np.ndarray)}
    made = Columns(folder, count, widths[0][0], action_dim, "", metadata, dtypes)
    made = replace(made, sha256=made.digest())
    recorded = metadata.get("sha256", made.sha256)
    if recorded != made.sha256:
        raise UserError(
            f"{path}: metadata/sha256: expected arrays that hash to {recorded}, found {made.sha256}; make the data set "
            "again or, if you changed it on purpose, delete metadata/sha256"
        )
    write_manifest(made)
    for file_path in folder.iterdir():
        sync(file_path)
    return made


def judged(path: Path, file: h5py.File, task: Task | None, columns: ColumnMap | None, bounds: Bounds) -> Iterator[Rows]:
    """The rows of the file, chunk by chunk. Each chunk is judged together with the two rows after it: where its last
    row led to may stand in the next one, and whether that one ends an episode in the one after. UserError with the
    first error.
    """
    total, begun = same_length(path, count_rows(file, columns)), dict[float, None]()
    edges = np.linspace(0, max(total - 1, 0), -(-max(total - 1, 1) // CHUNK) + 1).astype(int).tolist()
    for first, last in pairwise(edges):
        contents = read_rows(file, columns, slice(first, last + 2))
        label = f"{path}, rows counted from {first}" if first else str(path)
        examination = judge(label, replace(contents, metadata={}), task, bounds)
        for problem in examination.problems:
            if problem.severity == "error":
                raise UserError(problem.message)
        check_episodes(label, contents, last - first, begun)
        assert examination.rows is not None
        count = None if last == edges[-1] else own_rows(contents, last - first)
        yield Rows(*(column[:count] for column in examination.rows))


def own_rows(contents: Contents, count: int) -> int:
    """How many rows the judge makes of the first `count`: all, or those whose next state is in the row after them."""
    if "next_observations" in contents.columns:
        return count
    flags = {key: np.ravel(column) for key, column in contents.columns.items() if isinstance(column, np.ndarray)}
    ended, cut = terminals(flags), cuts(flags)
    return int(np.count_nonzero(~(ended if cut is None else ended | cut)[:count]))


def same_length(path: Path, lengths: dict[str, int]) -> int:
    """How many rows all arrays have. UserError if they differ."""
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{count} in {name}" for name, count in lengths.items())
        raise UserError(f"{path}: expected as many rows in every array, found {found}; store one row per transition")
    return next(iter(lengths.values()), 0)


def check_episodes(label: str, contents: Contents, count: int, begun: dict[float, None]) -> None:
    """Add the episodes that begin in the first `count` rows to `begun`, in their order. UserError for one that is in it
    already."""
    episodes = contents.columns.get("episodes")
    if not isinstance(episodes, np.ndarray):
        return
    numbers = np.ravel(episodes)[:count]
    changes = np.append(numbers[0] != next(reversed(begun), None), numbers[1:] != numbers[:-1])
    for number in numbers[changes].tolist():
        if number in begun:
            raise UserError(
                f"{label}: episodes: expected the rows of each episode one after another, found {number:g} again; "
                "sort the rows by episode and time"
            )
        begun[number] = None
