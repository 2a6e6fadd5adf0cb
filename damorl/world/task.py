"""One task: what is known of it, in what units its actions come, and how its returns are scored."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeVar

import jax
import numpy as np
from numpy.typing import ArrayLike

from damorl.errors import UserError
from damorl.types import Spec
from damorl.world import units
from damorl.world.terminations import Termination
from damorl.world.units import Bounds


@dataclass(frozen=True)
class Task:
    """A control task. Inside the library its actions are in [-1, 1]; its returns are scored between two references.

    UserError for sizes below 1, for action bounds that are not finite, not ordered, or not one per action, and for
    names of some features only.
    """

    name: str
    """What `find_task` finds it by; in the table lower-case words joined by underscores, as its data sets begin."""
    env_id: str | None
    """What Gymnasium calls its simulator. None: it has none, so policies can be trained but not evaluated."""
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
    """Its upper bound."""
    termination_known: bool = True
    """False: nobody told when the task ends, so `termination` says never."""
    obs_names: tuple[str, ...] = ()
    """What each feature of a state is called, for reports; empty where nobody said."""

    def __post_init__(self) -> None:
        sizes = (self.obs_dim, self.action_dim, self.max_episode_steps)
        if not all(isinstance(size, int) and size > 0 for size in sizes):
            raise UserError(
                f"task {self.name!r}: expected obs_dim, action_dim and max_episode_steps to be whole numbers from 1, "
                f"found {sizes}; correct them"
            )
        if len(self.obs_names) not in (0, self.obs_dim):
            raise UserError(
                f"task {self.name!r}: expected obs_names to name all {self.obs_dim} features of a state or none, found "
                f"{len(self.obs_names)}; give one name for each"
            )
        bounds = action_bounds(self)
        if not (np.isfinite(bounds).all() and np.all(bounds[0] < bounds[1])):
            raise UserError(
                f"task {self.name!r}: expected finite action_low below action_high, found {self.action_low} and "
                f"{self.action_high}; give the simulator's bounds"
            )

    @property
    def spec(self) -> Spec:
        """What an algorithm needs to know."""
        return Spec(self.obs_dim, self.action_dim)

    @property
    def short_name(self) -> str:
        """The name without the folder, file, module or namespace that it was found in: fit for file names."""
        return re.split(r"[:/\\]", self.name)[-1]


def action_bounds(task: Task) -> Bounds:
    """The simulator's lower and upper action bounds, float64, `[action_dim]` each. UserError for another length."""
    try:
        given = (np.asarray(bound, np.float64) for bound in (task.action_low, task.action_high))
        return Bounds(*(np.broadcast_to(bound, task.action_dim) for bound in given))
    except (TypeError, ValueError) as reason:
        raise UserError(
            f"task {task.name!r}: expected action_low and action_high to be a number or {task.action_dim} numbers, "
            f"found {task.action_low} and {task.action_high}; give one bound for each action"
        ) from reason


def to_unit(task: Task, action: ArrayLike) -> np.ndarray:
    """Actions in the simulator's units, `[*B, action_dim]`, brought to [-1, 1]; float32. Nothing is clipped.

    For a simulator with bounds [-1, 1] the values stay as they are, to the last bit.
    """
    bounds = action_bounds(task)
    return np.asarray(action if units.is_unit(bounds) else units.to_unit(bounds, action), np.float32)


def from_unit(task: Task, action: ArrayLike) -> np.ndarray:
    """The inverse of `to_unit`: what the simulator is given for actions in [-1, 1], float32."""
    bounds = action_bounds(task)
    return np.asarray(action if units.is_unit(bounds) else units.from_unit(bounds, action), np.float32)


def check_termination(task: Task) -> None:
    """UserError unless JAX can trace the task's termination and it gives one bool for each state."""
    state, action = (jax.ShapeDtypeStruct((2, 3, dim), np.float32) for dim in task.spec)
    advice = "write it with jax.numpy on the last axis, as in `next_obs[..., 0] < 0.7`"
    try:
        flags = jax.eval_shape(task.termination, state, action, state)
    except Exception as reason:  # it is the user's code
        found = describe(reason)
        raise UserError(f"task {task.name!r}: its termination function fails under JAX ({found}); {advice}") from reason
    found = f"{getattr(flags, 'dtype', type(flags).__name__)} {getattr(flags, 'shape', '')}".strip()
    if found != "bool (2, 3)":
        raise UserError(
            f"task {task.name!r}: expected its termination function to give bool (2, 3) for states (2, 3, "
            f"{task.obs_dim}), found {found}; {advice}"
        )


def describe(reason: BaseException) -> str:
    """An exception of somebody else's code as a part of a sentence: its type and the first line of what it says."""
    text = str(reason).strip().partition("\n")[0].rstrip(".: ")
    return f"{type(reason).__name__}: {text}" if text else type(reason).__name__


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
