"""Tables: real CSV and Parquet files, and the sentence for each cell that is in the way."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from damorl.data.check import find_problems
from damorl.data.datasets import load_dataset
from damorl.errors import UserError

LINES = """angle,speed,torque,gain,over,episode
0.1,1,0.5,1.0,false,0
0.2,2,-0.5,nothing,false,0
0.3,3,0.25,3.0,true,1
0.4,4,0.75,4.5,false,1
0.5,5,-0.125,5.5,false,1
"""
COLUMNS = {"observations": ["angle", "speed"], "actions": "torque", "rewards": "gain", "terminals": "over"}


def table(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def sound_csv(tmp_path: Path) -> Path:
    return table(tmp_path / "data.csv", LINES.replace("nothing", "2.0"))


def sound_columns() -> dict[str, Any]:
    return {
        "obs_0": np.arange(5.0),
        "obs_1": np.arange(5),
        "action_0": np.linspace(-1, 1, 5),
        "reward": np.arange(5) ** 2,
        "done": [False, False, True, False, False],
        "truncated": np.zeros(5, np.int8),
    }


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(UserError) as error:
        load_dataset(path, **options)
    assert find_problems(path, **options)[0].message == str(error.value)
    assert str(error.value).startswith(f"{path}: ")
    return str(error.value).removeprefix(f"{path}: ")


def test_a_table_with_columns_of_its_own(tmp_path: Path) -> None:
    dataset = load_dataset(sound_csv(tmp_path), columns=COLUMNS)
    obs, action, reward, next_obs, terminal = dataset.transitions
    # rows 1 and 2 end episodes by their numbers and by the flag; nothing follows row 4
    np.testing.assert_array_equal(obs, np.array([[0.1, 1], [0.4, 4]], np.float32))
    np.testing.assert_array_equal(next_obs, np.array([[0.2, 2], [0.5, 5]], np.float32))
    np.testing.assert_array_equal(action, np.array([[0.5], [0.75]], np.float32))
    np.testing.assert_array_equal(reward, [1.0, 4.5])
    np.testing.assert_array_equal(terminal, [0.0, 0.0])
    np.testing.assert_array_equal(dataset.truncated, [True, False])
    assert (dataset.name, dataset.dtypes["terminals"], dataset.dtypes["observations"]) == ("data", "bool", "float64")


def test_the_default_names_need_no_map(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pa.table(sound_columns()), tmp_path / "data.parquet")
    transitions = load_dataset(tmp_path / "data.parquet").transitions
    np.testing.assert_array_equal(transitions.obs, np.stack([np.arange(5), np.arange(5)], axis=1)[[0, 1, 3]])
    np.testing.assert_array_equal(transitions.action[:, 0], np.array([-1, -0.5, 0.5], np.float32))


def test_a_column_of_whole_numbers_may_have_a_fraction_late(tmp_path: Path) -> None:
    """pyarrow reads a megabyte at a time, but must not guess the types from the first one."""
    rows = 200_000
    lines = [f"{i % 7},0.5,{i},0,0" for i in range(rows)]
    lines[-2] = "2.5,0.5,1.25,1,0"
    path = table(tmp_path / "data.csv", "obs,action,reward,terminal,truncated\n" + "\n".join(lines))
    assert path.stat().st_size > 2**21
    assert (
        load_dataset(path, columns={"observations": "obs", "next_observations": "obs"}).transitions.reward[-2] == 1.25
    )


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("nothing", "none", "rewards: expected numbers of shape [rows], found the text 'none' in row 1 of column gain"),
        (
            "nothing",
            "",
            "rewards: expected numbers of shape [rows], found an empty cell in row 1 of column gain (1 such",
        ),
        ("nothing", "nan", "rewards: expected finite float32 numbers, found nan in row 1 (1 such row)"),
        ("0.3,3", "0.3,", "observations: expected numbers of shape [rows, dimension], found an empty cell in row 2 of"),
        ("0.3,3", "0.3,inf", "observations: expected finite float32 numbers, found inf in row 2, column 1"),
        (
            "true",
            "maybe",
            "terminals: expected numbers of shape [rows], found the text 'maybe' in row 2 of column over",
        ),
        ("0.5,5,-0.125", "0.5,5,-1.5", "actions: expected values in [-1, 1], found -1.5 in row 4, column 0"),
        (
            "gain",
            "profit",
            "rewards: expected what `columns` names, found no 'gain' among angle, speed, torque, profit",
        ),
        ("gain", "angle", "observations: expected numbers of shape [rows, dimension], found 2 columns named angle"),
        (",1\n", "\n", "expected a CSV table that begins with a line of column names, found something else (CSV parse"),
    ],
)
def test_what_is_wrong_with_a_cell_is_said(tmp_path: Path, old: str, new: str, found: str) -> None:
    text = LINES.replace(old, new)
    path = table(tmp_path / "data.csv", text if old == "nothing" else text.replace("nothing", "2.0"))
    assert refusal(path, columns=COLUMNS).startswith(found)


@pytest.mark.parametrize("separator", [";", "\t"])
def test_columns_may_be_apart_by_other_signs(tmp_path: Path, separator: str) -> None:
    expected = load_dataset(sound_csv(tmp_path), columns=COLUMNS)
    path = tmp_path / "other.csv"
    path.write_text(sound_csv(tmp_path).read_text().replace(",", separator), encoding="utf-8-sig")
    assert load_dataset(path, columns=COLUMNS).sha256 == expected.sha256


def test_actions_that_are_whole_numbers_are_discrete(tmp_path: Path) -> None:
    text = LINES.replace("nothing", "2.0")
    for number in ("0.5", "-0.5", "0.25", "0.75", "-0.125"):
        text = text.replace(f",{number},", ",1,")
    message = refusal(table(tmp_path / "data.csv", text), columns=COLUMNS)
    assert "found int64 of shape (5,), as discrete actions are; damorl is for continuous actions" in message
    continuous = table(tmp_path / "data.csv", text.replace(",1,1.0", ",1.0,1.0"))
    assert load_dataset(continuous, columns=COLUMNS).transitions.action[0] == 1.0


@pytest.mark.parametrize(
    ("column", "found"),
    [
        ([datetime(2026, 1, 1)] * 5, "values of type timestamp[us] in column reward"),
        ([[1.0]] * 5, "values of type list<element: double> in column reward; store one number per column and row"),
        (["1", "2", "3", "4", "5"], "the text '1' in row 0 of column reward; store numbers, or true and false"),
        ([1.0, None, 3.0, None, 5.0], "an empty cell in row 1 of column reward (2 such cells); fill such rows"),
        ([None] * 5, "an empty cell in row 0 of column reward (5 such cells)"),
    ],
)
def test_parquet_columns_that_are_no_numbers_are_refused(tmp_path: Path, column: Any, found: str) -> None:
    path = tmp_path / "data.parquet"
    pyarrow.parquet.write_table(pa.table({**sound_columns(), "reward": column}), path)
    assert refusal(path).startswith(f"rewards: expected numbers of shape [rows], found {found}")


def test_a_table_without_rows_is_refused(tmp_path: Path) -> None:
    path = table(tmp_path / "data.csv", LINES.splitlines()[0] + "\n")
    assert "observations" in refusal(path, columns=COLUMNS)
