"""Files that point out of themselves, declare more than they hold, or hold no row: one sentence each, at once."""

from __future__ import annotations

import io
import os
import resource
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from damorl.cli import main
from damorl.data import limits
from damorl.data.check import find_problems
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


KINDS = ["npz", "hdf5", "csv", "parquet"]


def store(path: Path, columns: dict[str, np.ndarray]) -> None:
    """The columns as a file of the path's kind; in tables spread over one column for each entry."""
    if path.suffix == ".npz":
        np.savez(path, **columns)  # pyright: ignore[reportArgumentType]
    elif path.suffix == ".hdf5":
        with h5py.File(path, "w") as file:
            for key, value in columns.items():
                file[key] = value
    else:
        spread = {
            name: column
            for key, value in columns.items()
            for name, column in (
                ((f"{key}_{i}", value[:, i]) for i in range(value.shape[1])) if value.ndim == 2 else ((key, value),)
            )
        }
        table = pa.table(spread)
        pyarrow.parquet.write_table(table, path) if path.suffix == ".parquet" else pyarrow.csv.write_csv(table, path)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("beside", [None, "episodes", "index"])
def test_no_rows(kind: str, beside: str | None, tmp_path: Path) -> None:
    empty = arrays(0) | ({beside: np.zeros(0, np.int64)} if beside else {})
    store(tmp_path / f"a.{kind}", empty)
    refused(tmp_path / f"a.{kind}", "observations: expected at least 2 rows, found no rows; give a larger data set$")


@pytest.mark.parametrize("kind", ["npz", "hdf5"])
def test_only_episodes_without_a_row(kind: str, tmp_path: Path) -> None:
    store(tmp_path / f"a.{kind}", arrays(0) | {"index": np.zeros(4, np.int64)})  # four that all start at row 0
    refused(tmp_path / f"a.{kind}", "observations: expected at least 2 rows, found no rows; give a larger data set$")


@pytest.mark.parametrize("kind", KINDS)
def test_only_episodes_of_one_row_of_which_none_is_followed(kind: str, tmp_path: Path) -> None:
    single = arrays(6) | {"episodes": np.arange(6)}
    store(tmp_path / f"a.{kind}", single)
    refused(tmp_path / f"a.{kind}", "found no rows once each episode's last one is dropped; give a larger data set$")


def allowed(path: Path, *told: str) -> np.ndarray:
    """The rewards, read with leave, after a note for each of the other files."""
    with pytest.warns(UserWarning, match="is read from another file") as notes:
        found = load_dataset(path, "hopper", allow_external=True)
    assert [str(note.message).rpartition("/")[2] for note in notes] == list(told)
    return np.asarray(found.transitions.reward)


REWARDS = np.arange(ROWS)[np.arange(ROWS) % 10 != 9]


def test_with_leave_a_link_is_followed_after_a_note(tmp_path: Path, other: Path) -> None:
    with h5py.File(tmp_path / "between.hdf5", "w") as file:
        file["deep/r"] = h5py.ExternalLink("secret.hdf5", "rewards")
    write(tmp_path / "a.hdf5", rewards=h5py.ExternalLink("between.hdf5", "deep/r")).close()
    np.testing.assert_array_equal(allowed(tmp_path / "a.hdf5", "between.hdf5", "secret.hdf5"), REWARDS)
    with pytest.warns(UserWarning, match="is read from another file"):
        assert find_problems(tmp_path / "a.hdf5", "hopper", allow_external=True)[0].severity == "warning"


def test_with_leave_values_and_virtual_sets_elsewhere_are_read(tmp_path: Path, other: Path) -> None:
    (tmp_path / "raw").write_bytes(np.arange(ROWS, dtype=np.float32).tobytes())
    with write(tmp_path / "a.hdf5", rewards=None) as file:
        file.create_dataset("rewards", (ROWS,), "f4", external=[(tmp_path / "raw", 0, 4 * ROWS)])
    np.testing.assert_array_equal(allowed(tmp_path / "a.hdf5", "raw"), REWARDS)
    (tmp_path / "raw").write_bytes(b"short")
    with pytest.raises(UserError, match="raw, which is too short"):
        load_dataset(tmp_path / "a.hdf5", "hopper", allow_external=True)
    layout = h5py.VirtualLayout((ROWS,), "f4")
    layout[:] = h5py.VirtualSource(other, "rewards", (ROWS,))
    with write(tmp_path / "b.hdf5", rewards=None) as file:
        file.create_virtual_dataset("rewards", layout)
    np.testing.assert_array_equal(allowed(tmp_path / "b.hdf5", "secret.hdf5"), REWARDS)
    other.unlink()  # HDF5 would read zeros
    with pytest.raises(UserError, match=r"put together from other files \(.*secret\.hdf5\), of which one is not there"):
        load_dataset(tmp_path / "b.hdf5", "hopper", allow_external=True)


