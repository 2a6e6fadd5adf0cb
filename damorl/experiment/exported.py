"""Using an exported policy: reading the file back and calling it."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from damorl.errors import UserError
from damorl.experiment.policy_card import FORMAT, VERSION
from damorl.experiment.policy_graph import import_extra
from damorl.record.seal import check_schema
from damorl.world.tasks import Task, find_task

PROGRAM, CARD = "policy.stablehlo", "card.json"
"""Names inside a `.jaxpolicy` file; an ONNX file holds its card under the same key."""
ZIP_MAGIC = b"PK\x03\x04"

Act = Callable[[np.ndarray], np.ndarray]
"""A policy in the environment's own units, `[*B, obs_dim] -> [*B, action_dim]`."""


class Exported(NamedTuple):
    """The content of an exported file."""

    program: bytes
    """An ONNX model or serialised StableHLO."""
    card: dict[str, Any]


def read_exported(path: Path | str) -> Exported:
    """Read a file that `damorl export` wrote, and verify its checksum. UserError if it is anything else, or newer."""
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise not_ours(path, f"'{error.strerror}'") from error
    unpack = unpack_zip if content.startswith(ZIP_MAGIC) else unpack_onnx
    if unpack is unpack_onnx:
        import_extra("onnx")
    try:
        program, card = unpack(content)
        sound = hashlib.sha256(program).hexdigest() == card["program_sha256"] and card["format"] == FORMAT
    except Exception as error:  # foreign bytes make the readers of three formats raise anything
        raise not_ours(path, f"a damaged or foreign file ({type(error).__name__})") from error
    if not sound:
        raise not_ours(path, "bytes that do not match their checksum")
    check_schema(path, card["version"], VERSION)
    return Exported(program, card)


def not_ours(path: Path, found: str) -> UserError:
    """The refusal of a file, to be raised."""
    return UserError(f"{path}: expected a policy written by `damorl export`, found {found}; export the run again")


def unpack_zip(content: bytes) -> tuple[bytes, dict[str, Any]]:
    """Program and card of a `.jaxpolicy` file."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return archive.read(PROGRAM), json.loads(archive.read(CARD))


def unpack_onnx(content: bytes) -> tuple[bytes, dict[str, Any]]:
    """Program and card of an ONNX file; the program is in front of the card."""
    model = import_extra("onnx").load_model_from_string(content)
    card = json.loads({entry.key: entry.value for entry in model.metadata_props}[CARD])
    return content[: card["program_bytes"]], card


Call = Callable[[np.ndarray, tuple[str, ...]], list[np.ndarray]]
"""A program: some of its outputs, `[N, action_dim]` each, for observations `[N, obs_dim]`."""


def load_exported(path: Path | str) -> tuple[Act, dict[str, Any]]:
    """An exported policy as a function on NumPy arrays, and its card.

    The function maps `[*B, obs_dim]` to float32 `[*B, action_dim]`, both in the environment's own units. UserError for
    a damaged or foreign file, a missing package, and a program that the installed onnxruntime or JAX cannot read.
    `damorl.load_policy` reads the same files and gives more.
    """
    call, card = open_exported(path)
    return lambda obs: call(obs, ("action",))[0], card


def open_exported(path: Path | str) -> tuple[Call, dict[str, Any]]:
    """An exported policy that gives any of the outputs that its card names, for `[*B, obs_dim]`, and its card."""
    program, card = read_exported(path)
    start = start_onnx if card["kind"] == "onnx" else start_stablehlo
    if card["kind"] == "onnx":
        import_extra("onnxruntime")
    try:
        run = start(program)
    except Exception as error:  # the bytes are as they were written: what reads them is too old or too new
        reason = " ".join(str(error).split())
        raise not_ours(Path(path), f"a program that the installed packages do not read ({reason})") from error

    def call(obs: np.ndarray, outputs: tuple[str, ...]) -> list[np.ndarray]:
        rows = np.asarray(obs, np.float32)
        if rows.shape[-1:] != (card["obs_dim"],):
            raise UserError(
                f"{path}: expected observations of {card['obs_dim']} features, found shape {rows.shape}; "
                "give it those of its own task"
            )
        found = run(rows.reshape(-1, card["obs_dim"]), outputs)
        return [values.reshape(*rows.shape[:-1], card["action_dim"]) for values in found]

    return call, card


def start_onnx(program: bytes) -> Call:
    """The model in onnxruntime, on one thread: it is small."""
    runtime = import_extra("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(program, options, providers=["CPUExecutionProvider"])
    return lambda obs, outputs: session.run(list(outputs), {"obs": obs})


def start_stablehlo(program: bytes) -> Call:
    """The program in JAX, compiled once for every N; the action is its only output."""
    import jax
    from jax import export

    call = jax.jit(export.deserialize(bytearray(program)).call)
    return lambda obs, outputs: [np.asarray(call(obs))]


def task_of(path: Path | str, card: dict[str, Any]) -> Task:
    """The task that the policy was trained for, scored as then. UserError if the card names none."""
    if card["task"] is None:
        raise UserError(f"cannot score {path}: expected a card that names a task, found none; give one with --task")
    task = find_task(card["task"])
    references = {key: card[key] for key in ("reference_min", "reference_max") if card[key] is not None}
    return dataclasses.replace(task, **references)
