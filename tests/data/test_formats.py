"""The same transitions in every format are the same data set, and no format lets episodes run into each other."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from damorl.data.check import find_problems
from damorl.data.datasets import Dataset, load_dataset
from damorl.data.minari_export import export_minari
from damorl.errors import UserError

Arrays = dict[str, np.ndarray]
SEEDS = st.integers(0, 2**32 - 1)
KEYS = ("observations", "actions", "rewards", "next_observations", "terminals", "timeouts")
SHORT = {"observations": "obs", "actions": "action", "rewards": "reward", "next_observations": "next_obs"}


def recorded(seed: int) -> Arrays:
    """Some complete episodes; the first state entry is the episode's number, so that no two episodes share a state."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 6, rng.integers(2, 6))
    episode, last = np.repeat(np.arange(len(lengths)), lengths), np.cumsum(lengths) - 1
    states = rng.normal(size=(len(episode) + len(lengths), rng.integers(2, 4))) * 10.0 ** rng.integers(-30, 30)
    states = states.astype(np.float32)
    states[:, 0] = np.repeat(np.arange(len(lengths)), lengths + 1)
    starts = np.arange(len(episode)) + episode
    ends = rng.integers(1, 4, len(lengths))  # 1 fell, 2 was cut, 3 both at once
    terminals, timeouts = np.zeros(len(episode), bool), np.zeros(len(episode), bool)
    terminals[last], timeouts[last] = ends & 1 > 0, ends & 2 > 0
    return {
        "observations": states[starts],
        "actions": rng.uniform(-1, 1, (len(episode), rng.integers(1, 3))).astype(np.float32),
        "rewards": rng.normal(size=len(episode)).astype(np.float32),
        "next_observations": states[starts + 1],
        "terminals": terminals,
        "timeouts": timeouts,
    }


def as_table(arrays: Arrays) -> pa.Table:
    columns: dict[str, Any] = {}
    for key, array in arrays.items():
        name = SHORT.get(key, key)
        columns |= {name: array} if array.ndim == 1 else {f"{name}_{i}": column for i, column in enumerate(array.T)}
    return pa.table({name: np.ascontiguousarray(column) for name, column in columns.items()})


def to_hdf5(folder: Path, arrays: Arrays) -> Path:
    with h5py.File(folder / "data.hdf5", "w") as file:
        for key, array in arrays.items():
            file[key] = array
    return folder / "data.hdf5"


def to_npz(folder: Path, arrays: Arrays) -> Path:
    np.savez(folder / "data.npz", **{SHORT.get(key, key): array for key, array in arrays.items()})  # pyright: ignore[reportArgumentType]
    return folder / "data.npz"


def to_csv(folder: Path, arrays: Arrays) -> Path:
    pyarrow.csv.write_csv(as_table(arrays), folder / "data.csv")
    return folder / "data.csv"


def to_parquet(folder: Path, arrays: Arrays) -> Path:
    pyarrow.parquet.write_table(as_table(arrays), folder / "data.parquet")
    return folder / "data.parquet"


def to_dict(_: Path, arrays: Arrays) -> Arrays:
    return {**arrays, "rewards": arrays["rewards"][:, None]}


FLAT: tuple[Callable[[Path, Arrays], Any], ...] = (to_hdf5, to_npz, to_csv, to_parquet, to_dict)


def assert_same(dataset: Dataset, arrays: Arrays) -> None:
    for column, key in zip((*dataset.transitions, dataset.truncated), KEYS, strict=True):
        np.testing.assert_array_equal(column, arrays[key], key)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("formats")


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=SEEDS)
def test_the_same_transitions_have_the_same_hash_in_every_format(folder: Path, seed: int) -> None:
    arrays = recorded(seed)
    datasets = [load_dataset(write(folder, arrays)) for write in FLAT]
    for dataset in datasets:
        assert_same(dataset, arrays)
        assert dataset.sha256 == datasets[0].sha256
        assert dataset.metadata == {}


