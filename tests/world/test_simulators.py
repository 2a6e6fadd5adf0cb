"""Opening simulators: what fits is opened silently and takes actions in [-1, 1], what does not is refused."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
from gymnasium import spaces

from damorl.errors import UserError
from damorl.world import simulators
from damorl.world.simulators import make_env, simulator_of, task_of_env
from damorl.world.tasks import TASKS, Task, find_task, from_unit, halfcheetah_ended, hopper_ended

ALL_TASKS = list(TASKS.values())


class Stub(gymnasium.Env[Any, Any]):
    """An environment of any spaces that insists on its action bounds and remembers the last action."""

    def __init__(self, observations: spaces.Space[Any], actions: spaces.Space[Any]) -> None:
        self.observation_space, self.action_space = observations, actions
        self.last: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.last = action
        return self.observation_space.sample(), 0.0, False, False, {}


Register = Callable[[spaces.Space[Any], spaces.Space[Any]], str]


@pytest.fixture
def register() -> Iterator[Register]:
    """Make a `Stub` known to Gymnasium; returns its id."""

    def register_stub(observations: spaces.Space[Any], actions: spaces.Space[Any]) -> str:
        gymnasium.register("test/Stub-v0", lambda **options: Stub(observations, actions))
        return "test/Stub-v0"

    yield register_stub
    gymnasium.registry.pop("test/Stub-v0", None)


ROW, UNIT = spaces.Box(-np.inf, np.inf, (3,)), spaces.Box(-1.0, 1.0, (2,))


@pytest.mark.parametrize("task", ALL_TASKS, ids=lambda task: task.name)
def test_simulators_have_unit_action_bounds_and_the_sizes_stated(task: Task) -> None:
    env: Any = make_env(task)
    assert env.observation_space.shape == (task.spec.obs_dim,)
    assert env.action_space.shape == (task.spec.action_dim,)
    assert (env.action_space.low == -1).all()
    assert (env.action_space.high == 1).all()
    assert env.spec.max_episode_steps == task.max_episode_steps == (200 if task.name == "pendulum" else 1000)


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
    with pytest.warns(UserWarning, match="inertia too small"), simulators._quiet():
        hooks.get_mju_user_warning()("inertia too small")
    with pytest.warns(UserWarning, match="something else"), simulators._quiet():
        warnings.warn("something else", stacklevel=1)
    assert hooks.get_mju_user_warning() is before


def test_the_pendulum_gets_torques_of_minus_two_to_two() -> None:
    plain, unit = gymnasium.make("Pendulum-v1").unwrapped, make_env(TASKS["pendulum"])
    plain.reset(seed=3)
    unit.reset(seed=3)
    for action in np.array([[-1.0], [-0.3], [0.0], [0.77], [1.0]], np.float32):
        expected, reward, *_ = plain.step(2 * action)
        obs, found, *_ = unit.step(action)
        np.testing.assert_array_equal(obs, expected)
        assert found == reward


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rescaled_actions_reach_every_bound_and_never_pass_it(register: Register, dtype: type) -> None:
    """The stub refuses what lies outside of its bounds by a rounding, as real environments do."""
    rng = np.random.default_rng(0)
    low, high = rng.uniform(-3, -0.1, 50).astype(dtype), rng.uniform(0.1, 3, 50).astype(dtype)
    task = find_task(register(ROW, spaces.Box(low, high, dtype=dtype)))
    assert (np.asarray(task.action_low, dtype) == low).all()
    env: Any = make_env(task)
    env.reset(seed=0)
    env.step(np.ones(50, np.float32))
    np.testing.assert_allclose(env.unwrapped.last, high, rtol=1e-7)
    env.step(-np.ones(50, np.float32))
    np.testing.assert_allclose(env.unwrapped.last, low, rtol=1e-7)
    middle = rng.uniform(-1, 1, 50).astype(np.float32)
    env.step(middle)
    np.testing.assert_allclose(env.unwrapped.last, from_unit(task, middle), rtol=1e-6)
    np.testing.assert_allclose(env.unwrapped.last, (low + high) / 2 + middle * (high - low) / 2, atol=1e-6)


# --- what an environment tells ---


def test_a_task_is_read_from_an_environment() -> None:
    task = task_of_env("Pusher-v5")
    assert (task.name, task.env_id, task.spec, task.max_episode_steps) == ("Pusher-v5", "Pusher-v5", (23, 7), 100)
    assert (task.action_low, task.action_high) == (-2.0, 2.0)
    assert (task.termination_known, task.reference_min, task.reference_max) == (False, None, None)


def test_bounds_are_the_shortest_numbers_that_mean_the_same() -> None:
    task = task_of_env("Humanoid-v4")  # float32
    assert (task.action_low, task.action_high) == (-0.4, 0.4)
    assert make_env(task).action_space.shape == (17,)


def test_an_environment_without_time_limit_gets_one(register: Register) -> None:
    task = task_of_env(register(ROW, spaces.Box(np.array([-1, -2], np.float32), np.array([1, 3], np.float32))))
    assert task.max_episode_steps == 1000
    assert (task.action_low, task.action_high) == ((-1.0, -2.0), (1.0, 3.0))
    env = make_env(task)
    env.reset(seed=0)
    flags = [env.step(np.zeros(2, np.float32))[3] for _ in range(1000)]
    assert flags == [False] * 999 + [True]


# --- refusals ---


@pytest.mark.parametrize(
    ("observations", "actions", "message"),
    [
        (ROW, spaces.Discrete(4), "continuous actions.*found Discrete;.*discrete actions are not supported"),
        (ROW, spaces.MultiDiscrete([2, 3]), r"continuous actions.*found MultiDiscrete of shape \(2,\)"),
        (ROW, spaces.Box(0, 5, (2,), np.int32), "continuous actions.*found Box"),
        (ROW, spaces.Box(-1.0, 1.0, (2, 2)), r"continuous actions.*found Box of shape \(2, 2\)"),
        (ROW, spaces.Tuple([UNIT]), "continuous actions.*found Tuple"),
        (ROW, spaces.Box(-np.inf, 1.0, (2,)), "finite bounds of every action, found -inf to 1.0; wrap"),
        (ROW, spaces.Box(1.0, 1.0, (2,)), "finite bounds of every action, found 1.0 to 1.0"),
        (
            spaces.Box(0, 255, (96, 96, 3), np.uint8),
            UNIT,
            r"one row of numbers, found Box of shape \(96, 96, 3\);.*images",
        ),
        (spaces.Box(-1.0, 1.0, (3, 1)), UNIT, r"one row of numbers, found Box of shape \(3, 1\); wrap"),
        (spaces.Dict({"a": ROW}), UNIT, "one row of numbers, found Dict; wrap"),
        (spaces.Tuple([ROW]), UNIT, "one row of numbers, found Tuple; wrap"),
        (spaces.Discrete(3), UNIT, "one row of numbers, found Discrete; wrap"),
    ],
)
def test_spaces_that_cannot_be_used_are_refused(
    register: Register, observations: spaces.Space[Any], actions: spaces.Space[Any], message: str
) -> None:
    env_id = register(observations, actions)
    with pytest.raises(UserError, match=f"task 'test/Stub-v0': expected .*{message}"):
        find_task(env_id)
    with pytest.raises(UserError, match=f"task 'mine': expected .*{message}"):
        make_env(Task("mine", env_id, 3, 2, halfcheetah_ended))


def test_a_real_environment_with_discrete_actions_is_refused() -> None:
    with pytest.raises(UserError, match=r"'CartPole-v1': expected continuous actions.*found Discrete"):
        find_task("CartPole-v1")


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (
            Task("ghost", "Ghost-v0", 3, 1, halfcheetah_ended),
            r"'ghost'.*cannot open.*'Ghost-v0'.*exist.*correct the id",
        ),
        (Task("old", "Hopper-v2", 11, 3, hopper_ended), r"'old'.*cannot open.*'Hopper-v2'.*robotics"),
        (Task("wide", "Hopper-v4", 12, 3, hopper_ended), "'wide': expected 12 .* and 3 .* found 11 .*and 3 in"),
        (
            Task("torque", "Pendulum-v1", 3, 1, halfcheetah_ended),
            r"'torque': expected actions from -1.0 to 1.0, found -2",
        ),
        (
            Task("weak", "Hopper-v4", 11, 3, hopper_ended, action_high=(1.0, 1.0, 0.5)),
            r"expected actions from -1.0 to \(1.0, 1.0, 0.5\), found -1.0 to 1.0 in Hopper-v4; correct action_low",
        ),
        (Task("paper", None, 3, 1, halfcheetah_ended), "'paper' has no simulator"),
    ],
    ids=lambda value: value.name if isinstance(value, Task) else "",
)
@pytest.mark.filterwarnings("ignore:.*out of date:DeprecationWarning")
def test_a_simulator_that_does_not_fit_its_task_is_refused(task: Task, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_env(task)


def test_an_environment_that_fails_is_one_sentence() -> None:
    def broken(**options: Any) -> gymnasium.Env[Any, Any]:
        raise RuntimeError("no licence\nsecond line")

    gymnasium.register("test/Broken-v0", broken)
    try:
        with pytest.raises(UserError, match=r"'test/Broken-v0' \(RuntimeError: no licence\); correct") as caught:
            find_task("test/Broken-v0")
    finally:
        gymnasium.registry.pop("test/Broken-v0")
    assert "\n" not in str(caught.value)


def test_the_simulator_of_a_task() -> None:
    assert simulator_of(TASKS["ant"]) == "Ant-v4"
    with pytest.raises(UserError, match=r"task 'paper' has no simulator.*env_id"):
        simulator_of(Task("paper", None, 3, 1, halfcheetah_ended))
