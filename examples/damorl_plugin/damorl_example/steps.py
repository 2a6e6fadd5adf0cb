"""A small text format, `.steps`: a line per step, `state | action | reward | next state | end`.

    0.10 0.00 | 1.5 | 0.99 | 0.12 0.15 | -

`end` is `-`, `fell` (the task ended) or `cut` (the time was up). What begins with `#` is a remark.
"""

from pathlib import Path

import numpy as np

from damorl.data.arrays import read_arrays
from damorl.data.contents import Contents
from damorl.data.formats import Format
from damorl.data.names import ColumnMap

ENDS = ("-", "fell", "cut")


def read(path: Path, columns: ColumnMap | None = None) -> Contents:
    """The arrays of a file. ValueError, with the line, for one that has another form."""
    rows, ends = list[list[list[float]]](), list[str]()
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        *parts, end = (part.split() for part in line.split("|"))
        if len(parts) != 4 or len(end) != 1 or end[0] not in ENDS:
            raise ValueError(f"line {number}: {line[:40]!r}")
        rows.append([[float(word) for word in part] for part in parts])
        ends.append(end[0])
    obs, action, reward, next_obs = (np.array(column, np.float32) for column in zip(*rows, strict=True))
    arrays = {"obs": obs, "action": action, "reward": reward[:, 0], "next_obs": next_obs}
    arrays |= {"terminal": np.array(ends) == "fell", "truncated": np.array(ends) == "cut"}
    return read_arrays(arrays, columns)


FORMAT = Format("lines of `state | action | reward | next state | end`", read)
