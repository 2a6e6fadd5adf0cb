"""The tasks' rules against the real simulators."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from damorl.errors import UserError
from damorl.world import tasks
from damorl.world.tasks import (
    TASKS,
    Task,
    find_task,
    halfcheetah_ended,
    hopper_ended,
    infer_task,
    make_env,
    normalised_score,
    normalised_std,
    register_task,
)

ALL_TASKS = list(TASKS.values())


def ended(task: Task | str, next_obs: np.ndarray) -> np.ndarray:
    task = TASKS[task] if isinstance(task, str) else task
    state = jnp.asarray(next_obs, jnp.float32)
    return np.asarray(task.termination(state, jnp.zeros((*state.shape[:-1], task.action_dim)), state))


def play_randomly(task: Task, num_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """The states reached by uniformly random actions, and the simulator's own `terminated`."""
    env: Any = make_env(task)
    env.action_space.seed(0)
    env.reset(seed=0)
    states, flags = [], []
    for _ in range(num_steps):
        obs, _, terminated, truncated, _ = env.step(env.action_space.sample())
        states.append(obs)
        flags.append(terminated)
        if terminated or truncated:
            env.reset()
    return np.array(states), np.array(flags)


@pytest.mark.parametrize("task", ALL_TASKS, ids=lambda task: task.name)
def test_termination_agrees_with_the_simulator_in_random_play(task: Task) -> None:
    states, flags = play_randomly(task, 600)
    np.testing.assert_array_equal(ended(task, states), flags)
    assert flags.sum() > 10 or task.name == "halfcheetah"


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


@pytest.mark.parametrize("task", ALL_TASKS, ids=lambda task: task.name)
def test_simulators_have_unit_action_bounds_and_the_sizes_stated(task: Task) -> None:
    env: Any = make_env(task)
    assert env.observation_space.shape == (task.spec.obs_dim,)
    assert env.action_space.shape == (task.spec.action_dim,)
    assert (env.action_space.low == -1).all()
    assert (env.action_space.high == 1).all()
    assert env.spec.max_episode_steps == task.max_episode_steps == 1000


def test_the_time_limit_truncates_and_does_not_terminate() -> None:
    env = make_env(TASKS["halfcheetah"])
    env.reset(seed=0)
    flags = [env.step(np.zeros(6))[2:4] for _ in range(1000)]
    assert flags[:-1] == [(False, False)] * 999
    assert flags[-1] == (False, True)


@pytest.mark.parametrize("task", ALL_TASKS, ids=lambda task: task.name)
def test_opening_a_simulator_is_silent_and_leaves_no_file(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_env(task).reset(seed=0)
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_other_remarks_of_mujoco_and_gymnasium_pass_on() -> None:
    hooks: Any = mujoco
    before = hooks.get_mju_user_warning()
    with pytest.warns(UserWarning, match="inertia too small"), tasks._quiet():
        hooks.get_mju_user_warning()("inertia too small")
    with pytest.warns(UserWarning, match="something else"), tasks._quiet():
        warnings.warn("something else", stacklevel=1)
    assert hooks.get_mju_user_warning() is before


def test_scores_are_d4rls() -> None:
    hopper = TASKS["hopper"]
    assert normalised_score(hopper, 3234.3) == pytest.approx(100.0)
    assert normalised_score(hopper, -20.272305) == pytest.approx(0.0)
    assert normalised_score(TASKS["halfcheetah"], -280.178953 + 124.15178953) == pytest.approx(1.0)
    assert normalised_score(TASKS["walker2d"], 1.629008 + 45.90670992) == pytest.approx(1.0)
    np.testing.assert_allclose(normalised_score(hopper, np.array([-20.272305, 3234.3])), [0.0, 100.0], atol=1e-9)


def test_a_standard_deviation_is_scaled_not_shifted() -> None:
    hopper, returns = TASKS["hopper"], np.array([100.0, 400.0, 1000.0])
    assert normalised_std(hopper, 0.0) == 0.0
    expected = np.std(normalised_score(hopper, returns))
    assert normalised_std(hopper, float(np.std(returns))) == pytest.approx(expected)


def test_double_pendulum_references_are_what_its_comment_says() -> None:
    task = TASKS["inverted_double_pendulum"]
    env: Any = make_env(task)
    returns = []
    for seed in range(100):
        env.reset(seed=seed)
        env.action_space.seed(seed)
        total, over = 0.0, False
        while not over:
            _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            total, over = total + float(reward), terminated or truncated
        returns.append(total)
    standard_error = np.std(returns) / 10
    assert abs(np.mean(returns) - (task.reference_min or 0)) < standard_error
    env.unwrapped.set_state(np.zeros(3), np.zeros(3))
    assert 1000 * env.step(np.zeros(1))[1] == pytest.approx(task.reference_max, rel=1e-3)


NO_REFERENCE = Task("corridor", "Corridor-v0", 4, 2, halfcheetah_ended)


@pytest.mark.parametrize("score", [normalised_score, normalised_std])
def test_a_task_without_references_has_no_score(score: Any) -> None:
    with pytest.raises(UserError, match=r"'corridor' has no reference returns.*reference_min"):
        score(NO_REFERENCE, 1.0)


def test_a_users_task_can_be_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "TASKS", dict(TASKS))
    register_task(NO_REFERENCE)
    register_task(NO_REFERENCE)  # twice the same is fine
    assert find_task("corridor") is NO_REFERENCE
    assert infer_task("corridor-run3.hdf5") is NO_REFERENCE
    with pytest.raises(UserError, match=r"'hopper' already means Hopper-v4"):
        register_task(Task("hopper", "MyHopper-v0", 11, 3, hopper_ended))
    with pytest.raises(UserError, match=r"'My-Task'.*lower-case"):
        register_task(Task("My-Task", "MyTask-v0", 11, 3, hopper_ended))


def test_an_unknown_task_gets_a_suggestion() -> None:
    with pytest.raises(UserError, match=r"unknown task 'Hoper': did you mean 'hopper'\?"):
        find_task("Hoper")
    with pytest.raises(UserError, match=r"unknown task 'zzz': expected one of hopper, halfcheetah"):
        find_task("zzz")


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (Task("ghost", "Ghost-v0", 3, 1, halfcheetah_ended), r"'ghost'.*cannot open.*'Ghost-v0'.*exist"),
        (Task("wide", "Hopper-v4", 12, 3, hopper_ended), r"'wide': expected 12 .* and 3 .*\(11,\) and \(3,\)"),
        (Task("torque", "Pendulum-v1", 3, 1, halfcheetah_ended), r"'torque': expected actions in \[-1, 1\].*Rescale"),
    ],
    ids=["unknown", "sizes", "bounds"],
)
def test_a_simulator_that_does_not_fit_its_task_is_refused(task: Task, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_env(task)


def test_importing_the_tasks_does_not_import_the_simulator() -> None:
    code = (
        "import sys, damorl.world.check\n"
        "assert not {'gymnasium', 'mujoco'} & set(sys.modules), 'the simulator was imported'"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
