"""Assertions with readable messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def expect(condition: bool | np.bool_, message: str) -> None:
    """AssertionError with the message unless the condition holds; `python -O` does not remove it."""
    if not condition:
        raise AssertionError(message)


def expect_same_bits(found: Mapping[str, Any], expected: Mapping[str, Any], what: str) -> None:
    """The same names, and under each the same bits."""
    differing = sorted(found.keys() ^ expected.keys())
    expect(not differing, f"{what}: expected the same arrays, found {differing} in one of the two only")
    for name, array in expected.items():
        same = np.asarray(found[name]).tobytes() == np.asarray(array).tobytes()
        expect(same, f"{what}: expected the same bits, found other ones in {name}: is it all in the state?")
