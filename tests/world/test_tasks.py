"""The tasks by name, their units and their scores."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from damorl.errors import UserError
from damorl.world import tasks
from damorl.world.task import check_termination
from damorl.world.tasks import (
    TASKS,
    Task,
    find_task,
    from_unit,
    halfcheetah_ended,
    hopper_ended,
    infer_task,
    make_env,
    never_ended,
    normalised_score,
    normalised_std,
    register_task,
    to_unit,
    walker2d_ended,
)

PENDULUM = TASKS["pendulum"]


def test_the_table() -> None:
    assert list(TASKS) == ["hopper", "halfcheetah", "walker2d", "ant", "inverted_double_pendulum", "pendulum"]
    assert all(task.name == name and task.termination_known for name, task in TASKS.items())
    for task in TASKS.values():
        check_termination(task)


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


# --- units of actions ---


@given(st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=20))
def test_unit_actions_stay_as_they_are(values: list[float]) -> None:
    action = np.array([[value] * 3 for value in values], np.float32)
    for convert in (to_unit, from_unit):
        found = convert(TASKS["hopper"], action)
        assert found.dtype == np.float32
        assert found.tobytes() == action.tobytes()


def test_units_of_the_pendulum() -> None:
    torque = np.array([[-2.0], [-1.0], [0.0], [1.5], [2.0]], np.float32)
    unit = np.array([[-1.0], [-0.5], [0.0], [0.75], [1.0]], np.float32)
    np.testing.assert_array_equal(to_unit(PENDULUM, torque), unit)
    np.testing.assert_array_equal(from_unit(PENDULUM, unit), torque)
    assert to_unit(PENDULUM, [[2.5]]) == 1.25  # nothing is clipped: what lies outside must be seen
    assert to_unit(PENDULUM, torque.astype(np.float64)).dtype == from_unit(PENDULUM, unit).dtype == np.float32


@given(st.integers(0, 2**32 - 1))
def test_units_are_inverse_and_keep_the_bounds_for_any_bounds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    low, high = rng.uniform(-10, -0.01, 4).astype(np.float32), rng.uniform(0.01, 10, 4).astype(np.float32)
    task = Task("arm", None, 2, 4, never_ended, action_low=tuple(low.tolist()), action_high=tuple(high.tolist()))
    np.testing.assert_array_equal(to_unit(task, [low, high]), [[-1.0] * 4, [1.0] * 4])
    np.testing.assert_array_equal(from_unit(task, [[-1.0] * 4, [1.0] * 4]), [low, high])
    action = rng.uniform(-1, 1, (3, 5, 4)).astype(np.float32)
    np.testing.assert_allclose(to_unit(task, from_unit(task, action)), action, atol=1e-6)


# --- registering and finding ---


NO_REFERENCE = Task("corridor", "Corridor-v0", 4, 2, halfcheetah_ended)


@pytest.mark.parametrize("score", [normalised_score, normalised_std])
def test_a_task_without_references_has_no_score(score: Any) -> None:
    with pytest.raises(UserError, match=r"'corridor' has no reference returns.*reference_min"):
        score(NO_REFERENCE, 1.0)


@pytest.fixture
def own_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "TASKS", dict(TASKS))


@pytest.mark.usefixtures("own_table")
def test_a_users_task_can_be_registered() -> None:
    register_task(NO_REFERENCE)
    register_task(NO_REFERENCE)  # twice the same is fine
    assert find_task("corridor") is NO_REFERENCE
    assert find_task("Corridor-v0") is NO_REFERENCE  # the table goes before asking Gymnasium
    assert infer_task("corridor-run3.hdf5") is NO_REFERENCE
    with pytest.raises(UserError, match=r"'hopper' already means Hopper-v4"):
        register_task(Task("hopper", "MyHopper-v0", 11, 3, hopper_ended))
    with pytest.raises(UserError, match=r"'My-Task'.*lower-case"):
        register_task(Task("My-Task", "MyTask-v0", 11, 3, hopper_ended))


@pytest.mark.usefixtures("own_table")
def test_a_registered_task_does_not_take_the_place_of_a_built_in_one() -> None:
    register_task(Task("old_plant", None, 4, 2, never_ended))
    register_task(Task("my_hopper", "Hopper-v4", 11, 3, never_ended))
    with pytest.raises(UserError, match="'old_plant' already means a task without simulator"):
        register_task(Task("old_plant", "Hopper-v4", 11, 3, never_ended))
    for name in ("hopper-medium.hdf5", "Hopper-v4.hdf5"):
        assert infer_task(name) is TASKS["hopper"]
    assert find_task("Hopper-v4") is TASKS["hopper"]
    assert infer_task("old-plant-2024.hdf5") is find_task("old_plant")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"obs_dim": 0}, r"obs_dim.*whole numbers from 1, found \(0, 2, 1000\)"),
        ({"action_dim": "2"}, r"whole numbers from 1, found \(4, '2', 1000\)"),
        ({"max_episode_steps": 0}, r"found \(4, 2, 0\)"),
        ({"action_low": 1.0}, "finite action_low below action_high, found 1.0 and 1.0"),
        ({"action_high": float("inf")}, "finite action_low below action_high, found -1.0 and inf"),
        ({"action_high": (1.0, 2.0, 3.0)}, r"a number or 2 numbers, found -1.0 and \(1.0, 2.0, 3.0\)"),
        ({"action_low": "left"}, "a number or 2 numbers, found left and 1.0"),
    ],
)
def test_a_task_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"task 'corridor': expected .*{message}"):
        dataclasses.replace(NO_REFERENCE, **changes)


@pytest.mark.parametrize(
    ("termination", "message"),
    [
        (lambda obs, action, next_obs: np.any(np.asarray(next_obs) > 1), "fails under JAX .*Tracer.*jax.numpy"),
        (lambda obs, next_obs: next_obs[..., 0] > 1, r"fails under JAX \(TypeError"),
        (lambda obs, action, next_obs: next_obs[:, 0] > 1, r"expected .* bool \(2, 3\).*found bool \(2, 4\)"),
        (lambda obs, action, next_obs: next_obs[..., 0], r"found float32 \(2, 3\)"),
        (lambda obs, action, next_obs: False, r"found bool \(\)"),
        (lambda obs, action, next_obs: {}, "found dict;"),
        (None, r"fails under JAX \(TypeError"),
    ],
)
@pytest.mark.usefixtures("own_table")
def test_an_unusable_termination_function_is_refused_when_it_is_registered(termination: Any, message: str) -> None:
    with pytest.raises(UserError, match=f"task 'corridor': .*{message}"):
        register_task(dataclasses.replace(NO_REFERENCE, termination=termination))
    assert "corridor" not in tasks.TASKS


@pytest.mark.usefixtures("own_table")
def test_a_usable_termination_function_may_use_the_action() -> None:
    register_task(dataclasses.replace(NO_REFERENCE, termination=lambda o, a, n: jnp.all(a > 0.9, -1) | (n[..., 0] > 1)))


def test_an_environment_of_the_table_is_found_by_its_id() -> None:
    assert find_task("Ant-v4") is TASKS["ant"]
    assert find_task("Pendulum-v1") is PENDULUM


@pytest.mark.parametrize(("env_id", "rule"), [("Hopper-v5", hopper_ended), ("Walker2d-v5", walker2d_ended)])
def test_another_version_ends_alike_but_is_not_scored_alike(env_id: str, rule: Any) -> None:
    task = find_task(env_id)
    assert task.termination is rule
    assert task.termination_known
    assert task.reference_min is task.reference_max is None


@pytest.mark.parametrize("env_id", ["Ant-v5", "InvertedDoublePendulum-v5", "Reacher-v5"])
def test_nothing_is_assumed_of_an_environment_of_other_sizes_or_unknown(env_id: str) -> None:
    task = find_task(env_id)
    assert not task.termination_known
    assert task.termination is never_ended


@pytest.mark.parametrize("name", [*TASKS, "Reacher-v5", "Pusher-v5", "Walker2d-v5"])
def test_a_name_written_to_json_finds_the_same_task_again(name: str) -> None:
    task = find_task(name)
    assert find_task(json.loads(json.dumps(task.name))) == task


def test_a_module_can_bring_its_environments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = """
import gymnasium, numpy as np

