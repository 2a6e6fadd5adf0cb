"""A cart in a corridor: it is pushed, should stay near the middle, and the episode ends where it hits a wall."""

from typing import Any

import gymnasium
import jax.numpy as jnp
import numpy as np
from gymnasium.spaces import Box

from damorl import Task

WALL, STEPS = 2.0, 50


class Corridor(gymnasium.Env):
    """State: position and speed, float32 `[2]`. Action: a push from -2 to 2, `[1]`. Reward: 1 less half the position's
    square."""

    observation_space = Box(-np.inf, np.inf, (2,), np.float32)
    action_space = Box(-2.0, 2.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        """Begin within 0.5 of the middle, at rest."""
        super().reset(seed=seed)
        self.state = np.array([self.np_random.uniform(-0.5, 0.5), 0.0], np.float32)
        return self.state, {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        """A tenth of a second."""
        position, speed = self.state
        speed = speed + 0.1 * float(action[0])
        self.state = np.array([position + 0.1 * speed, speed], np.float32)
        return self.state, 1.0 - 0.5 * float(self.state[0]) ** 2, bool(abs(self.state[0]) >= WALL), False, {}


gymnasium.register("damorl_example/Corridor-v0", Corridor, max_episode_steps=STEPS)


def hit_a_wall(obs, action, next_obs):
    """When the task ends, `[..., 2], [..., 1], [..., 2] -> [...]`. A state that is not finite has ended, too: a learned
    model may predict one."""
    return (jnp.abs(next_obs[..., 0]) >= WALL) | ~jnp.isfinite(next_obs).all(axis=-1)


TASK = Task(
    "corridor",
    "damorl_example/Corridor-v0",
    obs_dim=2,
    action_dim=1,
    termination=hit_a_wall,
    reference_min=30.5,  # mean of 100 uniformly random episodes, reset seeds 0 to 99 (tests/test_plugin.py)
    reference_max=50.0,  # the bound: the middle at every step
    max_episode_steps=STEPS,
    action_low=-2.0,
    action_high=2.0,
    obs_names=("position", "speed"),
)
