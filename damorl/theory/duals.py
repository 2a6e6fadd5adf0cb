"""The duals behind AlgaeDICE, OptiDICE and O-DICE on finite MDPs, each solved exactly, certified from the primal side.

Each is `min_x entry . x + weight * sum_cells mass * f*(y(x) / weight)` with y linear in x. Two readings of it differ:

- *expected*: a cell is a pair (s, a) and y holds the mean over next states; the theory's dual;
- *sampled*: a cell is one transition and y the one that was sampled; what every deep version minimises.

They agree where dynamics are deterministic. Elsewhere f*, being convex, makes the sampled minimum the higher one: it is
the dual of a problem in which the dynamics may be chosen too (as in `damorl.theory.inner`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from damorl.theory.families import Problem, occupancies, pick
from damorl.theory.generators import Generator
from damorl.theory.inner import Program, search
from damorl.theory.mdp import Array, divergence, occupancy, q_values

CONJUGATE_SHARE = 0.6
"""O-DICE's lambda, as released."""
RATIO_CAP = 1e6
"""No search starts with a ratio above this: an exponential conjugate would overflow."""


class Dual(NamedTuple):
    """A solved dual for problems `[*B]`; its minimum lies between `lower` and `upper`."""

    x: Array
    """The minimiser: `[*B, S]` (nu, V) or `[*B, S, A]` (Q)."""
    upper: Array
    """`[*B]`, the objective at x."""
    lower: Array
    """`[*B]`, the primal objective of the occupancy that x stands for."""
    ratio: Array
    """`[*B, S, A]` or, sampled, `[*B, S, A, S]`: the density ratio to the data."""
    policy: Array
    """`[*B, S, A]`: the data's policy, weighted with the ratios."""


def optidice(problem: Problem, generator: Generator, sampled: bool = False, data: Array | None = None) -> Dual:
    """`min_nu (1 - gamma) E_{s0}[nu] + w E_D[f*(e_nu / w)]` for a batch `[B]`.

    `data` is the distribution D of transitions, `[B, S, A, S]`; by default the behaviour's occupancy. `lower` is
    `E_d[r] - w D_f(d || d^D)` of the policy (sampled: of policy and dynamics) that the ratios give.
    """
    data = _data(problem, data)
    return _stack([_optidice(pick(problem, i), data[i], generator, sampled) for i in range(len(data))])


def odice(problem: Problem, generator: Generator, data: Array | None = None) -> Dual:
    """`min_V (1 - k) E_D[V(s)] + k E_D[f*(r + gamma V(s') - V(s))]`, k = `CONJUGATE_SHARE`, for a batch `[B]`; sampled.

    `lower` is `E_d[r] - k E_D[f(d / (k d^D))]` of visits d that start (1 - k) times as the data are distributed.
    """
    data = _data(problem, data)
    return _stack([_odice(pick(problem, i), data[i], generator) for i in range(len(data))])


def algaedice(problem: Problem, generator: Generator, sampled: bool = False, data: Array | None = None) -> Array:
    """`[B]`: `min_Q (1 - gamma) E[Q(s0, a0)] + w E_D[f*(y / w)]` for the problem's policy; sampled: a' too."""
    data = _data(problem, data)
    return np.array([_algaedice(pick(problem, i), data[i], generator, sampled) for i in range(len(data))])


def regularised_return(problem: Problem, generator: Generator, policy: Array, data: Array | None = None) -> Array:
    """`[*B]`: `E_d[r] - w D_f(d || d^D)` over pairs (s, a), d the occupancy of `policy` in the true MDP."""
    reached = occupancy(problem.mdp, policy)
    pairs, data_pairs = (np.sum(each, axis=-1, keepdims=True) for each in (reached, _data(problem, data)))
    gain = np.sum(reached * problem.mdp.reward, axis=(-3, -2, -1))
    return gain - problem.weight * divergence(generator.f, pairs, data_pairs)


