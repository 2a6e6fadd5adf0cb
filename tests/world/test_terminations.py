"""The tasks' terminations against the real simulators."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from damorl.behaviour.host_policy import act
from damorl.behaviour.policies import load_policies, shipped
from damorl.world.tasks import TASKS, Task, find_task, make_env

ALL_TASKS = list(TASKS.values())
NEVER = {"halfcheetah", "pendulum"}

Policy = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def ended(task: Task | str, next_obs: np.ndarray) -> np.ndarray:
    task = TASKS[task] if isinstance(task, str) else task
    state = jnp.asarray(next_obs, jnp.float32)
    return np.asarray(task.termination(state, jnp.zeros((*state.shape[:-1], task.action_dim)), state))


def play(task: Task, policy: Policy, num_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """The states that a policy reaches, and the simulator's own `terminated`."""
    env, rng = make_env(task), np.random.default_rng(0)
    obs, _ = env.reset(seed=0)
    states, flags = [], []
    for _ in range(num_steps):
        obs, _, terminated, truncated, _ = env.step(policy(obs, rng))
        states.append(obs)
        flags.append(terminated)
        if terminated or truncated:
            obs, _ = env.reset()
    env.close()
    return np.array(states), np.array(flags)


def uniform(action_dim: int, size: float = 1.0) -> Policy:
    return lambda obs, rng: rng.uniform(-size, size, action_dim).astype(np.float32)


@pytest.mark.parametrize("name", [*TASKS, "Hopper-v5", "Walker2d-v5", "HalfCheetah-v5"])
def test_termination_agrees_with_the_simulator_in_random_play(name: str) -> None:
    task = find_task(name)
    assert task.termination_known
    num_steps = 2500 if name == "ant" else 600  # four sturdy legs
    states, flags = play(task, uniform(task.action_dim), num_steps)
    np.testing.assert_array_equal(ended(task, states), flags)
    assert (flags.sum() > (4 if name == "ant" else 10)) != (task.name in NEVER or name == "HalfCheetah-v5")


