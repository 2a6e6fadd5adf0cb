"""Simulators that break the rules: one sentence with episode and step, whatever they do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from damorl.errors import UserError
from damorl.world.evaluate import Evaluator
from damorl.world.task import Task
from damorl.world.terminations import never_ended

TASK = Task("toy", "test/Rough-v0", 2, 1, never_ended, max_episode_steps=20)
STATES, ACTIONS = spaces.Box(-np.inf, np.inf, (2,), np.float64), spaces.Box(-1.0, 1.0, (1,), np.float32)


class Rough(gymnasium.Env[Any, Any]):
    """Counts its steps in the state; in step 5 of the episode with seed 11 it does what `fault` says."""

    fault = "none"

    def __init__(self) -> None:
        self.observation_space, self.action_space = STATES, ACTIONS
        self.count, self.is_rough = 0, False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.count, self.is_rough = 0, seed == 11
        if self.is_rough and self.fault == "reset":
            raise RuntimeError("no power")
        return np.zeros(2), {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self.count += 1
        obs, reward, terminated = np.full(2, float(self.count)), 1.0, False
        if self.is_rough and self.count == 5:
            if self.fault == "raise":
                raise RuntimeError("the gear box broke\nin two")
            if self.fault == "exit":
                return obs, None, False, False, {}
            if self.fault == "space":
                self.action_space = spaces.Box(-2.0, 2.0, (1,), np.float32)
            obs = {"nan": np.array([5.0, np.nan]), "size": np.zeros(3), "one": np.zeros(1)}.get(self.fault, obs)
            obs = np.full(2, np.inf) if self.fault in ("inf", "inf at the end") else obs
            terminated = self.fault == "inf at the end"
            reward = {"reward": np.nan, "infinite reward": -np.inf}.get(self.fault, reward)
        return obs, reward, terminated, False, {}


@pytest.fixture
def evaluator() -> Iterator[Evaluator]:
    gymnasium.register("test/Rough-v0", lambda **options: Rough())
    evaluator = Evaluator(TASK)
    yield evaluator
    evaluator.close()
    gymnasium.registry.pop("test/Rough-v0")


def rest(obs: np.ndarray) -> np.ndarray:
    return np.zeros((len(obs), 1))


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        ("reset", "the reset: expected a first state, found RuntimeError: no power"),
        ("raise", "step 5: expected the next state, found RuntimeError: the gear box broke"),
        ("exit", "step 5: expected the next state, found TypeError: "),
        ("nan", "step 5: expected a finite state, found nan in feature 1"),
        ("inf", "step 5: expected a finite state, found inf in feature 0"),
        ("reward", "step 5: expected a finite reward, found nan"),
        ("infinite reward", "step 5: expected a finite reward, found -inf"),
        ("size", "step 5: expected a state of 2 numbers, found float64 of shape (3,)"),
        ("one", "step 5: expected a state of 2 numbers, found float64 of shape (1,)"),  # NumPy would spread it
        ("space", "step 5: expected the actions it was opened with, Box(-1.0, 1.0, (1,), float32), found Box(-2.0"),
    ],
)
def test_a_fault_is_told_with_episode_and_step(
    evaluator: Evaluator, fault: str, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert evaluator.run(rest, 3, seed=10).returns.tolist() == [20.0, 20.0, 20.0]  # it has no end but the time limit
    monkeypatch.setattr(Rough, "fault", fault)
    with pytest.raises(UserError) as error:
        evaluator.run(rest, 3, seed=10)
    start = "task 'toy': its simulator 'test/Rough-v0' failed in episode 2 (seed 11), "
    assert str(error.value).startswith(start + found)
    assert str(error.value).endswith("; correct the environment; a run continues with --resume")
    assert "\n" not in str(error.value)


def test_the_state_that_an_episode_ends_in_need_not_be_finite(
    evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Rough, "fault", "inf at the end")
    assert evaluator.run(rest, 3, seed=10).lengths.tolist() == [20, 5, 20]


def test_an_episode_longer_than_the_task_allows_is_told(evaluator: Evaluator) -> None:
    evaluator.run(rest, 1, seed=0)
    evaluator.simulators[0] = evaluator.simulators[0]._replace(env=evaluator.simulators[0].inner)  # no time limit
    with pytest.raises(UserError, match=r"episode 1 \(seed 0\), step 20: expected an end after 20 steps at the latest"):
        evaluator.run(rest, 1, seed=0)
