"""Checkpoints of the whole training state: one safetensors file each, no code in them, exact to the bit.

A file holds every leaf under its path in the pytree (`actor/params/0/kernel`) and, as metadata, the step, the run's
identity and a SHA-256 of all of that. It appears under its name only when it is complete and on the disk.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from damorl.errors import UserError
from damorl.files import atomic_file, writing
from damorl.record import safe
from damorl.record.safe import Leaves, describe
from damorl.record.safe import digest as digest

FORMAT = "damorl-checkpoint-1"
FILE_NAME = re.compile(r"step_(\d+)\.safetensors")
OTHER_RUN = "resume with the settings that run was started with, or choose another --out"


def save(directory: Path, state: Any, step: int, identity: Mapping[str, str]) -> Path:
    """Write `state`, a pytree of arrays, as `step_<step>.safetensors` and keep one older checkpoint beside it.

    `identity` says whose state this is (a config hash, say): `restore` insists on it. On the CPU nothing is copied
    in memory; from another device one copy is made. Older checkpoints go only once the new one is durable.
    Raises `UserError` if it cannot be written; what was there before is then untouched.
    """
    path = path_of(directory, step)
    leaves = {name: np.asarray(leaf, order="C") for name, leaf in named_leaves(jax.device_get(state)).items()}
    metadata = {"format": FORMAT, "step": str(step), "identity": json.dumps(dict(identity), sort_keys=True)}
    with writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary:
        safe.save(temporary, leaves, metadata)
    prune(directory, step)
    return path


def path_of(directory: Path, step: int) -> Path:
    """The file of a step's checkpoint."""
    return directory / f"step_{step:09d}.safetensors"


def prune(directory: Path, step: int) -> None:
    """Keep the checkpoint of `step` and the one before it. Later files go too: a resume had to fall back from them.

    `save` does it, and so does a run that is resumed: the last `save` may have been cut off in between.
    """
    files, newest = checkpoints(directory), path_of(directory, step)
    if newest not in files:  # somebody renamed it
        return
    keep = files[max(0, files.index(newest) - 1) : files.index(newest) + 1]
    with writing(directory):
        for path in [*files, *directory.glob(".step_*.tmp")]:  # temporary files are what a kill left
            if path not in keep:
                path.unlink()


def checkpoints(directory: Path) -> list[Path]:
    """The checkpoint files of a directory, oldest first; empty if there is no such directory."""
    found = [(FILE_NAME.fullmatch(path.name), path) for path in directory.glob("step_*.safetensors")]
    return [path for _, path in sorted((int(match[1]), path) for match, path in found if match)]


def restore(
    directory: Path, template: Any, identity: Mapping[str, str], on_warning: Callable[[str], None]
) -> tuple[Any, int] | None:
    """The newest sound checkpoint as `(state, step)`, or None if there is none at all.

    `template` is a pytree of arrays or `jax.ShapeDtypeStruct`s. Leaves come back as NumPy where it has NumPy arrays
    and on the default device elsewhere. A damaged file is reported to `on_warning` and passed over. Raises
    `UserError` if a sound file belongs to another run or differs from the template, or if no file is sound.
    """
    if (found := newest(directory, on_warning)) is None:
        return None
    path, leaves, metadata = found
    check_identity(path, metadata, identity)
    check_leaves(path, leaves, named_leaves(template))
    return fill(template, leaves), int(metadata["step"])


def newest(directory: Path, on_warning: Callable[[str], None]) -> tuple[Path, Leaves, dict[str, str]] | None:
    """The newest sound checkpoint, its leaves and its metadata, or None if there is none at all.

    A damaged file is reported to `on_warning` and passed over. Raises `UserError` if no file is sound.
    """
    files = checkpoints(directory)
    for path in reversed(files):
        try:
            return path, *read(path)
        except safe.DAMAGED as error:
            on_warning(f"{path} is damaged ({error}) and was passed over for the checkpoint before it")
    if files:
        raise UserError(
            f"cannot resume from {directory}: expected a readable checkpoint, found {len(files)} that are all damaged; "
            "restore the directory from a copy, or start again with another --out"
        )
    return None


def read(path: Path) -> tuple[Leaves, dict[str, str]]:
    """Leaves and metadata of a file whose checksum holds; one of `safe.DAMAGED` if it is damaged, UserError if a newer
    version wrote it."""
    return safe.read(path, "damorl-checkpoint")


def check_identity(path: Path, metadata: Mapping[str, str], identity: Mapping[str, str]) -> None:
    """Raise `UserError` if the file was written by another run or by another version of this format."""
    found = {"format": metadata["format"]} | json.loads(metadata["identity"])
    expected = {"format": FORMAT} | dict(identity)
    for key in expected | found:
        if expected.get(key) != found.get(key):
            raise UserError(
                f"{path} belongs to another run: expected {key} {expected.get(key)}, "
                f"found {found.get(key)}; {OTHER_RUN}"
            )


def check_leaves(path: Path, leaves: Leaves, template: Mapping[str, Any]) -> None:
    """Raise `UserError` at the first leaf that is missing, unknown, or of another type or shape."""
    for name in {**template, **leaves}:
        expected = describe(template[name]) if name in template else "no such leaf"
        found = describe(leaves[name]) if name in leaves else "no such leaf"
        if expected != found:
            raise UserError(
                f"{path} holds another kind of state: expected {name}: {expected}, found {found}; {OTHER_RUN}"
            )


def fill(template: Any, leaves: Leaves) -> Any:
    """The template's tree with the leaves in it; each host copy is let go as soon as it is on the device."""
    arrays = []
    for name, like in named_leaves(template).items():
        array = leaves.pop(name)
        arrays.append(array if isinstance(like, np.ndarray) else jnp.array(array))
    return jax.tree.unflatten(jax.tree.structure(template), arrays)


def named_leaves(tree: Any) -> dict[str, Any]:
    """Every leaf of a pytree under its path, `actor/params/0/kernel`, in the tree's order."""
    paths = jax.tree_util.tree_flatten_with_path(tree)[0]
    named = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in paths}
    if len(named) != len(paths):
        raise ValueError("two leaves of the state have the same path")
    return named
