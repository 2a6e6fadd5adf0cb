"""The log-ratio in its three parts, for any reference in the behaviour's place, and what a classifier finds of them.

    log rho_M^pi / rho_T^ref (s, a, s') = log d_M^pi / d_T^ref (s) + log pi / pi_ref (a|s) + log M / T (s'|s, a)

The middle part is known once pi_ref has been cloned: it may be added to a classifier's logit as an offset, and the
classifier is left with the rest. Everything takes problems `[*B]` and is exact.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import expit, rel_entr

from damorl.theory.families import Problem
from damorl.theory.mdp import (
    MDP,
    Array,
    action_transition,
    expected_reward,
    occupancy,
    optimal_policy,
    q_values,
    state_occupancy,
)
from damorl.theory.sides import root

EXPERT = 0.9
"""Share of the best policy in the reference; the rest is the behaviour, so that every action is tried."""


class Reference(NamedTuple):
    """The rows that a policy is held to: a distribution of transitions, its states, its policy."""

    rho: Array
    """`[*B, S, A, S]`"""
    state: Array
    """`[*B, S]`"""
    policy: Array
    """`[*B, S, A]`"""


class Parts(NamedTuple):
    """The log-ratio's three parts: +inf where only pi in the model goes, 0 where it does not go."""

    state: Array
    """`[*B, S, 1, 1]`"""
    action: Array
    """`[*B, S, A, 1]`"""
    dynamics: Array
    """`[*B, S, A, S]`"""


def expert_policy(problem: Problem) -> Array:
    """`[*B, S, A]`: `EXPERT` of the best policy, the rest the behaviour's."""
    return EXPERT * optimal_policy(problem.mdp) + (1.0 - EXPERT) * problem.behaviour


def of_policy(mdp: MDP, policy: Array) -> Reference:
    """The occupancy of `policy` in the truth."""
    return Reference(occupancy(mdp, policy), state_occupancy(mdp, policy), policy)


def of_rows(rho: Array) -> Reference:
    """Any distribution of transitions `[*B, S, A, S]`; its policy is what it does on average (0 in states it lacks).

    A reference of the kind `of_policy` has the truth's own dynamics; this one need not.
    """
    pairs = np.sum(rho, axis=-1)
    state = np.sum(pairs, axis=-1)
    return Reference(rho, state, pairs / np.where(state > 0.0, state, 1.0)[..., None])


def chosen_episodes(mdp: MDP, policy: Array) -> Array:
    """`[*B, S, A, S]`: the rows of `policy`'s episodes in the truth when each counts `exp(c * its sum of rewards)`.

    An episode ends after each step with probability 1 - gamma. `c = log(1 / gamma) / 2` keeps all sums finite for
    rewards of at most 1. With c = 0 this would be the policy's occupancy.
    """
    gamma = np.asarray(mdp.gamma)
    favour = np.exp(-0.5 * np.log(gamma)[..., None, None, None] * mdp.reward)
    step = policy[..., None] * mdp.transition * favour
    moves = action_transition(policy, mdp.transition * favour)
    matrix = np.eye(moves.shape[-1]) - gamma[..., None, None] * moves
    goes_on, ends = gamma[..., None], 1.0 - gamma[..., None]
    ahead = np.linalg.solve(matrix, (ends * np.sum(moves, axis=-1))[..., None])[..., 0]
    so_far = np.linalg.solve(np.swapaxes(matrix, -1, -2), mdp.initial[..., None])[..., 0]
    rows = so_far[..., None, None] * step * (ends + goes_on * ahead)[..., None, None, :]
    return rows / np.sum(rows, axis=(-3, -2, -1), keepdims=True)


def parts(problem: Problem, reference: Reference) -> Parts:
    """All three, each from its own distributions; the third with the truth's dynamics."""
    state = log_quotient(state_occupancy(problem.mdp, problem.policy, problem.model), reference.state)
    action = log_quotient(problem.policy, reference.policy)
    dynamics = log_quotient(problem.model, problem.mdp.transition)
    return Parts(state[..., None, None], action[..., None], dynamics)


def log_quotient(p: Array, q: Array) -> Array:
    """`log p / q` elementwise: +inf where only p is above 0, 0 where p is 0."""
    inside = p > 0.0
    with np.errstate(divide="ignore"):
        return np.where(inside, np.log(np.where(inside, p, 1.0)) - np.log(q), 0.0)


def mean_divergences(problem: Problem, reference: Reference) -> tuple[Array, Array, Array]:
    """`[*B]` each: KL of the states, mean KL of the actions, mean KL of the dynamics, along pi in the model."""
    state = state_occupancy(problem.mdp, problem.policy, problem.model)
    pairs = state[..., None] * problem.policy
    action = np.sum(rel_entr(problem.policy, reference.policy), axis=-1)
    dynamics = np.sum(rel_entr(problem.model, problem.mdp.transition), axis=-1)
    return (
        np.sum(rel_entr(state, reference.state), axis=-1),
        np.sum(state * action, axis=-1),
        np.sum(pairs * dynamics, axis=(-2, -1)),
    )


def error_gap(problem: Problem, reference: Array) -> tuple[Array, Array]:
    """How much farther the model errs at pi than at the policy `reference`, `|e(pi) - e(ref)|` with `e = E_rho_M[r] -
    E_rho_T[r]`, and what bounds it, `[*B]` each:

        span(Q_M^ref) sqrt(E_{d_M^pi}[KL(pi || ref)] / 2) + span(Q_T^pi) sqrt(E_{d_T^ref}[KL(pi || ref)] / 2)

    The performance difference lemma in the model and in the truth, then Pinsker and Jensen; `span` is the largest
    difference of two actions' values in one state. Both divergences are known without the truth.
    """
    mdp, policy, model = problem.mdp, problem.policy, problem.model
    error = lambda law: expected_reward(mdp, law, model) - expected_reward(mdp, law)
    distance = np.sum(rel_entr(policy, reference), axis=-1)
    span = lambda q: np.max(np.ptp(q, axis=-1), axis=-1)
    root_of = lambda states: np.sqrt(np.maximum(np.sum(states * distance, axis=-1), 0.0) / 2.0)
    in_model = span(q_values(mdp, reference, model)) * root_of(state_occupancy(mdp, policy, model))
    in_truth = span(q_values(mdp, policy)) * root_of(state_occupancy(mdp, reference))
    return np.abs(error(policy) - error(reference)), in_model + in_truth


def best_logit(model: Array, data: Array, known: Array, blind: tuple[int, ...] = ()) -> Array:
    """g that minimises the cross-entropy `E_model[log(1 + e^-(g + known))] + E_data[log(1 + e^(g + known))]`.

    `model` and `data` are distributions `[*B, S, A, S]`, label 1 for the model's; `known` broadcasts to them. g is
    constant along the axes `blind`, which it does not see; they have length 1 in the result. Solved by bisection of
    the derivative: for every value of what is seen, the mean of the predicted labels is that of the true ones.
    """
    shape = np.sum(model, axis=blind, keepdims=True).shape

    def slope(g: Array) -> Array:
        return np.sum((model + data) * expit(g + known) - model, axis=blind, keepdims=True)

    return root(slope, shape, -1e3, 1e3)
