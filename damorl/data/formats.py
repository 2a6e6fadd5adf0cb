"""Which kind of file holds a data set, and how each kind is read."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from damorl import plugins
from damorl.data.arrays import read_npz
from damorl.data.contents import Contents, Unreadable, first_line
from damorl.data.links import OnOutside
from damorl.data.names import ColumnMap
from damorl.data.store import read_hdf5, why_not_hdf5
from damorl.data.tables import read_csv, read_parquet
from damorl.errors import UserError

REMEDY = "check the path, or make or download the file again"


class Format(NamedTuple):
    """One kind of file."""

    expected: str
    read: Callable[[Path, ColumnMap | None], Contents]
    why_not: Callable[[Path, Exception], str] = lambda _, reason: f"something else ({first_line(reason)})"


HDF5 = Format("an HDF5 file in D4RL's layout", read_hdf5, why_not_hdf5)
FORMATS: dict[str, Format] = {
    ".npz": Format("an archive of NumPy arrays", read_npz),
    ".csv": Format("a CSV table that begins with a line of column names", read_csv),
    ".parquet": Format("a Parquet table", read_parquet),
}
"""By how the file's name ends; plug-ins have more, and all others are HDF5."""
BUILT_IN = frozenset(suffix[1:] for suffix in (*FORMATS, ".hdf5", ".h5"))
"""The endings that no plug-in may have."""


def format_of(path: Path) -> Format:
    """The kind of file that the name of `path` says. UserError if a plug-in that has the ending cannot be used."""
    ending = path.suffix.lower()
    found = plugins.find(plugins.DATASETS, ending[1:], Format, BUILT_IN)
    return FORMATS.get(ending, HDF5) if found is None else found


def read_file(path: Path, columns: ColumnMap | None = None, on_outside: OnOutside = None) -> Contents | Unreadable:
    """Read a file of any of the formats; one that cannot be read comes back as `Unreadable`.

    Only HDF5 can name other files; they are refused, unless `on_outside` is there to be told of each. UserError if
    `columns` is ill-formed (see `names.gather`), if pyarrow is needed and missing, or if the format is a plug-in's that
    cannot be used.
    """
    form = format_of(path)
    read = partial(read_hdf5, on_outside=on_outside) if form is HDF5 else form.read
    found = _no_file(path)
    try:
        return Unreadable(found, form.expected, REMEDY) if found else read(path, columns)
    except UserError:
        raise
    except PermissionError:
        found = "a file that may not be read"
    except MemoryError:
        found = "more than fits in memory"
    except Exception as reason:
        found = form.why_not(path, reason) if path.stat().st_size else "an empty file"
    return Unreadable(found, form.expected, REMEDY)


def _no_file(path: Path) -> str | None:
    if not os.path.exists(path):  # unlike Path.exists, False also for names that no file can have
        return "no such file"
    if path.is_file():
        return None
    return "a directory" if path.is_dir() else "something that is not a file"
