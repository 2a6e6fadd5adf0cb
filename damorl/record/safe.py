"""Safetensors files that carry a SHA-256 of all that is in them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from damorl.record.seal import check_format

Leaves = dict[str, np.ndarray]
DAMAGED = (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError)
"""What reading damaged bytes raises."""
METADATA = "__metadata__"


def save(path: Path, leaves: Leaves, metadata: Mapping[str, str]) -> None:
    """Write a file that `read` reads; the same leaves and metadata give the same bytes.

    Raises OSError where the disk refuses (full, say).
    """
    try:
        save_file(leaves, path, {**metadata, "sha256": digest(leaves, metadata)})
    except SafetensorError as error:  # how the library reports a full disk
        raise OSError(str(error)) from error
    _sort_metadata(path)


def _sort_metadata(path: Path) -> None:
    """Put the entries of a file's metadata in the order of their names: the library writes them in a random one."""
    with path.open("r+b") as file:
        room = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(room))
        header[METADATA] = dict(sorted(header[METADATA].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        file.seek(8)
        file.write(text.ljust(room))


def digest(leaves: Leaves, metadata: Mapping[str, str]) -> str:
    """SHA-256 over the metadata and over name, type, shape and bytes of every leaf, in the order of the names."""
    sha = hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode())
    for name in sorted(leaves):
        sha.update(f"\n{name} {describe(leaves[name])}\n".encode())
        sha.update(leaves[name].reshape(-1).view(np.uint8).data)
    return sha.hexdigest()


def describe(array: Any) -> str:
    """Type and shape of an array or of its description, `float32[4, 11]`."""
    return f"{np.dtype(array.dtype).name}{list(array.shape)}"


def read(path: Path, form: str, needs_digest: bool = True) -> tuple[Leaves, dict[str, str]]:
    """Leaves and metadata of a file whose checksum holds; one of `DAMAGED` if it does not.

    `form` is the format without its number, which stands at the end: UserError for a higher one than 1. Without
    `needs_digest` a file that has no metadata at all, as earlier versions wrote policies, is not checked.
    """
    with safe_open(path, "numpy") as file:
        metadata = dict(file.metadata() or {})
        check_format(path, metadata.get("format"), form)
        leaves = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    if not metadata and not needs_digest:
        return leaves, metadata
    expected = metadata.pop("sha256", None)
    if digest(leaves, metadata) != expected:
        raise ValueError("its content does not match its checksum")
    return leaves, metadata
