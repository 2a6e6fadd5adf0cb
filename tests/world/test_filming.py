"""The camera: what it sees, and what is said where there is none."""

from __future__ import annotations

import os
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from damorl.errors import UserError
from damorl.types import Spec
from damorl.world import filming
from damorl.world.filming import Camera, opened_camera
from damorl.world.task import Task
from damorl.world.tasks import TASKS
from damorl.world.terminations import never_ended

HOPPER, SIDE = TASKS["hopper"], 48


def stand(obs: np.ndarray) -> np.ndarray:
    return np.zeros((len(obs), 3))


def push(obs: np.ndarray) -> np.ndarray:
    return np.tile([1.0, -1.0, 1.0], (len(obs), 1))


def test_the_camera_sees_an_episode(backend: str) -> None:
    with opened_camera(HOPPER, HOPPER.spec, SIDE) as camera:
        assert (camera.stride, camera.fps, camera.default_steps) == (5, 25.0, 1000)  # 125 steps per second
        whole, again, other = camera.take(push, 3, 1000), camera.take(push, 3, 1000), camera.take(stand, 3, 20)
    assert whole.frames.shape[1:] == (SIDE, SIDE, 3)
    assert whole.frames.dtype == np.uint8
    assert whole.terminated
    assert len(whole.frames) == -(-whole.length // 5) + 1  # every fifth state, and the one it ended in
    assert np.array_equal(whole.frames, again.frames)
    assert (whole.earned, whole.length) == (again.earned, again.length)
    assert np.array_equal(whole.frames[0], other.frames[0])  # the same start
    assert not np.array_equal(whole.frames[1], other.frames[1])
    assert len(other.frames) == 5
    assert other.length > 20  # it is played to its end, whatever is filmed


def test_the_return_is_that_of_the_evaluation(backend: str) -> None:
    from damorl.world.evaluate import evaluate

    with opened_camera(HOPPER, HOPPER.spec, SIDE) as camera:
        take = camera.take(push, 7, 1)
    played = evaluate(HOPPER, push, 1, 7)
    assert (take.earned, take.length) == (played.returns[0], played.lengths[0])


def test_the_hopper_stays_in_the_picture(backend: str) -> None:
    with opened_camera(HOPPER, HOPPER.spec, SIDE) as camera:
        simulator: Any = camera.evaluator
        take = camera.take(stand, 0, 10)
        env = simulator.envs[0].unwrapped
        position = env.data.qpos.copy()
        position[0] += 20.0
        env.set_state(position, env.data.qvel)
        far = camera.picture()
    brown = lambda image: int((image[..., 0].astype(int) - image[..., 2] > 30).sum())  # sky and floor are not
    assert brown(take.frames[-1]) > 20
    assert brown(far) > 20


class Blind(gymnasium.Env[Any, Any]):
    """Has no pictures; as Drawn, it has its own."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(2), {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        return np.zeros(2), 1.0, False, False, {}


class Drawn(Blind):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012 (Gymnasium's way)
    fault = False

    def render(self) -> Any:
        if self.fault:
            raise RuntimeError("no ink")
        return np.full((30, 40, 3), 7, np.uint8)


def own_task(env: type[gymnasium.Env[Any, Any]]) -> Task:
    gymnasium.register(f"test/{env.__name__}-v0", env)
    return Task("own", f"test/{env.__name__}-v0", 2, 1, never_ended, max_episode_steps=30)


def still(obs: np.ndarray) -> np.ndarray:
    return np.zeros((len(obs), 1))


def test_an_environment_without_pictures_is_refused() -> None:
    with (
        pytest.raises(UserError, match=r"render_mode 'rgb_array'\), found none in test/Blind-v0; choose a task"),
        opened_camera(own_task(Blind), Spec(2, 1), SIDE),
    ):
        pass


def test_an_environment_of_ones_own_is_filmed(monkeypatch: pytest.MonkeyPatch) -> None:
    with opened_camera(own_task(Drawn), Spec(2, 1), SIDE) as camera:
        take = camera.take(still, 0, 30)
        assert (camera.stride, camera.fps, camera.default_steps) == (1, 20.0, 30)
        assert take.frames.shape == (31, 30, 40, 3)
        assert (take.length, take.earned, take.terminated) == (30, 30.0, False)
        assert camera.take(still, 0, 10).frames.shape[0] == 11
        monkeypatch.setattr(Drawn, "fault", True)
        with pytest.raises(UserError, match="found 'RuntimeError: no ink'; install"):
            camera.take(still, 0, 1)


def test_without_a_backend_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []
    monkeypatch.setattr(filming, "can_draw", lambda name: bool(tried.append(name)))
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(filming.sys, "platform", "linux")
    filming.find_backend.cache_clear()
    with (
        pytest.raises(UserError, match=r"apt install libegl1.*apt install libosmesa6"),
        opened_camera(HOPPER, HOPPER.spec, SIDE),
    ):
        pass
    filming.find_backend.cache_clear()
    assert tried == ["egl", "osmesa"]
    assert "MUJOCO_GL" not in os.environ


def test_a_backend_that_fails_is_seen() -> None:
    assert not filming.can_draw("no such backend")


def test_the_user_chooses_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    monkeypatch.setattr(filming, "find_backend", lambda: pytest.fail("asked"))
    with filming.off_screen():
        assert os.environ["MUJOCO_GL"] == "osmesa"
    assert os.environ["MUJOCO_GL"] == "osmesa"


def test_fast_worlds_are_thinned_and_slow_ones_are_not() -> None:
    class Standing:
        task = HOPPER

    rates = {rate: Camera(Standing(), rate) for rate in (10.0, 20.0, 30.0, 125.0, 500.0)}  # pyright: ignore[reportArgumentType]
    assert {rate: (camera.stride, camera.fps) for rate, camera in rates.items()} == {
        10.0: (1, 10.0),
        20.0: (1, 20.0),
        30.0: (2, 15.0),
        125.0: (5, 25.0),
        500.0: (20, 25.0),
    }
