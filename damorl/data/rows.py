"""From sound columns to rows: where episodes end, and which state each step led to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

Columns = Mapping[str, np.ndarray]


class Rows(NamedTuple):
    """A data set's rows as NumPy arrays: float32, and bool for the two flags."""

    obs: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    next_obs: np.ndarray
    terminal: np.ndarray
    truncated: np.ndarray


def assemble(columns: Columns) -> Rows:
    """Rows from sound columns (some may be absent, see `datasets.load_dataset`). Actions are clipped to [-1, 1]."""
    obs, terminal = columns["observations"], terminals(columns)
    action, reward = np.clip(columns["actions"], -1.0, 1.0), columns["rewards"]
    next_obs, cut = columns.get("next_observations"), cuts(columns)
    if next_obs is not None:
        if cut is None:
            cut = np.append(~continues(next_obs[:-1], obs[1:]) & ~terminal[:-1], False)
        return Rows(obs, action, reward, next_obs, terminal, cut)
    assert cut is not None  # data with neither are refused
    ended = terminal | cut
    kept = np.flatnonzero(~ended[:-1])  # the state after an episode's last row, or the last of all, is not in the data
    return Rows(obs[kept], action[kept], reward[kept], obs[kept + 1], terminal[kept], ended[kept + 1])


def terminals(columns: Columns) -> np.ndarray:
    """`[N]` bool: rows in which the task itself ended; none where the data do not say."""
    found = columns.get("terminals")
    return np.zeros(len(columns["rewards"]), bool) if found is None else found.astype(bool)


def cuts(columns: Columns) -> np.ndarray | None:
    """`[N]` bool: rows after which an episode was cut, by any of the columns that tell; None if none of them is there.

    `timeouts` says it as it is. Where `episodes` changes, and before a row of `starts` and at the end of all, a row
    that is not terminal was cut.
    """
    terminal, told = terminals(columns), []
    if "timeouts" in columns:
        told.append(columns["timeouts"].astype(bool))
    if "episodes" in columns:
        told.append(np.append(columns["episodes"][1:] != columns["episodes"][:-1], False) & ~terminal)
    if "starts" in columns:
        last_rows = np.append(columns["starts"].astype(int), len(terminal)) - 1
        told.append(np.isin(np.arange(len(terminal)), last_rows) & ~terminal)
    return np.logical_or.reduce(told) if told else None


def continues(reached: np.ndarray, following: np.ndarray) -> np.ndarray:
    """Row by row, `[N, dim] -> [N]`: is the state reached the state that follows, up to float rounding?"""
    with np.errstate(over="ignore"):
        return np.all(np.abs(reached - following) <= 1e-5 + 1e-5 * np.abs(following), axis=1)
