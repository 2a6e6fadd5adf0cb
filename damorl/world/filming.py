"""One episode of a policy, seen through a camera: the simulator draws off-screen, no display is needed."""

from __future__ import annotations

import functools
import importlib
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any, NamedTuple

import numpy as np

from damorl.errors import UserError
from damorl.types import Spec
from damorl.world.evaluate import Act, Evaluator
from damorl.world.simulators import make_env
from damorl.world.task import Task, describe

BACKENDS = ("egl", "osmesa")
"""What MuJoCo can draw with where there is no display, in the order in which they are tried."""
PROBE = (
    "import mujoco; context = mujoco.GLContext(8, 8); context.make_current(); "
    "mujoco.MjrContext(mujoco.MjModel.from_xml_string('<mujoco/>'), 100)"
)
PROBE_SECONDS = 60.0
FPS = 25.0
"""Frames per second at most."""
TRACKING = "track"
"""What the models call that camera."""
SECONDS = 10.0
"""Of simulated time that are filmed unless told otherwise."""
DEFAULT_STEPS_PER_SECOND = 30.0
"""Of an environment that does not say how fast it is to be shown."""


class Take(NamedTuple):
    """An episode played to its end, and the first part of it as pictures."""

    frames: np.ndarray
    """uint8 `[F, height, width, 3]`: the start, every `stride`-th state, and the last one if the episode ends early."""
    earned: float
    """The undiscounted return of the whole episode."""
    length: int
    """Its steps."""
    terminated: bool
    """Whether the task ended it (a fall) rather than the time limit."""


class Camera:
    """A task's simulator that can be looked at; made by `opened_camera`."""

    def __init__(self, evaluator: Evaluator, steps_per_second: float) -> None:
        self.evaluator = evaluator
        self.stride = max(1, math.ceil(steps_per_second / FPS))
        """Steps from frame to frame."""
        self.fps = steps_per_second / self.stride
        """Frames per second at which the film runs as fast as the simulated world."""
        self.default_steps = min(evaluator.task.max_episode_steps, round(SECONDS * steps_per_second))

    def picture(self) -> np.ndarray:
        """What is seen now, uint8 `[height, width, 3]`. UserError where nothing can be drawn."""
        try:
            image = np.asarray(self.evaluator.envs[0].render())
        except Exception as reason:  # Gymnasium's, OpenGL's, or the user's code's
            raise cannot_draw(self.evaluator.task, f"'{describe(reason)}'") from reason
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise cannot_draw(self.evaluator.task, f"an array {image.dtype} of shape {image.shape}")
        return image

    def take(self, act: Act, seed: int, steps: int) -> Take:
        """The episode that is reset with `seed`, with pictures of its first `steps` steps.

        The same arguments give the same take. UserError as in `Evaluator.run`.
        """
        frames: list[np.ndarray] = []
        step = 0

        def watched(obs: np.ndarray) -> np.ndarray:
            nonlocal step
            if step <= steps and step % self.stride == 0:
                frames.append(self.picture())
            step += 1
            return act(obs)

        played = self.evaluator.run(watched, 1, seed)
        length = int(played.lengths[0])
        if length <= steps:
            frames.append(self.picture())
        return Take(np.stack(frames), float(played.returns[0]), length, bool(played.terminated[0]))


@contextmanager
def opened_camera(task: Task, spec: Spec, side: int) -> Iterator[Camera]:
    """The task's simulator with a camera of `side` x `side` pixels, for policies with the sizes `spec`.

    An environment that is not MuJoCo's has pictures of its own size. UserError for a task without a simulator or
    without pictures, for other sizes, and where neither EGL nor OSMesa works.
    """
    with closing(make_env(task)) as env:
        modes, is_mujoco = env.metadata.get("render_modes", ()), hasattr(env.unwrapped, "mujoco_renderer")
        steps_per_second = float(env.metadata.get("render_fps") or DEFAULT_STEPS_PER_SECOND)
    if "rgb_array" not in modes:
        raise UserError(
            f"task {task.name!r}: expected an environment that draws (render_mode 'rgb_array'), found "
            f"{', '.join(map(repr, modes)) or 'none'} in {task.env_id}; choose a task with pictures, such as hopper"
        )
    size: dict[str, Any] = {"width": side, "height": side} if is_mujoco else {}
    how: Any = off_screen if is_mujoco else no_change
    change: Callable[[Any], None] | None = set_up if is_mujoco else None
    with how(), closing(Evaluator(task, spec, change, options={"render_mode": "rgb_array", **size})) as evaluator:
        yield Camera(evaluator, steps_per_second)


def set_up(env: Any) -> None:
    """Follow the body, where the model has a camera that does, and leave out shadows, which take two thirds of the
    time where a processor draws."""
    mujoco: Any = importlib.import_module("mujoco")  # its functions are in no type stub
    model, renderer = env.unwrapped.model, env.unwrapped.mujoco_renderer
    model.vis.quality.shadowsize = 0
    camera = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, TRACKING)
    if camera >= 0:
        renderer.camera_id = camera


@contextmanager
def no_change() -> Iterator[None]:
    """Nothing has to be prepared."""
    yield


@contextmanager
def off_screen() -> Iterator[None]:
    """Let MuJoCo draw without a display meanwhile, by what works here or what `MUJOCO_GL` says. UserError if nothing
    does."""
    if os.environ.get("MUJOCO_GL") or sys.platform != "linux":  # elsewhere a hidden window needs no display server
        yield
        return
    os.environ["MUJOCO_GL"] = find_backend()
    try:
        yield
    finally:
        os.environ.pop("MUJOCO_GL", None)


@functools.cache
def find_backend() -> str:
    """The first of `BACKENDS` that can draw; each is tried in a process of its own, for a failed one leaves OpenGL
    unusable in its process. UserError if none can."""
    for name in BACKENDS:
        if can_draw(name):
            return name
    raise UserError(
        "cannot film: expected EGL or OSMesa, with which MuJoCo draws without a display, found neither that works; "
        "install one (Debian: apt install libegl1 libgl1-mesa-dri, or apt install libosmesa6) and try again"
    )


def can_draw(backend: str) -> bool:
    """Whether MuJoCo can draw with `backend` on this machine."""
    environment = {**os.environ, "MUJOCO_GL": backend}
    try:
        done = subprocess.run(
            [sys.executable, "-c", PROBE], env=environment, capture_output=True, timeout=PROBE_SECONDS, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0


def cannot_draw(task: Task, found: str) -> UserError:
    """The refusal of a simulator that gives no picture, to be raised."""
    return UserError(
        f"task {task.name!r}: expected a picture from its simulator {task.env_id!r}, found {found}; install what it "
        "draws with, or set MUJOCO_GL to egl or osmesa for a MuJoCo task"
    )
