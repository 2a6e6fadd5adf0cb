"""The two sides of each claim of the paper, computed for problems `[*B]`: what the theorem says is equal or ordered.

Every function takes a `Setting` and returns `Sides`. A claim about single transitions returns the sides at the
transition where they disagree most.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import expit

from damorl.theory.families import Occupancies, Problem
from damorl.theory.generators import KL, Generator
from damorl.theory.inner import CELLS, Solution, expectation, log_ratio, per_cell, residual, surrogate
from damorl.theory.mdp import Array, divergence, expected_reward, occupancy

Function = Callable[[Array], Array]


class Setting(NamedTuple):
    """A batch of problems, their occupancies, one divergence, and the solved inner minimum."""

    problem: Problem
    occ: Occupancies
    generator: Generator
    solution: Solution


class Sides(NamedTuple):
    """Left and right side, `[*B]` each."""

    left: Array
    right: Array


def upper_bound(at: Setting) -> Sides:
    """A.1: `KL(rho_T || rho_beta)` against `E_rho_T[log rho_M / rho_beta] + D_f(rho_T || rho_M)`, f as registered."""
    return _upper_bound(at.occ, at.generator.f)


def upper_bound_centred(at: Setting) -> Sides:
    """A.1 with f - f(1) for f, so that D_f of equal distributions is 0, as a divergence's should be."""
    return _upper_bound(at.occ, at.generator.centred)


def conjugate(at: Setting) -> Sides:
    """A.3: `E_rho_M[f*(y)]` against `sup_x <x, y> - D_f(x || rho_M)` by bisection, at the residual of Q = 0."""
    y = residual(at.problem, at.occ, np.zeros_like(at.problem.policy)) / per_cell(at.problem.weight)
    y = np.where(np.isfinite(y), y, 0.0)
    low = -1e8 if at.generator.whole_line else 0.0
    x = root(lambda x: at.generator.f_prime(x) - y, y.shape, low, 1e8)
    gain = x * y - at.generator.f(x)
    return Sides(expectation(at.occ.synthetic, at.generator.f_star(y)), expectation(at.occ.synthetic, gain))


def biconjugate(at: Setting) -> Sides:
    """A.4: `D_f(rho_T || rho_M)` against `max_y E_rho_T[y] - E_rho_M[f*(y)]`, by bisection."""
    y = _free_maximiser(at)
    right = expectation(at.occ.real, y) - expectation(at.occ.synthetic, at.generator.f_star(y))
    return Sides(divergence(at.generator.f, at.occ.real, at.occ.synthetic), right)


def free_maximin(at: Setting) -> Sides:
    """A.5: the surrogate against the minimum over every y(s, a, s'), by bisection."""
    y, weight = _free_maximiser(at), at.problem.weight
    gain = at.problem.mdp.reward - per_cell(weight) * (log_ratio(at.occ) + y)
    rest = weight * expectation(at.occ.synthetic, at.generator.f_star(y))
    return Sides(surrogate(at.problem, at.generator, at.occ), expectation(at.occ.real, gain) + rest)


def maximin_is_surrogate(at: Setting) -> Sides:
    """5.1 and A.6: the inner minimum over Q(s, a) against the surrogate."""
    return Sides(at.solution.upper, surrogate(at.problem, at.generator, at.occ))


def surrogate_below_maximin(at: Setting) -> Sides:
    """The half of 5.1 that duality gives: the surrogate against (a lower bound of) the inner minimum."""
    return Sides(surrogate(at.problem, at.generator, at.occ), at.solution.lower)


def maximin_is_best_dynamics(at: Setting) -> Sides:
    """What the inner minimum is: Eq. 1 with the occupancy of the most favourable dynamics in the truth's place."""
    return Sides(at.solution.upper, at.solution.lower)


def optimality_printed(at: Setting) -> Sides:
    """5.2 and A.7: `Q*` against `r - weight (l + f'(rho_T / rho_M)) + gamma E[Q*]`, wherever the truth goes."""
    return _optimality(at, at.occ.real)


