"""The losses of the three deep algorithms with one-hot features, minimised, against the duals solved exactly.

Dynamics are deterministic: then one sampled next state is as good as their mean, and the deep losses are the theory's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy.optimize import minimize, root

from damorl.algos import algaedice, odice, optidice
from damorl.core.nets import Dense
from damorl.parts.actor import cloning_loss, policy
from damorl.theory import duals
from damorl.theory.families import Problem
from damorl.theory.generators import GENERATORS
from damorl.theory.mdp import MDP
from damorl.types import Transition

STATES, ACTIONS, GAMMA = 3, 2, 0.7
COUNTS = np.array([[3, 1], [2, 4], [1, 5]])
STARTS = np.array([0, 0, 1, 2])
VALUES = np.array([-0.5, 0.5])
"""What the two actions are called."""
DIVERGENCES = pytest.mark.parametrize("name", ["soft_chi_square", "chi_square"])


class World(NamedTuple):
    """A deterministic MDP, its data as rows, and the indices they were made from."""

    problem: Problem
    data: np.ndarray
    rows: Transition
    state: np.ndarray
    action: np.ndarray
    next_state: np.ndarray


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def make_world(weight: float) -> World:
    rng = np.random.default_rng(2)
    target = np.array([[1, 2], [0, 2], [2, 0]])
    moves = np.eye(STATES)[target][None]
    reward = np.broadcast_to(rng.uniform(0.0, 1.0, (1, STATES, ACTIONS, 1)), moves.shape)
    initial = np.bincount(STARTS, minlength=STATES)[None] / len(STARTS)
    behaviour = (COUNTS / COUNTS.sum(axis=1, keepdims=True))[None]
    mdp = MDP(moves, reward, initial, np.array([GAMMA]))
    state, action = (np.repeat(index.ravel(), COUNTS.ravel()) for index in np.indices(COUNTS.shape))
    rows = Transition(
        obs=jnp.asarray(np.eye(STATES)[state]),
        action=jnp.asarray(VALUES[action][:, None]),
        reward=jnp.asarray(reward[0, state, action, 0]),
        next_obs=jnp.asarray(np.eye(STATES)[target[state, action]]),
        terminal=jnp.zeros(len(state)),
    )
    problem = Problem(mdp, moves, behaviour, behaviour, np.array([weight]))
    data = (COUNTS / COUNTS.sum())[None, ..., None] * moves
    return World(problem, data, rows, state, action, target[state, action])


def descend(loss: Callable[[Any], Any], start: Any) -> Any:
    """The minimiser of a smooth loss of a pytree."""
    flat, unravel = ravel_pytree(start)
    both = jax.jit(jax.value_and_grad(lambda x: loss(unravel(x))))
    found = minimize(
        lambda x: jax.device_get(both(x)), np.asarray(flat), jac=True, method="BFGS", options={"gtol": 1e-9}
    )
    return unravel(jnp.asarray(found.x))


# --- OptiDICE ------------------------------------------------------------


def optidice_rows(world: World) -> optidice.Rows:
    flag = lambda obs: jnp.concatenate([obs, jnp.zeros((len(obs), 1))], axis=1)
    rows = world.rows
    starts = jnp.asarray(np.eye(STATES)[STARTS])
    return optidice.Rows(
        flag(rows.obs), rows.action, rows.reward, flag(rows.next_obs), jnp.ones(len(rows.reward)), flag(starts)
    )


def table(num_inputs: int) -> tuple[Dense]:
    """A network without hidden layers: one number for each input."""
    return (Dense(jnp.zeros((num_inputs, 1)), jnp.zeros(1)),)


PAIRS = Dense(
    jnp.asarray(
        np.vstack([np.tile(np.eye(STATES), 2), np.zeros((1, 6)), np.repeat([[-1.0, 1.0]], STATES, axis=1)]), jnp.float32
    ),
    -jnp.ones(6),
)
"""A hidden layer that is 0.5 in the unit of the pair (s, a) and 0 in the others, for actions -0.5 and 0.5."""


def pairs_table(last: Dense) -> tuple[Dense, Dense]:
    return (PAIRS, last)


@DIVERGENCES
@pytest.mark.parametrize("kind", ["minimax", "mse"])
def test_optidice_finds_the_ratios_and_the_policy(name, kind):
    world, weight = make_world(0.4), 0.4
    config = optidice.Config(divergence=name, divergence_weight=weight, gamma=GAMMA, e_loss=kind)
    dual, rows = duals.optidice(world.problem, GENERATORS[name], data=world.data), optidice_rows(world)
    exact = dual.ratio[0][world.state, world.action]
    assert np.ptp(exact) > 0.5

    nu = descend(lambda p: optidice.nu_loss(p, config, rows)[0], (table(STATES + 1), jnp.zeros(())))
    loss, (e_nu, metrics) = optidice.nu_loss(nu, config, rows)
    assert float(loss) == pytest.approx(dual.upper[0], abs=1e-9)
    assert float(metrics["nu/ratio"]) == pytest.approx(1.0, abs=1e-6)
    record = optidice.DIVERGENCES[name]
    np.testing.assert_allclose(record.weight(optidice.scaled(config, e_nu, nu[1])), exact, atol=1e-6)

    def loss_of_e(values, own):
        last = Dense(values[:, None], jnp.zeros(1))
        return optidice.e_loss((pairs_table(last), own), config, rows, e_nu)

    slopes = jax.jit(jax.grad(lambda values, own: loss_of_e(values, own)[0], argnums=(0, 1)))
    step = lambda values, _: (values - 20.0 * weight * slopes(values, nu[1])[0], None)  # flat at ratio 0: no solver
    values = jax.jit(lambda start: jax.lax.scan(step, start, None, length=3000)[0])(jnp.zeros(6))
    _, (ratio, _) = loss_of_e(values, nu[1])
    np.testing.assert_allclose(ratio, exact, atol=1e-4)
    assert float(slopes(values, nu[1])[1]) == pytest.approx(0.0, abs=1e-5)

    tables = jnp.zeros((STATES + 1, 2)), jnp.zeros(2)
    actor = descend(lambda p: cloning_loss((Dense(*p),), rows.obs, rows.action, ratio)[0], tables)
    mean = policy((Dense(*actor),), jnp.eye(STATES, STATES + 1)).mean[:, 0]
    np.testing.assert_allclose(mean, dual.policy[0] @ np.arctanh(VALUES), atol=1e-4)


@pytest.mark.parametrize("multiplier", [-0.3, 0.7])
def test_multiplier_and_shift_of_nu_are_one_direction(multiplier):
    """nu + c with l - (1 - gamma) c less is the same point: under exact flow the multiplier adds nothing."""
    world = make_world(0.4)
    config, rows = optidice.Config(divergence_weight=0.4, gamma=GAMMA), optidice_rows(world)
    ((kernel, bias),), shift = table(STATES + 1), multiplier / (1.0 - GAMMA)
    plain = optidice.nu_loss(((Dense(kernel, bias + shift),), jnp.zeros(())), config, rows)[0]
    moved = optidice.nu_loss(((Dense(kernel, bias),), jnp.asarray(multiplier)), config, rows)[0]
    assert float(plain) == pytest.approx(float(moved), abs=1e-12)


# --- O-DICE ------------------------------------------------------------


FEATURE = 1e5
"""Size of the one-hot features here: next to their gradients that of the bias is nothing, also to a projection."""


def twins(value: Any) -> tuple[Dense]:
    """Two equal networks without hidden layers."""
    kernel = jnp.asarray(value)[None, :, None] / FEATURE
    return (Dense(jnp.broadcast_to(kernel, (2, STATES, 1)), jnp.zeros((2, 1))),)


def large(world: World) -> Transition:
    return world.rows._replace(obs=world.rows.obs * FEATURE, next_obs=world.rows.next_obs * FEATURE)


def direction(config: odice.Config, world: World, value: np.ndarray) -> np.ndarray:
    """What a step descends along, for V (and the target) = `value`; both networks together."""
    grads, _, _ = odice.value_gradients(config, twins(value), twins(value), large(world))
    return np.asarray(jnp.sum(grads[0].kernel, axis=0)[:, 0]) / FEATURE


@DIVERGENCES
def test_odice_full_gradient_finds_the_minimum(name):
    world = make_world(1.0)
    dual = duals.odice(world.problem, GENERATORS[name], data=world.data)
    config = odice.Config(divergence=name, gamma=GAMMA, gradient="full")
    loss = lambda value: odice.value_gradients(config, twins(value), twins(value), large(world))[2]["value/loss"]
    value = descend(loss, jnp.asarray(dual.x[0] + np.array([0.5, -0.5, 1.0])))
    np.testing.assert_allclose(value, dual.x[0], atol=1e-5)
    np.testing.assert_allclose(loss(value), dual.upper[0], atol=1e-10)
    np.testing.assert_allclose(direction(config, world, dual.x[0]), 0.0, atol=1e-7)
    _, y, _ = odice.value_gradients(config, twins(value), twins(value), large(world))
    weight = odice.cloning_weight(config, y)
    np.testing.assert_allclose(weight, dual.ratio[0, world.state, world.action, world.next_state], atol=1e-4)


@DIVERGENCES
def test_odice_semi_gradient_stands_at_its_own_point(name):
    world = make_world(1.0)
    exact = duals.semi_gradient_value(world.problem, GENERATORS[name], np.zeros((1, STATES)), world.data)[0]
    plain = odice.Config(divergence=name, gamma=GAMMA, gradient="semi")
    for config in (plain, odice.Config(divergence=name, gamma=GAMMA, backward_weight=0.0)):
        found = root(lambda value, c=config: direction(c, world, value), exact + 0.3, tol=1e-12)
        np.testing.assert_allclose(found.x, exact, atol=1e-7)


@DIVERGENCES
def test_odice_direction_is_the_exact_one(name):
    """And it vanishes at neither point."""
    world, config = make_world(1.0), odice.Config(divergence=name, gamma=GAMMA)
    minimum = duals.odice(world.problem, GENERATORS[name], data=world.data).x
    semi = duals.semi_gradient_value(world.problem, GENERATORS[name], minimum, world.data)
    for value in (minimum, semi, np.array([[0.3, -0.2, 0.9]])):
        exact = duals.orthogonal_gradient(world.problem, GENERATORS[name], value, world.data)[0]
        np.testing.assert_allclose(direction(config, world, value[0]), exact, atol=1e-7)
        assert np.max(np.abs(exact)) > 1e-3


# --- AlgaeDICE ------------------------------------------------------------


class Tables(NamedTuple):
    """AlgaeDICE's objective for a table Q `[S, A]` and a policy `[S, A]`, a' and a0 averaged instead of sampled."""

    config: algaedice.Config
    world: World

    def sides(self, q: Any, law: Any) -> tuple[jax.Array, jax.Array]:
        world = self.world
        later = jnp.sum(law * q, axis=1)[world.next_state]
        residual = world.rows.reward + GAMMA * later - q[world.state, world.action]
        return residual[None], jnp.sum(law * q, axis=1)[STARTS][None]

    def critic(self, q: Any, law: Any) -> jax.Array:
        return algaedice.critic_objective(self.config, *self.sides(q, law))

    def actor(self, q: Any, law: Any) -> jax.Array:
        return algaedice.actor_objective(self.config, *self.sides(q, law))


@pytest.mark.parametrize("name", ["soft_chi_square", pytest.param("chi_square", marks=pytest.mark.slow)])
def test_algaedice_saddle(name):
    """Min over Q for a policy, and at OptiDICE's policy: the exact value, and a policy gradient that is 0."""
    weight, generator = 0.4, GENERATORS[name]
    world = make_world(weight)
    at = Tables(algaedice.Config(divergence=name, divergence_weight=weight, gamma=GAMMA), world)
    best = duals.optidice(world.problem, generator, data=world.data)
    for law in (np.full((STATES, ACTIONS), 0.5), best.policy[0]):
        q = descend(lambda q, law=law: at.critic(q, law), jnp.zeros((STATES, ACTIONS)))
        value = duals.algaedice(world.problem._replace(policy=law[None]), generator, data=world.data)[0]
        assert float(at.critic(q, law)) == pytest.approx(value, abs=1e-9)
        slope = jax.grad(lambda logits, q=q: at.actor(q, jax.nn.softmax(logits)))(jnp.log(law))
        returns = lambda logits: duals.regularised_return(
            world.problem, generator, np.asarray(jax.nn.softmax(logits))[None], world.data
        )[0]
        step = 1e-5 * np.eye(STATES * ACTIONS).reshape(-1, STATES, ACTIONS)
        ahead, behind = (np.array([returns(jnp.log(law) + sign * s) for s in step]) for sign in (1.0, -1.0))
        np.testing.assert_allclose(np.ravel(slope), (ahead - behind) / 2e-5, atol=1e-5)
    assert value == pytest.approx(best.upper[0], abs=1e-9)
    np.testing.assert_allclose(slope, 0.0, atol=1e-5)