class Heater(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(0.0, 90.0, (1,))
    action_space = gymnasium.spaces.Box(0.0, 5.0, (1,))

gymnasium.register("plant/Heater-v3", Heater, max_episode_steps=60)
"""
    (tmp_path / "damorl_test_plant.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    task = find_task("damorl_test_plant:plant/Heater-v3")
    assert task.name == "damorl_test_plant:plant/Heater-v3"
    assert task.short_name == "Heater-v3"
    assert (task.spec, task.action_low, task.action_high, task.max_episode_steps) == ((1, 1), 0.0, 5.0, 60)
    assert find_task(task.name) == task
    assert make_env(task).action_space.contains(np.array([-1.0], np.float32))


def test_an_unknown_task_gets_a_suggestion() -> None:
    with pytest.raises(UserError, match=r"unknown task 'Hoper': did you mean 'hopper', or a Gymnasium id.*\?$"):
        find_task("Hoper")
    with pytest.raises(UserError, match=r"unknown task 'zzz': expected one of hopper, halfcheetah.*mytasks.py:reactor"):
        find_task("zzz")
    with pytest.raises(UserError, match=r"cannot open its simulator 'Hopper-v9'.*version `v9`"):
        find_task("Hopper-v9")


def test_importing_the_tasks_does_not_import_the_simulator() -> None:
    code = (
        "import sys, damorl.data.check\n"
        "assert not {'gymnasium', 'mujoco'} & set(sys.modules), 'the simulator was imported'"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
