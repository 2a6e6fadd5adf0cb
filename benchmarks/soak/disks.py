"""A disk that is full from a certain write of a training on, for every write there is: one sentence, nothing lost, and
`--resume` ends in the bits of a run that had room.

The run is repeated in this process, where it is compiled, its model fitted and its pictures drawn once. Where a tmpfs
may be mounted, it is also made on disks of growing size.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
from jax.core import Tracer

from benchmarks.soak import same
from benchmarks.soak.calls import Call, full_disk
from damorl.files import atomic_file

CLOCK = (
    "--preset smoke --refresh-interval 10 --eval-interval 10 --checkpoint-interval 10 "
    "--eval-episodes 1 --keep-policy-every 1 --json"
)
FIT = "--dynamics.max-batches 10 --dynamics.epoch-batches 5"
NEVER = 10**9
ROOMS = (None, 0, 1000)
"""How the disk is full: errors as the system gives them, or files that end after so many bytes."""
SMALLEST, PLENTY = 8 * 1024, 64 * 1024 * 1024
"""Bytes of the first tmpfs, and how much each has more than the one before; bytes of one with room."""
SENTENCE = re.compile(r"damorl: .+; .+")
SAVED = re.compile(r"step_(\d+)\.safetensors")


class Disk(NamedTuple):
    """A run, and where it is made."""

    words: list[str]
    folder: Path

    @property
    def run_dir(self) -> Path:
        """Its run directory, which may not be there yet."""
        found = [path for path in (self.folder / "runs").glob("*") if path.is_dir()]
        return found[0] if found else self.folder / "runs" / "none"

    def run(self, after: int = NEVER, room: int | None = None) -> tuple[int, str, list[Call]]:
        """Exit code, words on standard error, and the calls that were made before the disk was full."""
        from damorl.cli import main

        said, calls = io.StringIO(), list[Call]()
        words = [*self.words, "--out", str(self.folder / "runs"), "--resume"]
        silent = contextlib.redirect_stdout(io.StringIO())
        with silent, contextlib.redirect_stderr(said), full_disk(self.folder, after, room, calls):
            code = main(words)
        return code, said.getvalue(), calls


@contextmanager
def made_once() -> Iterator[None]:
    """What is parsed, compiled, fitted and drawn for the first run in the body is used for all: they must be equal."""
    from damorl.cli import train as command
    from damorl.experiment import train
    from damorl.parts import dynamics_fit
    from damorl.report import card, curves

    kept, pictures = dict[str, Any](), dict[str, bytes]()
    make_epoch, init_state, fit_members = train.make_epoch, train.init_state, dynamics_fit.fit_members
    draw_card, draw_curves, parse = card.draw_card, curves.draw_curves, command.parse

    def arguments(*given: Any) -> Any:
        kept["arguments"] = kept.get("arguments") or parse(*given)
        return kept["arguments"]

    def epoch(*given: Any) -> Any:
        kept["epoch"] = kept.get("epoch") or make_epoch(*given)
        return kept["epoch"]

    def fit(*given: Any) -> Any:
        kept["fit"] = kept.get("fit") or fit_members(*given)
        return kept["fit"]

    def state(*given: Any) -> Any:
        made = kept["state"] if "state" in kept else init_state(*given)
        if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(made)):  # only its shapes are asked for
            return made
        kept["state"] = made
        return jax.tree.map(jnp.copy, made)  # an epoch uses its state up

    def draw(path: Path, really: Callable[[], object]) -> None:
        if path.name not in pictures:
            really()
            pictures[path.name] = path.read_bytes()
            return
        with atomic_file(path) as temporary:
            temporary.write_bytes(pictures[path.name])

    with (
        mock.patch.object(command, "parse", arguments),
        mock.patch.object(train, "make_epoch", epoch),
        mock.patch.object(train, "init_state", state),
        mock.patch.object(dynamics_fit, "fit_members", fit),
        mock.patch.object(card, "draw_card", lambda *given: draw(given[2], partial(draw_card, *given))),
        mock.patch.object(curves, "draw_curves", lambda run: draw(run / "curves.png", partial(draw_curves, run))),
    ):
        yield


def soak(
    algo: str, data: Path, folder: Path, rooms: tuple[int | None, ...] = ROOMS, tmpfs: bool = True, short: bool = False
) -> dict[str, Any]:
    """A run on the data, on a disk that is full from each of its writes on: the report.

    In the `short` form it has one epoch instead of two, and goes on only after every twelfth write. With `tmpfs` also
    on disks of growing size, where one may be mounted.
    """
    began, codes, sizes = time.monotonic(), Counter[str](), range(0)
    words = ["train", algo, "--dataset", str(data), *CLOCK.split(), *(FIT.split() if algo != "bc" else [])]
    disk = Disk([*words, "--total-updates", "10" if short else "20"], folder / "disk")
    with mock.patch.dict(os.environ, DAMORL_HOME=str(disk.folder / "home")), made_once():
        disk.folder.mkdir()
        code, said, whole = disk.run()
        if code:
            return {"faults": [f"the run itself fails: {said}"]}
        expected, used = same.content(disk.run_dir), bytes_in(disk.folder)
        shutil.rmtree(disk.folder)
        writes = [after for after, call in enumerate(whole) if call.kind != "remove"]
        faults = list[str]()
        for number, (room, after) in enumerate(itertools.product(rooms, writes)):
            at = f"write {after} ({whole[after].kind} {whole[after].path.name}), room {room}"
            found = at_one_write(disk, after, room, expected, codes, goes_on=not short or number % 12 == 0)
            faults += [f"{at}: {fault}" for fault in found]
        if tmpfs and may_mount(folder):
            sizes = range(SMALLEST, used + SMALLEST, SMALLEST)
        for size in sizes:
            faults += [f"tmpfs of {size} bytes: {fault}" for fault in on_tmpfs(disk, size, expected, codes)]
    told = {"algo": algo, "writes": len(writes), "rooms": rooms, "tmpfs_sizes": len(sizes)}
    told |= {"exit_codes": dict(sorted(codes.items())), "seconds": round(time.monotonic() - began, 1)}
    return told | {"faults": faults}


def bytes_in(folder: Path) -> int:
    """What its files take."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def at_one_write(
    disk: Disk, after: int, room: int | None, expected: dict[str, Any], codes: Counter[str], goes_on: bool
) -> list[str]:
    """What is wrong with a run on a disk that is full after so many calls, and, if it goes on, with its end."""
    disk.folder.mkdir()
    faults = run_out(disk, after, room, expected, codes) + (go_on(disk, expected) if goes_on else [])
    shutil.rmtree(disk.folder)
    return faults


