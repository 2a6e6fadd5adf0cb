"""Playing whole episodes in somebody else's environment: any Gymnasium `Env` or `VectorEnv` of continuous control."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from damorl.errors import UserError
from damorl.world.evaluate import Episodes
from damorl.world.task import describe

MAX_STEPS = 10_000
"""Steps after which an episode counts as one that never ends."""

Act = Callable[[np.ndarray], np.ndarray]
"""`[N, obs_dim] -> [N, action_dim]` in the environment's own units."""


@dataclass(frozen=True)
class Place:
    """An environment to play in, by the name that messages give it."""

    name: str
    env: Any
    obs_dim: int
    """Of the policy."""
    num_envs: int
    """Copies in a vector environment; 1 for a single one."""
    vector: bool
    max_steps: int = MAX_STEPS

    def at(self, episode: int, seed: int, step: int) -> str:
        """The front of a message on an episode, counted from 0 here and from 1 for people."""
        return f"{self.name}: episode {episode + 1} (reset seed {seed + episode}), step {step}"


def make_place(
    name: str, env: Any, obs_dim: int, action_low: np.ndarray, action_high: np.ndarray, max_steps: int = MAX_STEPS
) -> Place:
    """`env` as a place for a policy with these sizes and action bounds (`[action_dim]` each).

    UserError for what is no Gymnasium environment, and for one with other observations or that does not take every
    action of the policy.
    """
    import gymnasium
    from gymnasium.spaces import Box

    vector = isinstance(env, gymnasium.vector.VectorEnv)
    if not (vector or isinstance(env, gymnasium.Env)):
        raise UserError(
            f"{name}: expected a gymnasium.Env or gymnasium.vector.VectorEnv, found {type(env).__name__}; wrap it"
        )
    if max_steps < 1:
        raise UserError(f"{name}: expected max_steps of 1 or more, found {max_steps}; correct it")
    obs, action = (getattr(env, f"{'single_' * vector}{kind}_space") for kind in ("observation", "action"))
    fits = isinstance(obs, Box) and isinstance(action, Box) and obs.shape == (obs_dim,)
    if not (fits and action.shape == action_low.shape and within(action_low, action_high, action.low, action.high)):
        raise UserError(
            f"{name}: expected observations of shape ({obs_dim},) and actions of shape {action_low.shape} that may be "
            f"{action_low} to {action_high}, as the policy has, found {obs} and {action}; wrap the environment, or "
            "evaluate a policy that was trained for it"
        )
    return Place(name, env, obs_dim, env.num_envs if vector else 1, vector, max_steps)


def within(low: np.ndarray, high: np.ndarray, least: np.ndarray, most: np.ndarray) -> bool:
    """Whether bounds lie in other bounds, but for rounding."""
    slack = 1e-6 * (high - low)
    return bool(np.all(low >= least - slack) and np.all(high <= most + slack))


def play(place: Place, act: Act, num_episodes: int, seed: int) -> Episodes:
    """Play `num_episodes` episodes; number i is reset with `seed + i`.

    Each copy of a vector environment plays one episode, then all are reset: short episodes do not count more often,
    whatever its autoreset mode is. UserError, with episode and step, for an environment that raises, gives numbers
    that are not finite or of another shape, or does not end within `place.max_steps`.
    """
    if num_episodes < 1 or seed < 0:
        raise UserError(
            f"{place.name}: expected at least 1 episode and a seed of 0 or more, found {num_episodes} and {seed}; "
            "pass for example episodes=10"
        )
    firsts = range(0, num_episodes, place.num_envs)
    rounds = [play_round(place, act, first, min(place.num_envs, num_episodes - first), seed) for first in firsts]
    return Episodes(*(np.concatenate(column) for column in zip(*rounds, strict=True)))