def semi_gradient_value(
    problem: Problem, generator: Generator, start: Array, data: Array | None = None, steps: int = 200
) -> Array:
    """`[B, S]`: where O-DICE with eta = 0 stands still, by Newton's method from `start`.

    There `E[f*'(r + gamma V(s') - V(s)) | s] = (1 - k) / k` in every state, a contraction's fixed point.
    """
    mdp, value, eye = problem.mdp, start.copy(), np.eye(start.shape[1])
    mass = np.sum(_data(problem, data), axis=(-2, -1), keepdims=True)
    truth = problem.behaviour[..., None] * mdp.transition  # of states without data, where V is of no matter
    law = np.where(mass > 0.0, _data(problem, data) / np.where(mass > 0.0, mass, 1.0), truth)
    for _ in range(steps):
        y = mdp.reward + np.asarray(mdp.gamma)[:, None, None, None] * value[:, None, None, :] - value[..., None, None]
        slack = np.sum(law * generator.f_star_prime(y), axis=(-2, -1)) - (1.0 - CONJUGATE_SHARE) / CONJUGATE_SHARE
        bend = law * generator.curvature(y)
        moves = np.asarray(mdp.gamma)[:, None, None] * np.sum(bend, axis=-2)
        slope = moves - eye * np.sum(bend, axis=(-2, -1))[..., None] - 1e-12 * eye
        value = value - np.linalg.solve(slope, slack[..., None])[..., 0]
    return value


def orthogonal_gradient(problem: Problem, generator: Generator, value: Array, data: Array | None = None) -> Array:
    """`[*B, S]`: O-DICE's direction at V (and Vbar) = `value` `[*B, S]` with one-hot features and eta = 1."""
    data, mdp, share = _data(problem, data), problem.mdp, CONJUGATE_SHARE
    gamma = np.asarray(mdp.gamma)[..., None]
    y = mdp.reward + gamma[..., None, None] * value[..., None, None, :] - value[..., None, None]
    mass = share * data * generator.f_star_prime(y)
    linear = (1.0 - share) * np.sum(data, axis=(-2, -1))
    forward, backward = -np.sum(mass, axis=(-2, -1)), gamma * np.sum(mass, axis=(-3, -2))
    inner = np.sum(forward * backward, axis=-1, keepdims=True) / np.sum(forward**2, axis=-1, keepdims=True)
    return linear + forward + backward - inner * forward


def _data(problem: Problem, data: Array | None) -> Array:
    return occupancies(problem).offline if data is None else data


def _optidice(problem: Problem, data: Array, generator: Generator, sampled: bool) -> Dual:
    mdp, weight = problem.mdp, float(problem.weight)
    program = _value_program(problem, data, (1.0 - mdp.gamma) * mdp.initial, weight, sampled)
    x, upper, ratio = _solve(program, generator, _values(problem, weight, generator), float(mdp.gamma))
    mass = program.mass * ratio
    if sampled:
        ratio = ratio.reshape(data.shape)
        policy, dynamics = _conditionals(mass.reshape(data.shape), problem)
        reached = occupancy(mdp, policy, dynamics)
        lower = np.sum(reached * mdp.reward) - weight * divergence(generator.f, reached, data)
    else:
        ratio = ratio.reshape(problem.policy.shape)
        policy, _ = _conditionals(mass.reshape(problem.policy.shape)[..., None] * mdp.transition, problem)
        lower = regularised_return(problem, generator, policy, data)
    return Dual(x, upper, lower, ratio, policy)


def _odice(problem: Problem, data: Array, generator: Generator) -> Dual:
    mdp, share = problem.mdp, CONJUGATE_SHARE
    entry = (1.0 - share) * np.sum(data, axis=(1, 2))
    program = _value_program(problem, share * data, entry, 1.0, sampled=True)
    x, upper, ratio = _solve(program, generator, _values(problem, 1.0, generator), float(mdp.gamma))
    policy, dynamics = _conditionals((program.mass * ratio).reshape(data.shape), problem)
    started = mdp._replace(initial=entry / (1.0 - share))
    visits = occupancy(started, policy, dynamics) * (1.0 - share) / (1.0 - mdp.gamma)
    lower = np.sum(visits * mdp.reward) - divergence(generator.f, visits, share * data)
    return Dual(x, upper, lower, ratio.reshape(data.shape), policy)


