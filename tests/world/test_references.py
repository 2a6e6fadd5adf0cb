"""The reference returns that are ours are what the table's comments say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from damorl.world.tasks import TASKS, make_env, to_unit

EPISODES = 100


def returns(name: str, policy: Callable[[np.ndarray], np.ndarray] | None) -> np.ndarray:
    """Returns of the episodes reset with seeds 0 to 99; uniformly random actions without a policy."""
    env = make_env(TASKS[name])
    totals = np.zeros(EPISODES)
    for seed in range(EPISODES):
        obs, _ = env.reset(seed=seed)
        env.action_space.seed(seed)
        over = False
        while not over:
            obs, reward, terminated, truncated, _ = env.step(policy(obs) if policy else env.action_space.sample())
            totals[seed] += float(reward)
            over = terminated or truncated
    env.close()
    return totals


@pytest.mark.parametrize("name", ["inverted_double_pendulum", "pendulum"])
def test_the_lower_reference_is_random_play(name: str) -> None:
    assert returns(name, None).mean() == pytest.approx(TASKS[name].reference_min, abs=0.1)


def test_the_double_pendulums_upper_reference_is_standing_still() -> None:
    env: Any = make_env(TASKS["inverted_double_pendulum"])
    env.reset(seed=0)
    env.unwrapped.set_state(np.zeros(3), np.zeros(3))
    assert 1000 * env.step(np.zeros(1))[1] == pytest.approx(TASKS["inverted_double_pendulum"].reference_max, rel=1e-3)


def swing_up(obs: np.ndarray) -> np.ndarray:
    """Pump energy until upright (`3 g / 2 l = 15`), then the linear-quadratic regulator of the reward."""
    angle, speed = np.arctan2(obs[1], obs[0]), obs[2]
    balance = -19.69 * angle - 5.26 * speed
    energy = speed**2 / 2 + 15 * (np.cos(angle) - 1)
    torque = balance if abs(angle) < 0.7 and abs(balance) < 20 else -energy * np.sign(speed or 1.0)
    return to_unit(TASKS["pendulum"], np.clip([torque], -2, 2))


def test_the_pendulums_upper_reference_is_a_good_controller() -> None:
    assert returns("pendulum", swing_up).mean() == pytest.approx(TASKS["pendulum"].reference_max, abs=0.1)
