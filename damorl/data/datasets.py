"""Data sets in memory: loaded from wherever they are, with their episodes."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, cast

import numpy as np
from numpy.typing import ArrayLike

from damorl.core.returns import discounted_returns
from damorl.data.cache import DEFAULT_NUM_STEPS
from damorl.data.cache import cache_dir as cache_dir
from damorl.data.cache import dataset_path as dataset_path
from damorl.data.contents import Metadata, Source
from damorl.data.examine import Examination, judge
from damorl.data.recorded import resolve_task
from damorl.data.sources import Reading, open_source
from damorl.data.store import write_dataset as write_dataset
from damorl.errors import UserError
from damorl.types import Array, Spec, Transition
from damorl.world.task import Task
from damorl.world.units import make_bounds

if TYPE_CHECKING:
    from minari import MinariDataset


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
    """Of the arrays (`store.hash_columns`), whatever they were stored in."""
    metadata: Metadata = field(default_factory=dict)
    """What came with the data. `action_low` and `action_high` (JSON lists, see `units.from_metadata`) are there if the
    actions had other units than [-1, 1] before they were loaded."""
    dtypes: Mapping[str, str] = field(default_factory=dict)
    """The types that the arrays are stored in, by the names of D4RL."""
    non_finite_rows: int = 0

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

    @property
    def episode(self) -> np.ndarray:
        """`[N]` int32: the number of each row's episode, from 0 on."""
        return np.cumsum(self.episode_start, dtype=np.int32) - 1

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


def load_dataset(
    source: str | Path | Mapping[str, Any] | MinariDataset,
    task: str | None = None,
    num_steps: int = DEFAULT_NUM_STEPS,
    seed: int = 0,
    **reading: Unpack[Reading],
) -> Dataset:
    """Load a data set. `source` is one of

    - a built-in name (`hopper-medium`; `num_steps` and `seed` say which build) or D4RL's (`hopper-medium-v2`);
    - the path of a file: HDF5 in D4RL's flat layout, `.npz`, `.csv` or `.parquet`;
    - arrays by name, `{"obs": ..., "action": ...}`; the data set is then called `name`;
    - a Minari id (`mujoco/hopper/medium-v0`, or `minari:ID` for any) or a `MinariDataset`.

    Arrays may have any of the names in `names.NAMES`; `columns` maps ours to others. In a table a vector is spread
    over `obs_0`, `obs_1`, ... or whatever columns are named: `{"observations": ["angle", "speed"], "rewards": "r"}`.
    Everything becomes float32 once. Terminals and timeouts stay apart, and a row that has both keeps both.

    `task` names the task, or is `"none"`. Without it a Minari set's environment tells, or else the name if it begins
    with a task's. Actions are brought to [-1, 1] from `action_bounds` (low, high; a number or one for each action),
    else from Minari's action space, else from the task's bounds, and clipped if they are beyond by at most 1e-4.

    Data without `next_observations` get them from the following row, never across an episode's end. The state that
    an episode's last row led to is then unknown, so that row is dropped, **also where it is terminal**, and the one
    before it counts as truncated; `metadata["next_observations"]` is then `"rebuilt"`. Data that do not tell where
    episodes were cut count as cut where the next row does not begin in the state just reached.

    An HDF5 file that names other files (links, values stored elsewhere, virtual sets) is refused. With
    `allow_external` it is read, with a warning for each file just before it is opened; what is no regular file is
    refused all the same.

    Raises UserError with the first error that `check.find_problems` lists, or if there is no such data set. Warns if a
    Minari set's environment is no task.
    """
    found = open_source(source, num_steps, seed, reading)
    resolved, remark = resolve_task(found, task)
    dataset = make_dataset(found, resolved, examine_source(found, resolved, reading.get("action_bounds")))
    if remark:
        warnings.warn(remark, stacklevel=2)
    return dataset


def examine_source(source: Source, task: Task | None, action_bounds: tuple[ArrayLike, ArrayLike] | None) -> Examination:
    """Judge what was found. UserError for bounds that are none."""
    return judge(source.label, source.contents, task, make_bounds(*action_bounds) if action_bounds else None)


def make_dataset(source: Source, task: Task | None, examination: Examination) -> Dataset:
    """The data set of a source that has no error. UserError with its first error if there is one."""
    for problem in examination.problems:
        if problem.severity == "error":
            raise UserError(problem.message)
    assert examination.rows is not None
    *numbers, terminal, truncated = examination.rows
    transitions = Transition(*(cast(Array, array) for array in (*numbers, terminal.astype(np.float32))))
    return Dataset(
        name=source.name,
        task=task,
        transitions=transitions,
        truncated=truncated,
        path=source.path,
        sha256=examination.sha256,
        metadata=examination.metadata,
        dtypes=examination.dtypes,
        non_finite_rows=examination.non_finite_rows,
    )
