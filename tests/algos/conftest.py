"""A tiny DAMO: eight rows, six initial states, networks of width 8, filled with numbers instead of initialised.

And a toy world in which every algorithm must do better than cloning.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damorl.algos import damo, sac
from damorl.algos.base import Algorithm, OfflineData, Problem
from damorl.core.nets import Dense
from damorl.core.scaler import Standardiser
from damorl.parts.actor import policy
from damorl.parts.dynamics import Dynamics, DynamicsConfig, DynamicsParams
from damorl.types import Spec, Transition

BATCH, INITIAL, OBS_DIM, ACTION_DIM = 8, 6, 3, 2
CONFIG = damo.Config(
    gamma=0.9,  # a large weight on the initial states, so that a wrong one shows
    batch_size=BATCH,
    initial_batch_size=INITIAL,
    hidden=(8,),
    classifier_hidden=(8,),
    rollout_starts=10,
    rollout_length=3,
    rollout_retain=2,
    dynamics=DynamicsConfig(num_members=2, num_elites=2, hidden=(8,)),
)


def numbers(seed: int, *shape: int, scale: float = 1.0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(scale=scale, size=shape), jnp.float32)


def rows(seed: int, count: int) -> Transition:
    """Random transitions; every third ends the episode."""
    return Transition(
        obs=numbers(seed, count, OBS_DIM),
        action=jnp.asarray(np.tanh(numbers(seed + 1, count, ACTION_DIM))),
        reward=numbers(seed + 2, count, scale=3.0),
        next_obs=numbers(seed + 3, count, OBS_DIM),
        terminal=jnp.asarray(np.arange(count) % 3 == 1, jnp.float32),
    )


def filled(shapes: Any, seed: int) -> Any:
    """Parameters of these shapes, all different, of a size that gives outputs of order 1."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(scale=0.5, size=leaf.shape), jnp.float32), shapes)


@pytest.fixture(scope="session")
def config() -> damo.Config:
    return CONFIG


@pytest.fixture(scope="session")
def data() -> OfflineData:
    return OfflineData(rows(10, 20), initial_obs=numbers(20, 4, OBS_DIM))


@pytest.fixture(scope="session")
def problem() -> Problem:
    return Problem(Spec(OBS_DIM, ACTION_DIM), lambda obs, action, next_obs: next_obs[:, 0] > 1.0)


@pytest.fixture(scope="session")
def batch() -> Transition:
    return rows(30, BATCH)


@pytest.fixture(scope="session")
def initial_obs() -> jax.Array:
    return numbers(40, INITIAL, OBS_DIM)


@pytest.fixture(scope="session")
def state(data: OfflineData, problem: Problem) -> damo.State:
    """A state whose target differs from its critic and whose buffer is full of other rows than the data's."""
    shapes = jax.eval_shape(lambda: damo.init(jax.random.key(0), CONFIG, problem, data))
    blank: damo.State = jax.tree.map(lambda leaf: jnp.asarray(np.zeros(leaf.shape, leaf.dtype)), shapes)
    learner = lambda part, seed: part._replace(params=filled(part.params, seed))
    capacity = blank.buffer.capacity
    return blank._replace(
        actor=learner(blank.actor, 1),
        average_actor=filled(blank.average_actor, 2),
        critic=learner(blank.critic, 3),
        target_critic=filled(blank.target_critic, 4),
        temperature=blank.temperature._replace(params=jnp.float32(-1.0)),
        classifier=learner(blank.classifier, 5),
        classifier_inputs=Standardiser(
            *(jnp.asarray(np.full(2 * OBS_DIM + ACTION_DIM, v, np.float32)) for v in (0, 1))
        ),
        buffer=blank.buffer._replace(rows=rows(50, capacity), size=jnp.int32(capacity)),
        terminal_rate=jnp.array([0.1, 0.3], jnp.float32),
    )


class PointWorld(NamedTuple):
    """A state moves by 0.3 times its action and costs its square; the behaviour is uniform. Cloning it plays about 0
    and stays where it is, on average 0.52 from the middle; a policy that learned goes there."""

    problem: Problem
    data: OfflineData

    def distance(self, module: Any, config: Any, epochs: int = 20) -> float:
        """Mean distance from the middle after eight steps of the policy that `epochs` times 100 updates make."""
        init_key, fit_key, train_key = jax.random.split(jax.random.key(0), 3)
        algorithm, problem, data = module.ALGORITHM, self.problem, self.data
        state = algorithm.init(init_key, config, problem, data)
        state = algorithm.prepare(fit_key, config, problem, state, data, lambda *_: None)

        def epoch(state: Any, key: Any) -> Any:
            state, _ = algorithm.refresh(config, problem, state, data, key)
            step = lambda s, k: algorithm.update(config, problem, s, data, k)
            return jax.lax.scan(step, state, jax.random.split(key, 100))

        state, _ = jax.jit(lambda s: jax.lax.scan(epoch, s, jax.random.split(train_key, epochs)))(state)
        place = jnp.linspace(-1.0, 1.0, 21)[:, None]
        for _ in range(8):
            place = place + 0.3 * policy(algorithm.actor(state), place).mode()
        return float(jnp.abs(place).mean())