def optimality_corrected(at: Setting) -> Sides:
    """5.2 with the occupancy of the most favourable dynamics in the place of the true one."""
    return _optimality(at, occupancy(at.problem.mdp, at.problem.policy, at.solution.dynamics))


def surrogate_below_reward(at: Setting) -> Sides:
    """5.3, the stronger reading: the surrogate against `E_rho_T[r] = (1 - gamma) J(pi)`."""
    return Sides(surrogate(at.problem, at.generator, at.occ), _reward(at))


def surrogate_below_return(at: Setting) -> Sides:
    """5.3 as printed: the surrogate against J(pi), the discounted sum (helped by rewards > 0)."""
    return Sides(surrogate(at.problem, at.generator, at.occ), _return(at))


def surrogate_centred_below_reward(at: Setting) -> Sides:
    """5.3, the stronger reading, with f - f(1) for f."""
    left = surrogate(at.problem, at.generator, at.occ) + at.problem.weight * at.generator.at_one
    return Sides(left, _reward(at))


def maximin_below_reward(at: Setting) -> Sides:
    """What 5.1 and 5.3 together say of Eq. 2, the objective that is trained: it stays below `E_rho_T[r]`."""
    return Sides(at.solution.lower, _reward(at))


def maximin_below_return(at: Setting) -> Sides:
    """The same against J(pi), the discounted sum."""
    return Sides(at.solution.lower, _return(at))


def classifier_optimum(at: Setting) -> Sides:
    """Eq. 4: `log rho_M / rho_beta` against the logit that minimises cross-entropy with label 1 for the model's."""
    model, data = at.occ.synthetic, at.occ.offline
    both = (model > 0.0) & (data > 0.0)
    logit = root(lambda z: (model + data) * expit(z) - model, model.shape, -1e3, 1e3)
    return worst(np.where(both, log_ratio(at.occ), 0.0), logit, both)


def printed_classifier_loss(at: Setting) -> Sides:
    """Eq. 3 as printed: its value at its one stationary point, h = data / (data + model), against logit -1000."""
    model, data = at.occ.synthetic, at.occ.offline
    both = (model > 0.0) & (data > 0.0)
    with np.errstate(divide="ignore"):
        stationary = np.where(both, -log_ratio(at.occ), 0.0)
    return Sides(
        _eq3(stationary, model * both, data * both), _eq3(np.full_like(model, -1e3), model * both, data * both)
    )


def fixed_weight_scales(at: Setting) -> Sides:
    """C.2: `E[f*(Phi)]`, the actor's residual term, against `sqrt(weight)` times the one of Eq. 2."""
    phi, weight = residual(at.problem, at.occ, at.solution.q), at.problem.weight
    fixed = expectation(at.occ.synthetic, at.generator.f_star(phi))
    return Sides(fixed, weight**1.5 * expectation(at.occ.synthetic, at.generator.f_star(phi / per_cell(weight))))


def fixed_weight_direction(at: Setting) -> Sides:
    """C.2: 1 against the cosine between the actor's gradient with weight 1 and the one of Eq. 2 (rollouts held).

    Where either is shorter than 1e-10 the cosine counts as 1: there is nothing to climb, or a single action.
    """
    fixed, free = actor_gradient(at, np.ones_like(at.problem.weight)), actor_gradient(at, at.problem.weight)
    lengths = np.stack([np.linalg.norm(gradient, axis=(-2, -1)) for gradient in (fixed, free)])
    long = np.min(lengths, axis=0) > 1e-10
    cosine = np.sum(fixed * free, axis=(-2, -1)) / np.where(long, np.prod(lengths, axis=0), 1.0)
    return Sides(np.ones_like(cosine), np.where(long, cosine, 1.0))


def fixed_weight_ascends(at: Setting) -> Sides:
    """C.2: 0 against the least product, over states, of both gradients: no state's step is turned round."""
    fixed, free = actor_gradient(at, np.ones_like(at.problem.weight)), actor_gradient(at, at.problem.weight)
    product = np.sum(fixed * free, axis=-1)
    return Sides(np.zeros(product.shape[:-1]), np.min(product, axis=-1))


