"""Rot: a byte of any file of a run is flipped, and whatever reads it says so, or finds what it found before."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from damorl.cli import main
from damorl.errors import UserError
from damorl.experiment.policy import load_policy
from damorl.experiment.result import list_policies
from damorl.record import checkpoint, ending, store
from damorl.record.compact import as_text, make_record
from damorl.report.collect import CARD, read_run

FLIPS = 40
CLOCK = "--total-updates 40 --refresh-interval 10 --eval-interval 20 --checkpoint-interval 10 --keep-policy-every 1"


@pytest.fixture(scope="module")
def run_dir(hopper_toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, with the course of a fit as methods with a model have it."""
    out = tmp_path_factory.mktemp("flips")
    words = f"train bc --dataset {hopper_toy} --preset smoke --json {CLOCK} --eval-episodes 1 --out {out}"
    assert main(words.split()) == 0
    (run_dir,) = out.iterdir()
    store.write_json(run_dir / store.DYNAMICS, {"settings": {}, "seeds": {"0": {"loss": [0.5, 0.25]}}}, seal=True)
    return run_dir


def files_of(run_dir: Path) -> list[Path]:
    return sorted(path for path in run_dir.rglob("*") if path.is_file() and path.stat().st_size)


def act(run_dir: Path, step: int | None) -> np.ndarray:
    return load_policy(run_dir, step=step)(np.ones((3, 11)))


def all_that_is_read(run_dir: Path, on_note: Callable[[str], None]) -> Iterator[tuple[str, Any]]:
    """What resume, evaluation, selection, report and record read of a run, piece by piece."""
    for name in (store.CONFIG, store.PROVENANCE, store.RESULT, store.MODELS, store.DYNAMICS, CARD):
        yield name, partial(store.read_json, run_dir / name)
    yield "metrics", lambda: store.read_metrics(run_dir)
    yield "report", lambda: vars(read_run(run_dir))
    yield "record", lambda: as_text(make_record(run_dir))
    yield "ended", lambda: (ending.finished(run_dir), ending.final_step(run_dir))
    for step in (None, 20, 40):
        yield f"policy {step}", partial(act, run_dir, step)
    yield "steps", lambda: list(list_policies(run_dir))
    yield "checkpoint", lambda: checkpoint.newest(run_dir / "checkpoint", on_note)


def plain(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{value.shape}{value.tobytes().hex()}"
    if isinstance(value, dict):
        return json.dumps({str(key): plain(item) for key, item in value.items()}, sort_keys=True)
    if isinstance(value, list | tuple):
        return json.dumps([plain(item) for item in value])
    return repr(value)


def read_all(run_dir: Path) -> tuple[dict[str, str], list[str], list[str]]:
    """What was found, the sentences of what was refused, and the notes."""
    found, refused, notes = dict[str, str](), list[str](), list[str]()
    for name, read in all_that_is_read(run_dir, notes.append):
        try:
            found[name] = plain(read()).replace(str(run_dir), "")
        except UserError as error:
            refused.append(str(error))
    return found, refused, notes


@pytest.mark.parametrize("flips", [6, pytest.param(FLIPS, marks=pytest.mark.slow)])
def test_a_flipped_byte_is_refused_or_without_effect(run_dir: Path, tmp_path: Path, flips: int) -> None:
    copy = tmp_path / run_dir.name
    shutil.copytree(run_dir, copy)
    expected, refused, notes = read_all(copy)
    assert (refused, notes) == ([], [])
    before = checkpoint.checkpoints(copy / "checkpoint")[0]
    older = plain((before, *checkpoint.read(before))).replace(str(copy), "")
    rng, effects = np.random.default_rng(0), dict[str, int]()
    for path in files_of(copy):
        content = path.read_bytes()
        for _ in range(flips):
            damaged = bytearray(content)
            damaged[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
            path.write_bytes(damaged)
            found, refused, notes = read_all(copy)
            assert all("\n" not in sentence for sentence in refused)
            for name, value in found.items():
                if name == "checkpoint" and any("passed over for the checkpoint before it" in note for note in notes):
                    assert value == older
                elif not (name in ("ended", "steps") and path.name == store.RESULT and "False" in found["ended"]):
                    assert value == expected[name], (path.name, name)
            name = path.relative_to(copy).as_posix()
            effects[name] = effects.get(name, 0) + bool(refused or notes)
        path.write_bytes(content)
    idle = (".lock", "curves.png", before.relative_to(copy).as_posix())
    unread = {name for name in effects if name.startswith("tb/") or name in idle}
    assert all(effects[name] == 0 for name in unread)
    assert all(effects[name] > 0 for name in effects.keys() - unread), effects


def test_what_an_earlier_version_wrote_is_still_read(run_dir: Path, tmp_path: Path) -> None:
    """Without seals, checksums and the policies' hash."""
    from safetensors.numpy import load_file, save_file

    copy = tmp_path / run_dir.name
    shutil.copytree(run_dir, copy)
    for path in copy.glob("*.json"):
        content = json.loads(path.read_text())
        content.pop("seal", None)
        path.write_text(json.dumps(content))
    (copy / "metrics.crc").unlink()
    for path in [copy / "policies.safetensors", *(copy / "policies").iterdir()]:
        save_file(load_file(path), path)
    found, refused, notes = read_all(copy)
    assert (refused, notes) == ([], [])
    assert found == read_all(run_dir)[0]