def play_round(place: Place, act: Act, first: int, count: int, seed: int) -> Episodes:
    """One episode in each of the first `count` copies, numbered from `first` on."""
    returns, lengths = np.zeros(place.num_envs), np.zeros(place.num_envs, np.int64)
    fell, ended = np.zeros(place.num_envs, bool), np.zeros(place.num_envs, bool)
    running = np.arange(place.num_envs) < count
    with refusing(place, first, seed, 0):
        obs = reset(place, [seed + first + i for i in range(place.num_envs)])
    check_numbers(place, obs, np.zeros(place.num_envs), running, lambda row: place.at(first + row, seed, 0))
    for step in range(1, place.max_steps + 1):
        action = act(obs)
        with refusing(place, first, seed, step):
            obs, reward, terminated, truncated = advance(place, action, ended)
        check_numbers(place, obs, reward, running, lambda row, at=step: place.at(first + row, seed, at))
        returns[running] += reward[running]
        lengths += running
        fell |= terminated & running
        ended = terminated | truncated
        running &= ~ended
        if not running.any():
            return Episodes(returns[:count], lengths[:count], fell[:count])
    raise UserError(
        f"{place.at(first + int(running.argmax()), seed, place.max_steps)}: expected the episode to end by then, found "
        "that it goes on; wrap the environment with gymnasium.wrappers.TimeLimit, or raise max_steps"
    )


@contextmanager
def refusing(place: Place, first: int, seed: int, step: int) -> Iterator[None]:
    """Turn whatever the environment raises into a UserError that names the place, episode and step."""
    try:
        yield
    except Exception as reason:  # it is the user's code
        others = f" to {first + place.num_envs}" if place.num_envs > 1 else ""
        where = f"{place.name}: episode {first + 1}{others} (reset seed {seed + first}), step {step}"
        raise UserError(
            f"{where}: expected {'step' if step else 'reset'}() to work, found {describe(reason)}; correct the "
            "environment"
        ) from reason


def reset(place: Place, seeds: list[int]) -> np.ndarray:
    """All copies at the start of an episode, float64 `[num_envs, obs_dim]` or what the environment gives instead."""
    obs, _ = place.env.reset(seed=seeds) if place.vector else place.env.reset(seed=seeds[0])
    return np.asarray(obs, np.float64) if place.vector else np.asarray(obs, np.float64)[None]


def advance(
    place: Place, action: np.ndarray, ended: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """One step of all copies: observations, rewards, terminated, truncated. `ended` tells whose episode was over."""
    if not place.vector:
        obs, reward, terminated, truncated, _ = place.env.step(allowed(place.env.action_space, action[0]))
        return (
            np.asarray(obs, np.float64)[None],
            np.array([float(reward)]),
            np.array([terminated]),
            np.array([truncated]),
        )
    from gymnasium.vector import AutoresetMode

    if ended.any() and place.env.metadata.get("autoreset_mode") == AutoresetMode.DISABLED:
        place.env.reset(options={"reset_mask": ended})
    obs, reward, terminated, truncated, _ = place.env.step(allowed(place.env.action_space, action))
    return np.asarray(obs, np.float64), np.asarray(reward, np.float64), np.asarray(terminated), np.asarray(truncated)


def allowed(space: Any, action: np.ndarray) -> np.ndarray:
    """The action in the space's type, and where rounding would leave its bounds, on them."""
    return np.clip(action.astype(space.dtype), space.low, space.high)


def check_numbers(
    place: Place, obs: np.ndarray, reward: np.ndarray, running: np.ndarray, at: Callable[[int], str]
) -> None:
    """UserError unless what running copies gave is finite and has the shape of their space."""
    if obs.shape != (place.num_envs, place.obs_dim):
        raise UserError(
            f"{at(int(running.argmax()))}: expected observations of {place.obs_dim} features, found shape "
            f"{obs.shape[1:]}; correct the environment"
        )
    sound = np.isfinite(obs).all(axis=1) & np.isfinite(reward)
    if bad := np.flatnonzero(running & ~sound).tolist():
        row = bad[0]
        what = "reward" if np.isfinite(obs[row]).all() else "observation"
        raise UserError(
            f"{at(row)}: expected a finite {what}, found {reward[row] if what == 'reward' else obs[row]}; correct the "
            "environment"
        )
