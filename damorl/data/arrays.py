"""NumPy arrays: in a dictionary, or in an .npz archive."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from damorl.data.contents import Contents, Raw, Unreadable, first_line, printable
from damorl.data.limits import size_fault
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
        return gather(Raw(tuple(map(printable, archive)), partial(_read_member, archive)), columns)


def _read_member(archive: np.lib.npyio.NpzFile, name: str) -> np.ndarray | Unreadable | None:
    if name not in archive:
        return None
    try:
        members = archive.zip
        assert members is not None  # the archive is open
        member = members.getinfo(name if name in members.namelist() else f"{name}.npy")
        with members.open(member) as opened:
            declared = _declared_bytes(opened)
        fault = size_fault(max(declared, member.file_size), member.compress_size)
        return Unreadable(fault) if fault else np.asarray(archive[name])
    except MemoryError:
        return Unreadable("more than fits in memory")
    except Exception as reason:  # pickled objects, damaged bytes of any kind
        return Unreadable(f"no array that can be read ({first_line(reason)})")


def _declared_bytes(file: Any) -> int:
    """How large the array is that a .npy file says it holds."""
    major, _ = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(file)
    return math.prod(shape) * dtype.itemsize


def _read(arrays: Mapping[str, Any], name: str) -> np.ndarray | Unreadable | None:
    if name not in arrays:
        return None
    try:
        return np.array(arrays[name])
    except MemoryError:
        return Unreadable("more than fits in memory")
    except Exception as reason:  # ragged lists; pickled objects; in an archive, damaged bytes of any kind
        return Unreadable(f"no array that can be read ({first_line(reason)})")
