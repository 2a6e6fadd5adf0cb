"""The four critic gradients: their fixed points by hand, and their definition against DAMO's own update."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from damorl.core.divergence import CHI_SQUARE, DIVERGENCES
from damorl.parts.actor import init_actor, policy
from damorl.parts.critic import init_critic, q_values
from damorl.parts.maximin import MaximinSettings, Networks, maximin_gradients
from damorl.theory.families import occupancies
from damorl.theory.gradient_study import (
    Case,
    exact_q,
    line_problem,
    measure,
    network_setup,
    sampled_actions,
    tabular_setup,
)
from damorl.theory.gradients import (
    CRITIC_GRADIENTS,
    LIVE_SHARE,
    CriticGradient,
    Descent,
    Inner,
    critic_gradient,
    descend,
    dual_loss,
    gradient_descent,
    scaled_residual,
)
from damorl.theory.inner import log_ratio
from damorl.theory.mdp import q_values as q_values_in
from damorl.types import Transition

GAMMA, WEIGHT = 0.8, 0.5
TABLE = lambda q: q
ROWS, STARTS = 5, 4


@pytest.fixture(autouse=True)
def double_precision() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def lone_state(reward: float) -> Inner:
    """One state, one action, for ever."""
    one = jnp.ones((1, 1))
    return Inner(one[..., None], reward * one[..., None], one, one, jnp.asarray(GAMMA), jnp.asarray(WEIGHT))


def into_the_sink(first: float, after: float) -> Inner:
    """From state 0 to state 1, which is never left. One action."""
    mass = jnp.array([[[0.0, 1.0 - GAMMA]], [[0.0, GAMMA]]])
    gain = jnp.array([[[0.0, first]], [[0.0, after]]])
    start = jnp.array([[1.0], [0.0]])
    return Inner(mass, gain, start, jnp.ones((2, 1)), jnp.asarray(GAMMA), jnp.asarray(WEIGHT))


def settle(kind: CriticGradient, name: str, inner: Inner, tau: float = 1.0, steps: int = 20_000) -> np.ndarray:
    descent = Descent(optax.adam(optax.cosine_decay_schedule(5e-2, steps)), steps, tau)
    trace = jax.jit(lambda i: descend(kind, DIVERGENCES[name], i, TABLE, jnp.zeros_like(i.policy), descent))(inner)
    return np.asarray(trace.q[-1])


@pytest.mark.parametrize(
    ("kind", "mass"),
    [
        ("semi", 1.0 - GAMMA),
        ("mixed", (1.0 - GAMMA) / (1.0 - LIVE_SHARE * GAMMA)),
        ("full", 1.0),
        (
            "orthogonal",
            1.0 - GAMMA,
        ),  # one parameter: the backward part is parallel to the forward one, all projected out
    ],
)
def test_lone_state_by_hand(kind: CriticGradient, mass: float) -> None:
    """At rest ratio = mass, so chi-square's residual is 2 weight (mass - 1) = r + gamma Q - Q. The truth: ratio 1."""
    expected = (2.0 - 2.0 * WEIGHT * (mass - 1.0)) / (1.0 - GAMMA)
    np.testing.assert_allclose(settle(kind, "chi_square", lone_state(2.0)), [[expected]], atol=1e-4)


def test_sink_by_hand() -> None:
    """Held: the sink has no inflow, hence ratio 0 and Q = r / (1 - gamma), as in plain evaluation; at the start 1.

    Full: ratio 1 everywhere, each step costs weight * f'(1) = weight.
    """
    inner = into_the_sink(1.0, 3.0)
    plain, refined = 3.0 / (1.0 - GAMMA), (3.0 - WEIGHT) / (1.0 - GAMMA)
    semi, full = (settle(kind, "cubic_symmetric", inner) for kind in ("semi", "full"))
    np.testing.assert_allclose(semi, [[1.0 - WEIGHT + GAMMA * plain], [plain]], atol=1e-3)
    np.testing.assert_allclose(full, [[1.0 - WEIGHT + GAMMA * refined], [refined]], atol=1e-3)


