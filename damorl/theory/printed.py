"""What the paper prints in its tables, as data; where each table stands is said in its `source`."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any


def printed_table(number: int) -> dict[str, Any]:
    """Table 1 or 2 of arXiv 2502.00850 as printed. KeyError for another one."""
    text = resources.files("damorl.theory").joinpath("printed.json").read_text(encoding="utf-8")
    return json.loads(text)[f"table{number}"]
