"""The built-in tasks: their sizes, when they end, how they are scored, and how their simulator is opened."""

from __future__ import annotations

import difflib
import importlib
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import jax.numpy as jnp
import numpy as np

from damorl.errors import UserError
from damorl.types import Array, Spec

if TYPE_CHECKING:
    import gymnasium

Termination = Callable[[Array, Array, Array], Array]
"""`(obs [*B, obs_dim], action [*B, action_dim], next_obs [*B, obs_dim]) -> [*B]` bool: has the task ended?"""


@dataclass(frozen=True)
class Task:
    """A task with a simulator. Actions are in [-1, 1]; returns are scored between two reference returns."""

    name: str
    """Lower-case letters, digits and underscores, as file names of its data sets begin."""
    env_id: str
    """What Gymnasium calls it."""
    obs_dim: int
    action_dim: int
    termination: Termination
    reference_min: float | None = None
    """The return that scores 0, a random policy's. None: the task has no normalised score."""
    reference_max: float | None = None
    """The return that scores 100."""
    max_episode_steps: int = 1000
    action_low: float | tuple[float, ...] = -1.0
    """The simulator's lower action bound, of every dimension or of each; data carry actions in these units."""
    action_high: float | tuple[float, ...] = 1.0
    """Its upper bound. Inside the library actions are always in [-1, 1]."""

    @property
    def spec(self) -> Spec:
        """What an algorithm needs to know."""
        return Spec(self.obs_dim, self.action_dim)


# Terminations are asked of *predicted* states, so they must hold for values no simulator would give: both bounds are
# tested (|x < 100| instead of |x| < 100 is a well-copied bug), and a state that is not finite has always ended.


def hopper_ended(obs: Array, action: Array, next_obs: Array) -> Array:
    """Fallen: height <= 0.7, |torso angle| >= 0.2, or a joint position or velocity outside (-100, 100).

    Gymnasium tests the velocities themselves but observes them clipped to [-10, 10], so on real observations the
    velocity test cannot fire; on predicted ones, which nothing clips, it can.
    """
    height, angle = next_obs[..., 0], next_obs[..., 1]
    in_range = jnp.all(jnp.abs(next_obs[..., 1:]) < 100.0, axis=-1)
    return ~(_finite(next_obs) & in_range & (height > 0.7) & (jnp.abs(angle) < 0.2))


def walker2d_ended(obs: Array, action: Array, next_obs: Array) -> Array:
    """Fallen: height outside (0.8, 2), or |torso angle| >= 1."""
    height, angle = next_obs[..., 0], next_obs[..., 1]
    return ~(_finite(next_obs) & (height > 0.8) & (height < 2.0) & (jnp.abs(angle) < 1.0))


def halfcheetah_ended(obs: Array, action: Array, next_obs: Array) -> Array:
    """Never, as in the simulator; only a state that is not finite ends it."""
    return ~_finite(next_obs)


def inverted_double_pendulum_ended(obs: Array, action: Array, next_obs: Array) -> Array:
    """The tip is at height 1 or below; both poles are 0.6 long, the second one's angle is relative to the first's.

    Observations are `[x, sin a, sin b, cos a, cos b, velocities, constraint forces]`. MuJoCo tests the tip of its last
    Runge-Kutta stage, which is within about 1e-4 of the observed state's.
    """
    sin_a, sin_b, cos_a, cos_b = (next_obs[..., i] for i in range(1, 5))
    tip_height = 0.6 * cos_a + 0.6 * (cos_a * cos_b - sin_a * sin_b)
    return ~(_finite(next_obs) & (tip_height > 1.0))


def _finite(state: Array) -> Array:
    return jnp.all(jnp.isfinite(state), axis=-1)


TASKS: dict[str, Task] = {
    task.name: task
    for task in (  # reference returns: D4RL's d4rl/infos.py
        Task("hopper", "Hopper-v4", 11, 3, hopper_ended, -20.272305, 3234.3),
        Task("halfcheetah", "HalfCheetah-v4", 17, 6, halfcheetah_ended, -280.178953, 12135.0),
        Task("walker2d", "Walker2d-v4", 17, 6, walker2d_ended, 1.629008, 4592.3),
        # D4RL has no such task, these two are ours: the mean of 100 uniformly random episodes (reset seeds 0 to 99),
        # and the bound 1000 * (10 - (1.2 - 2)^2) that standing still and upright comes close to.
        Task(
            "inverted_double_pendulum", "InvertedDoublePendulum-v4", 11, 1, inverted_double_pendulum_ended, 60.1, 9360.0
        ),
    )
}
"""Every known task by name; `register_task` adds one."""


def register_task(task: Task) -> None:
    """Make a task known by name. UserError if the name is ill-formed or already means another task."""
    if not re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)*", task.name):
        raise UserError(
            f"task name {task.name!r}: expected lower-case letters and digits joined by single underscores; rename it"
        )
    if TASKS.setdefault(task.name, task) != task:
        raise UserError(f"task name {task.name!r} already means {TASKS[task.name].env_id}; choose another name")


