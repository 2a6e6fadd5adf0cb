"""Both sides of the paper's Theorem 5.1: the surrogate (Eq. 1) in closed form, and the inner minimum of Eq. 2, solved.

The minimum over Q(s, a) is a smooth convex program; SciPy solves it. Its Lagrange dual is a maximum over occupancies
d of the policy in *any* dynamics, not only the truth:

    min_Q J(pi, Q)  =  max_d  E_d[r - weight * log(rho_M / rho_T^beta)] - weight * D_f(d || rho_M)

So every dynamics gives a lower bound and every Q an upper bound. The pair returned here brackets the minimum, whatever
the solver did.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize, root

from damorl.theory.families import Occupancies, Problem, occupancies, pick
from damorl.theory.generators import Generator
from damorl.theory.mdp import Array, divergence, occupancy, q_values

CELLS = (-3, -2, -1)
STUCK = 1e-9
"""Largest entry of the gradient with which the first search is believed."""
RIDGE = 1e-12
"""Added to the solver's Hessian, where SciPy's trust region would stop at a singular one; the minimum stays."""


class Solution(NamedTuple):
    """The inner minimum of Eq. 2 for problems `[*B]`."""

    q: Array
    """`[*B, S, A]`; 0 where the model never goes."""
    upper: Array
    """`[*B]`, J at `q`."""
    lower: Array
    """`[*B]`, the dual value of `dynamics`; the minimum lies between the two."""
    dynamics: Array
    """`[*B, S, A, S]`, the dynamics that attain the dual maximum: the ones Eq. 2 really plans in."""
    ratio: Array
    """`[*B, S, A, S]`, the solver's density ratio `f*'(Phi / weight)` to the model's occupancy."""


def log_ratio(occ: Occupancies) -> Array:
    """`[*B, S, A, S]`: `log rho_M^pi / rho_T^beta`; +inf where only the model goes, 0 where it does not go."""
    inside = occ.synthetic > 0.0
    with np.errstate(divide="ignore"):
        return np.where(inside, np.log(np.where(inside, occ.synthetic, 1.0)) - np.log(occ.offline), 0.0)


def expectation(occupancy_: Array, value: Array) -> Array:
    """`[*B]`: the sum over transitions, where 0 times infinity is 0."""
    return np.sum(np.where(occupancy_ == 0.0, 0.0, occupancy_ * np.where(occupancy_ == 0.0, 0.0, value)), axis=CELLS)


def regularised(problem: Problem, generator: Generator, occ: Occupancies, reached: Array) -> Array:
    """`[*B]`: Eq. 1 with `reached` in the place of the true occupancy."""
    gain = problem.mdp.reward - per_cell(problem.weight) * log_ratio(occ)
    return expectation(reached, gain) - problem.weight * divergence(generator.f, reached, occ.synthetic)


def surrogate(problem: Problem, generator: Generator, occ: Occupancies) -> Array:
    """`[*B]`: Eq. 1, `E_rho_T[r - weight * log(rho_M / rho_T^beta)] - weight * D_f(rho_T || rho_M)`."""
    return regularised(problem, generator, occ, occ.real)


def residual(problem: Problem, occ: Occupancies, q: Array) -> Array:
    """`[*B, S, A, S]`: Phi of Eq. 2, with r and not its logarithm."""
    next_value = np.sum(problem.policy * q, axis=-1)[..., None, None, :]
    gain = problem.mdp.reward - per_cell(problem.weight) * log_ratio(occ)
    return gain + per_cell(problem.mdp.gamma) * next_value - q[..., None]


def dual_objective(problem: Problem, generator: Generator, occ: Occupancies, q: Array) -> Array:
    """`[*B]`: J(pi, Q) of Eq. 2."""
    weight = per_cell(problem.weight)
    y = residual(problem, occ, q) / weight
    start = np.sum(problem.mdp.initial[..., None] * problem.policy * q, axis=(-2, -1))
    return (1.0 - problem.mdp.gamma) * start + expectation(occ.synthetic, weight * generator.f_star(y))


def solve_inner(problem: Problem, generator: Generator) -> Solution:
    """Minimise Eq. 2 over Q for each problem of a batch `[B]`, and certify it by the dual.

    Where Eq. 2 is +inf for every Q (a conjugate that grows on both sides, and a model that goes where no data are)
    both bounds are +inf.
    """
    occ = occupancies(problem)
    q = np.stack([_minimise(pick(problem, i), generator) for i in range(len(problem.weight))])
    upper = dual_objective(problem, generator, occ, q)
    ratio = generator.f_star_prime(residual(problem, occ, q) / per_cell(problem.weight))
    mass = np.where(occ.synthetic > 0.0, occ.synthetic * ratio, 0.0)
    total = np.sum(mass, axis=-1, keepdims=True)
    usable = (total != 0.0) & np.isfinite(per_cell(upper))
    dynamics = np.where(usable, np.where(usable, mass, 0.0) / np.where(usable, total, 1.0), problem.model)
    lower = regularised(problem, generator, occ, occupancy(problem.mdp, problem.policy, dynamics))
    return Solution(q, upper, np.where(np.isfinite(upper), lower, upper), dynamics, ratio)


def _minimise(problem: Problem, generator: Generator) -> Array:
    """`[S, A]`: Q for one problem, by SciPy's exact trust region over the pairs that the model reaches."""
    occ = occupancies(problem)
    start = _start(problem, generator, occ)
    if not np.isfinite(dual_objective(problem, generator, occ, start)):
        return start
    pairs = np.sum(occ.synthetic, axis=-1)
    seen = pairs > 0.0
    scale = np.zeros_like(pairs)
    scale[seen] = pairs[seen] ** -0.5  # rare pairs then weigh as much as common ones
    flow = _flow(problem)[:, seen.ravel()] * scale[seen]
    cells = occ.synthetic.ravel() > 0.0
    mass, flow = occ.synthetic.ravel()[cells], flow[cells]
    fixed = residual(problem, occ, start).ravel()[cells]
    entry = (1.0 - problem.mdp.gamma) * (problem.mdp.initial[:, None] * problem.policy)[seen] * scale[seen]
    q = start.copy()
    q[seen] += scale[seen] * search(Program(entry, mass, flow, fixed, float(problem.weight)), generator)
    return np.where(seen, q, 0.0)


class Program(NamedTuple):
    """Minimise `entry . x + weight * mass . f*(y)` with `y = (fixed + flow x) / weight`."""

    entry: Array
    mass: Array
    flow: Array
    fixed: Array
    weight: float

    def y(self, x: Array) -> Array:
        return (self.fixed + self.flow @ x) / self.weight


def search(program: Program, generator: Generator) -> Array:
    """The minimiser x. Value first; then its gradient alone, which sees further than the value's rounding."""

    def value(x: Array) -> float:
        return float(program.entry @ x + program.weight * program.mass @ generator.f_star(program.y(x)))

    def gradient(x: Array) -> Array:
        return program.entry + (program.mass * generator.f_star_prime(program.y(x))) @ program.flow

    def hessian(x: Array, mirrored: bool = False) -> Array:
        y = np.minimum(np.abs(program.y(x)), 30.0) if mirrored else program.y(x)
        curvature = program.mass * generator.curvature(y) / program.weight
        return program.flow.T @ (curvature[:, None] * program.flow) + RIDGE * np.eye(len(x))

    def error(x: Array) -> float:
        return float(np.max(np.abs(gradient(x))))

    options = {"gtol": 1e-11, "maxiter": 2000, "max_trust_radius": 1e6}
    x = minimize(
        value, np.zeros(len(program.entry)), jac=gradient, hess=hessian, method="trust-exact", options=options
    ).x
    if error(x) > STUCK:  # on the kink of a cubic, which is stiff from the right and flat from the left
        x = min(
            x,
            minimize(
                value, x, args=(), jac=gradient, hess=lambda x: hessian(x, True), method="trust-exact", options=options
            ).x,
            key=error,
        )
    return min(x, root(gradient, x, jac=hessian, tol=1e-15).x, key=error)


def _flow(problem: Problem) -> Array:
    """`[S*A*S, S*A]`: what Q adds to the residual of each transition."""
    states, actions = problem.policy.shape
    q = np.eye(states * actions).reshape(states * actions, states, actions)
    next_value = np.sum(problem.policy * q, axis=-1)[:, None, None, :]
    return (problem.mdp.gamma * next_value - q[..., None]).reshape(len(q), -1).T


def _start(problem: Problem, generator: Generator, occ: Occupancies) -> Array:
    """`[S, A]`: the model's own Q under the refined reward for ratios near 1, raised until no ratio is above 1e6.

    Without the second step an exponential conjugate overflows.
    """
    live = (occ.synthetic > 0.0) & (occ.offline > 0.0)
    penalty = np.where(live, log_ratio(occ), 0.0) + generator.f_prime(np.ones(()))
    q = q_values(problem.mdp, problem.policy, problem.model, problem.mdp.reward - problem.weight * penalty)
    excess = np.max(residual(problem, occ, q)[live]) - problem.weight * generator.f_prime(np.array(1e6))
    return q + max(float(excess), 0.0) / (1.0 - problem.mdp.gamma)


def per_cell(value: Array | float) -> Array:
    """`[*B]` as `[*B, 1, 1, 1]`, to stand beside transitions."""
    return np.asarray(value)[..., None, None, None]
