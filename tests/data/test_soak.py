"""The short form of `make soak`: malformed files in every format are loaded rightly or refused, and nothing else."""

from __future__ import annotations

import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from benchmarks.soak import files as soak
from benchmarks.soak import malformed

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits a process by /proc")


def test_two_hundred_files_are_loaded_rightly_or_refused(tmp_path: Path) -> None:
    found = soak.report(soak.soak(200, seed=0, keep=tmp_path / "faults"), 0, 0.0)
    assert found["faults"] == []
    assert sum(found["outcomes"].values()) == 200
    for kind, outcomes in found["by_kind"].items():  # else nothing was shown about it
        assert outcomes["loaded"], kind
        assert outcomes["refused"], kind


def test_the_same_seed_makes_the_same_file(tmp_path: Path) -> None:
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        with soak.store_in(folder / "minari"):
            made = [malformed.make(folder, 5, number) for number in range(12)]
    names = {path.name: (kind, done) for path, kind, done in made}
    assert len({kind for kind, _ in names.values()}) > 3
    for name, (kind, _) in names.items():
        if kind in ("csv", "npz", "parquet"):
            assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def answer(path: Path) -> tuple[str, str]:
    """What the soak says of one file, without a child process."""
    from damorl.data.card import summary
    from damorl.data.datasets import load_dataset

    return soak.load(load_dataset, summary, path, "hdf5")


def test_a_wrong_row_and_an_exception_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.hdf5"
    columns = {"observations": np.zeros((6, 2)), "actions": np.zeros((6, 1)), "rewards": np.arange(6.0)}
    columns |= {"terminals": np.zeros(6), "timeouts": np.zeros(6)}
    with h5py.File(path, "w") as file:
        for key, column in columns.items():
            file[key] = column
    assert answer(path) == ("loaded", "")
    assembled = soak.plain_reader.rows_of(path, "hdf5")
    wrong = (assembled[0], assembled[1], assembled[2] + 1, *assembled[3:])
    monkeypatch.setattr(soak.plain_reader, "rows_of", lambda path, kind: wrong)
    assert answer(path) == ("misread", "rewards differ from what the plain reader finds")
    monkeypatch.setattr("damorl.data.datasets.load_dataset", lambda path: 1 / 0)
    assert answer(path) == ("crash", "ZeroDivisionError: division by zero")