@pytest.mark.parametrize("name", ["cubic_symmetric", "chi_square", "kl"])
def test_full_is_the_slope_of_the_dual(name: str) -> None:
    inner = jax.tree.map(lambda leaf: leaf[0], tabular_setup(0, 1, GAMMA, WEIGHT).inner)
    q = jnp.asarray(np.random.default_rng(1).normal(size=inner.policy.shape))
    record = DIVERGENCES[name]
    slope = jax.jit(lambda x: critic_gradient("full", record, inner, TABLE, x, x + 100.0))(q)
    direction, loss = np.random.default_rng(2).normal(size=q.shape), jax.jit(partial(dual_loss, inner, record))
    ahead, behind = (loss(q + s * direction) for s in (1e-6, -1e-6))
    np.testing.assert_allclose(jnp.sum(slope * direction), (ahead - behind) / 2e-6, rtol=1e-5)


SLOW = ("cubic", "half_chi_square", "soft_chi_square", "kl")


@pytest.mark.parametrize(
    "name", ["cubic_symmetric", "chi_square", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
def test_only_full_reaches_the_exact_answer(name: str) -> None:
    setup = tabular_setup(0, 3, 0.7, 1.0)
    best = exact_q(setup.problem, name)
    ends = {kind: settle_batch(kind, name, setup.inner) for kind in CRITIC_GRADIENTS}
    np.testing.assert_allclose(ends["full"], best, atol=1e-2)
    for kind in ("semi", "mixed", "orthogonal"):
        assert np.mean(ends[kind] - best) > 1.0


def test_semi_with_the_power_loss_is_nearer_to_plain_evaluation() -> None:
    """Plain: Q of the refined reward in the model. Nearly all of the behaviour alignment is lost."""
    setup = tabular_setup(0, 10, 0.9, 1.0)
    occ, problem = occupancies(setup.problem), setup.problem
    plain = q_values_in(problem.mdp, problem.policy, problem.model, problem.mdp.reward - log_ratio(occ))
    semi = settle_batch("semi", "cubic_symmetric", setup.inner)
    distance = lambda x: np.mean(np.sum(occ.synthetic * np.abs(x)[..., None], axis=(1, 2, 3)))
    assert distance(semi - plain) < 0.3 * distance(exact_q(problem, "cubic_symmetric") - semi)


def settle_batch(kind: CriticGradient, name: str, inner: Inner) -> np.ndarray:
    descent = Descent(optax.adam(optax.cosine_decay_schedule(5e-2, 4_000)), 4_000, 1.0)
    run = lambda i: descend(kind, DIVERGENCES[name], i, TABLE, jnp.zeros_like(i.policy), descent).q[-1]
    return np.asarray(jax.jit(jax.vmap(run))(inner))


@pytest.mark.parametrize(("kind", "mass"), [("semi", 0.3), ("mixed", 0.3 / (1.0 - LIVE_SHARE * 0.7)), ("full", 1.0)])
def test_recovered_mass(kind: CriticGradient, mass: float) -> None:
    """Summed over pairs the balance is (1 - gamma) + share * gamma * mass = mass."""
    inner = tabular_setup(0, 3, 0.7, 1.0).inner
    q = settle_batch(kind, "chi_square", inner)
    ratio = jax.vmap(lambda i, x: CHI_SQUARE.f_prime_inverse(scaled_residual(i, x, x)))(inner, q)
    np.testing.assert_allclose(np.sum(inner.mass * ratio, axis=(1, 2, 3)), mass, atol=1e-3)


def test_orthogonal_pushes_as_semi_does() -> None:
    """At Q = 0 the first steps along both raise Q, nearly alike; full lowers it once Q is above its own answer."""
    setup = tabular_setup(0, 1, 0.9, 1.0)
    inner = jax.tree.map(lambda leaf: leaf[0], setup.inner)
    q = jnp.asarray(exact_q(setup.problem, "chi_square")[0])
    push = {kind: -np.sum(critic_gradient(kind, CHI_SQUARE, inner, TABLE, q, q)) for kind in CRITIC_GRADIENTS}
    np.testing.assert_allclose(push["full"], 0.0, atol=1e-9)
    np.testing.assert_allclose(push["semi"], 0.9, atol=1e-9)  # the lost inflow gamma * 1
    assert 0.5 * push["semi"] < push["orthogonal"] < 1.2 * push["semi"]


def test_sampled_actions_split_the_mass() -> None:
    inner = jax.tree.map(lambda leaf: leaf[0], tabular_setup(0, 1, GAMMA, WEIGHT).inner)
    pairs = sampled_actions(inner)
    np.testing.assert_allclose(np.sum(pairs.mass), 1.0)
    q = jnp.asarray(np.random.default_rng(0).normal(size=inner.policy.shape))
    drawn = dual_loss(pairs, CHI_SQUARE, q.reshape(-1, 1))
    assert drawn > dual_loss(inner, CHI_SQUARE, q)  # Jensen: f* is convex
    sure = inner._replace(policy=jnp.zeros_like(inner.policy).at[:, 0].set(1.0))
    np.testing.assert_allclose(
        dual_loss(sampled_actions(sure), CHI_SQUARE, q.reshape(-1, 1)), dual_loss(sure, CHI_SQUARE, q)
    )


def test_descent_clips_long_steps() -> None:
    rule = gradient_descent(1.0, 0.1)
    step, _ = rule.update(jnp.array([3.0, 4.0]), rule.init(jnp.zeros(2)))
    np.testing.assert_allclose(np.asarray(step), [-0.06, -0.08])


def test_a_row_of_the_table() -> None:
    row = measure(tabular_setup(0, 2, 0.7, 1.0), Case("chi_square", "semi", "adam", 5e-2, 10_000))
    assert row.settled == 1.0
    assert row.mass == pytest.approx(0.3, abs=1e-3)
    assert row.bias > 1.0
    assert row.gap > 0.01


@pytest.mark.slow
def test_a_network_is_measured_too() -> None:
    setup = network_setup(0, line_problem(8, 0.7, 1.0), (8,))
    full, semi = (measure(setup, Case("chi_square", kind, "adam", 1e-2, 2_000)) for kind in ("full", "semi"))
    assert abs(full.bias) < 0.3 < semi.bias


# --- the definition ---------------------------------------------------------------------------------------------


def twin(params: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf]), params)


