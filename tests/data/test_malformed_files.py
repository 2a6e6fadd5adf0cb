"""Random malformed files: each is either read rightly or refused with a sentence; nothing else ever happens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from damorl.data.card import summary
from damorl.data.check import find_problems
from damorl.data.datasets import Dataset, load_dataset
from damorl.errors import UserError

KEYS = ("observations", "actions", "rewards", "next_observations", "terminals", "timeouts")
FLAGS = ("terminals", "timeouts")
STATES = ("observations", "next_observations")
WIDE = (*STATES, "actions")

Columns = dict[str, Any]
Row = tuple[Any, ...]

SEEDS = st.integers(0, 2**32 - 1)


def slow_reference(columns: Columns) -> list[Row] | None:
    """The rows that a file means, entry by entry in plain Python; None if it must be refused."""
    if any(key not in columns for key in ("observations", "actions", "rewards")):
        return None
    if "terminals" not in columns and "timeouts" not in columns:
        return None
    if "next_observations" not in columns and "timeouts" not in columns:
        return None
    lists = {key: as_lists(key, column) for key, column in columns.items()}
    if any(rows is None for rows in lists.values()) or len({len(rows) for rows in lists.values() if rows}) != 1:
        return None
    rows: dict[str, list[Any]] = {key: value for key, value in lists.items() if value}
    if rows.keys() != columns.keys() or len(rows["rewards"]) < 2:
        return None
    rows.setdefault("terminals", [False] * len(rows["rewards"]))
    if "next_observations" in rows and len(rows["next_observations"][0]) != len(rows["observations"][0]):
        return None
    if any(abs(x) > np.float32(1.0001) for action in rows["actions"] for x in action):
        return None
    rows["actions"] = [[min(1.0, max(-1.0, x)) for x in action] for action in rows["actions"]]
    found = [row for i in range(len(rows["rewards"])) if (row := row_of(rows, i)) is not None]
    return found if len(found) >= 2 else None


def as_lists(key: str, column: Any) -> list[Any] | None:
    """The column's rows as float32 lists or bools, or None if it is not what the key demands."""
    if not isinstance(column, np.ndarray) or column.dtype.kind not in ("biuf" if key in FLAGS else "iuf"):
        return None
    if key in STATES and column.dtype == np.uint8:
        return None
    rows = column.tolist()
    if column.ndim == 1 and key in WIDE:
        rows = [[row] for row in rows]
    elif column.ndim == 2 and key not in WIDE and column.shape[1] == 1:
        rows = [row[0] for row in rows]
    elif column.ndim != (2 if key in WIDE else 1) or (key in WIDE and column.shape[1] == 0):
        return None
    if key == "actions" and column.dtype.kind in "iu" and (column.ndim == 1 or column.shape[1] == 1):
        return None
    if key in FLAGS:
        return [bool(x) for x in rows] if all(x in (0, 1) for x in rows) else None
    with np.errstate(over="ignore"):
        rounded = np.array(rows, float).astype(np.float32)
    if not np.isfinite(rounded).all():
        return None
    return [list(row) for row in rounded] if key in WIDE else list(rounded)


def row_of(rows: dict[str, list[Any]], i: int) -> Row | None:
    """`(obs, action, reward, next_obs, terminal, truncated)` of row i, or None if it has no known next state."""
    last, terminal = i == len(rows["rewards"]) - 1, rows["terminals"][i]
    start = rows["observations"][i], rows["actions"][i], rows["rewards"][i]
    if "next_observations" in rows:
        reached = rows["next_observations"][i]
        if "timeouts" in rows:
            cut = rows["timeouts"][i]
        else:
            follows = last or all(
                abs(a - b) <= 1e-5 * (1 + abs(b)) for a, b in zip(reached, rows["observations"][i + 1], strict=True)
            )
            cut = not (follows or terminal)
        return (*start, reached, terminal, cut)
    if last or terminal or rows["timeouts"][i]:
        return None
    return (*start, rows["observations"][i + 1], False, rows["terminals"][i + 1] or rows["timeouts"][i + 1])


def assert_is(dataset: Dataset, expected: list[Row]) -> None:
    arrays = (*dataset.transitions, dataset.truncated)
    for found, wanted in zip(arrays, zip(*expected, strict=True), strict=True):
        np.testing.assert_array_equal(np.asarray(found, float), np.array(wanted, float))
    summary(dataset)


