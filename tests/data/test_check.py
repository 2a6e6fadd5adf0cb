"""Bad files: each is refused with one clear sentence, all problems are found, and none crashes the loader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from damorl.data.check import find_problems
from damorl.data.datasets import load_dataset, write_dataset
from damorl.errors import UserError

Arrays = dict[str, Any]


def sound(num_rows: int = 8, obs_dim: int = 3, action_dim: int = 2) -> Arrays:
    """A data set nothing is wrong with: two episodes, one cut and one fallen."""
    rng = np.random.default_rng(0)
    states, rows = rng.normal(size=(num_rows + 1, obs_dim)).astype(np.float32), np.arange(num_rows)
    return {
        "observations": states[:-1],
        "actions": rng.uniform(-1, 1, (num_rows, action_dim)).astype(np.float32),
        "rewards": rng.normal(size=num_rows).astype(np.float32),
        "next_observations": states[1:],
        "terminals": rows == num_rows - 1,
        "timeouts": rows == num_rows // 2,
    }


def store(path: Path, arrays: Arrays) -> Path:
    """Write by h5py itself, whatever it is; None leaves a key out, a dict makes a group of it."""
    with h5py.File(path, "w") as file:
        for key, value in arrays.items():
            if isinstance(value, dict):
                file.create_group(key)
            elif value is not None:
                file[key] = value
    return path


def changed(key: str, index: Any, value: Any) -> Arrays:
    array = sound()[key].astype(float)
    array[index] = value
    return {key: array}


BAD_CONTENTS: dict[str, tuple[Arrays, str]] = {
    "missing key": ({"rewards": None}, r"rewards: expected this array, found only actions, .*; store it under"),
    "Minari": ({"rewards": None, "episode_0": {}}, r"rewards: .*Minari"),
    "no boundaries": ({"timeouts": None, "next_observations": None}, r"neither; .*nobody can tell where an episode"),
    "a group": ({"actions": {}}, r"actions: expected numbers of shape \[rows, dimension\], found a group"),
    "text": ({"rewards": np.array([b"one"] * 8)}, r"rewards: expected numbers of shape \[rows\], found .*type \|S3"),
    "objects": ({"rewards": ["one"] * 8}, r"rewards: expected numbers .*, found values of type object"),
    "complex": ({"rewards": np.ones(8) * 1j}, r"rewards: .*type complex128"),
    "no shape": ({"rewards": h5py.Empty("f")}, r"rewards: .*found an array without a shape"),
    "a cube of actions": ({"actions": np.zeros((8, 1, 2))}, r"actions: expected .*\[rows, dimension\], found shape"),
    "discrete actions": (
        {"actions": np.arange(8) % 2},
        r"expected continuous actions, .*int64 of shape \(8,\), as discrete.*",
    ),
    "one discrete action": (
        {"actions": np.zeros((8, 1), np.int8)},
        r"damorl is for continuous actions, not for discrete",
    ),
    "images": ({"observations": np.zeros((8, 4, 4, 3))}, r"expected state vectors, .*float64 of shape \(8, 4, 4, 3\)"),
    "pixels": (
        {"observations": np.zeros((8, 3), np.uint8)},
        r"uint8 of shape \(8, 3\), as images are; .*state vectors",
    ),
    "scalar": ({"rewards": 1.0}, r"rewards: .*found shape \(\)"),
    "two rewards": ({"rewards": np.zeros((8, 2))}, r"rewards: expected .*\[rows\], found shape \(8, 2\)"),
    "no columns": ({"observations": np.zeros((8, 0))}, r"observations: .*found shape \(8, 0\)"),
    "mismatched lengths": ({"actions": np.zeros((7, 2))}, r"actions: expected 8 rows as in observations, found 7 rows"),
    "mismatched states": ({"next_observations": np.zeros((8, 4))}, r"expected 3 columns .*, found 4 columns"),
    "NaN": (
        changed("observations", ([2, 5], 1), np.nan),
        r"observations: .*finite.*found nan in row 2, column 1 \(2 such rows\)",
    ),
    "infinity": (changed("rewards", 4, -np.inf), r"rewards: .*finite.*found -inf in row 4 \(1 such row\)"),
    "too large for float32": (changed("rewards", 0, 1e300), r"rewards: .*finite float32.*found inf in row 0"),
    "actions out of range": (changed("actions", (3, 0), -1.001), r"actions: .*\[-1, 1\], found -1.001\d* in row 3"),
    "half a flag": (changed("terminals", 1, 0.5), r"terminals: expected only 0 and 1, found 0.5 in row 1"),
    "NaN flag": (changed("timeouts", 1, np.nan), r"timeouts: expected only 0 and 1, found nan in row 1"),
    "empty": (sound(0), r"observations: expected at least 2 rows, found no rows;"),
    "one transition": (sound(1), r"observations: expected at least 2 rows, found 1 row;"),
    "altered": ({"metadata/sha256": "0" * 64}, r"expected arrays that hash to 0{64}, found \w{64}; make .* again or"),
    "one row left": (
        {**sound(2), "next_observations": None, "timeouts": np.zeros(2)},
        r"at least 2 rows, found 1 row once each episode's last one is dropped",
    ),
}


@pytest.mark.parametrize(("changes", "message"), BAD_CONTENTS.values(), ids=BAD_CONTENTS)
def test_bad_contents_are_refused_and_explained(tmp_path: Path, changes: Arrays, message: str) -> None:
    path = store(tmp_path / "data.hdf5", {**sound(), **changes})
    with pytest.raises(UserError, match=message) as refusal:
        load_dataset(path)
    text = str(refusal.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    first = find_problems(path)[0]
    assert (first.severity, first.message) == ("error", text)
    assert first.consequence


def truncated_file(path: Path) -> Path:
    write_dataset(path, sound(400), {})
    path.write_bytes(path.read_bytes()[:-100])
    return path


def file_of(content: bytes) -> Any:
    return lambda path: (path.write_bytes(content), path)[1]


BAD_FILES = {
    "missing": (lambda path: path, "found no such file"),
    "directory": (lambda path: path.mkdir() or path, "found a directory"),
    "empty file": (file_of(b""), "found an empty file"),
    "not HDF5": (file_of(b"obs,action,reward\n1,2,3\n"), "found a file that is not HDF5"),
    "truncated": (truncated_file, "found a truncated HDF5 file"),
    "only a header": (file_of(b"\x89HDF\r\n\x1a\n" + bytes(200)), "found a damaged HDF5 file"),
    "no name at all": (lambda path: f"{path}\0", "found no such file"),
    "a name too long": (lambda path: path.with_name("x" * 5000), "found no such file"),
}


@pytest.mark.parametrize(("make", "found"), BAD_FILES.values(), ids=BAD_FILES)
def test_what_is_no_hdf5_file_is_refused(tmp_path: Path, make: Any, found: str) -> None:
    path = make(tmp_path / "data.hdf5")
    with pytest.raises(UserError, match=rf"data set|expected an HDF5 file in D4RL's layout, {found}.*; check the path"):
        load_dataset(path)
    assert [problem.key for problem in find_problems(path)] == ["file"]


def test_data_of_another_task_are_refused(tmp_path: Path) -> None:
    path = store(tmp_path / "hopper_medium-v2.hdf5", sound(20, 17, 6))
    expected = r"expected 11 and 3 columns as in task hopper, found 17 and 6; name the task"
    with pytest.raises(UserError, match=expected):
        load_dataset(path)
    assert [p.key for p in find_problems(path)] == ["observations and actions"]
    assert find_problems(path, task="walker2d") == []
    for refuse in (load_dataset, find_problems):
        with pytest.raises(UserError, match=r"unknown task 'hoper': did you mean 'hopper'"):
            refuse(path, task="hoper")


def test_all_problems_are_found_errors_first(tmp_path: Path) -> None:
    changes = {**changed("actions", (3, 0), np.nan), "timeouts": None, "rewards": np.zeros(7)}
    changes["actions"][4, 1] = 2.0
    path = store(tmp_path / "data.hdf5", {**sound(), **changes, **changed("terminals", 0, 3)})
    found = [(p.key, p.severity, p.message.split("found ")[-1].split(";")[0]) for p in find_problems(path)]
    assert found[:-1] == [
        ("rewards", "error", "7 rows"),
        ("actions", "error", "nan in row 3, column 0 (1 such row)"),
        ("actions", "error", "2.0 in row 4, column 1 (1 such row)"),
        ("terminals", "error", "3.0 in row 0 (1 such row)"),
    ]
    assert found[-1][:2] == ("timeouts", "warning")


def test_nothing_is_wrong_with_a_sound_file(tmp_path: Path) -> None:
    path = tmp_path / "data.hdf5"
    write_dataset(path, sound(40), {})
    assert find_problems(path) == []


ODDITIES: dict[str, tuple[Arrays, str, str]] = {
    "rebuilt": ({"next_observations": None}, "next_observations", "is missing and is rebuilt"),
    "no timeouts": ({"timeouts": None}, "timeouts", "is missing: an episode counts as cut where"),
    "constant feature": (changed("observations", (slice(None), 1), 3.0), "observations", "columns [1] never change"),
    "constant action": (changed("actions", (slice(None), 0), 0.0), "actions", "columns [0] never change"),
    "constant reward": (changed("rewards", slice(None), 2.0), "rewards", "every reward is 2.0"),
    "jumps": (changed("next_observations", (1, 0), 9.0), "next_observations", "14.3% of the rows inside"),
    "no ends": ({"timeouts": np.zeros(8), "terminals": np.zeros(8)}, "timeouts", "no episode is marked as ended"),
    "repeats": (
        {key: np.tile(value[:2], (4, *[1] * (value.ndim - 1))) for key, value in sound().items()},
        "observations",
        "75.0% of the rows repeat",
    ),
    "no terminals": ({"terminals": None}, "terminals", "every end of an episode is taken for a time limit"),
    "both flags": ({"timeouts": np.arange(8) == 7}, "terminals", "all 1 truncated rows are terminal as well"),
    "done": ({"terminals": None, "timeouts": None, "done": np.arange(8) == 7}, "terminals", "taken from done, and no"),
    "short": ({"timeouts": np.arange(8) % 2}, "timeouts", "episodes last 2.0 steps"),
}


@pytest.mark.parametrize(("changes", "key", "message"), ODDITIES.values(), ids=ODDITIES)
def test_oddities_are_warned_of_and_loaded(tmp_path: Path, changes: Arrays, key: str, message: str) -> None:
    path = store(tmp_path / "data.hdf5", {**sound(), **changes})
    load_dataset(path)
    problems = find_problems(path)
    assert {problem.severity for problem in problems} == {"warning"}
    assert [p.key for p in problems if message in p.message and p.message.startswith(str(path))] == [key]
    assert all(problem.consequence for problem in problems)


def test_a_time_limit_that_is_marked_as_terminal_is_noticed(tmp_path: Path) -> None:
    rows = np.arange(60)
    limit = {**sound(60), "terminals": rows % 6 == 5, "timeouts": np.zeros(60)}
    (problem,) = find_problems(store(tmp_path / "data.hdf5", limit))
    assert "terminals: all 10 terminal rows end episodes of the same length, 6 steps" in problem.message
    assert "learnt as a fall" in problem.consequence
    fallen_once_earlier = {**limit, "terminals": (rows % 6 == 5) | (rows == 2)}
    assert find_problems(store(tmp_path / "data.hdf5", fallen_once_earlier)) == []
    cut_later = {**limit, "terminals": (rows % 6 == 5) & (rows < 50), "timeouts": rows == 59}
    assert len(find_problems(store(tmp_path / "data.hdf5", cut_later))) == 0