def _algaedice(problem: Problem, data: Array, generator: Generator, sampled: bool) -> float:
    mdp, (num_states, num_actions) = problem.mdp, problem.policy.shape
    eye = np.eye(num_states * num_actions)
    tables = eye.reshape(-1, num_states, num_actions)  # one Q for each pair
    here = np.broadcast_to(tables[:, :, :, None, None], (*tables.shape, num_states, num_actions))
    later = np.broadcast_to(tables[:, None, None, :, :], here.shape)
    reward = np.broadcast_to(mdp.reward[..., None], here.shape[1:])
    law = data[..., None] * problem.policy  # of (s, a, s', a')
    if sampled:
        mass, fixed, flow = law, reward, mdp.gamma * later - here
    else:
        mass = np.sum(law, axis=(2, 3))
        safe = np.where(mass > 0.0, mass, 1.0)
        fixed = np.sum(law * reward, axis=(2, 3)) / safe
        flow = np.sum(law * (mdp.gamma * later - here), axis=(3, 4)) / safe
    entry = (1.0 - mdp.gamma) * (mdp.initial[:, None] * problem.policy).ravel()
    seen = mass.ravel() > 0.0
    program = Program(
        entry, mass.ravel()[seen], flow.reshape(len(eye), -1).T[seen], fixed.ravel()[seen], float(problem.weight)
    )
    shifted = mdp.reward - problem.weight * generator.f_prime(np.ones(()))
    start = q_values(mdp, problem.policy, reward=shifted).ravel()
    return float(_solve(program, generator, start, float(mdp.gamma))[1])


def _value_program(problem: Problem, data: Array, entry: Array, weight: float, sampled: bool) -> Program:
    """The program over values of states, one cell for each pair or for each transition that `data` hold."""
    mdp, eye = problem.mdp, np.eye(len(entry))
    if sampled:
        flow = mdp.gamma * eye[None, None] - eye[:, None, None]
        flow = np.broadcast_to(flow, (*data.shape, len(entry)))
        return Program(entry, data.ravel(), flow.reshape(-1, len(entry)), mdp.reward.ravel(), weight)
    flow = mdp.gamma * mdp.transition - eye[:, None, :]
    gain = np.sum(mdp.transition * mdp.reward, axis=-1)
    return Program(entry, np.sum(data, axis=-1).ravel(), flow.reshape(-1, len(entry)), gain.ravel(), weight)


def _solve(program: Program, generator: Generator, start: Array, gamma: float) -> tuple[Array, Array, Array]:
    """Minimiser, minimum, and the ratio of every cell. A shift of x by c moves every y by -(1 - gamma) c."""
    cap = program.weight * float(generator.f_prime(np.array(RATIO_CAP)))
    live = program.mass > 0.0
    excess = np.max((program.fixed + program.flow @ start)[live]) - cap
    start = start + max(float(excess), 0.0) / (1.0 - gamma)
    moved = Program(
        program.entry,
        program.mass[live],
        program.flow[live],
        (program.fixed + program.flow @ start)[live],
        program.weight,
    )
    with np.errstate(over="ignore", invalid="ignore"):  # a step that goes too far under an exponential is taken back
        x = start + search(moved, generator)
    y = program.y(x)
    value = program.entry @ x + program.weight * program.mass[live] @ generator.f_star(y[live])
    return x, np.asarray(value), np.where(live, generator.f_star_prime(np.where(live, y, 0.0)), 0.0)


def _values(problem: Problem, weight: float, generator: Generator) -> Array:
    """`[S]`: the behaviour's values under the reward for which its ratios are near 1."""
    shifted = problem.mdp.reward - weight * generator.f_prime(np.ones(()))
    return np.sum(problem.behaviour * q_values(problem.mdp, problem.behaviour, reward=shifted), axis=-1)


def _conditionals(mass: Array, problem: Problem) -> tuple[Array, Array]:
    """Policy `[S, A]` and dynamics `[S, A, S]` of a mass of transitions; the behaviour and the truth where it is 0."""
    pairs = np.sum(mass, axis=-1)
    states = np.sum(pairs, axis=-1, keepdims=True)
    policy = np.where(states > 0.0, pairs / np.where(states > 0.0, states, 1.0), problem.behaviour)
    safe = np.where(pairs > 0.0, pairs, 1.0)[..., None]
    return policy, np.where(pairs[..., None] > 0.0, mass / safe, problem.mdp.transition)


def _stack(solved: list[Dual]) -> Dual:
    return Dual(*(np.stack(field) for field in zip(*solved, strict=True)))