@pytest.fixture(scope="session")
def point_world() -> PointWorld:
    rng = np.random.default_rng(0)
    obs, action = rng.uniform(-1.0, 1.0, (3000, 1)), rng.uniform(-1.0, 1.0, (3000, 1))
    next_obs = np.clip(obs + 0.3 * action + 0.01 * rng.normal(size=(3000, 1)), -1.5, 1.5)
    columns = (obs, action, -np.square(next_obs[:, 0]), next_obs, np.zeros(3000))
    toy = Transition(*(jnp.asarray(column, jnp.float32) for column in columns))
    return PointWorld(
        Problem(Spec(1, 1), lambda obs, action, next_obs: next_obs[:, 0] > jnp.inf), OfflineData(toy, toy.obs)
    )


@pytest.fixture(scope="session")
def point_settings() -> dict[str, Any]:
    """What learns there within 2000 updates: `agent` for any actor-critic, `model` for one with a model."""
    dynamics = DynamicsConfig(num_members=3, num_elites=2, hidden=(32, 32), max_batches=1000, epoch_batches=250)
    return {
        "agent": {"hidden": (32,), "batch_size": 64, "gamma": 0.9, "actor_lr": 3e-3, "critic_lr": 3e-3},
        "model": {"rollout_starts": 100, "rollout_length": 2, "dynamics": dynamics},
    }


# --- algorithms on SAC's step: a state in numbers, and models by hand -----------------------------------------------


def sac_settings(**changes: Any) -> dict[str, Any]:
    """The settings of `CONFIG` that such an algorithm has."""
    shared = {field.name for field in dataclasses.fields(sac.Config)} & {f.name for f in dataclasses.fields(CONFIG)}
    return {name: getattr(CONFIG, name) for name in sorted(shared)} | changes


def sac_state(algorithm: Algorithm, config: Any, problem: Problem, data: OfflineData) -> Any:
    """A state whose target differs from its critic, whose elites differ, and whose buffer is full of other rows."""
    shapes = jax.eval_shape(lambda: algorithm.init(jax.random.key(0), config, problem, data))
    blank = jax.tree.map(lambda leaf: jnp.asarray(np.zeros(leaf.shape, leaf.dtype)), shapes)
    learner = lambda part, seed: part._replace(params=filled(part.params, seed))
    agent, model, capacity = blank.agent, blank.model, blank.buffer.capacity
    unit = lambda part: part._replace(scale=jnp.asarray(np.ones(part.scale.shape, np.float32)))
    return blank._replace(
        agent=agent._replace(
            actor=learner(agent.actor, 1),
            average_actor=filled(agent.average_actor, 2),
            critic=learner(agent.critic, 3),
            target_critic=filled(agent.target_critic, 4),
            temperature=agent.temperature._replace(params=jnp.float32(-1.0)),
        ),
        model=model._replace(params=filled(model.params, 5), inputs=unit(model.inputs), targets=unit(model.targets)),
        buffer=blank.buffer._replace(rows=rows(50, capacity), size=jnp.int32(capacity)),
    )


def assert_bits(found: Any, expected: Any) -> None:
    """Every leaf is the same, bit for bit."""
    for (path, leaf), other in zip(jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(expected), strict=True):
        assert np.asarray(leaf).tobytes() == np.asarray(other).tobytes(), jax.tree_util.keystr(path)


def linear(*kernels: list[list[float]], bias: float = 0.0) -> tuple[Dense, ...]:
    """One layer whose kernel is stacked from `kernels`, `[member, in, out]`, with equal biases."""
    kernel = jnp.asarray(np.array(kernels, np.float32))
    return (Dense(kernel, jnp.full((kernel.shape[0], kernel.shape[2]), bias)),)


def moving_elites(moves: list[list[float]], log_std: float = -400.0) -> Dynamics:
    """Elites that add their row of `moves` to the state, with the same noise everywhere (none, if left alone)."""
    shift = np.array(moves, np.float32)
    zeros = np.zeros((len(moves), 1), np.float32)
    log_var = np.full((len(moves), OBS_DIM + 1), 2.0 * log_std, np.float32)
    bias = jnp.asarray(np.concatenate([shift, zeros, log_var], axis=1))
    kernel = jnp.zeros((len(moves), OBS_DIM + ACTION_DIM, bias.shape[1]))
    bounds = jnp.full(OBS_DIM + 1, 800.0)
    unit = lambda dim: Standardiser(jnp.zeros(dim), jnp.ones(dim))
    params = DynamicsParams((Dense(kernel, bias),), bounds, -bounds)
    return Dynamics(params, unit(OBS_DIM + ACTION_DIM), unit(OBS_DIM + 1))