def find_task(name: str) -> Task:
    """The task of that name. UserError with the nearest name if there is none."""
    if name in TASKS:
        return TASKS[name]
    raise UserError(f"unknown task {name!r}: {_suggestion(name, TASKS)}")


QUALITIES = ("random", "medium", "medium-replay", "medium-expert")


class DatasetName(NamedTuple):
    """A built-in data set: which task, played how well. `str()` gives `hopper-medium-expert`."""

    task: str
    quality: str

    def __str__(self) -> str:
        return f"{self.task}-{self.quality}"

    @classmethod
    def parse(cls, name: str) -> DatasetName:
        """Read a name of `DATASET_NAMES`. UserError with the nearest name if it is none of them."""
        if name not in DATASET_NAMES:
            raise UserError(
                f"unknown data set {name!r}: {_suggestion(name, DATASET_NAMES)}, or give the path of a D4RL-layout "
                "HDF5 file"
            )
        return cls(*name.split("-", 1))


_BUILT_IN = ("hopper", "halfcheetah", "walker2d", "inverted_double_pendulum")
DATASET_NAMES: tuple[str, ...] = tuple(str(DatasetName(task, quality)) for task in _BUILT_IN for quality in QUALITIES)
"""The data sets that `damorl data make` can build."""


def infer_task(name_or_path: str | Path) -> Task | None:
    """The task that a data set's name or file name begins with (`hopper-medium-v2`, `/x/Walker2d_random.hdf5`)."""
    stem = re.sub(r"[^a-z0-9]+", "_", Path(name_or_path).name.lower()) + "_"
    spellings = [(name, task) for task in TASKS.values() for name in (task.name, _env_stem(task))]
    matching = [(len(name), task) for name, task in spellings if stem.startswith(name + "_")]
    return max(matching, key=lambda match: match[0])[1] if matching else None


def _env_stem(task: Task) -> str:
    return re.sub(r"[^a-z0-9]+", "_", re.sub(r"-v\d+$", "", task.env_id.lower()))


def _suggestion(name: str, known: Iterable[str]) -> str:
    known = list(known)
    close = difflib.get_close_matches(name.lower(), known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(known)}"


Returns = TypeVar("Returns", float, np.ndarray)


def normalised_score(task: Task, returns: Returns) -> Returns:
    """D4RL's score, `100 * (R - reference_min) / (reference_max - reference_min)`. UserError without references."""
    low, high = _references(task)
    return 100.0 * (returns - low) / (high - low)


def normalised_std(task: Task, std: Returns) -> Returns:
    """A standard deviation of returns in score points: scaled, never shifted. UserError without references."""
    low, high = _references(task)
    return 100.0 * std / (high - low)


def _references(task: Task) -> tuple[float, float]:
    if task.reference_min is None or task.reference_max is None:
        raise UserError(
            f"task {task.name!r} has no reference returns, so no normalised score: give Task reference_min and "
            "reference_max, or use the raw returns"
        )
    return task.reference_min, task.reference_max


def make_env(task: Task, **options: Any) -> gymnasium.Env[np.ndarray, np.ndarray]:
    """Open the task's simulator, silently. `options` go to `gymnasium.make` (for example `render_mode`).

    UserError if Gymnasium cannot make it, or if its sizes or action bounds are not those of the task.
    """
    import gymnasium

    try:
        with _quiet():
            env = gymnasium.make(
                task.env_id, max_episode_steps=task.max_episode_steps, disable_env_checker=True, **options
            )
    except (gymnasium.error.Error, ImportError) as reason:
        raise UserError(f"task {task.name!r}: cannot open its simulator {task.env_id!r}: {reason}") from reason
    observations, actions = env.observation_space, env.action_space
    if observations.shape != (task.obs_dim,) or actions.shape != (task.action_dim,):
        raise UserError(
            f"task {task.name!r}: expected {task.obs_dim} observations and {task.action_dim} actions, found "
            f"{observations.shape} and {actions.shape} in {task.env_id}; correct the task's sizes"
        )
    if not (isinstance(actions, gymnasium.spaces.Box) and np.all(actions.low == -1) and np.all(actions.high == 1)):
        raise UserError(
            f"task {task.name!r}: expected actions in [-1, 1], found {actions} in {task.env_id}; wrap the environment "
            "in gymnasium.wrappers.RescaleAction and register that"
        )
    return env


@contextmanager
def _quiet() -> Iterator[None]:
    """Drop two known remarks, that v4 is old (we want D4RL's physics) and MuJoCo's on half_cheetah.xml.

    MuJoCo would print the latter and write it into MUJOCO_LOG.TXT in the working directory. Others pass on.
    """
    mujoco: Any = importlib.import_module("mujoco")  # its callbacks are in no type stub
    remarks: list[str] = []
    previous = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(remarks.append)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"(?s).*is out of date")
            yield
    finally:
        mujoco.set_mju_user_warning(previous)
    for remark in remarks:
        if "settotalmass" not in remark:
            warnings.warn(f"MuJoCo: {remark}", stacklevel=4)