def actor_gradient(at: Setting, weight: Array) -> Array:
    """`[*B, S, A]`: derivative of Eq. 2 at the critic's Q by the policy's logits, rollouts and log-ratio held.

    `weight` `[*B]` is the divergence weight of f* alone, the log-ratio keeps the problem's own. Zeros where Eq. 2 is
    infinite.
    """
    problem, q = at.problem, at.solution.q
    ratio = at.generator.f_star_prime(residual(problem, at.occ, q) / per_cell(weight))
    inflow = np.sum(np.where(at.occ.synthetic > 0.0, at.occ.synthetic * ratio, 0.0), axis=(-3, -2))
    gamma = np.asarray(problem.mdp.gamma)[..., None]
    share = (1.0 - gamma) * problem.mdp.initial + gamma * inflow
    share = np.where(np.isfinite(at.solution.upper)[..., None], share, 0.0)
    advantage = q - np.sum(problem.policy * q, axis=-1, keepdims=True)
    return share[..., None] * problem.policy * advantage


def root(increasing: Function, shape: tuple[int, ...], low: float, high: float) -> Array:
    """Where an increasing elementwise function crosses 0, by bisection; an end of the interval if it does not."""
    lows, highs = np.full(shape, low), np.full(shape, high)
    for _ in range(110):
        middle = 0.5 * (lows + highs)
        above = increasing(middle) > 0.0
        lows, highs = np.where(above, lows, middle), np.where(above, middle, highs)
    return 0.5 * (lows + highs)


def worst(left: Array, right: Array, where: Array) -> Sides:
    """`[*B]`: both sides at the transition of `where` at which they differ most."""
    gap = np.where(where, np.abs(np.where(where, left - right, 0.0)), -1.0)
    flat = np.argmax(gap.reshape(*gap.shape[:-3], -1), axis=-1)[..., None]
    return Sides(*(np.take_along_axis(x.reshape(*gap.shape[:-3], -1), flat, axis=-1)[..., 0] for x in (left, right)))


def _upper_bound(occ: Occupancies, f: Function) -> Sides:
    right = expectation(occ.real, log_ratio(occ)) + divergence(f, occ.real, occ.synthetic)
    return Sides(divergence(KL.f, occ.real, occ.offline), right)


def _free_maximiser(at: Setting) -> Array:
    """`[*B, S, A, S]`: the y with `f*'(y) = rho_T / rho_M`."""
    reached = at.occ.synthetic > 0.0
    ratio = np.where(reached, at.occ.real / np.where(reached, at.occ.synthetic, 1.0), 1.0)
    return root(lambda y: at.generator.f_star_prime(y) - ratio, ratio.shape, -1e3, 1e8)


def _optimality(at: Setting, reached: Array) -> Sides:
    problem, weight, q = at.problem, per_cell(at.problem.weight), at.solution.q
    live = (reached != 0.0) & (at.occ.offline > 0.0) & np.isfinite(per_cell(at.solution.upper))
    ratio = np.where(live, reached / np.where(live, at.occ.synthetic, 1.0), 1.0)
    phi = residual(problem, at.occ, q)
    left = np.broadcast_to(q[..., None], phi.shape)
    return worst(left, np.where(live, left + phi - weight * at.generator.f_prime(ratio), left), live)


def _eq3(logit: Array, model: Array, data: Array) -> Array:
    """`[*B]`: `E_data[log h] + E_model[log(1 - h)]`."""
    return -np.sum(data * np.logaddexp(0.0, -logit) + model * np.logaddexp(0.0, logit), axis=CELLS)


def _reward(at: Setting) -> Array:
    return expected_reward(at.problem.mdp, at.problem.policy)


def _return(at: Setting) -> Array:
    return _reward(at) / (1.0 - np.asarray(at.problem.mdp.gamma))
