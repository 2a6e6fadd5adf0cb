"""A data set as columns on the disk, of which any rows can be read at a time.

Each array of `contents.COLUMNS` is a file of plain numbers, in the type that it is hashed in, beside a manifest.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path

import numpy as np

from damorl.data.contents import COLUMNS, Metadata
from damorl.errors import UserError

CHUNK = 65_536
"""Rows in memory at a time while all of them are read."""
PIECE = 4096
"""Rows taken at a time: the pages of the disk's cache that hold them count for the process until the next piece."""
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Columns:
    """Where they are, and what is known of them without reading them."""

    folder: Path
    num_rows: int
    obs_dim: int
    action_dim: int
    sha256: str
    """Of the arrays, see `store.hash_columns`."""
    metadata: Metadata
    dtypes: dict[str, str]
    """The types that the arrays had in their file."""

    def width(self, key: str) -> tuple[int, ...]:
        """Shape of a row of an array of `COLUMNS`."""
        wide = {"observations": self.obs_dim, "next_observations": self.obs_dim, "actions": self.action_dim}
        return (wide[key],) if key in wide else ()

    def read(self, key: str, first: int, last: int) -> np.ndarray:
        """Rows `first` to `last - 1` of one array. UserError if they cannot be read."""
        dtype, width = np.dtype(COLUMNS[key]), self.width(key)
        row = prod(width)
        with reading(self.folder):
            flat = np.fromfile(self.folder / key, dtype, (last - first) * row, offset=first * row * dtype.itemsize)
            return flat.reshape(last - first, *width)

    def chunks(self, key: str) -> Iterator[tuple[int, np.ndarray]]:
        """All of one array, each chunk with the number of its first row."""
        for first in range(0, self.num_rows, CHUNK):
            yield first, self.read(key, first, min(first + CHUNK, self.num_rows))

    def take(self, key: str, index: np.ndarray) -> np.ndarray:
        """The rows of one array at `index` `[n]`, which ascends: `[n, ...]`. UserError if they cannot be read."""
        found = np.empty((len(index), *self.width(key)), COLUMNS[key])
        with reading(self.folder):
            for first in range(0, len(index), PIECE):
                found[first : first + PIECE] = self._mapped(key)[index[first : first + PIECE]]
        return found

    def _mapped(self, key: str) -> np.ndarray:
        with (self.folder / key).open("rb") as file:
            view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if hasattr(view, "madvise"):  # not on Windows
            view.madvise(mmap.MADV_RANDOM)
        return np.frombuffer(view, COLUMNS[key]).reshape(self.num_rows, *self.width(key))

    def digest(self) -> str:
        """`store.hash_columns` of what is on the disk now."""
        digest = hashlib.sha256()
        for key, dtype in COLUMNS.items():
            digest.update(f"{key} {np.dtype(dtype).name} {(self.num_rows, *self.width(key))} ".encode())
            for _, rows in self.chunks(key):
                digest.update(rows.data)
        return digest.hexdigest()


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Turn what goes wrong with a file of columns into a UserError."""
    try:
        yield
    except (OSError, ValueError, IndexError) as error:
        raise UserError(
            f"{folder}: expected the columns of a converted data set, found damaged or missing files ({error}); "
            "remove the directory, and the next run converts the data set again"
        ) from error


def read_columns(folder: Path) -> Columns | None:
    """What `write_manifest` described there; None if nothing readable is."""
    try:
        told = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return Columns(**told | {"folder": folder})
    except (OSError, ValueError, TypeError):
        return None


def write_manifest(columns: Columns) -> None:
    """Describe the columns in their folder."""
    told = {name: value for name, value in asdict(columns).items() if name != "folder"}
    (columns.folder / MANIFEST).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