def sound_columns(rng: np.random.Generator) -> Columns:
    """A small well-formed data set on a coarse grid, with random ends and some breaks between rows."""
    num_rows, obs_dim, action_dim = rng.integers(0, 10), rng.integers(1, 4), rng.integers(1, 3)
    states = rng.integers(-3, 4, (num_rows + 1, obs_dim)) / 2
    breaks = rng.random(num_rows) < 0.2
    columns = {
        "observations": states[:-1],
        "actions": rng.integers(-2, 3, (num_rows, action_dim)) / 2,
        "rewards": rng.integers(-3, 4, num_rows) / 2,
        "next_observations": states[1:] + breaks[:, None],
        "terminals": rng.random(num_rows) < 0.3,
        "timeouts": rng.random(num_rows) < 0.3,
    }
    columns.pop(rng.choice(["next_observations", "timeouts", "terminals", "nothing"]), None)
    return columns


ODD_NUMBERS = [np.nan, np.inf, -np.inf, 1e300, 1e-300, 1.00005, -1.00005, 1.001, 2.0, 0.5, -1.0, 1.0, 3e38]
ODD_TYPES = ["f2", "f4", "f8", ">f4", ">f8", "i1", "u1", "i8", "u8", "?", "c8", "S3", "V4"]


def with_odd_number(rng: np.random.Generator, column: np.ndarray) -> np.ndarray:
    column = column.astype(float)
    if column.size:
        column.flat[rng.integers(column.size)] = rng.choice(ODD_NUMBERS)
    return column


def mutate(rng: np.random.Generator, column: np.ndarray) -> Any:
    """One thing that can be wrong, or just unusual, about an array."""
    ways = (
        lambda: with_odd_number(rng, column),
        lambda: column * rng.choice([1.00005, 1.00015]),
        lambda: column.astype(rng.choice(ODD_TYPES)),
        lambda: column[: rng.integers(8)],
        lambda: column[..., None],
        lambda: column[:, 0] if column.ndim == 2 else column[:-1],
        lambda: column[:, : rng.integers(2)] if column.ndim == 2 else column[:0],
        lambda: np.repeat(column, 2, axis=-1),
        lambda: column.T,
        lambda: {},
        lambda: h5py.Empty("f4"),
        lambda: ["words"] * len(column),
    )
    return ways[rng.integers(len(ways))]()


def any_columns(rng: np.random.Generator) -> Columns:
    """A sound set, spoilt in most cases."""
    columns = sound_columns(rng)
    for key in rng.choice(list(columns), rng.integers(3), replace=False):
        columns[key] = mutate(rng, columns[key])
    if rng.random() < 0.1:
        columns.pop(rng.choice(KEYS), None)
    return columns


def store(path: Path, columns: Columns, compressed: bool) -> None:
    with h5py.File(path, "w") as file:
        for key, value in columns.items():
            if isinstance(value, dict):
                file.create_group(key)
            else:
                chunked = compressed and isinstance(value, np.ndarray) and value.size > 0
                file.create_dataset(key, data=value, compression="gzip" if chunked else None)
        file["metadata/note"] = "random"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("malformed") / "data.hdf5"


def load_or_refuse(path: Path) -> Dataset | None:
    """The data set, or None after making sure that loader and checker refuse for the same reason."""
    problems = find_problems(path)
    errors = [problem.message for problem in problems if problem.severity == "error"]
    assert errors == [problem.message for problem in problems[: len(errors)]]
    if not errors:
        return load_dataset(path)
    with pytest.raises(UserError) as refusal:
        load_dataset(path)
    assert str(refusal.value) == errors[0]
    assert "\n" not in errors[0]
    return None


@settings(max_examples=400, deadline=None, derandomize=True)
@given(seed=SEEDS, compressed=st.booleans())
def test_any_columns_are_read_rightly_or_refused(path: Path, seed: int, compressed: bool) -> None:
    columns = any_columns(np.random.default_rng(seed))
    store(path, columns, compressed)
    expected, dataset = slow_reference(columns), load_or_refuse(path)
    assert (dataset is None) == (expected is None)
    if dataset is not None and expected is not None:
        assert_is(dataset, expected)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(seed=SEEDS, cut=st.floats(0, 1), compressed=st.booleans())
def test_a_file_cut_anywhere_is_read_rightly_or_refused(path: Path, seed: int, cut: float, compressed: bool) -> None:
    columns = sound_columns(np.random.default_rng(seed))
    store(path, columns, compressed)
    content = path.read_bytes()
    path.write_bytes(content[: round(cut * len(content))])
    expected, dataset = slow_reference(columns), load_or_refuse(path)
    if dataset is not None:
        assert expected is not None
        assert_is(dataset, expected)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(content=st.binary(max_size=300), signed=st.booleans())
def test_any_bytes_are_refused(path: Path, content: bytes, signed: bool) -> None:
    path.write_bytes((b"\x89HDF\r\n\x1a\n" if signed else b"") + content)
    assert load_or_refuse(path) is None
