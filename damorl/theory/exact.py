"""DAMO in exact form on finite MDPs: the inner minimum solved, the policy improved by its exact gradient.

Two objectives are maximised over pi, for many problems at once:

- `surrogate`: Eq. 1 of the paper, which needs the truth T;
- `maximin`: `min_Q` of Eq. 2, which needs only the model and the data, hence is what DAMO can do. By its Lagrange dual
  it is Eq. 1 with the truth replaced by the dynamics that suit the policy best (`inner.py`), so it lies above Eq. 1,
  and equals it where the model is deterministic.

The ascent is mirror ascent (natural gradient of softmax policies): pi grows by `exp(step * advantage)`, with a step
that grows while the value rises and shrinks when it does not. Neither objective is concave in pi: `best_of` takes the
best of several starts. Every transition must have mass in the model and in the data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from damorl.theory.exact_inner import first_q, inner_value, minimise_inner
from damorl.theory.families import Problem, occupancies
from damorl.theory.generators import Generator
from damorl.theory.inner import log_ratio, per_cell, regularised, residual
from damorl.theory.mdp import MDP, Array, q_values, state_occupancy

LEAST = 1e-12  # probability of an action: its logarithm must stay finite


class Point(NamedTuple):
    """An objective at policies `[B, S, A]`."""

    value: Array
    """`[B]`"""
    slope: Array
    """`[B, S, A]`: derivative by `pi(a | s)`, up to a constant per state (probabilities sum to 1)."""
    q: Array
    """`[B, S, A]`: the critic at the policy, where the next search starts; zeros if there is none."""


Objective = Callable[[Problem, Array], Point]
"""`(problem with the policy in it, critic to start from) -> Point`."""


class Ascent(NamedTuple):
    """Where an ascent ended, for problems `[B]`."""

    policy: Array
    """`[B, S, A]`"""
    value: Array
    """`[B]`"""
    slack: Array
    """`[B]`: `max over policies of slope . (policy - pi)`, 0 at a stationary point."""


def surrogate(generator: Generator) -> Objective:
    """Eq. 1 with the true dynamics, as an objective."""

    def at(problem: Problem, q: Array) -> Point:
        occ = occupancies(problem)
        inside, log_r, weight = occ.synthetic > 0.0, log_ratio(occ), per_cell(problem.weight)
        ratio = np.where(inside, occ.real / np.where(inside, occ.synthetic, 1.0), 1.0)
        marginal = generator.f_prime(ratio)
        real = problem.mdp.reward - weight * (log_r + marginal)
        synthetic = weight * (ratio * marginal - generator.f(ratio) - ratio)
        slope = occupancy_slope(problem.mdp, problem.policy, problem.mdp.transition, real)
        slope += occupancy_slope(problem.mdp, problem.policy, problem.model, synthetic)
        return Point(regularised(problem, generator, occ, occ.real), slope, q)

    return at


def maximin(generator: Generator, whole_gradient: bool = True) -> Objective:
    """`min_Q` of Eq. 2, as an objective. Its gradient is Eq. 2's own at the minimising Q (Danskin).

    pi stands in Eq. 2 in three places: at the start, in the next action, and in rho_M^pi (rollouts and log-ratio).
    Algorithm 1 treats the last as data: `whole_gradient=False`.
    """

    def at(problem: Problem, q: Array) -> Point:
        occ, mdp, policy = occupancies(problem), problem.mdp, problem.policy
        start = np.where(np.any(q, axis=(1, 2))[:, None, None], q, first_q(problem, generator, occ))
        q = minimise_inner(problem, generator, occ, start)
        y = residual(problem, occ, q) / per_cell(problem.weight)
        ratio = generator.f_star_prime(y)
        gamma = np.asarray(mdp.gamma)[..., None]
        visits = (1.0 - gamma) * mdp.initial + gamma * np.sum(occ.synthetic * ratio, axis=(1, 2))
        slope = visits[..., None] * q
        if whole_gradient:
            rollout_gain = per_cell(problem.weight) * (generator.f_star(y) - ratio)
            slope = slope + occupancy_slope(mdp, policy, problem.model, rollout_gain)
        return Point(inner_value(problem, generator, occ, q), slope, q)

    return at


def occupancy_slope(mdp: MDP, policy: Array, dynamics: Array, gain: Array) -> Array:
    """`[B, S, A]`: derivative of `E_rho[gain]` by `pi(a | s)` when `gain` `[B, S, A, S]` is held (policy gradient)."""
    return state_occupancy(mdp, policy, dynamics)[..., None] * q_values(mdp, policy, dynamics, gain)


def ascend(problem: Problem, objective: Objective, policy: Array, steps: int = 300, tolerance: float = 1e-7) -> Ascent:
    """Mirror ascent from `policy` `[B, S, A]`; the value never falls. Stops when every slack is below `tolerance`."""
    policy = _keep_positive(policy)
    point = objective(problem._replace(policy=policy), np.zeros_like(policy))
    step = np.ones(len(policy))
    for _ in range(steps):
        if np.max(slack(policy, point.slope)) < tolerance:
            break
        visits = state_occupancy(problem.mdp, policy, problem.model)[..., None]
        trial = mirror_step(policy, point.slope / np.maximum(visits, 1e-6), step)
        found = objective(problem._replace(policy=trial), point.q)
        better = found.value >= point.value
        pick = lambda new, old, take=better: np.where(take.reshape(-1, *[1] * (new.ndim - 1)), new, old)
        policy, point = pick(trial, policy), Point(*map(pick, found, point))
        step = np.clip(np.where(better, 1.5 * step, 0.3 * step), 1e-6, 1e6)
    return Ascent(policy, point.value, slack(policy, point.slope))


def best_of(
    problem: Problem, objective: Objective, starts: Sequence[Array], steps: int = 300, tolerance: float = 1e-7
) -> Ascent:
    """The best end of an ascent from each of `starts`."""
    ends = [ascend(problem, objective, start, steps, tolerance) for start in starts]
    best = np.argmax(np.stack([end.value for end in ends]), axis=0)
    rows = np.arange(len(best))
    return Ascent(*(np.stack(field)[best, rows] for field in zip(*ends, strict=True)))


def mirror_step(policy: Array, advantage: Array, step: Array) -> Array:
    """`policy * exp(step * advantage)`, normalised; no probability falls below 1e-12."""
    push = step[:, None, None] * (advantage - np.sum(policy * advantage, axis=-1, keepdims=True))
    push -= np.max(push, axis=-1, keepdims=True)
    return _keep_positive(policy * np.exp(np.maximum(push, -700.0)))


def slack(policy: Array, slope: Array) -> Array:
    """`[B]`: how much a linear objective with this slope could still gain."""
    return np.sum(np.max(slope, axis=-1) - np.sum(policy * slope, axis=-1), axis=-1)


def _keep_positive(policy: Array) -> Array:
    policy = np.maximum(policy / np.sum(policy, axis=-1, keepdims=True), LEAST)
    return policy / np.sum(policy, axis=-1, keepdims=True)
