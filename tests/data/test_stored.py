"""A data set on the disk is the one that is read as a whole: rows, hash, episodes, returns, moments, errors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from damorl.data import columnar, convert, stored
from damorl.data.datasets import load_dataset
from damorl.data.stored import load_stored
from damorl.errors import UserError

ROWS, EPISODE = 230, 9  # the last episode is incomplete


def arrays(seed: int = 0) -> dict[str, np.ndarray]:
    """Episodes that go on from state to state; some fall, some are cut, some both. One feature is constant."""
    rng = np.random.default_rng(seed)
    states = rng.normal(3.0, 2.0, (ROWS + 1, 3))
    states[:, 1] = 7.0
    last = np.arange(ROWS) % EPISODE == EPISODE - 1
    kind = np.arange(ROWS) // EPISODE % 3
    reached = np.where(last[:, None], rng.normal(size=(ROWS, 3)), states[1:])
    return {
        "observations": states[:-1],
        "actions": rng.uniform(-1, 1, (ROWS, 2)),
        "rewards": rng.normal(size=ROWS),
        "next_observations": reached,
        "terminals": last & (kind != 1),
        "timeouts": last & (kind != 0),
    }


def write(path: Path, columns: dict[str, Any]) -> Path:
    with h5py.File(path, "w") as file:
        for key, column in columns.items():
            file[key] = column
    return path


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many chunks, whose borders fall into episodes and between them."""
    for module in (columnar, convert, stored):
        monkeypatch.setattr(module, "CHUNK", 20)
    monkeypatch.setattr(columnar, "PIECE", 7)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DAMORL_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "columns"


