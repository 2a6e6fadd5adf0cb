"""Random malformed files: each is either read rightly or refused with a sentence; nothing else ever happens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from damorl.errors import UserError
from damorl.world.check import find_problems, summary
from damorl.world.datasets import Dataset, load_dataset

KEYS = ("observations", "actions", "rewards", "next_observations", "terminals", "timeouts")
FLAGS = ("terminals", "timeouts")
WIDE = ("observations", "actions", "next_observations")

Columns = dict[str, Any]
Row = tuple[Any, ...]


def slow_reference(columns: Columns) -> list[Row] | None:
    """The rows that a file means, entry by entry in plain Python; None if it must be refused."""
    if any(key not in columns for key in ("observations", "actions", "rewards", "terminals")):
        return None
    if "next_observations" not in columns and "timeouts" not in columns:
        return None
    lists = {key: as_lists(key, column) for key, column in columns.items()}
    if any(rows is None for rows in lists.values()) or len({len(rows) for rows in lists.values() if rows}) != 1:
        return None
    rows: dict[str, list[Any]] = {key: value for key, value in lists.items() if value}
    if rows.keys() != columns.keys() or len(rows["rewards"]) < 2:
        return None
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
    if column.ndim != (2 if key in WIDE else 1) or (key in WIDE and column.shape[1] == 0):
        return None
    if key in FLAGS:
        return [bool(x) for x in column.tolist()] if all(x in (0, 1) for x in column.tolist()) else None
    with np.errstate(over="ignore"):
        entries = [np.float32(x) for x in column.ravel()]
    if not all(np.isfinite(entries)):
        return None
    return np.reshape(np.array(entries, object), column.shape).tolist()


def row_of(rows: dict[str, list[Any]], i: int) -> Row | None:
    """`(obs, action, reward, next_obs, terminal, truncated)` of row i, or None if it has no known next state."""
    last, terminal = i == len(rows["rewards"]) - 1, rows["terminals"][i]
    start = rows["observations"][i], rows["actions"][i], rows["rewards"][i]
    if "next_observations" in rows:
        reached = rows["next_observations"][i]
        if "timeouts" in rows:
            cut = rows["timeouts"][i]
        else:
            follows = last or all(abs(a - b) < 1e-3 for a, b in zip(reached, rows["observations"][i + 1], strict=True))
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


@st.composite
def sound_columns(draw: st.DrawFn) -> Columns:
    """A small well-formed data set on a coarse grid, with random ends and some breaks between rows."""
    num_rows, obs_dim, action_dim = draw(st.tuples(st.integers(0, 9), st.integers(1, 3), st.integers(1, 2)))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    states = rng.integers(-3, 4, (num_rows + 1, obs_dim)) / 2
    breaks = rng.random(num_rows) < draw(st.sampled_from([0.0, 0.3]))
    return {
        "observations": states[:-1],
        "actions": rng.integers(-2, 3, (num_rows, action_dim)) / 2,
        "rewards": rng.integers(-3, 4, num_rows) / 2,
        "next_observations": states[1:] + breaks[:, None],
        "terminals": rng.random(num_rows) < 0.3,
        "timeouts": rng.random(num_rows) < 0.3,
    }


ODD_NUMBERS = [np.nan, np.inf, -np.inf, 1e300, 1e-300, 1.00005, -1.00005, 1.001, 2.0, 0.5, -1.0, 1.0, 3e38]
ODD_TYPES = ["f2", "f4", "f8", ">f4", ">f8", "i1", "i8", "u8", "?", "c8", "S3", "V4"]


def mutate(draw: st.DrawFn, column: np.ndarray) -> Any:
    """One thing that can be wrong, or just unusual, about an array."""
    kinds = ["number", "type", "length", "rank", "narrow", "wide", "transpose", "group", "null", "text"]
    kind = draw(st.sampled_from(kinds))
    if kind == "number" and column.size:
        column = column.astype(float)
        column.flat[draw(st.integers(0, column.size - 1))] = draw(st.sampled_from(ODD_NUMBERS))
        return column
    if kind == "type":
        return np.nan_to_num(column.astype(float)).astype(draw(st.sampled_from(ODD_TYPES)))
    simple = {
        "length": lambda: column[: draw(st.integers(0, 7))],
        "rank": lambda: column[..., None] if column.ndim == 1 or draw(st.booleans()) else column[:, 0],
        "narrow": lambda: column[:, :-1] if column.ndim == 2 else column[:-1],
        "wide": lambda: np.repeat(column, 2, axis=-1),
        "transpose": lambda: column.T,
        "group": dict,
        "null": lambda: h5py.Empty("f4"),
        "text": lambda: ["words"] * len(column),
    }
    return simple[kind]() if kind in simple else column


@st.composite
def columns_of_any_kind(draw: st.DrawFn) -> Columns:
    """A sound set where usually one optional key is missing and in half of the cases something is odd."""
    columns = draw(sound_columns())
    columns.pop(draw(st.sampled_from(["next_observations", "timeouts", "nothing"])), None)
    for key in draw(st.one_of(st.just([]), st.lists(st.sampled_from(list(columns)), max_size=2, unique=True))):
        columns[key] = mutate(draw, columns[key])
    if draw(st.integers(0, 9)) == 0:
        columns.pop(draw(st.sampled_from(KEYS)), None)
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


@settings(max_examples=250, deadline=None, derandomize=True)
@given(columns=columns_of_any_kind(), compressed=st.booleans())
def test_any_columns_are_read_rightly_or_refused(path: Path, columns: Columns, compressed: bool) -> None:
    store(path, columns, compressed)
    expected, dataset = slow_reference(columns), load_or_refuse(path)
    assert (dataset is None) == (expected is None)
    if dataset is not None and expected is not None:
        assert_is(dataset, expected)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(columns=sound_columns(), cut=st.floats(0, 1), compressed=st.booleans())
@example(columns={}, cut=0.0, compressed=False)
def test_a_file_cut_anywhere_is_read_rightly_or_refused(
    path: Path, columns: Columns, cut: float, compressed: bool
) -> None:
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
