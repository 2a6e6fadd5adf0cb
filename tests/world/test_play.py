"""Somebody else's environment: episodes are those of a plain loop, and what goes wrong in it is told with its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from damorl.errors import UserError
from damorl.world.evaluate import Episodes
from damorl.world.play import make_place, play

LOW, HIGH = np.full(1, -2.0, np.float32), np.full(1, 2.0, np.float32)


class Walk(gymnasium.Env[np.ndarray, np.ndarray]):
    """A position that actions move; it ends beyond 3.5, by a fall, and after 30 steps. `trouble` changes a step."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = spaces.Box(-2.0, 2.0, (1,), np.float32)

    def __init__(self, trouble: Callable[[Walk, tuple[Any, ...]], tuple[Any, ...]] | None = None) -> None:
        self.trouble, self.episodes = trouble, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.at, self.steps, self.episodes = self.np_random.normal(), 0, self.episodes + 1
        return np.array([self.at, 0.0]), {}

    def step(self, action: np.ndarray) -> tuple[Any, ...]:
        assert self.action_space.contains(action)
        self.at, self.steps = self.at + float(action[0]) + self.np_random.normal(), self.steps + 1
        told = (np.array([self.at, self.steps]), self.at, bool(abs(self.at) > 3.5), self.steps >= 30, {})
        return told if self.trouble is None else self.trouble(self, told)


def act(obs: np.ndarray) -> np.ndarray:
    """Drifts, so that some episodes end early; its rows do not depend on each other."""
    return np.clip(0.3 - 0.2 * obs[:, :1], LOW, HIGH)


def run(env: Any, num_episodes: int = 7, max_steps: int = 100) -> Episodes:
    return play(make_place("walk", env, 2, LOW, HIGH, max_steps), act, num_episodes, 3)


def plain(num_episodes: int) -> list[tuple[float, int, bool]]:
    env, found = Walk(), []
    for seed in range(3, 3 + num_episodes):
        obs, _ = env.reset(seed=seed)
        total, length, terminated, truncated = 0.0, 0, False, False
        while not (terminated or truncated):
            obs, reward, terminated, truncated, _ = env.step(act(obs[None])[0].astype(np.float32))
            total, length = total + reward, length + 1
        found.append((total, length, terminated))
    return found


def test_a_single_environment_plays_the_episodes_of_a_plain_loop() -> None:
    assert list(zip(*(column.tolist() for column in run(Walk())), strict=True)) == plain(7)
    assert len({length for _, length, _ in plain(7)}) > 3  # some end early


@pytest.mark.parametrize("mode", AutoresetMode)
def test_a_vector_environment_plays_the_same_in_any_autoreset_mode(mode: AutoresetMode) -> None:
    """Three copies, so the last round counts one: each episode once, however short the others are."""
    env = SyncVectorEnv([Walk] * 3, autoreset_mode=mode)
    found = run(env)
    assert found.lengths.tolist() == [length for _, length, _ in plain(7)]
    assert found.terminated.tolist() == [fell for *_, fell in plain(7)]
    np.testing.assert_allclose(found.returns, [total for total, *_ in plain(7)])


def spoil(index: int, value: Any, at_step: int = 4, episode: int = 2) -> Callable[..., tuple[Any, ...]]:
    """Another value in what a step returns, in one step of one episode."""
    return lambda env, told: (
        (*told[:index], value, *told[index + 1 :]) if (env.steps, env.episodes) == (at_step, episode) else told
    )


def fail(env: Walk, told: tuple[Any, ...]) -> tuple[Any, ...]:
    if (env.steps, env.episodes) == (4, 2):
        raise ZeroDivisionError("the motor is off")
    return told


WHERE = r"^walk: episode 2 \(reset seed 4\), step 4: "


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        (fail, r"expected step\(\) to work, found ZeroDivisionError: the motor is off; correct the environment$"),
        (spoil(0, np.array([np.nan, 0.0])), r"expected a finite observation, found \[nan  0\.\]; correct"),
        (spoil(1, np.inf), "expected a finite reward, found inf; correct"),
        (spoil(0, np.zeros(3)), r"expected observations of 2 features, found shape \(3,\); correct"),
        (spoil(1, "much"), r"expected step\(\) to work, found ValueError"),
    ],
)
def test_what_goes_wrong_is_told_with_episode_and_step(trouble: Any, message: str) -> None:
    with pytest.raises(UserError, match=WHERE + message):
        run(Walk(trouble))


def test_a_copy_of_a_vector_environment_is_told_too() -> None:
    env = SyncVectorEnv([Walk, lambda: Walk(spoil(1, np.nan, episode=1))])
    with pytest.raises(UserError, match=WHERE + "expected a finite reward, found nan"):
        run(env)
    broken = SyncVectorEnv([Walk, lambda: Walk(lambda *_: 1 / 0)])  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError, match=r"^walk: episode 1 to 2 \(reset seed 3\), step 1: .* ZeroDivisionError"):
        run(broken)


def test_an_episode_that_never_ends_is_given_up() -> None:
    env = Walk(lambda env, told: (*told[:2], False, False, {}))
    with pytest.raises(UserError, match=r"episode 1 \(reset seed 3\), step 50: expected the episode to end by then"):
        run(env, max_steps=50)


@pytest.mark.parametrize(
    ("sizes", "found"),
    [
        ((3, LOW, HIGH), r"shape \(3,\) and actions of shape \(1,\)"),
        ((2, np.full(2, -2.0), np.full(2, 2.0)), r"shape \(2,\) and actions of shape \(2,\)"),
        ((2, LOW, 2 * HIGH), r"may be \[-2\.\] to \[4\.\]"),
    ],
)
def test_other_spaces_than_the_policy_s_are_refused(sizes: Any, found: str) -> None:
    with pytest.raises(UserError, match=rf"^walk: expected observations of .*{found}.*, as the policy has, found Box"):
        make_place("walk", Walk(), *sizes)
    with pytest.raises(UserError, match="as the policy has, found Box"):
        make_place("walk", SyncVectorEnv([Walk] * 2), *sizes)


def test_discrete_spaces_and_what_is_no_environment_are_refused() -> None:
    with pytest.raises(UserError, match=r"found Box.*Discrete\(2\); wrap the environment"):
        make_place("cart", gymnasium.make("CartPole-v1"), 4, LOW, HIGH)
    with pytest.raises(UserError, match=r"expected a gymnasium\.Env or gymnasium\.vector\.VectorEnv, found dict"):
        make_place("it", {}, 2, LOW, HIGH)
    with pytest.raises(UserError, match="expected max_steps of 1 or more, found 0"):
        run(Walk(), max_steps=0)
    with pytest.raises(UserError, match="expected at least 1 episode and a seed of 0 or more, found 0 and 3"):
        run(Walk(), num_episodes=0)
