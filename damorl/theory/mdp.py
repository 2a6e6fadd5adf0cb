"""Finite MDPs solved exactly, in float64: occupancies, values and optimal policies by linear solves.

A transition occupancy is `rho(s, a, s') = (1 - gamma) sum_t gamma^t P(s_t = s, a_t = a, s_{t+1} = s')`: it sums to 1.
Absorbing states stand for termination: the theorems are about infinite horizons. Every function takes one MDP or many
at once: leading axes `[*B]`, shared by all its arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Array = np.ndarray


class MDP(NamedTuple):
    """States S, actions A; every array float64."""

    transition: Array
    """`[*B, S, A, S]`, each row a distribution over the next state."""
    reward: Array
    """`[*B, S, A, S]`."""
    initial: Array
    """`[*B, S]`, a distribution."""
    gamma: Array | float
    """`[*B]`, the discount, in [0, 1)."""


def action_transition(policy: Array, dynamics: Array) -> Array:
    """`[*B, S, S]`: from state to state when `policy` `[*B, S, A]` acts in `dynamics` `[*B, S, A, S]`."""
    return np.einsum("...sa,...sat->...st", policy, dynamics)


def state_occupancy(mdp: MDP, policy: Array, dynamics: Array | None = None) -> Array:
    """`[*B, S]`: the discounted share of time in each state. `dynamics` stands in for the MDP's own, a model say."""
    moves = action_transition(policy, mdp.transition if dynamics is None else dynamics)
    gamma = np.asarray(mdp.gamma)[..., None]
    return _solve(np.swapaxes(moves, -1, -2), gamma, (1.0 - gamma) * mdp.initial)


def occupancy(mdp: MDP, policy: Array, dynamics: Array | None = None) -> Array:
    """`[*B, S, A, S]`: the transition occupancy of `policy` in `dynamics`."""
    dynamics = mdp.transition if dynamics is None else dynamics
    return state_occupancy(mdp, policy, dynamics)[..., None, None] * policy[..., None] * dynamics


def q_values(mdp: MDP, policy: Array, dynamics: Array | None = None, reward: Array | None = None) -> Array:
    """`[*B, S, A]`: Q of `policy` in `dynamics` under `reward` `[*B, S, A, S]` (the MDP's own by default)."""
    dynamics = mdp.transition if dynamics is None else dynamics
    gain = np.sum(dynamics * (mdp.reward if reward is None else reward), axis=-1)
    gamma = np.asarray(mdp.gamma)[..., None]
    values = _solve(action_transition(policy, dynamics), gamma, np.sum(policy * gain, axis=-1))
    return gain + gamma[..., None] * np.einsum("...sat,...t->...sa", dynamics, values)


def expected_reward(mdp: MDP, policy: Array, dynamics: Array | None = None) -> Array:
    """`[*B]`: `E_rho[r]`, that is `(1 - gamma)` times the discounted return from the initial states."""
    return np.sum(occupancy(mdp, policy, dynamics) * mdp.reward, axis=(-3, -2, -1))


def optimal_policy(mdp: MDP, dynamics: Array | None = None, reward: Array | None = None) -> Array:
    """A deterministic optimal policy `[*B, S, A]` of `dynamics`, by policy iteration; of equal actions the first.

    Raises `RuntimeError` if it has not settled after 1000 rounds.
    """
    num_actions = mdp.reward.shape[-2]
    policy = np.full(mdp.reward.shape[:-1], 1.0 / num_actions)
    for _ in range(1000):
        q = q_values(mdp, policy, dynamics, reward)
        better = np.eye(num_actions)[np.argmax(np.round(q, 12), axis=-1)]
        if np.array_equal(better, policy):
            return policy
        policy = better
    raise RuntimeError("policy iteration did not settle")


def divergence(f: Callable[[Array], Array], p: Array, q: Array) -> Array:
    """`[*B]`: `D_f(p || q) = sum q f(p / q)` over the last three axes; infinite where p has mass that q has not.

    Cells that neither reaches count as 0. Right for every f that grows faster than x, as all registered ones do.
    """
    seen = q > 0.0
    terms = np.where(seen, q * f(p / np.where(seen, q, 1.0)), 0.0)
    lost = np.any(~seen & (p > 0.0), axis=(-3, -2, -1))
    return np.where(lost, np.inf, np.sum(terms, axis=(-3, -2, -1)))


def _solve(moves: Array, gamma: Array, right: Array) -> Array:
    """`(I - gamma moves)^-1 right` for `moves` `[*B, S, S]` and `right` `[*B, S]`."""
    matrix = np.eye(moves.shape[-1]) - gamma[..., None] * moves
    return np.linalg.solve(matrix, right[..., None])[..., 0]
