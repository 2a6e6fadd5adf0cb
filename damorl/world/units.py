"""Units of actions: a simulator's own on one side, [-1, 1] on the other."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from damorl.errors import UserError


class Bounds(NamedTuple):
    """The lowest and the highest action in a simulator's units; float64, `[]` or `[action_dim]`."""

    low: np.ndarray
    high: np.ndarray


UNIT = Bounds(np.array(-1.0), np.array(1.0))


def make_bounds(low: ArrayLike, high: ArrayLike) -> Bounds:
    """Bounds from numbers or arrays. UserError unless they are finite and each low one is below its high one."""
    with suppress(TypeError, ValueError):
        bounds = Bounds(*np.broadcast_arrays(np.asarray(low, np.float64), np.asarray(high, np.float64)))
        if bounds.low.ndim < 2 and np.isfinite(bounds).all() and np.all(bounds.low < bounds.high):
            return bounds
    raise UserError(
        f"action_bounds: expected finite numbers, or one for each action, low below high, found {low} and {high}; "
        "give the lowest and the highest action of the simulator"
    )


def is_unit(bounds: Bounds) -> bool:
    """Are these already the bounds that the library works with?"""
    return bool(np.all(bounds.low == -1.0) and np.all(bounds.high == 1.0))


def to_unit(bounds: Bounds, action: ArrayLike) -> np.ndarray:
    """Actions `[*B, action_dim]` from the simulator's units to [-1, 1], float64; nothing is clipped."""
    centre, half = (bounds.high + bounds.low) / 2, (bounds.high - bounds.low) / 2
    return (np.asarray(action, np.float64) - centre) / half


def from_unit(bounds: Bounds, action: ArrayLike) -> np.ndarray:
    """The inverse of `to_unit`, float64."""
    centre, half = (bounds.high + bounds.low) / 2, (bounds.high - bounds.low) / 2
    return centre + half * np.asarray(action, np.float64)


def as_metadata(bounds: Bounds, action_dim: int) -> dict[str, str]:
    """`action_low` and `action_high`, each a JSON list of `action_dim` numbers, as `Dataset.metadata` keeps them."""
    return {
        f"action_{side}": json.dumps(np.broadcast_to(bound, action_dim).tolist())
        for side, bound in bounds._asdict().items()
    }


def from_metadata(metadata: Mapping[str, object]) -> Bounds:
    """The units that a data set's actions had before it was loaded; `UNIT` if its metadata state no others."""
    if "action_low" not in metadata:
        return UNIT
    return make_bounds(*(json.loads(str(metadata[f"action_{side}"])) for side in Bounds._fields))


def show(bounds: Bounds) -> str:
    """`[-2, 2]`, or `[-1, -2] to [1, 2]` where the actions differ."""
    low, high = (np.unique(bound) for bound in bounds)
    if len(low) == len(high) == 1:
        return f"[{low[0]:g}, {high[0]:g}]"
    return " to ".join(f"[{', '.join(f'{value:g}' for value in bound)}]" for bound in bounds)
