"""Data sets in memory: loaded by name or path, with their episodes."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import platformdirs
from numpy.typing import ArrayLike

from damorl.errors import UserError
from damorl.types import Array, Spec, Transition
from damorl.world.examine import Examination, examine
from damorl.world.store import Metadata
from damorl.world.store import write_dataset as write_dataset
from damorl.world.tasks import DATASET_NAMES, DatasetName, Task, find_task, infer_task

DEFAULT_NUM_STEPS = 200_000
"""Transitions per part of a built-in data set."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Recorded transitions in time order, episode after episode.

    The arrays of `transitions` are NumPy's: float32, `terminal` 0.0 or 1.0. `truncated` `[N]`, bool, marks the rows
    after which an episode was cut though the task had not ended; a row may be terminal and truncated. An episode is
    *complete* if its last row is marked by either; the last one often is not.
    """

    name: str
    task: Task | None
    """None if neither the caller nor the name told."""
    transitions: Transition
    truncated: np.ndarray
    path: Path | None
    sha256: str
    """Of the arrays (`store.hash_columns`), whatever file they came from."""
    metadata: Metadata = field(default_factory=dict)

    @property
    def num_transitions(self) -> int:
        """How many rows there are."""
        return len(self.truncated)

    @property
    def obs_dim(self) -> int:
        """Numbers per state."""
        return self.transitions.obs.shape[1]

    @property
    def action_dim(self) -> int:
        """Numbers per action."""
        return self.transitions.action.shape[1]

    @property
    def spec(self) -> Spec:
        """What an algorithm needs to know."""
        return Spec(self.obs_dim, self.action_dim)

    @property
    def episode_end(self) -> np.ndarray:
        """`[N]` bool: rows that are terminal or truncated."""
        return (np.asarray(self.transitions.terminal) > 0) | self.truncated

    @property
    def episode_start(self) -> np.ndarray:
        """`[N]` bool: the first row and every row after a terminal or truncated one."""
        return np.append(True, self.episode_end[:-1])

    def initial_obs(self) -> np.ndarray:
        """The states that episodes began in, `[E, obs_dim]`, also that of an incomplete last episode."""
        return np.asarray(self.transitions.obs)[self.episode_start]

    def episode_returns(self) -> np.ndarray:
        """The undiscounted return of each complete episode in order, float64 `[complete episodes]`."""
        totals = np.append(0.0, np.cumsum(self.transitions.reward, dtype=np.float64)[self.episode_end])
        return np.diff(totals)

    def episode_lengths(self) -> np.ndarray:
        """The number of rows of each complete episode in order, int64 `[complete episodes]`."""
        return np.diff(np.append(-1, np.flatnonzero(self.episode_end)))

    def best_discounted_return(self, gamma: float) -> float:
        """The highest discounted return that the data collected from any of its states on; NaN if none is known.

        A return is known if its episode then ended by itself, or ran until at most 1 % of the weight was left. The
        start of an episode that was cut earlier counts too.
        """
        ended, rows = self.episode_end, np.arange(self.num_transitions)
        ends = np.append(np.flatnonzero(ended), self.num_transitions - 1)
        last = ends[np.searchsorted(ends, rows)]  # of each row's episode
        fell = np.asarray(self.transitions.terminal)[last] > 0
        nearly_all = gamma ** (last + 1.0 - rows) <= 0.01
        returns = discounted_returns(self.transitions.reward, ended, gamma)
        known = returns[fell | nearly_all | (self.episode_start & ended[last])]
        return float(known.max()) if known.size else float("nan")


def discounted_returns(reward: ArrayLike, ended: ArrayLike, gamma: float) -> np.ndarray:
    """`[N]`, float64: what was collected from each row on, to its episode's last row (`ended`) or the last of all."""
    following, returns = 0.0, []
    backwards = (np.asarray(column)[::-1].tolist() for column in (reward, ended))
    for now, end in zip(*backwards, strict=True):
        following = now if end else now + gamma * following
        returns.append(following)
    return np.array(returns[::-1])


def make_dataset(name: str, task: Task | None, path: Path, examination: Examination) -> Dataset:
    """The data set of a file in which `examine` found no error. UserError with its first error if there is one."""
    for problem in examination.problems:
        if problem.severity == "error":
            raise UserError(problem.message)
    assert examination.rows is not None
    *numbers, terminal, truncated = examination.rows
    transitions = Transition(*(cast(Array, array) for array in (*numbers, terminal.astype(np.float32))))
    return Dataset(name, task, transitions, truncated, path, examination.sha256, examination.metadata)


def load_dataset(
    source: str | Path, task: str | None = None, num_steps: int = DEFAULT_NUM_STEPS, seed: int = 0
) -> Dataset:
    """Load a built-in data set by its name, or any HDF5 file in D4RL's layout by its path.

    `task` names the task; without it the file's name tells, if it begins with one. `num_steps` and `seed` say which
    build of a built-in set is meant. Everything becomes float32 once; terminals and timeouts stay apart, and a row
    that has both keeps both. Actions beyond [-1, 1] by at most 1e-4 are clipped.

    A file without `next_observations` gets them from the following row, never across an episode's end. The state that
    an episode's last row led to is then unknown, so that row is dropped, **also where it is terminal**, and the one
    before it counts as truncated; `metadata["next_observations"]` is then `"rebuilt"`. A file without `timeouts`
    counts as truncated where the next row does not begin in the state just reached.

    Raises UserError with the first error that `check.find_problems` lists, or if a built-in set is not yet made.
    """
    path, name = find_dataset(source, num_steps, seed)
    resolved = resolve_task(name, task)
    return make_dataset(name, resolved, path, examine(path, resolved))


def find_dataset(source: str | Path, num_steps: int = DEFAULT_NUM_STEPS, seed: int = 0) -> tuple[Path, str]:
    """The file and the name of a data set. UserError if `source` is neither a built-in name nor a path."""
    if isinstance(source, str) and source in DATASET_NAMES:
        path = dataset_path(source, num_steps, seed)
        if not path.exists():
            steps = "" if num_steps == DEFAULT_NUM_STEPS else f" --steps {num_steps}"
            raise UserError(f"data set {source!r} is not made yet ({path}): run `damorl data make {source}{steps}`")
        return path, source
    path = Path(os.path.expanduser(source))
    if isinstance(source, str) and not path.suffix and path.name == source and not os.path.exists(path):
        DatasetName.parse(source)  # a bare word that is no file was meant as a name: says which names there are
    return path, path.stem


def resolve_task(dataset_name: str, task: str | None) -> Task | None:
    """The task of that name or, without one, the task that the data set's name begins with."""
    return infer_task(dataset_name) if task is None else find_task(task)


def cache_dir() -> Path:
    """Where built-in data sets are kept: `$DAMORL_HOME`, or the user's cache folder."""
    home = os.environ.get("DAMORL_HOME")
    return Path(os.path.expanduser(home)) if home else Path(platformdirs.user_cache_dir("damorl"))


def dataset_path(name: str, num_steps: int = DEFAULT_NUM_STEPS, seed: int = 0) -> Path:
    """The file of a built-in data set, whether it exists or not. UserError if there is no set of that name."""
    return cache_dir() / "datasets" / f"{DatasetName.parse(name)}-{num_steps}-seed{seed}.hdf5"
