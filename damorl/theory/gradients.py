"""The four critic gradients of DAMO without sampling: expected over a finite MDP, for any way to write Q down.

    loss = (1 - gamma) E[Q(s0, a0)] + weight * E_{rho_M^pi}[f*(Phi / weight)]            (Eq. 2)
    Phi  = gain + gamma E_{a'~pi}[Q(s', a')] - Q(s, a),   gain = r - weight * log(rho_M^pi / rho_T^beta)

What differs is how the target's Q(s', a') takes part, exactly as in DAMO's update: `semi` takes it from a target
critic and holds it; `mixed` holds 95 % of it; `full` holds nothing and has no target critic; `orthogonal` is `semi`
plus the gradient through a live target (with Q(s, a) held), less its component along the forward gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import optax

from damorl.core.divergence import Divergence
from damorl.core.optim import Learner, apply_gradients, init_learner, polyak, project_out
from damorl.theory.families import Problem, occupancies
from damorl.theory.inner import log_ratio, per_cell
from damorl.types import Array, Params

CriticGradient = Literal["semi", "mixed", "full", "orthogonal"]
CRITIC_GRADIENTS: tuple[CriticGradient, ...] = get_args(CriticGradient)
LIVE_SHARE = 0.05  # of the live critic in the mixed target, as in DAMO

QTable = Callable[[Params], Array]
"""Parameters to the values of all pairs, `[S, A]`."""


class Inner(NamedTuple):
    """Eq. 2 for one policy: all that the critic's update depends on."""

    mass: Array
    """`[S, A, S]`, rho_M^pi: what the batch is drawn from."""
    gain: Array
    """`[S, A, S]`, `r - weight * log-ratio`."""
    start: Array
    """`[S, A]`, distribution of (s0, a0)."""
    policy: Array
    """`[S, A]`"""
    gamma: Array
    weight: Array


def inner_problem(problem: Problem) -> Inner:
    """Exact occupancies and log-ratios, for one problem or for a batch (float64; keep it by `jax.enable_x64`)."""
    occ = occupancies(problem)
    gain = problem.mdp.reward - per_cell(problem.weight) * log_ratio(occ)
    start = problem.mdp.initial[..., None] * problem.policy
    fields = (occ.synthetic, gain, start, problem.policy, problem.mdp.gamma, problem.weight)
    return Inner(*map(jnp.asarray, fields))


def scaled_residual(inner: Inner, q: Array, next_q: Array) -> Array:
    """`[S, A, S]`: Phi / weight with `next_q` `[S, A]` in the target."""
    next_value = jnp.sum(inner.policy * next_q, axis=-1)
    return (inner.gain + inner.gamma * next_value - q[..., None]) / inner.weight


def star_loss(inner: Inner, divergence: Divergence, q: Array, next_q: Array) -> Array:
    """`weight * E[f*(Phi / weight)]`."""
    return inner.weight * jnp.sum(inner.mass * divergence.f_star(scaled_residual(inner, q, next_q)))


def dual_loss(inner: Inner, divergence: Divergence, q: Array) -> Array:
    """Eq. 2 at `q` `[S, A]`."""
    return (1.0 - inner.gamma) * jnp.sum(inner.start * q) + star_loss(inner, divergence, q, q)


def critic_gradient(
    kind: CriticGradient, divergence: Divergence, inner: Inner, q_table: QTable, params: Params, target: Params
) -> Params:
    """What an optimiser of the critic's `params` descends along; `target` are those of the target critic."""
    held = q_table(target)
    live_share = {"semi": 0.0, "mixed": LIVE_SHARE, "full": 1.0, "orthogonal": 0.0}[kind]

    def loss(p: Params) -> Array:
        q = q_table(p)
        start = (1.0 - inner.gamma) * jnp.sum(inner.start * q)
        return start + star_loss(inner, divergence, q, live_share * q + (1.0 - live_share) * held)

    gradient = jax.grad(loss)(params)
    if kind != "orthogonal":
        return gradient
    forward = jax.grad(lambda p: star_loss(inner, divergence, q_table(p), held))(params)
    backward = jax.grad(lambda p: star_loss(inner, divergence, held, q_table(p)))(params)
    return jax.tree.map(jnp.add, gradient, project_out(backward, forward))


class Trace(NamedTuple):
    """A critic on its way, looked at `marks` times."""

    params: Params
    """At the end."""
    q: Array
    """`[marks, S, A]`"""


class Descent(NamedTuple):
    """How to iterate."""

    optimiser: optax.GradientTransformation
    steps: int
    tau: float = 0.005
    """Polyak rate of the target critic, DAMO's."""
    marks: int = 40


def descend(
    kind: CriticGradient, divergence: Divergence, inner: Inner, q_table: QTable, params: Params, descent: Descent
) -> Trace:
    """Iterate the critic's update with expected gradients from `params`, the policy held."""

    def step(carry: tuple[Learner, Params], _: None) -> tuple[tuple[Learner, Params], None]:
        learner, target = carry
        gradient = critic_gradient(kind, divergence, inner, q_table, learner.params, target)
        learner = apply_gradients(learner, gradient, descent.optimiser)
        return (learner, polyak(target, learner.params, descent.tau)), None

    def stretch(carry: Any, _: None) -> tuple[Any, Array]:
        carry, _ = jax.lax.scan(step, carry, None, length=descent.steps // descent.marks)
        return carry, q_table(carry[0].params)

    (learner, _), q = jax.lax.scan(stretch, (init_learner(params, descent.optimiser), params), None, descent.marks)
    return Trace(learner.params, q)


def gradient_descent(rate: float, longest: float) -> optax.GradientTransformation:
    """Plain descent whose steps are never longer than `longest`: a conjugate's slope may be without bound."""
    return optax.chain(optax.sgd(rate), optax.clip_by_global_norm(longest))
