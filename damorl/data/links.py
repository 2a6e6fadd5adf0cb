"""Following the links of an HDF5 file, within it and, where that is allowed, to other files."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import h5py.h5o as h5o
import numpy as np

from damorl.data.contents import Unreadable, first_line, printable
from damorl.data.limits import hollow_fault, memory_fault

OnOutside = Callable[[str], None] | None
"""Is told of each other file before it is opened. None: other files are refused."""
Found = np.ndarray | Unreadable
Read = Callable[[Any], Found]
MOST_HOPS = 16
"""Links on the way to an array."""
ALLOW = "allow it with allow_external=True (--allow-external) if you trust the file, or store the values in it"


def follow(file: h5py.File, name: str, read: Read, on_outside: OnOutside = None, hops: int = MOST_HOPS) -> Found | None:
    """`read` of the object called `name`, while its file is open; None if there is none.

    HDF5 itself never follows a link: it would open whatever the link names, also a pipe, and wait. Other files are
    looked for beside the one that names them. Raises what h5py raises on damaged bytes.
    """
    if hops < 0:
        return Unreadable(f"a link that leads through more than {MOST_HOPS} others")
    group: Any = file["/"]
    parts = [part for part in name.split("/") if part not in ("", ".")]
    for index, part in enumerate(parts):
        link, rest = group.get(part, getlink=True), parts[index + 1 :]
        if link is None:
            return None
        if isinstance(link, h5py.ExternalLink):
            return _other_file(file, link, rest, read, on_outside, hops)
        if isinstance(link, h5py.SoftLink):
            base = "" if link.path.startswith("/") else f"{group.name}/"
            return follow(file, "/".join([base + link.path, *rest]), read, on_outside, hops - 1)
        item = group[part]
        if not rest:
            return read(item)
        if not isinstance(item, h5py.Group):
            return None
        group = item
    return read(group)


def _other_file(
    file: h5py.File, link: h5py.ExternalLink, rest: list[str], read: Read, on_outside: OnOutside, hops: int
) -> Found:
    name = f"a link to {printable(link.path)} of another file, {printable(link.filename)}"
    if on_outside is None:
        return Unreadable(name, remedy=ALLOW)
    path = beside(file, link.filename)
    if fault := file_fault(path):
        return Unreadable(f"{name}, which is {fault}")
    on_outside(f"{file.filename}: {printable(link.path)} is read from another file, {printable(path)}")
    try:
        with h5py.File(path, "r") as other:
            found = follow(other, "/".join([link.path, *rest]), read, on_outside, hops - 1)
    except OSError as reason:
        return Unreadable(f"{name}, which cannot be read ({first_line(reason)})")
    return Unreadable(f"{name}, which has no such array") if found is None else found


def leads_out(file: h5py.File) -> str | None:
    """The first link or array of a whole file that another library would follow out of it; None if there is none."""
    groups: list[Any] = [file["/"]]
    seen = set[int]()
    while groups:
        group = groups.pop()
        address = h5o.get_info(group.id).addr
        if address in seen:  # groups may hold one another
            continue
        seen.add(address)
        for name in group:
            place = printable(f"{group.name}/{name}".replace("//", "/"))
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                return f"a link at {place}"
            item = group[name]
            if isinstance(item, h5py.Group):
                groups.append(item)
            elif isinstance(item, h5py.Dataset) and (item.external or item.is_virtual):
                return f"an array that is stored elsewhere, {place}"
    return None


def beside(file: h5py.File, name: str) -> str:
    """The path of a file that `file` names, relative to its folder."""
    return os.path.join(os.path.dirname(os.path.abspath(file.filename)), name)


def file_fault(path: str | Path) -> str | None:
    """What `path` is, if it is no regular file; it is looked at without being opened."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return "not there"
    return None if stat.S_ISREG(mode) else "no file but a directory, a pipe or a device"


def value_fault(
    item: h5py.Dataset, whole: bool, on_outside: OnOutside = None, hops: int = MOST_HOPS
) -> Unreadable | None:
    """What is wrong with an array whose values are not in its file, or too many to be read as a `whole`."""
    if item.shape is None:
        return Unreadable("an array without a shape")
    if item.dtype.hasobject:
        return Unreadable(f"values of type {item.dtype}")  # damage to values of free length may hang HDF5
    declared = item.size * item.dtype.itemsize
    if item.external:
        fault = _raw_fault(item, on_outside)
    elif item.is_virtual:
        fault = _virtual_fault(item, on_outside, hops)
    else:
        fault = _unreadable(hollow_fault(declared, item.id.get_storage_size()))
    return fault or (_unreadable(memory_fault(declared)) if whole else None)


def _unreadable(found: str | None) -> Unreadable | None:
    return None if found is None else Unreadable(found)


def _raw_fault(item: h5py.Dataset, on_outside: OnOutside) -> Unreadable | None:
    """Values in files of their own: HDF5 looks for these in the working directory."""
    parts: list[Any] = item.external or []
    name = f"an array that is stored in another file, {printable(parts[0][0])}"
    if on_outside is None:
        return Unreadable(name, remedy=ALLOW)
    needed = item.size * item.dtype.itemsize
    for path, offset, size in parts:
        if fault := file_fault(path):
            return Unreadable(f"an array that is stored in another file, {printable(path)}, which is {fault}")
        taken = min(size, needed)
        if os.stat(path).st_size < offset + taken:
            return Unreadable(f"an array that is stored in another file, {printable(path)}, which is too short")
        needed -= taken
        on_outside(f"{item.file.filename}: {printable(item.name)} is read from another file, {printable(path)}")
    return None


def _virtual_fault(item: h5py.Dataset, on_outside: OnOutside, hops: int) -> Unreadable | None:
    """An array put together from others: each must be there, and hold its values itself."""
    for source in item.virtual_sources():
        name = f"an array that is put together from other files ({printable(source.file_name)})"
        if source.file_name == ".":
            found = follow(item.file, source.dset_name, _plain, on_outside, hops - 1)
        elif on_outside is None:
            return Unreadable(name, remedy=ALLOW)
        elif fault := file_fault(path := beside(item.file, source.file_name)):
            return Unreadable(f"{name}, of which one is {fault}")
        else:
            on_outside(f"{item.file.filename}: {printable(item.name)} is read from another file, {printable(path)}")
            with h5py.File(path, "r") as other:
                found = follow(other, source.dset_name, _plain, on_outside, hops - 1)
        if found is None or isinstance(found, Unreadable):
            return found or Unreadable(f"an array that is put together from {printable(source.dset_name)}, not there")
    return None


def _plain(item: Any) -> Found:
    if not isinstance(item, h5py.Dataset) or item.external or item.is_virtual:
        return Unreadable("an array that is put together from others which do not hold their values themselves")
    return np.empty(0)
