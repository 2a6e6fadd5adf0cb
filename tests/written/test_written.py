"""What an earlier version wrote is read, and what a later one will write is refused with both versions in the sentence.

A folder here is what the version of its name wrote, made by `make.py` and never changed.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from damorl import __version__
from damorl.errors import UserError
from damorl.experiment.config import run_config_from_dict
from damorl.experiment.exported import CARD, PROGRAM, read_exported
from damorl.experiment.policy import load_policy
from damorl.experiment.policy_card import FORMAT
from damorl.experiment.result import list_policies
from damorl.record import checkpoint, store
from damorl.record.compact import as_text, make_record, read_record
from damorl.report.collect import read_run

HERE = Path(__file__).resolve().parent
VERSIONS = sorted(path.parent for path in HERE.glob("*/expected.json"))
SEALED = sorted(path.name for path in (VERSIONS[-1] / "run").glob("*.json"))
TOO_NEW = (
    "expected version 1 of its layout or an older one, found version 2; install a newer damorl than "
    + __version__.replace(".", r"\.")
    + "$"
)


@pytest.fixture(params=VERSIONS, ids=lambda path: path.name)
def written(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture
def told(written: Path) -> dict[str, Any]:
    """What reading gave when it was written."""
    return json.loads((written / "expected.json").read_text(encoding="utf-8"))


def test_its_policies_act_as_they_did(written: Path, told: dict[str, Any]) -> None:
    assert list(list_policies(written / "run")) == [2, 4]
    for name, action in told["actions"].items():
        seed, step = map(int, name.split())
        np.testing.assert_allclose(load_policy(written / "run", seed=seed, step=step)(np.ones(11)), action, atol=1e-6)


def test_its_exported_policy_acts_as_it_did(written: Path, told: dict[str, Any]) -> None:
    pytest.importorskip("onnxruntime")
    policy = load_policy(written / "policy.onnx")
    np.testing.assert_allclose(policy(np.ones(11)), told["actions"]["1 4"], atol=1e-6)
    assert policy.metadata["score"]["of_this_policy"] == told["scores"][-1]


def test_its_checkpoint_has_every_leaf(written: Path, told: dict[str, Any]) -> None:
    notes: list[str] = []
    found = checkpoint.newest(written / "run/checkpoint", notes.append)
    assert found is not None
    _, leaves, metadata = found
    assert notes == []
    assert metadata["step"] == "4"
    sums = {name: float(np.sum(leaf, dtype=np.float64)) for name, leaf in leaves.items()}
    assert sums == pytest.approx(told["leaves"])


def test_its_run_is_reported_and_recorded(written: Path, told: dict[str, Any]) -> None:
    run = read_run(written / "run")
    assert [row["eval/score"] for row in run.rows] == told["scores"]
    assert run.provenance["versions"]["damorl"] == told["version"] == written.name
    assert run_config_from_dict(run.config).seeds == (0, 1)
    made = json.loads(as_text(make_record(written / "run")))
    assert made["seeds"] == read_record(written / "run.json")["seeds"]


def raise_schema(path: Path) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    content["seal"]["schema"] = 2
    path.write_text(json.dumps(content), encoding="utf-8")


def raise_number(path: Path) -> None:
    """Of the format that a file names itself by."""
    content = path.read_bytes()
    for form in (b"damorl-policies-", b"damorl-checkpoint-", b"damorl-run-"):
        content = content.replace(form + b"1", form + b"2")
    path.write_bytes(content)


def wrap(path: Path) -> None:
    """An exported program of the next version of the format."""
    card = {"format": FORMAT, "version": 2, "kind": "jax", "program_sha256": hashlib.sha256(b"").hexdigest()}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(PROGRAM, b"")
        archive.writestr(CARD, json.dumps(card))


Change = Callable[[Path], None]
Read = Callable[[Path], object]
NEWER: dict[str, tuple[Change, Read]] = {f"run/{name}": (raise_schema, store.read_json) for name in SEALED} | {
    "run/policies.safetensors": (raise_number, lambda path: load_policy(path.parent)),
    "run/policies/step_000000002.safetensors": (raise_number, lambda path: load_policy(path.parents[1], step=2)),
    "run/checkpoint/step_000000004.safetensors": (raise_number, lambda path: checkpoint.newest(path.parent, print)),
    "run.json": (raise_number, read_record),
    "policy.jaxpolicy": (wrap, read_exported),
}


@pytest.mark.parametrize("name", NEWER)
def test_what_a_newer_version_wrote_is_refused_with_both_versions(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(VERSIONS[-1], folder)
    change, read = NEWER[name]
    change(folder / name)
    with pytest.raises(UserError, match=TOO_NEW) as refused:
        read(folder / name)
    assert str(folder / name) in str(refused.value)


def test_every_sealed_file_of_a_run_is_among_them() -> None:
    assert {"config.json", "provenance.json", "result.json", "models.json", "dynamics.json"} <= set(SEALED)
