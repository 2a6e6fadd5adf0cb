"""NumPy arrays: in a dictionary, or in an .npz archive."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from damorl.data.contents import Contents, Raw, Unreadable, first_line, printable
from damorl.data.names import ColumnMap, gather


def read_arrays(arrays: Mapping[str, Any], columns: ColumnMap | None = None) -> Contents:
    """Contents of a mapping from names to arrays, or to anything that NumPy makes arrays of. Arrays are copied."""
    keys = tuple(printable(key) for key in arrays)
    return gather(Raw(keys, partial(_read, arrays)), columns)


def read_npz(path: Path, columns: ColumnMap | None = None) -> Contents:
    """Contents of an archive that `np.savez` wrote. Python objects in it are refused: nothing is ever unpickled.

    Raises anything on damaged bytes.
    """
    with path.open("rb") as file:
        archive = np.load(file, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("a single array without a name")
        return read_arrays(archive, columns)


def _read(arrays: Mapping[str, Any], name: str) -> np.ndarray | Unreadable | None:
    if name not in arrays:
        return None
    try:
        return np.array(arrays[name])
    except MemoryError:
        return Unreadable("more than fits in memory")
    except Exception as reason:  # ragged lists; pickled objects; in an archive, damaged bytes of any kind
        return Unreadable(f"no array that can be read ({first_line(reason)})")
