"""Where data sets come from: names, files, arrays and Minari's store."""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

from numpy.typing import ArrayLike

from damorl.data.arrays import read_arrays
from damorl.data.cache import DEFAULT_NUM_STEPS, dataset_path
from damorl.data.contents import Source
from damorl.data.formats import read_file
from damorl.data.names import ColumnMap
from damorl.errors import UserError
from damorl.world.tasks import DATASET_NAMES, DatasetName


class Reading(TypedDict, total=False):
    """How a source is read; each as in `datasets.load_dataset`."""

    columns: ColumnMap | None
    action_bounds: tuple[ArrayLike, ArrayLike] | None
    name: str | None
    allow_external: bool


def open_source(source: Any, num_steps: int, seed: int, reading: Reading) -> Source:
    """Find and read a data set; `datasets.load_dataset` says what `source` may be."""
    columns, name = reading.get("columns"), reading.get("name")
    if isinstance(source, Mapping):
        return Source(name or "arrays", name or "arrays", read_arrays(source, columns))
    if _is_minari(source):
        from damorl.data.minari_store import open_minari

        return open_minari(source, columns)
    if not isinstance(source, str | Path):
        raise UserError(
            f"expected the name or path of a data set, a dictionary of arrays or a Minari data set, found "
            f"{type(source).__name__}; give one of those"
        )
    path, stem = find_dataset(source, num_steps, seed)
    on_outside = warnings.warn if reading.get("allow_external") else None
    return Source(str(path), name or stem, read_file(path, columns, on_outside), path)


def _is_minari(source: Any) -> bool:
    """A Minari id of several words, `minari:` before any id, or Minari's own object; never an existing path."""
    if isinstance(source, str):
        is_id = re.fullmatch(r"[-\w]+(/[-\w]+)+-v\d+", source) and not os.path.exists(source)
        return source.startswith("minari:") or bool(is_id)
    minari: Any = sys.modules.get("minari")
    return minari is not None and isinstance(source, minari.MinariDataset)


def find_dataset(source: str | Path, num_steps: int = DEFAULT_NUM_STEPS, seed: int = 0) -> tuple[Path, str]:
    """The file and the name of a data set. UserError if `source` is neither a known name nor a path."""
    if isinstance(source, str) and source in DATASET_NAMES:
        path = dataset_path(source, num_steps, seed)
        if not path.exists():
            steps = "" if num_steps == DEFAULT_NUM_STEPS else f" --steps {num_steps}"
            raise UserError(f"data set {source!r} is not made yet ({path}): run `damorl data make {source}{steps}`")
        return path, source
    if isinstance(source, str):  # D4RL's own data sets
        from damorl.data.download import downloaded_path

        if (downloaded := downloaded_path(source)) is not None:
            return downloaded, source
    path = Path(os.path.expanduser(source))
    if isinstance(source, str) and not path.suffix and path.name == source and not os.path.exists(path):
        DatasetName.parse(source)  # a bare word that is no file was meant as a name: says which names there are
    return path, path.stem