@pytest.mark.parametrize("kind", CRITIC_GRADIENTS)
def test_definition_is_damos(kind: CriticGradient) -> None:
    """DAMO's update on a batch equals ours on the MDP whose states are that batch's rows: now, next, initial."""
    config = MaximinSettings(
        divergence="chi_square" if kind != "semi" else "cubic_symmetric",
        critic_gradient=kind,
        terminal_handling="none",
        gamma=GAMMA,
        divergence_weight=WEIGHT,
    )
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape))
    batch = Transition(draw(ROWS, 2), draw(ROWS, 1), draw(ROWS), draw(ROWS, 2), jnp.zeros(ROWS))
    initial_obs, key = draw(STARTS, 2), jax.random.key(3)
    fill = lambda shapes: jax.tree.map(lambda leaf: draw(*leaf.shape), shapes)
    live, target = (fill(jax.eval_shape(lambda: init_critic(key, 2, 1, (6,), 1))) for _ in range(2))
    actor = fill(jax.eval_shape(lambda: init_actor(key, 2, 1, (6,))))
    nets = Networks(actor, twin(live), twin(target), jnp.zeros(()))
    update = lambda rows: maximin_gradients(config, nets, rows, initial_obs, jnp.zeros(()), key)
    found = jax.jit(update)(batch).critic
    obs = jnp.concatenate([batch.obs, batch.next_obs, initial_obs])
    drawn, _ = policy(actor, obs[ROWS:]).sample(key)
    action = jnp.concatenate([batch.action, drawn])
    table = lambda params: q_values(params, obs, action)[0][:, None]
    record = DIVERGENCES[config.divergence]
    expected = jax.jit(lambda i: critic_gradient(kind, record, i, table, live, target))(rows_as_states(batch.reward))
    for ours, theirs in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(theirs[0], ours[0], rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(theirs[1], ours[0], rtol=1e-6, atol=1e-9)


def rows_as_states(reward: jax.Array) -> Inner:
    """State i goes to state ROWS + i with reward i; the last states are only started from."""
    states, row = 2 * ROWS + STARTS, np.arange(ROWS)
    mass, gain, start = np.zeros((states, 1, states)), np.zeros((states, 1, states)), np.zeros((states, 1))
    mass[row, 0, ROWS + row], gain[row, 0, ROWS + row] = 1.0 / ROWS, reward
    start[2 * ROWS :] = 1.0 / STARTS
    return Inner(*map(jnp.asarray, (mass, gain, start, np.ones_like(start), GAMMA, WEIGHT)))
