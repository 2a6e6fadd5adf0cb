"""Files that point out of themselves, declare more than they hold, or hold no row: one sentence each, at once."""

from __future__ import annotations

import io
import os
import resource
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from damorl.data import limits
from damorl.data.datasets import load_dataset
from damorl.errors import UserError

ROWS = 50


def arrays(rows: int = ROWS) -> dict[str, np.ndarray]:
    return {
        "observations": np.zeros((rows, 11), np.float32),
        "actions": np.zeros((rows, 3), np.float32),
        "rewards": np.arange(rows, dtype=np.float32),
        "terminals": np.zeros(rows, bool),
        "timeouts": np.arange(rows) % 10 == 9,
    }


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A file whose numbers are nobody's business."""
    path = tmp_path / "secret.hdf5"
    with h5py.File(path, "w") as file:
        file["rewards"] = np.arange(ROWS, dtype=np.float32)
    return path


def write(path: Path, **columns: object) -> h5py.File:
    file = h5py.File(path, "w")
    for key, value in (arrays() | columns).items():
        if value is not None:
            file[key] = value
    return file


def refused(path: Path, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        load_dataset(path, "hopper")


def test_a_link_to_another_file(tmp_path: Path, other: Path) -> None:
    write(tmp_path / "a.hdf5", rewards=h5py.ExternalLink(other, "rewards")).close()
    refused(tmp_path / "a.hdf5", r"rewards: .* found a link to rewards of another file, .*secret\.hdf5")


def test_a_link_to_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    write(tmp_path / "a.hdf5", rewards=h5py.ExternalLink(tmp_path / "pipe", "x")).close()
    refused(tmp_path / "a.hdf5", "found a link to x of another file")


def test_metadata_behind_a_link_are_not_read(tmp_path: Path, other: Path) -> None:
    with h5py.File(other, "a") as file:
        file["told/env_id"] = "Hopper-v4"
    write(tmp_path / "a.hdf5", metadata=h5py.ExternalLink(other, "told")).close()
    assert load_dataset(tmp_path / "a.hdf5", "hopper").num_transitions == 45


def test_values_in_another_file(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(np.zeros(ROWS, np.float32).tobytes())
    with write(tmp_path / "a.hdf5", rewards=None) as file:
        file.create_dataset("rewards", (ROWS,), "f4", external=[(tmp_path / "raw", 0, 4 * ROWS)])
    refused(tmp_path / "a.hdf5", "found an array that is stored in another file, .*raw")


def test_an_array_put_together_from_other_files(tmp_path: Path, other: Path) -> None:
    layout = h5py.VirtualLayout((ROWS,), "f4")
    layout[:] = h5py.VirtualSource(other, "rewards", (ROWS,))
    with write(tmp_path / "a.hdf5", rewards=None) as file:
        file.create_virtual_dataset("rewards", layout)
    refused(tmp_path / "a.hdf5", "put together from other files")


def test_a_declared_size_that_the_file_cannot_hold_takes_no_memory(tmp_path: Path) -> None:
    with write(tmp_path / "a.hdf5", observations=None) as file:
        file.create_dataset("observations", (50_000_000, 11), "f4", chunks=(1000, 11))
    assert (tmp_path / "a.hdf5").stat().st_size < 100_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(tmp_path / "a.hdf5", r"found an array of 2,098 MiB of which the file holds 0 KiB")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


def test_well_compressed_zeros_are_read(tmp_path: Path) -> None:
    rows = 2_000_000
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        for key, value in arrays(rows).items():
            file.create_dataset(key, data=value, compression="gzip", chunks=True)
    assert load_dataset(tmp_path / "a.hdf5", "hopper").num_transitions > rows * 0.8


def test_an_archive_that_declares_what_it_does_not_hold(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**9, 11)})
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("observations.npy", header.getvalue())
        for key in ("actions", "rewards", "terminals", "timeouts"):
            stored = io.BytesIO()
            np.save(stored, arrays()[key])
            archive.writestr(f"{key}.npy", stored.getvalue())
    refused(tmp_path / "a.npz", "observations: .* found an array of 41,962 MiB of which the file holds 0 KiB")


def test_more_than_half_of_the_memory_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write(tmp_path / "a.hdf5").close()
    np.savez(tmp_path / "a.npz", **arrays())  # pyright: ignore[reportArgumentType]
    monkeypatch.setattr(limits, "machine_memory", lambda: 4000)
    for kind in ("hdf5", "npz"):
        refused(tmp_path / f"a.{kind}", "more than half of this machine's")


@pytest.mark.parametrize("kind", ["npz", "hdf5"])
def test_no_rows_but_a_column_of_episodes(kind: str, tmp_path: Path) -> None:
    empty = arrays(0) | {"episodes": np.zeros(0, np.int64)}
    if kind == "npz":
        np.savez(tmp_path / "a.npz", **empty)  # pyright: ignore[reportArgumentType]
    else:
        with h5py.File(tmp_path / "a.hdf5", "w") as file:
            for key, value in empty.items():
                file[key] = value
    refused(tmp_path / f"a.{kind}", "found no rows")
