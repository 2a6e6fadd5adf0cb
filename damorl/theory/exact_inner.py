"""The inner minimum of Eq. 2 for many problems at once: Newton's method on Q, every step a batch of linear solves.

`inner.solve_inner` takes one problem after the other and certifies each; this one is for loops that need the minimum
hundreds of times, starting near it. A test holds both to the same values.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from damorl.theory.families import Occupancies, Problem
from damorl.theory.generators import Generator
from damorl.theory.inner import expectation, log_ratio, per_cell, residual
from damorl.theory.mdp import Array, q_values

ARMIJO = 1e-4
SHORTEST = 1e-10


class Linear(NamedTuple):
    """Eq. 2 as a function of Q alone: `entry . Q + weight * mass . f*((fixed + flow Q) / weight)`."""

    entry: Array
    """`[B, S A]`"""
    mass: Array
    """`[B, S A S]`"""
    fixed: Array
    """`[B, S A S]`"""
    flow: Array
    """`[B, S A S, S A]`"""
    weight: Array
    """`[B, 1]`"""

    def scaled_residual(self, q: Array) -> Array:
        """`[B, S A S]`: Phi / weight."""
        return (self.fixed + np.einsum("bcn,bn->bc", self.flow, q)) / self.weight

    def value(self, generator: Generator, q: Array) -> Array:
        """`[B]`: Eq. 2."""
        star = self.mass * generator.f_star(self.scaled_residual(q))
        return np.sum(self.entry * q, axis=1) + self.weight[:, 0] * np.sum(star, axis=1)

    def slopes(self, generator: Generator, q: Array) -> tuple[Array, Array]:
        """Gradient `[B, S A]` and Hessian `[B, S A, S A]`."""
        y = self.scaled_residual(q)
        gradient = self.entry + np.einsum("bc,bcn->bn", self.mass * generator.f_star_prime(y), self.flow)
        curved = (self.mass * generator.curvature(y) / self.weight)[..., None] * self.flow
        return gradient, np.swapaxes(self.flow, 1, 2) @ curved


def minimise_inner(problem: Problem, generator: Generator, occ: Occupancies, q: Array, steps: int = 40) -> Array:
    """`[B, S, A]`: the Q that minimises Eq. 2 for problems `[B]`, from `q`. Every transition's mass must be above 0."""
    linear, x = linear_in_q(problem, occ), q.reshape(len(q), -1).copy()
    live = np.arange(len(x))  # the problems that still move
    for _ in range(steps):
        part = Linear(*(field[live] for field in linear))
        gradient, hessian = part.slopes(generator, x[live])
        damping = 1e-10 * np.trace(hessian, axis1=1, axis2=2) + 1e-14
        step = -np.linalg.solve(hessian + damping[:, None, None] * np.eye(x.shape[1]), gradient[..., None])[..., 0]
        shift = _backtrack(part, generator, x[live], step, np.sum(gradient * step, axis=1))
        x[live] += shift
        moving = (np.max(np.abs(gradient), axis=1) > 1e-10) & (np.max(np.abs(shift), axis=1) > 1e-11)
        live = live[moving]
        if not len(live):
            break
    return x.reshape(q.shape)


def first_q(problem: Problem, generator: Generator, occ: Occupancies) -> Array:
    """`[B, S, A]`: the model's Q under the refined reward for ratios near 1, lowered until no ratio is below 1/2."""
    penalty = log_ratio(occ) + generator.f_prime(np.ones(()))
    reward = problem.mdp.reward - per_cell(problem.weight) * penalty
    q = q_values(problem.mdp, problem.policy, problem.model, reward)
    lowest = np.min(residual(problem, occ, q), axis=(1, 2, 3)) - problem.weight * generator.f_prime(np.array(0.5))
    return q + (np.minimum(lowest, 0.0) / (1.0 - np.asarray(problem.mdp.gamma)))[:, None, None]


def inner_value(problem: Problem, generator: Generator, occ: Occupancies, q: Array) -> Array:
    """`[B]`: J(pi, Q) of Eq. 2."""
    start = np.sum(problem.mdp.initial[..., None] * problem.policy * q, axis=(1, 2))
    y = residual(problem, occ, q) / per_cell(problem.weight)
    star = expectation(occ.synthetic, generator.f_star(y))
    return (1.0 - np.asarray(problem.mdp.gamma)) * start + problem.weight * star


def linear_in_q(problem: Problem, occ: Occupancies) -> Linear:
    """Eq. 2 with policy and occupancies held."""
    batch, states, actions = problem.policy.shape
    pairs = np.eye(states * actions).reshape(states, actions, 1, states * actions)
    then = np.einsum("btu,ts->btsu", problem.policy, np.eye(states)).reshape(batch, 1, 1, states, states * actions)
    gamma = np.broadcast_to(problem.mdp.gamma, batch)
    flow = gamma[:, None, None, None, None] * then - pairs
    gain = residual(problem, occ, np.zeros_like(problem.policy))
    entry = (1.0 - gamma)[:, None, None] * problem.mdp.initial[..., None] * problem.policy
    flat = lambda x: x.reshape(batch, -1)
    return Linear(
        flat(entry),
        flat(occ.synthetic),
        flat(gain),
        flow.reshape(batch, -1, states * actions),
        np.broadcast_to(problem.weight, batch)[:, None],
    )


def _backtrack(linear: Linear, generator: Generator, x: Array, step: Array, descent: Array) -> Array:
    """The step of each problem, halved until the value falls as its slope says; 0 where it never does."""
    value, share = linear.value(generator, x), np.ones(len(x))
    while True:
        wanted = value + ARMIJO * share * descent + 1e-15 * np.abs(value)
        short = ~(linear.value(generator, x + share[:, None] * step) <= wanted) & (share > 0.0)
        if not short.any():
            return share[:, None] * step
        share = np.where(short, np.where(share < SHORTEST, 0.0, 0.5 * share), share)
