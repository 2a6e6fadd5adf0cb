"""Changed physics: exactly what is named changes in the compiled MuJoCo model, and noise has the size it says."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest

from damorl.errors import UserError
from damorl.world.evaluate import Evaluator, evaluate
from damorl.world.physics import ACTION_NOISE, FACTORS, PHYSICS, World, change_of, make_worlds
from damorl.world.tasks import TASKS, make_env

mujoco: Any = importlib.import_module("mujoco")  # its functions are in no type stub
HOPPER = TASKS["hopper"]
SETTINGS = ("gravity", "wind", "timestep", "density", "viscosity", "magnetic")
CHANGED = {
    "friction": {"geom_friction"},
    "gravity": {"gravity"},
    "actuator": {"actuator_gainprm"},
    "damping": {"dof_damping"},
    "mass": {"body_mass", "body_inertia", "body_subtreemass", "dof_M0", "dof_invweight0", "body_invweight0"}
    | {"actuator_acc0"},
}


def arrays(model: Any) -> dict[str, np.ndarray]:
    """Every number of a compiled model, its options among them."""
    found = {name: getattr(model, name) for name in dir(model) if isinstance(getattr(model, name), np.ndarray)}
    found |= {name: np.asarray(getattr(model.opt, name)) for name in SETTINGS}
    return {name: np.array(value) for name, value in found.items()}


def models(factor: str, value: float) -> tuple[Any, Any]:
    """The compiled hopper as it is, and changed."""
    found = []
    for change in (None, change_of(HOPPER, World(factor, value))):
        evaluator = Evaluator(HOPPER, change=change)
        env: Any = evaluator.opened().env
        found.append(env.unwrapped.model)
        env.close()
    return found[0], found[1]


@pytest.mark.parametrize("factor", PHYSICS)
def test_what_is_named_changes_and_nothing_else(factor: str) -> None:
    before, after = (arrays(model) for model in models(factor, 1.5))
    same = lambda one, other: np.allclose(one, other, rtol=1e-12, atol=1e-12, equal_nan=True)  # the mass centre rounds
    changed = {name for name in before if not same(before[name], after[name])}
    assert changed == CHANGED[factor]
    for name in changed & {"geom_friction", "gravity", "actuator_gainprm", "dof_damping", "body_mass", "body_inertia"}:
        np.testing.assert_array_equal(after[name], 1.5 * before[name])
        assert before[name].any()


def test_a_heavier_body_is_the_one_that_mujoco_compiles_from_denser_geoms() -> None:
    _, ours = models("mass", 1.7)
    path = make_env(HOPPER).unwrapped.fullpath  # pyright: ignore[reportAttributeAccessIssue]
    spec = mujoco.MjSpec.from_file(path)
    for geom in spec.geoms:
        geom.density *= 1.7
    compiled, found = arrays(spec.compile()), arrays(ours)
    for name in CHANGED["mass"]:
        np.testing.assert_allclose(found[name], compiled[name], rtol=1e-9, err_msg=name)


def test_a_factor_of_one_changes_nothing() -> None:
    assert [change_of(HOPPER, World(factor, 1.0)) for factor in PHYSICS] == [None] * len(PHYSICS)
    assert change_of(HOPPER, World()) is change_of(HOPPER, World(ACTION_NOISE, 0.3)) is None


def test_a_falling_body_feels_the_changed_gravity() -> None:
    """In the air, without actions, the hopper's speed changes by g times the time step."""
    env: Any = Evaluator(HOPPER, change=change_of(HOPPER, World("gravity", 0.5))).opened().env
    env.reset(seed=0)
    inner = env.unwrapped
    inner.set_state(np.array([0.0, 5.0, 0.0, 0.0, 0.0, 0.0]), np.zeros(6))
    mujoco.mj_step(inner.model, inner.data)
    # the joints stretch a little, so it is the mass centre that falls freely
    mujoco.mj_subtreeVel(inner.model, inner.data)
    assert inner.data.subtree_linvel[1][2] == pytest.approx(-0.5 * 9.81 * inner.model.opt.timestep, rel=1e-3)
    env.close()


def test_noise_on_actions_has_its_size_and_stays_in_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluator, given = Evaluator(HOPPER, action_noise=0.1), []
    evaluator.simulators = [evaluator.opened() for _ in range(2)]
    for env in evaluator.envs:
        step = env.step
        monkeypatch.setattr(env, "step", lambda action, step=step: (given.append(action), step(action))[1])
    evaluator.run(lambda obs: np.tile([0.0, 0.0, 1.0], (len(obs), 1)), 2, seed=0)
    evaluator.close()
    actions = np.array(given)
    assert len(actions) > 30
    assert np.std(actions[:, :2]) == pytest.approx(0.1, rel=0.25)
    assert actions[:, 2].max() == 1.0
    assert actions[:, 2].min() > 0.5
    assert len(np.unique(actions[:, 0])) == len(actions)


def test_an_episode_s_noise_does_not_depend_on_those_beside_it() -> None:
    def play(count: int, seed: int) -> list[float]:
        evaluator = Evaluator(HOPPER, action_noise=0.3)
        try:
            return evaluator.run(lambda obs: np.zeros((len(obs), 3)), count, seed).returns.tolist()
        finally:
            evaluator.close()

    together = play(3, 5)
    assert play(1, 6) == together[1:2]
    assert together != evaluate(HOPPER, lambda obs: np.zeros((len(obs), 3)), 3, 5).returns.tolist()


def test_worlds_come_in_order_with_the_unchanged_one_first() -> None:
    worlds = make_worlds({"friction": (0.8, 1.2), "action_noise": (0.1,)})
    assert [world.label for world in worlds] == ["unchanged", "friction x 0.8", "friction x 1.2", "action noise 0.1"]
    assert (worlds[3].noise(ACTION_NOISE), worlds[1].noise(ACTION_NOISE)) == (0.1, 0.0)


@pytest.mark.parametrize(
    ("varied", "message"),
    [
        ({"colour": [1.0]}, f"cannot vary 'colour': expected one of {', '.join(FACTORS)}"),
        ({"mass": [0.0]}, "expected finite values above 0, found 0"),
        ({"friction": [-1.0]}, "expected finite values of 0 or more, found -1"),
        ({"gravity": [float("nan")]}, "expected finite values of 0 or more, found nan"),
        ({"gravity": []}, r"expected different values, found \[\]"),
        ({"gravity": [1.1, 1.1]}, r"expected different values, found \[1\.1, 1\.1\]"),
    ],
)
def test_a_wrong_factor_is_one_sentence(varied: dict[str, list[float]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_worlds(varied)


def test_what_mujoco_does_not_simulate_has_no_friction() -> None:
    pendulum = TASKS["pendulum"]
    evaluator = Evaluator(pendulum, change=change_of(pendulum, World("friction", 2.0)))
    with pytest.raises(UserError, match=r"expected a MuJoCo simulator, found PendulumEnv; vary action_noise or"):
        evaluator.opened()


def test_muscles_are_refused() -> None:
    model = make_env(HOPPER).unwrapped.model  # pyright: ignore[reportAttributeAccessIssue]
    model.actuator_gaintype[:] = int(mujoco.mjtGain.mjGAIN_MUSCLE)
    with pytest.raises(UserError, match="expected motors or servos"):
        PHYSICS["actuator"](model, 2.0)