@settings(max_examples=15, deadline=None, derandomize=True)
@given(seed=SEEDS, data_format=st.sampled_from(["hdf5", "arrow"]))
def test_minari_stores_hold_the_same_data_set(folder: Path, seed: int, data_format: str) -> None:
    arrays = recorded(seed)
    dataset = load_dataset(arrays)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(folder / f"{seed}-{data_format}"))
        if not (folder / f"{seed}-{data_format}").exists():
            export_minari(dataset, "ours/made-v0", data_format)
        read = load_dataset("ours/made-v0")
    assert_same(read, arrays)
    assert read.sha256 == dataset.sha256


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=SEEDS, boundary=st.sampled_from(["timeouts", "episode", "index"]))
def test_no_format_joins_two_episodes(folder: Path, seed: int, boundary: str) -> None:
    arrays = recorded(seed)
    episode = arrays["observations"][:, 0].astype(int)
    kept = {key: array for key, array in arrays.items() if key not in ("next_observations", "timeouts")}
    told = {
        "timeouts": arrays["timeouts"],
        "episode": episode,
        "index": np.flatnonzero(np.append(True, np.diff(episode) > 0)),
    }
    inside = np.append(episode[1:] == episode[:-1], False)
    writers = (to_npz, to_hdf5, to_dict) if boundary == "index" else FLAT
    for source in (write(folder, {**kept, boundary: told[boundary]}) for write in writers):
        if inside.sum() < 2:
            with pytest.raises(UserError, match="expected at least 2 rows"):
                load_dataset(source)
            continue
        transitions = load_dataset(source).transitions
        np.testing.assert_array_equal(transitions.obs, arrays["observations"][inside])
        np.testing.assert_array_equal(transitions.next_obs, arrays["next_observations"][inside])


def test_files_that_are_not_what_their_name_says_are_refused(tmp_path: Path) -> None:
    expected = {
        ".hdf5": "an HDF5 file in D4RL's layout, found a file that is not HDF5; check the path",
        ".npz": "an archive of NumPy arrays, found something else (",
        ".parquet": "a Parquet table, found something else (",
    }
    for suffix, message in expected.items():
        path = tmp_path / f"data{suffix}"
        path.write_bytes(b"obs_0,action_0\n1,2\n")
        (problem,) = find_problems(path)
        assert problem.message.startswith(f"{path}: expected {message}")
        assert "\n" not in problem.message
    for suffix in (*expected, ".csv"):
        path = tmp_path / f"data{suffix}"
        path.write_bytes(b"")
        with pytest.raises(UserError, match="found an empty file; check the path"):
            load_dataset(path)
        with pytest.raises(UserError, match="found no such file; check the path"):
            load_dataset(tmp_path / f"other{suffix}")


@pytest.mark.parametrize("write", [to_npz, to_csv, to_parquet])
def test_a_file_cut_anywhere_is_read_rightly_or_refused(tmp_path: Path, write: Any) -> None:
    arrays = recorded(5)
    path = write(tmp_path, arrays)
    content, whole = path.read_bytes(), load_dataset(path)
    for share in np.linspace(0.02, 0.98, 25):
        path.write_bytes(content[: round(share * len(content))])
        refused = [problem.message for problem in find_problems(path) if problem.severity == "error"]
        assert all(message.startswith(f"{path}: ") and "\n" not in message for message in refused)
        if not refused:  # a table of text may lose whole lines, and the last number some digits
            assert write is to_csv
            cut = load_dataset(path)
            rows = cut.num_transitions - 1
            np.testing.assert_array_equal(cut.transitions.obs[:rows], whole.transitions.obs[:rows])


def test_what_is_no_source_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="a dictionary of arrays or a Minari data set, found list; give one of those"):
        load_dataset([1, 2])  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError, match=r"columns: expected each of observations.*found 'speed': 'v'"):
        load_dataset({}, columns={"speed": "v"})
    for module in ("pyarrow.csv", "minari"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=r"minari:a/b-v0: .*pip install 'damorl\[minari\]'"):
        load_dataset("minari:a/b-v0")


def test_tables_without_pyarrow_say_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = to_csv(tmp_path, recorded(1))
    monkeypatch.setitem(sys.modules, "pyarrow.csv", None)
    with pytest.raises(UserError, match=r"data.csv: .*pyarrow, which is missing: pip install 'damorl\[tables\]'"):
        load_dataset(path)
