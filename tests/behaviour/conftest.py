"""Stand-in behaviours: small networks whose actions say who acted."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from damorl.behaviour.host_policy import NumpyPolicy
from damorl.behaviour.policies import Behaviours
from damorl.world.tasks import TASKS


def constant_policy(task_name: str, action: float) -> NumpyPolicy:
    """Acts within about 0.02 of `action` in every state, so that rows can be told apart by their actions."""
    task = TASKS[task_name]
    hidden = (np.zeros((task.obs_dim, 4), np.float32), np.zeros(4, np.float32))
    mean = np.full(task.action_dim, np.arctanh(action), np.float32)
    log_std = np.full(task.action_dim, -9.0, np.float32)  # clipped to -5
    return hidden, (np.zeros((4, 2 * task.action_dim), np.float32), np.concatenate([mean, log_std]))


def random_policy(task_name: str, seed: int) -> NumpyPolicy:
    """An untrained network of two hidden layers that acts differently in different states."""
    task, rng = TASKS[task_name], np.random.default_rng(seed)
    sizes = (task.obs_dim, 8, 8, 2 * task.action_dim)
    shapes = pairwise(sizes)
    return tuple(
        (rng.normal(0, 0.3, s).astype(np.float32), rng.normal(0, 0.1, s[1]).astype(np.float32)) for s in shapes
    )


@pytest.fixture
def behaviours() -> Behaviours:
    """Hopper stand-ins: expert acts 0.9, medium 0.5, the replay snapshots -0.8, -0.6, -0.4, -0.2."""
    replay = tuple(constant_policy("hopper", action) for action in (-0.8, -0.6, -0.4, -0.2))
    expert, medium = constant_policy("hopper", 0.9), constant_policy("hopper", 0.5)
    return Behaviours(expert, medium, replay, card={"task": "hopper"}, sha256="stand-in")