LAYOUTS: dict[str, Any] = {
    "all columns": lambda a: a,
    "no next_observations": lambda a: {k: v for k, v in a.items() if k != "next_observations"},
    "no timeouts": lambda a: {k: v for k, v in a.items() if k != "timeouts"},
    "episode numbers": lambda a: (
        {k: v for k, v in a.items() if k not in ("timeouts", "next_observations")}
        | {"episode_id": np.arange(ROWS) // EPISODE}
    ),
    "other names": lambda a: (
        {"obs": a["observations"], "action_0": a["actions"][:, 0], "action_1": a["actions"][:, 1]}
        | {k: v for k, v in a.items() if k not in ("observations", "actions")}
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_is_the_data_set_that_is_read_as_a_whole(layout: str, tmp_path: Path) -> None:
    path = write(tmp_path / "data.hdf5", LAYOUTS[layout](arrays()))
    whole, found = load_dataset(path), load_stored(path)
    assert found.sha256 == whole.sha256
    assert (found.num_transitions, found.spec, found.metadata) == (whole.num_transitions, whole.spec, whole.metadata)
    index = np.unique(np.random.default_rng(0).integers(0, whole.num_transitions, 90))
    for column, expected in zip(found.take(index), whole.transitions, strict=True):
        np.testing.assert_array_equal(column, np.asarray(expected)[index])
        assert np.asarray(column).dtype == np.float32
    np.testing.assert_array_equal(found.ends, np.flatnonzero(whole.episode_end))
    np.testing.assert_array_equal(found.starts, np.flatnonzero(whole.episode_start))
    np.testing.assert_allclose(found.returns, whole.episode_returns(), rtol=1e-12)
    for gamma in (0.5, 0.99):
        assert found.best_discounted_return(gamma) == pytest.approx(whole.best_discounted_return(gamma), rel=1e-12)
    obs = np.asarray(whole.transitions.obs, np.float64)
    for own, expected in zip(vars(found.obs).values(), (obs.mean(0), obs.std(0), obs.min(0), obs.max(0)), strict=True):
        np.testing.assert_allclose(own, expected, rtol=1e-9, atol=1e-12)
    assert found.obs.std[1] == 0.0
    assert found.mean_abs_reward == pytest.approx(np.abs(np.asarray(whole.transitions.reward, np.float64)).mean())


def test_actions_in_units_of_the_simulator_are_brought_to_one(tmp_path: Path) -> None:
    path = write(tmp_path / "data.hdf5", arrays() | {"actions": 5.0 * arrays()["actions"]})
    bounds = (-5.0, 5.0)
    whole, found = load_dataset(path, action_bounds=bounds), load_stored(path, action_bounds=bounds)
    assert (found.sha256, found.metadata) == (whole.sha256, whole.metadata)


def damaged(**changes: Any) -> dict[str, Any]:
    return arrays() | changes


def with_entry(key: str, row: int, value: float) -> dict[str, Any]:
    column = arrays()[key]
    column[row] = value
    return arrays() | {key: column}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (with_entry("rewards", 205, np.nan), r"rows counted from 190: rewards: .* nan in row 15 "),
        (with_entry("actions", 3, 4.0), r"hdf5: actions: expected values in \[-1, 1\], found 4\.0 in row 3"),
        (damaged(rewards=np.zeros(ROWS - 1)), "expected as many rows in every array, found .*229 in rewards"),
        (damaged(episode_id=np.arange(ROWS) // EPISODE % 20), "each episode one after another, found 0 again"),
        ({"observations": np.zeros((9, 2))}, "actions: expected this array, found only observations"),
        (damaged(**{"metadata/sha256": "abc"}), "metadata/sha256: expected arrays that hash to abc"),
    ],
)
def test_unusable_files_are_refused_and_leave_nothing(
    columns: dict[str, Any], message: str, tmp_path: Path, own_cache: Path
) -> None:
    with pytest.raises(UserError, match=message):
        load_stored(write(tmp_path / "data.hdf5", columns))
    assert [entry for entry in own_cache.iterdir() if entry.is_dir()] == []


def test_other_sources_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.hdf5").write_text("no")
    (tmp_path / "data.npz").touch()
    for name, message in (
        ("text.hdf5", "found a file that is not HDF5"),
        ("data.npz", r"found a \.npz file; store it as HDF5"),
        ("none.hdf5", "found no such file"),
        ("minari:a/b-v0", "leave --resident-rows out"),
    ):
        with pytest.raises(UserError, match=message):
            load_stored(name if ":" in name else tmp_path / name)


def test_it_is_converted_once_and_again_when_file_or_columns_change(tmp_path: Path, own_cache: Path) -> None:
    notes: list[str] = []
    path = write(tmp_path / "data.hdf5", arrays())
    load = lambda: load_stored(path, on_note=notes.append)
    first = load()
    assert [("is converted" in note) for note in notes] == [True]
    assert load().sha256 == first.sha256
    assert len(notes) == 1
    column = first.columns.folder / "rewards"
    column.write_bytes(b"\x00" * 8 + column.read_bytes()[8:])
    assert load().sha256 == first.sha256
    assert "is damaged and made again" in notes[1]
    write(path, arrays(seed=1))
    assert load().sha256 != first.sha256
    assert len([entry for entry in own_cache.iterdir() if entry.is_dir()]) == 2


def test_what_a_killed_process_left_is_removed(tmp_path: Path, own_cache: Path) -> None:
    path = write(tmp_path / "data.hdf5", arrays())
    place = load_stored(path).columns.folder
    half, other = own_cache / f".{place.name}.k1ll3d.tmp", own_cache / ".0123456789abcdef.k1ll3d.tmp"
    for folder in (half / place.name, other):
        folder.mkdir(parents=True)
    load_stored(path)
    assert half.exists()  # nothing is made, so nothing is looked for
    (place / "rewards").unlink()
    load_stored(path)
    assert (half.exists(), other.exists()) == (False, True)


def test_columns_that_vanish_during_a_run_are_told(tmp_path: Path) -> None:
    found = load_stored(write(tmp_path / "data.hdf5", arrays()))
    (found.columns.folder / "actions").unlink()
    with pytest.raises(UserError, match="remove the directory, and the next run converts"):
        found.take(np.arange(3))


LIMITED = """
import resource, sys
import numpy as np
from damorl.data.datasets import load_dataset
from damorl.data.stored import load_stored
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
held = int(status["VmData"].split()[0]) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (held + int(sys.argv[2]), resource.RLIM_INFINITY))
if sys.argv[3] == "whole":
    load_dataset(sys.argv[1])
found = load_stored(sys.argv[1])
index = np.arange(0, found.num_transitions, 97)
print(found.num_transitions, float(found.take(index).reward.sum()), found.best_discounted_return(0.99) > 0)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """A file of 115 MB, and a process that may allocate 40 MB more than its packages took."""
    rows, path = 1_000_000, tmp_path / "large.hdf5"
    with h5py.File(path, "w") as file:
        for key, width in {"observations": 12, "actions": 3, "next_observations": 12}.items():
            column = file.create_dataset(key, (rows, width), np.float32, fillvalue=0.0)
            for first in range(0, rows, 100_000):
                column[first : first + 100_000] = np.full((100_000, width), first / rows, np.float32)
        file["rewards"] = np.arange(rows, dtype=np.float32) / rows
        file["terminals"], file["timeouts"] = np.zeros(rows, bool), np.arange(rows) % 1000 == 999
    assert path.stat().st_size > 110e6
    run = lambda how: subprocess.run(
        [sys.executable, "-c", LIMITED, path, str(40 * 2**20), how], capture_output=True, text=True, check=False
    )
    done = run("stored")
    assert done.returncode == 0, done.stderr
    count, total, positive = done.stdout.split()
    assert (count, positive) == ("1000000", "True")
    assert float(total) == pytest.approx(np.float32(np.arange(0, rows, 97) / rows).sum(), rel=1e-4)
    refused = run("whole")  # the limit is one
    assert refused.returncode != 0
    assert "more than fits in memory" in refused.stderr or "MemoryError" in refused.stderr
