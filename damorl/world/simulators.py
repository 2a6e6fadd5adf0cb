"""Opening simulators: any Gymnasium environment whose states are rows of numbers and whose actions are continuous."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from damorl.errors import UserError
from damorl.world.task import Task, action_bounds, describe
from damorl.world.terminations import never_ended
from damorl.world.units import Bounds, from_unit, is_unit

if TYPE_CHECKING:
    import gymnasium
    from gymnasium.spaces import Box

    Env = gymnasium.Env[np.ndarray, np.ndarray]

DEFAULT_STEPS = 1000
"""An episode's longest length where neither task nor environment states one."""


def make_env(task: Task, **options: Any) -> Env:
    """Open the task's simulator, silently; it takes actions in [-1, 1]. `options` go to `gymnasium.make`.

    An environment with other action bounds is wrapped so that -1 and 1 stand for them. UserError if the task has no
    simulator, if Gymnasium cannot make it, or if its sizes or action bounds are not those of the task.
    """
    env = _open(task.name, simulator_of(task), {"max_episode_steps": task.max_episode_steps} | options)
    actions = _check_spaces(task.name, env)
    found = (*cast("tuple[int]", env.observation_space.shape), *actions.shape)
    if found != task.spec:
        raise UserError(
            f"task {task.name!r}: expected {task.obs_dim} observations and {task.action_dim} actions, found "
            f"{found[0]} and {found[1]} in {task.env_id}; correct the task's sizes"
        )
    bounds = action_bounds(task)
    low, high = (bound.astype(actions.dtype) for bound in bounds)
    if not (np.array_equal(low, actions.low) and np.array_equal(high, actions.high)):
        raise UserError(
            f"task {task.name!r}: expected actions from {task.action_low} to {task.action_high}, found "
            f"{_plain(actions.low)} to {_plain(actions.high)} in {task.env_id}; correct action_low and action_high"
        )
    return env if is_unit(bounds) else _rescaled(env, actions, bounds)


def simulator_of(task: Task) -> str:
    """The task's `env_id`. UserError if it has none."""
    if task.env_id is None:
        raise UserError(
            f"task {task.name!r} has no simulator, so nothing can be played or scored in it: give its Task the env_id "
            "of a Gymnasium environment, or use what needs the data alone"
        )
    return task.env_id


def task_of_env(env_id: str) -> Task:
    """The task that an environment describes: its sizes, action bounds and time limit. It is opened once.

    No environment tells its termination rule, so this one never ends (`termination_known` is False), and has no
    reference returns. UserError if it cannot be opened, or has discrete or unbounded actions or no rows of numbers to
    observe.
    """
    env = _open(env_id, env_id, {})
    actions = _check_spaces(env_id, env)
    (obs_dim,) = cast("tuple[int]", env.observation_space.shape)
    steps = env.spec and env.spec.max_episode_steps
    env.close()
    return Task(
        name=env_id,
        env_id=env_id,
        obs_dim=obs_dim,
        action_dim=actions.shape[0],
        termination=never_ended,
        max_episode_steps=steps or DEFAULT_STEPS,
        action_low=_plain(actions.low),
        action_high=_plain(actions.high),
        termination_known=False,
    )


def _open(name: str, env_id: str, options: dict[str, Any]) -> Env:
    import gymnasium

    try:
        with _quiet():
            return gymnasium.make(env_id, disable_env_checker=True, **options)
    except Exception as reason:  # Gymnasium's own errors, and whatever an environment's code raises
        raise UserError(
            f"task {name!r}: cannot open its simulator {env_id!r} ({describe(reason)}); correct the id, or install or "
            "correct the package that has it"
        ) from reason


def _check_spaces(name: str, env: Env) -> Box:
    """The action space, if policies can act in the environment."""
    from gymnasium.spaces import Box

    observations, actions = env.observation_space, env.action_space
    if not (isinstance(observations, Box) and len(observations.shape) == 1):
        raise UserError(
            f"task {name!r}: expected observations that are one row of numbers, found {_kind(observations)}; wrap "
            "the environment so that it gives such rows (images, dictionaries and tuples are not supported)"
        )
    if not (isinstance(actions, Box) and len(actions.shape) == 1 and np.issubdtype(actions.dtype, np.floating)):
        raise UserError(
            f"task {name!r}: expected continuous actions, one row of real numbers, found {_kind(actions)}; "
            "choose another environment (discrete actions are not supported)"
        )
    if not (np.isfinite([actions.low, actions.high]).all() and np.all(actions.low < actions.high)):
        raise UserError(
            f"task {name!r}: expected finite bounds of every action, found {_plain(actions.low)} to "
            f"{_plain(actions.high)}; wrap the environment so that it bounds them"
        )
    return actions


def _rescaled(env: Env, actions: Box, bounds: Bounds) -> Env:
    """Gymnasium's RescaleAction would do, but rounds: its 1 is often just beyond the upper bound, which some refuse."""
    from gymnasium.spaces import Box
    from gymnasium.wrappers import TransformAction

    scaled = lambda action: from_unit(bounds, action).astype(actions.dtype)
    bounded = lambda action: np.minimum(np.maximum(scaled(action), actions.low), actions.high)  # np.clip is slow
    return TransformAction(env, bounded, Box(-1.0, 1.0, actions.shape, np.float32))


def _kind(space: gymnasium.Space[Any]) -> str:
    return type(space).__name__ + (f" of shape {space.shape}" if space.shape else "")


def _plain(bound: np.ndarray) -> float | tuple[float, ...]:
    """The bounds as short numbers that are these when cast back (0.4 for float32's); one if all are the same."""
    values = tuple(float(str(value)) for value in bound)
    return values[0] if len(set(values)) == 1 else values


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