@pytest.mark.parametrize("name", shipped())
def test_termination_agrees_with_the_simulator_where_good_policies_go(name: str) -> None:
    """An expert runs for 100 steps, then is pushed about until it falls, at speed."""
    task, behaviours, steps = TASKS[name], load_policies(name), itertools.count()

    def disturbed(obs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        action = act(behaviours.expert, obs, rng)
        return action if next(steps) % 150 < 100 else rng.uniform(-1, 1, action.shape).astype(np.float32)

    states, flags = play(task, disturbed, 600)
    np.testing.assert_array_equal(ended(task, states), flags)
    lengths = np.diff(np.flatnonzero(flags), prepend=-1)
    assert name in NEVER or lengths.max() > 100


def swing(obs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Push the pendulum the way it turns."""
    return np.sign(obs[2:]) * rng.uniform(0.5, 1.0, 1)


@pytest.mark.parametrize(("name", "policy"), [("ant", uniform(8, 0.3)), ("pendulum", swing)])
def test_termination_agrees_with_the_simulator_in_calm_and_in_forceful_play(name: str, policy: Policy) -> None:
    states, flags = play(TASKS[name], policy, 500)
    np.testing.assert_array_equal(ended(name, states), flags)
    assert not flags.any()  # the ant stands
    assert name == "ant" or (states[:, 0].min() < -0.9 and states[:, 0].max() > 0.9)  # the pendulum went all round


@pytest.mark.parametrize("height", [-1e4, 0.0, 0.19, 0.2, 0.21, 0.75, 0.99, 1.0, 1.01, 5.0, 1e4])
def test_ant_height_is_judged_as_the_simulator_judges_it(height: float) -> None:
    env: Any = make_env(TASKS["ant"]).unwrapped
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(5):
        qpos = rng.normal(0, 3, env.model.nq)
        qpos[2] = height
        env.set_state(qpos, rng.normal(0, 30, env.model.nv))
        assert ended("ant", env._get_obs()) == env.terminated == (not 0.2 <= height <= 1.0)


@pytest.mark.parametrize("name", ["hopper", "walker2d"])
def test_termination_agrees_with_the_simulator_in_states_set_by_hand(name: str) -> None:
    task = TASKS[name]
    env: Any = make_env(task).unwrapped
    env.reset(seed=0)
    states, flags = [], []
    for index in range(1, env.model.nq):
        for value in (-1e4, -150.0, -99.0, -5.0, -0.99, -0.19, 0.0, 0.19, 0.99, 1.5, 5.0, 99.0, 150.0, 1e4):
            qpos = env.init_qpos.copy()
            qpos[index] = value
            env.set_state(qpos, env.init_qvel)
            states.append(env._get_obs())
            flags.append(env.terminated)
    np.testing.assert_array_equal(ended(task, np.array(states)), flags)
    assert 10 < np.sum(flags) < len(flags) - 10


@pytest.mark.parametrize("velocity", [-150.0, 150.0, -99.0, 99.0])
def test_hopper_velocities_are_judged_unclipped_as_the_simulator_judges_them(velocity: float) -> None:
    env: Any = make_env(TASKS["hopper"]).unwrapped
    env.reset(seed=0)
    for index in range(env.model.nv):
        qvel = np.zeros(env.model.nv)
        qvel[index] = velocity
        env.set_state(env.init_qpos, qvel)
        unclipped = np.concatenate([env.data.qpos[1:], env.data.qvel])
        # the simulator leaves out the first two of its state, x and z, but no velocity
        assert ended("hopper", unclipped) == env.terminated == (abs(velocity) > 100)
        assert not ended("hopper", env._get_obs())  # which clips: documented


def test_double_pendulum_tip_height_is_the_simulators_in_any_pose() -> None:
    task, rng = TASKS["inverted_double_pendulum"], np.random.default_rng(0)
    env: Any = make_env(task).unwrapped
    env.reset(seed=0)
    disagreements, flags = [], []
    for _ in range(500):
        env.set_state(rng.uniform(-1, 1, 3), rng.normal(0, 3, 3))
        obs, _, terminated, *_ = env.step(rng.uniform(-1, 1, 1).astype(np.float32))
        if ended(task, obs) != terminated:
            disagreements.append(abs(env.data.site_xpos[0][2] - 1))
        flags.append(terminated)
    assert max(disagreements, default=0) < 1e-3  # only where the tip is at the very threshold
    assert 50 < np.sum(flags) < 450


def test_halfcheetah_never_ends_even_upside_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    env: Any = make_env(TASKS["halfcheetah"]).unwrapped
    env.reset(seed=0)
    for angle in (-40.0, -3.0, 3.0, 40.0):
        env.set_state(env.init_qpos + angle * np.eye(9)[2], env.init_qvel)
        obs, _, terminated, *_ = env.step(np.zeros(6))
        assert not terminated
        assert not ended("halfcheetah", obs)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("task", ALL_TASKS, ids=lambda task: task.name)
def test_a_state_that_is_not_finite_has_ended(task: Task, bad: float) -> None:
    standing = make_env(task).reset(seed=0)[0]
    states = np.where(np.eye(task.obs_dim, dtype=bool), bad, standing)
    assert ended(task, states).all()
    assert not ended(task, standing)


@pytest.mark.parametrize("bad", [-1e30, -1e4, -3.0, 3.0, 1e4, 1e30])
@pytest.mark.parametrize(
    ("name", "judged"), [("hopper", [0, 1]), ("walker2d", [0, 1]), ("ant", [0]), ("inverted_double_pendulum", [3, 4])]
)
def test_a_state_far_from_any_the_simulator_gives_has_ended(name: str, judged: list[int], bad: float) -> None:
    """No predicted height, angle or cosine is so wrong that it passes for standing; only up has hopper no bound."""
    standing = make_env(TASKS[name]).reset(seed=0)[0]
    states = np.where(np.eye(len(standing), dtype=bool), bad, standing)[judged]
    still_hops = name == "hopper" and bad in (3.0, 1e4, 1e30)
    np.testing.assert_array_equal(ended(name, states), [not (still_hops and entry == 0) for entry in judged])


def test_half_cheetah_and_pendulum_never_end_however_far_they_are() -> None:
    for name in sorted(NEVER):
        assert not ended(name, np.diag(np.full(TASKS[name].obs_dim, -1e30))).any()


def test_terminations_by_hand_and_over_any_leading_axes() -> None:
    hopper = np.zeros((2, 3, 11))
    hopper[..., 0] = [[1.0, 0.7, 0.71], [1.0, 1.0, -3.0]]
    hopper[..., 1] = [[0.0, 0.0, 0.0], [0.21, -0.21, 0.0]]
    expected = [[False, True, False], [True, True, True]]
    np.testing.assert_array_equal(ended("hopper", hopper), expected)
    hopper = np.diag(np.full(11, -101.0))  # each entry in turn far below, the others as when standing
    hopper[1:, 0] = 1.25
    assert ended("hopper", hopper).all()
    walker = np.zeros((6, 17))
    walker[:, 0] = [0.8, 0.81, 1.99, 2.0, 1.2, 1.2]
    walker[:, 1] = [0, 0, 0, 0, -1.01, 0.99]
    walker[5, 5] = -500.0  # its simulator has no bound on the other entries
    np.testing.assert_array_equal(ended("walker2d", walker), [1, 0, 0, 1, 1, 0])
    bent = np.zeros(11)  # both poles 60 degrees: first right, second back upright; tip at 0.6 * 0.5 + 0.6
    bent[1:5] = [np.sin(np.pi / 3), -np.sin(np.pi / 3), 0.5, 0.5]
    assert ended("inverted_double_pendulum", bent)
    straight = np.zeros(11)
    straight[3:5] = 1.0
    assert not ended("inverted_double_pendulum", straight)
    assert not ended("halfcheetah", walker).any()
