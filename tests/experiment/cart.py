"""A cart that is cheap to step: pushed along a line, it ends beyond 2 and is cut after 12 steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

TASKS = """
import gymnasium, jax.numpy as jnp, numpy as np
from damorl import Task

class Cart(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
    resets = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.resets.append(seed)
        self.state = np.append(self.np_random.uniform(-1.5, 1.5), 0.0)
        return self.state.copy(), {}

    def step(self, action):
        speed = self.state[1] + 0.3 * float(action[0])
        self.state = np.array([self.state[0] + speed, speed])
        return self.state.copy(), 1.0 - abs(self.state[0]), abs(self.state[0]) > 2.0, False, {}

class Restless(Cart):  # no two resets are alike
    def step(self, action):
        return np.array([0.001 * len(self.resets), 0.0]), 0.0, False, False, {}

for name, kind in (("Cart", Cart), ("Restless", Restless)):
    if f"test/{name}-v0" not in gymnasium.registry:
        gymnasium.register(f"test/{name}-v0", kind)
ended = lambda obs, action, next_obs: jnp.abs(next_obs[..., 0]) > 2.0
cart = Task("cart", "test/Cart-v0", 2, 1, ended, 0.0, 12.0, max_episode_steps=12)
restless = Task("restless", "test/Restless-v0", 2, 1, ended, max_episode_steps=12)
"""


def write_tasks(folder: Path) -> str:
    """A task file; the name of the task in it."""
    (folder / "carts.py").write_text(TASKS, encoding="utf-8")
    return f"{folder / 'carts.py'}:cart"


def write_log(path: Path, episodes: int = 40, seed: int = 0) -> Path:
    """Episodes of random pushes."""
    rng, rows = np.random.default_rng(seed), []
    for _ in range(episodes):
        position, speed = rng.uniform(-1.5, 1.5), 0.0
        for step in range(12):
            push = rng.uniform(-1.0, 1.0)
            before, speed = (position, speed), speed + 0.3 * push
            position += speed
            ended = abs(position) > 2.0
            rows.append((before, push, 1.0 - abs(position), (position, speed), ended, step == 11 and not ended))
            if ended:
                break
    names = ("observations", "actions", "rewards", "next_observations", "terminals", "timeouts")
    columns: dict[str, Any] = {
        name: np.array(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)
    }
    np.savez(path, **columns | {"actions": columns["actions"][:, None]})
    return path
