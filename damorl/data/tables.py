"""Tables with one row per transition: CSV and Parquet, read by pyarrow (`damorl[tables]`)."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from damorl.data.contents import Contents, Raw, Unreadable, printable
from damorl.data.names import ColumnMap, gather
from damorl.errors import UserError

LONGEST_HEADER = 2**20


def read_csv(path: Path, columns: ColumnMap | None = None) -> Contents:
    """Contents of a table of text, its columns apart by commas, semicolons or tabs. Whole columns are typed at once."""
    csv = _pyarrow("csv", path)
    with path.open(encoding="utf-8", errors="replace") as file:
        header = file.readline(LONGEST_HEADER)
    table = csv.read_csv(
        path,
        parse_options=csv.ParseOptions(delimiter=max(",;\t", key=header.count)),
        convert_options=csv.ConvertOptions(null_values=[""], strings_can_be_null=True),
    )
    return _gather(table.column_names, table.column, columns)


def read_parquet(path: Path, columns: ColumnMap | None = None) -> Contents:
    """Contents of a Parquet file; only the columns that are needed are read."""
    with _pyarrow("parquet", path).ParquetFile(path) as file:
        return _gather(file.schema_arrow.names, lambda name: file.read([name]).column(0), columns)


def _gather(names: list[str], column: Callable[[str], Any], columns: ColumnMap | None) -> Contents:
    return gather(Raw(tuple(map(printable, names)), partial(_read, names, column)), columns)


def _read(names: list[str], column: Callable[[str], Any], name: str) -> np.ndarray | Unreadable | None:
    if names.count(name) != 1:
        return Unreadable(f"{names.count(name)} columns named {name}") if name in names else None
    return _to_numpy(column(name), name)


def _to_numpy(column: Any, name: str) -> np.ndarray | Unreadable:
    """A pyarrow column as an array, or which cell is in the way."""
    types = importlib.import_module("pyarrow").types
    if not len(column):
        return np.zeros(0)  # whose type nobody can tell: without rows it does not matter
    empty = np.flatnonzero(column.is_null().to_numpy())
    if len(empty):
        cells = f"{len(empty)} such {'cell' if len(empty) == 1 else 'cells'}"
        remedy = "fill such rows or remove them"
        return Unreadable(f"an empty cell in row {empty[0]} of column {name} ({cells})", "", remedy)
    if types.is_integer(column.type) or types.is_floating(column.type) or types.is_boolean(column.type):
        return column.to_numpy()
    if types.is_string(column.type) or types.is_large_string(column.type):
        cells = column.to_pylist()
        row, text = next((cell for cell in enumerate(cells) if not _is_value(cell[1])), (0, cells[0]))
        found = f"the text {printable(text[:40])!r} in row {row} of column {name}"
        return Unreadable(found, "", "store numbers, or true and false")
    return Unreadable(f"values of type {column.type} in column {name}", "", "store one number per column and row")


def _is_value(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text.lower() in ("true", "false")
    return True


def _pyarrow(module: str, path: Path) -> Any:
    try:
        return importlib.import_module(f"pyarrow.{module}")
    except ImportError as reason:
        raise UserError(
            f"{path}: tables are read by pyarrow, which is missing: pip install 'damorl[tables]'"
        ) from reason