def test_what_is_no_file_is_refused_at_once_also_with_leave(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    layout = h5py.VirtualLayout((ROWS,), "f4")
    layout[:] = h5py.VirtualSource(tmp_path / "pipe", "rewards", (ROWS,))
    with h5py.File(tmp_path / "between.hdf5", "w") as file:
        file["r"] = h5py.ExternalLink(tmp_path / "pipe", "x")
        file["soft"] = h5py.SoftLink("/r")
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("stored", (ROWS,), "f4", external=[(tmp_path / "pipe", 0, 4 * ROWS)])
    for name in ("r", "soft", "virtual", "stored"):
        write(tmp_path / "a.hdf5", rewards=h5py.ExternalLink("between.hdf5", name)).close()
        with (
            pytest.warns(UserWarning, match="between"),
            pytest.raises(UserError, match="no file but a directory, a pipe or a device"),
        ):
            load_dataset(tmp_path / "a.hdf5", "hopper", allow_external=True)
    write(tmp_path / "a.hdf5", rewards=h5py.ExternalLink("/dev/zero", "x")).close()
    with pytest.raises(UserError, match="/dev/zero, which is no file"):
        load_dataset(tmp_path / "a.hdf5", "hopper", allow_external=True)


def test_a_link_within_the_file_may_not_lead_out_of_it(tmp_path: Path, other: Path) -> None:
    with write(tmp_path / "a.hdf5", rewards=h5py.SoftLink("/hidden/r")) as file:
        file["hidden/r"] = h5py.ExternalLink(other, "rewards")
    refused(tmp_path / "a.hdf5", "found a link to rewards of another file")
    layout = h5py.VirtualLayout((ROWS,), "f4")
    layout[:] = h5py.VirtualSource(".", "hidden/r", (ROWS,))
    with write(tmp_path / "b.hdf5", rewards=None) as file:
        file["hidden/r"] = h5py.ExternalLink(other, "rewards")
        file.create_virtual_dataset("rewards", layout)
    refused(tmp_path / "b.hdf5", "found a link to rewards of another file")
    with write(tmp_path / "c.hdf5", rewards=h5py.SoftLink("/there/rewards")) as file:
        file["there/rewards"] = np.arange(ROWS)
    assert load_dataset(tmp_path / "c.hdf5", "hopper").num_transitions == 45


def test_links_in_a_circle_are_refused(tmp_path: Path) -> None:
    with write(tmp_path / "a.hdf5", rewards=h5py.SoftLink("/b")) as file:
        file["b"] = h5py.SoftLink("/rewards")
    refused(tmp_path / "a.hdf5", "a link that leads through more than 16 others")
    write(tmp_path / "b.hdf5", rewards=h5py.ExternalLink("b.hdf5", "rewards")).close()
    with pytest.warns(UserWarning, match="b.hdf5"), pytest.raises(UserError, match="more than 16 others"):
        load_dataset(tmp_path / "b.hdf5", "hopper", allow_external=True)


def test_the_command_line_reads_other_files_with_leave(
    tmp_path: Path, other: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "a.hdf5", rewards=h5py.ExternalLink("secret.hdf5", "rewards")).close()
    command = ["data", "check", str(tmp_path / "a.hdf5"), "--task", "hopper"]
    assert main(command) == 2
    assert "allow it with allow_external=True (--allow-external)" in capsys.readouterr().out
    with pytest.warns(UserWarning, match="rewards is read from another file, .*secret"):
        assert main([*command, "--allow-external"]) == 0