def on_tmpfs(disk: Disk, size: int, expected: dict[str, Any], codes: Counter[str]) -> list[str]:
    """What is wrong with the run on a disk of so many bytes, and once that has grown."""
    with mounted(disk.folder, size):
        faults = run_out(disk, NEVER, None, expected, codes)
        subprocess.run(["mount", "-o", f"remount,size={PLENTY}", str(disk.folder)], check=True)
        return faults + go_on(disk, expected)


def run_out(disk: Disk, after: int, room: int | None, expected: dict[str, Any], codes: Counter[str]) -> list[str]:
    """What is wrong with the end of a run that runs out of room."""
    code, said, calls = disk.run(after, room)
    codes[str(code)] += 1
    faults = list[str]()
    if code == 0:  # what is missing is not needed
        faults += [f"it ends well without {name}" for name in same.differences(same.content(disk.run_dir), expected)]
    elif code != 2 or not SENTENCE.fullmatch((said.splitlines() or [""])[-1]) or "Traceback" in said:
        faults.append(f"exit code {code}, says {said!r}")
    renamed = [call.path for call in calls if call.kind == "rename" and call.path.parent.name == "checkpoint"]
    saved = [int(match[1]) for path in renamed if (match := SAVED.fullmatch(path.name))]
    faults += same.lost(disk.run_dir, expected, max(saved, default=None))
    return faults + [f"{name} is left" for name in same.leftovers(disk.folder)]


def go_on(disk: Disk, expected: dict[str, Any]) -> list[str]:
    """What is wrong with the run once there is room."""
    code, said, _ = disk.run()
    if code:
        return [f"does not go on: {said}"]
    return [f"{name} differs after it went on" for name in same.differences(same.content(disk.run_dir), expected)]


def may_mount(folder: Path) -> bool:
    """Whether this process may mount a tmpfs: root may, except in most containers."""
    try:
        with mounted(folder / "trial", SMALLEST):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


@contextmanager
def mounted(place: Path, size: int) -> Iterator[None]:
    """A tmpfs of so many bytes at `place`."""
    place.mkdir()
    try:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(place)]
        subprocess.run(command, check=True, capture_output=True)
        try:
            yield
        finally:
            subprocess.run(["umount", "--lazy", str(place)], check=True)  # a run that failed may hold files open
    finally:
        place.rmdir()
