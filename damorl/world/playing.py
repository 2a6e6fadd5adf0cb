"""One simulator among several, played by the rules: whatever it does against them is told with episode and step."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from damorl.errors import UserError
from damorl.world.simulators import make_env
from damorl.world.task import Task, describe

if TYPE_CHECKING:
    import gymnasium

REMEDY = "correct the environment; a run continues with --resume"


class Simulator(NamedTuple):
    """An opened simulator, and the spaces that it had then."""

    task: Task
    env: gymnasium.Env[np.ndarray, np.ndarray]
    inner: Any
    """The environment without its wrappers."""
    spaces: tuple[Any, Any]
    """Of observations and actions."""


class Place(NamedTuple):
    """Where in an evaluation something happened."""

    episode: int
    """From 1."""
    seed: int
    step: int
    """Of the episode, from 1; 0 is its reset."""


def open_simulator(task: Task, **options: Any) -> Simulator:
    """Open the task's simulator; `options` go to `gymnasium.make`. UserError as `simulators.make_env`."""
    env = make_env(task, **options)
    inner: Any = env.unwrapped
    return Simulator(task, env, inner, (inner.observation_space, inner.action_space))


def begin(simulator: Simulator, place: Place) -> np.ndarray:
    """The first state, `[obs_dim]`. UserError if the environment raises, or the state is not one."""
    try:
        obs = np.asarray(simulator.env.reset(seed=place.seed)[0])
    except Exception as reason:  # it is the user's code
        raise _fault(simulator, place, "a first state", describe(reason)) from reason
    _check_state(simulator, place, obs, is_last=False)
    return obs


def advance(simulator: Simulator, action: np.ndarray, place: Place) -> tuple[np.ndarray, float, bool, bool]:
    """The next state `[obs_dim]`, the reward, and whether the episode terminated and was truncated.

    UserError if the environment raises, if reward or state are not finite numbers or the state has another size, if its
    spaces changed since it was opened, or if the episode is longer than the task allows. The state that a terminated
    episode ends in need not be finite: nothing acts on it.
    """
    try:
        obs, reward, terminated, truncated, _ = simulator.env.step(action)
        obs, reward, terminated, truncated = np.asarray(obs), float(reward), bool(terminated), bool(truncated)
    except Exception as reason:
        raise _fault(simulator, place, "the next state", describe(reason)) from reason
    if not math.isfinite(reward):
        raise _fault(simulator, place, "a finite reward", str(reward))
    _check_state(simulator, place, obs, is_last=terminated)
    if place.step >= simulator.task.max_episode_steps and not (terminated or truncated):
        raise _fault(simulator, place, f"an end after {simulator.task.max_episode_steps} steps at the latest", "none")
    return obs, reward, terminated, truncated


def _check_state(simulator: Simulator, place: Place, obs: np.ndarray, is_last: bool) -> None:
    if obs.shape != (simulator.task.obs_dim,) or obs.dtype.kind not in "biuf":
        expected = f"a state of {simulator.task.obs_dim} numbers"
        raise _fault(simulator, place, expected, f"{obs.dtype} of shape {obs.shape}")
    if not (is_last or np.isfinite(obs).all()):
        wrong = np.flatnonzero(~np.isfinite(obs))
        raise _fault(simulator, place, "a finite state", f"{obs[wrong[0]]} in feature {wrong[0]}")
    inner, spaces = simulator.inner, simulator.spaces
    for name, now, before in zip(
        ("observations", "actions"), (inner.observation_space, inner.action_space), spaces, strict=True
    ):
        if now is not before and now != before:
            raise _fault(simulator, place, f"the {name} it was opened with, {_short(before)}", _short(now))


def _short(space: Any) -> str:
    return " ".join(str(space).split())


def _fault(simulator: Simulator, place: Place, expected: str, found: str) -> UserError:
    where = f"step {place.step}" if place.step else "the reset"
    return UserError(
        f"task {simulator.task.name!r}: its simulator {simulator.task.env_id!r} failed in episode {place.episode} "
        f"(seed {place.seed}), {where}: expected {expected}, found {found}; {REMEDY}"
    )
