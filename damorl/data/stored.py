"""Data sets that stay on the disk: what is known of all rows, from one pass over them, and any rows when asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from damorl.core.returns import discounted_returns
from damorl.data.cache import DEFAULT_NUM_STEPS
from damorl.data.columnar import CHUNK, Columns
from damorl.data.contents import Metadata, Source
from damorl.data.convert import converted, first_rows
from damorl.data.names import ColumnMap
from damorl.data.recorded import resolve_task
from damorl.data.sources import find_dataset
from damorl.errors import UserError
from damorl.types import Spec, Transition
from damorl.world.task import Task
from damorl.world.units import make_bounds

KEYS = ("observations", "actions", "rewards", "next_observations", "terminals")
"""The columns of a `Transition`, in its order."""


@dataclass(frozen=True)
class Moments:
    """Of the states of all rows, `[obs_dim]` each, float64."""

    mean: np.ndarray
    std: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True, eq=False)
class StoredDataset:
    """Recorded transitions in time order, episode after episode, on the disk. In memory is what grows with the number
    of episodes, not of rows. Episodes are complete, or not, as those of `datasets.Dataset`."""

    name: str
    task: Task | None
    path: Path
    columns: Columns
    ends: np.ndarray
    """The last row of each complete episode, int64 `[E]`."""
    returns: np.ndarray
    """The undiscounted return of each complete episode, float64 `[E]`."""
    obs: Moments
    mean_abs_reward: float

    @property
    def sha256(self) -> str:
        """Of the arrays, whatever they are stored in: that of the same data in memory."""
        return self.columns.sha256

    @property
    def metadata(self) -> Metadata:
        """What came with the data, as `datasets.Dataset.metadata`."""
        return self.columns.metadata

    @property
    def num_transitions(self) -> int:
        """How many rows there are."""
        return self.columns.num_rows

    @property
    def action_dim(self) -> int:
        """Numbers per action."""
        return self.columns.action_dim

    @property
    def spec(self) -> Spec:
        """What an algorithm needs to know."""
        return Spec(self.columns.obs_dim, self.columns.action_dim)

    @property
    def starts(self) -> np.ndarray:
        """The first row of each episode, also of an incomplete last one, int64."""
        starts = np.append(0, self.ends + 1)
        return starts[starts < self.num_transitions]

    def episode_returns(self) -> np.ndarray:
        """The undiscounted return of each complete episode in order, float64 `[complete episodes]`."""
        return self.returns

    def take(self, index: np.ndarray) -> Transition:
        """The rows at `index` `[n]`, which ascends: NumPy arrays, float32."""
        return Transition(*(self.columns.take(key, index).astype(np.float32, copy=False) for key in KEYS))  # type: ignore[arg-type]

    def best_discounted_return(self, gamma: float) -> float:
        """As `datasets.Dataset.best_discounted_return`, in one pass from the last row to the first."""
        count, best, following = self.num_transitions, float("-inf"), 0.0
        lasts = np.union1d(self.ends, count - 1)
        fell, complete = self.columns.take("terminals", lasts), np.isin(lasts, self.ends)
        for first in range((count - 1) // CHUNK * CHUNK, -1, -CHUNK):
            rows = np.arange(first, min(first + CHUNK, count))
            reward = self.columns.read("rewards", first, int(rows[-1]) + 1)
            returns = discounted_returns(reward, np.isin(rows, self.ends), gamma, following)
            following, episode = returns[0], np.searchsorted(lasts, rows)
            nearly_all = gamma ** (lasts[episode] + 1.0 - rows) <= 0.01
            known = fell[episode] | nearly_all | (np.isin(rows, self.starts) & complete[episode])
            best = max(best, float(np.max(returns, initial=float("-inf"), where=known)))
        return best if np.isfinite(best) else float("nan")


def load_stored(
    source: str | Path,
    task: str | None = None,
    num_steps: int = DEFAULT_NUM_STEPS,
    seed: int = 0,
    columns: ColumnMap | None = None,
    action_bounds: tuple[ArrayLike, ArrayLike] | None = None,
    on_note: Callable[[str], None] = lambda note: None,
) -> StoredDataset:
    """The data set of an HDF5 file in D4RL's layout, of any size, without reading it as a whole.

    The arguments are those of `datasets.load_dataset`, and so are the rows. The file is converted to columns in the
    cache at its first use. UserError for a source of another kind, and with the first error of the data.
    """
    if not isinstance(source, str | Path) or str(source).startswith("minari:"):
        raise UserError(
            f"expected an HDF5 file to keep only some rows in memory, found {source}: leave --resident-rows out"
        )
    path, name = find_dataset(source, num_steps, seed)
    contents = first_rows(path, columns)
    found, _ = resolve_task(Source(str(path), name, contents, path), task)
    bounds = None if action_bounds is None else make_bounds(*action_bounds)
    return summed_up(name, found, path, converted(path, found, columns, bounds, on_note))


def summed_up(name: str, task: Task | None, path: Path, columns: Columns) -> StoredDataset:
    """The data set of these columns, from one pass over states, rewards and flags."""
    ends = np.concatenate([
        first + np.flatnonzero(terminal | columns.read("timeouts", first, first + len(terminal)))
        for first, terminal in columns.chunks("terminals")
    ])  # fmt: skip
    returns, magnitude = np.zeros(len(ends) + 1), 0.0  # the last one is of the rows after the last end
    for first, reward in columns.chunks("rewards"):
        reward = reward.astype(np.float64)
        episode = np.searchsorted(ends, np.arange(first, first + len(reward)))
        returns[episode[0] : episode[-1] + 1] += np.bincount(episode - episode[0], reward)
        magnitude += float(np.abs(reward).sum())
    mean_abs = magnitude / columns.num_rows
    return StoredDataset(name, task, path, columns, ends, returns[:-1], moments(columns), mean_abs)


def moments(columns: Columns) -> Moments:
    """Of the states, in float64; a constant feature has a deviation of exactly 0."""
    origin = columns.read("observations", 0, 1)[0].astype(np.float64)
    total, squares = np.zeros_like(origin), np.zeros_like(origin)
    low, high = np.full_like(origin, np.inf), np.full_like(origin, -np.inf)
    for _, obs in columns.chunks("observations"):
        offset = obs - origin
        total, squares = total + offset.sum(axis=0), squares + np.square(offset).sum(axis=0)
        low, high = np.minimum(low, obs.min(axis=0)), np.maximum(high, obs.max(axis=0))
    mean = total / columns.num_rows
    return Moments(origin + mean, np.sqrt(np.maximum(squares / columns.num_rows - mean**2, 0.0)), low, high)
