"""Changed physics: the same task with another friction, mass, gravity, actuator strength, damping, or noise."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from damorl.errors import UserError
from damorl.world.task import Task

if TYPE_CHECKING:
    from damorl.world.simulators import Env

ACTION_NOISE, OBSERVATION_NOISE = "action_noise", "observation_noise"
AFFINE = 1
"""MuJoCo's `mjGAIN_AFFINE` and `mjBIAS_AFFINE`. Later kinds, muscles for one, are not proportional to three numbers."""


class World(NamedTuple):
    """A task with one thing changed."""

    factor: str | None = None
    """A key of `PHYSICS`, `ACTION_NOISE`, `OBSERVATION_NOISE`, or None: the task as it is."""
    value: float = 1.0
    """What the task's own value is multiplied by; of a noise its standard deviation (see `make_worlds`)."""

    @property
    def label(self) -> str:
        """What tables and pictures call it."""
        if self.factor is None:
            return "unchanged"
        word = self.factor.replace("_", " ")
        return f"{word} {self.value:g}" if self.factor in NOISES else f"{word} x {self.value:g}"

    def noise(self, kind: str) -> float:
        """How much of this kind of noise there is."""
        return self.value if self.factor == kind else 0.0


def scale_friction(model: Any, factor: float) -> None:
    """Sliding, torsional and rolling friction of all geoms, and of explicit contact pairs."""
    model.geom_friction *= factor
    model.pair_friction *= factor


def scale_mass(model: Any, factor: float) -> None:
    """Mass and inertia of all bodies, and the constants that MuJoCo derives from them."""
    model.body_mass *= factor
    model.body_inertia *= factor
    mujoco: Any = importlib.import_module("mujoco")  # its functions are in no type stub
    mujoco.mj_setConst(model, mujoco.MjData(model))


def scale_gravity(model: Any, factor: float) -> None:
    """The vector of gravity."""
    model.opt.gravity *= factor


def scale_actuator(model: Any, factor: float) -> None:
    """The force of all actuators: gain, bias and limits. UserError for other kinds than motors and servos."""
    if np.any(model.actuator_gaintype > AFFINE) or np.any(model.actuator_biastype > AFFINE):
        raise UserError("cannot vary actuator: expected motors or servos, found another kind; vary something else")
    model.actuator_gainprm[:, :3] *= factor
    model.actuator_biasprm[:, :3] *= factor
    model.actuator_forcerange *= factor


def scale_damping(model: Any, factor: float) -> None:
    """The damping of all joints, at every order in the velocity."""
    model.dof_damping *= factor
    if hasattr(model, "dof_dampingpoly"):  # later MuJoCo only
        model.dof_dampingpoly *= factor


PHYSICS: Mapping[str, Callable[[Any, float], None]] = {
    "friction": scale_friction,
    "mass": scale_mass,
    "gravity": scale_gravity,
    "actuator": scale_actuator,
    "damping": scale_damping,
}
"""What changes a compiled MuJoCo model in place."""
NOISES = (ACTION_NOISE, OBSERVATION_NOISE)
FACTORS = (*PHYSICS, *NOISES)


def make_worlds(varied: Mapping[str, Sequence[float]]) -> list[World]:
    """The unchanged world, and one for each value of each factor, in the order given.

    A value of a key of `PHYSICS` multiplies the task's own. `action_noise` is the standard deviation of Gaussian noise
    on actions in [-1, 1], which are then clipped; `observation_noise` that of noise on each feature, as a share of its
    deviation in the training data. UserError for an unknown factor and for values that are not finite or below 0.
    """
    worlds = [World()]
    for factor, values in varied.items():
        if factor not in FACTORS:
            raise UserError(f"cannot vary {factor!r}: expected one of {', '.join(FACTORS)}; choose among them")
        for value in values:
            if not 0.0 <= value < np.inf or (factor == "mass" and value == 0.0):
                least = "above 0" if factor == "mass" else "of 0 or more"
                raise UserError(f"cannot vary {factor}: expected finite values {least}, found {value:g}; correct it")
        if not values or len(set(values)) < len(values):
            raise UserError(
                f"cannot vary {factor}: expected different values, found {list(values)}; give each of them once"
            )
        worlds += [World(factor, float(value)) for value in values]
    return worlds


def change_of(task: Task, world: World) -> Callable[[Env], None] | None:
    """What turns a newly opened simulator of the task into that world; None if nothing in the simulator changes.

    The function raises UserError for an environment that is not simulated by MuJoCo.
    """
    scale = None if world.factor is None else PHYSICS.get(world.factor)
    if scale is None or world.value == 1.0:
        return None

    def change(env: Env) -> None:
        mujoco: Any = importlib.import_module("mujoco")
        model = getattr(env.unwrapped, "model", None)
        if not isinstance(model, mujoco.MjModel):
            raise UserError(
                f"cannot vary {world.factor} of the task {task.name!r}: expected a MuJoCo simulator, found "
                f"{type(env.unwrapped).__name__}; vary {' or '.join(NOISES)}, or choose another task"
            )
        scale(model, world.value)

    return change
