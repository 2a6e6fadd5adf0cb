"""What a policy earns in a model among known pairs: the value by which `keep = "supported"` chooses, on finite MDPs.

An imagined episode ends with its first unknown pair of state and action, and earns nothing from there on; rewards are
not negative here. So it is the policy's value where every unknown pair leads nowhere, a pessimistic MDP as MOReL's
(arXiv 2005.05951, Definition 2). Everything takes problems `[*B]` and is exact.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from damorl.theory.claims import ONCE, Claim, Study
from damorl.theory.families import Problem
from damorl.theory.generators import Generator
from damorl.theory.mdp import Array, expected_reward, occupancy, q_values, state_occupancy
from damorl.theory.sides import Sides


class KnownSetting(NamedTuple):
    """A batch of problems, and which pairs the data know."""

    problem: Problem
    known: Array
    """`[*B, S, A]`, bool."""


def setting(problem: Problem, _: Generator) -> KnownSetting:
    """Known is what the behaviour does at least as often as the median pair."""
    pairs = np.sum(occupancy(problem.mdp, problem.behaviour), axis=-1)
    return KnownSetting(problem, pairs >= np.median(pairs, axis=(-2, -1), keepdims=True))


def known_reward(problem: Problem, known: Array) -> Array:
    """`[*B]`: `(1 - gamma)` times the discounted return in the model up to the first unknown pair."""
    return expected_reward(problem.mdp, problem.policy, problem.model * known[..., None])


def price_of_errors(problem: Problem, known: Array) -> Array:
    """`[*B]`: `E[TV(M, T) span_s'(r + gamma V_T^pi)]` over the policy's known pairs in the model.

    The simulation lemma, summed over known pairs only. `span` is the largest difference that the next state makes.
    """
    mdp, policy = problem.mdp, problem.policy
    states = state_occupancy(mdp, policy, problem.model * known[..., None])
    variation = np.sum(np.abs(problem.model - mdp.transition), axis=-1) / 2.0
    value = np.sum(policy * q_values(mdp, policy), axis=-1)
    ahead = mdp.reward + np.asarray(mdp.gamma)[..., None, None, None] * value[..., None, None, :]
    return np.sum(states[..., None] * policy * known * variation * np.ptp(ahead, axis=-1), axis=(-2, -1))


def right_where_known(at: KnownSetting) -> Sides:
    """The known value, in a model that is the truth on known pairs and anything elsewhere, and the true one."""
    truth = at.problem.mdp.transition
    model = np.where(at.known[..., None], truth, at.problem.model)
    return Sides(known_reward(at.problem._replace(model=model), at.known), _earned(at))


def wrong_where_known(at: KnownSetting) -> Sides:
    """The known value in the model as it is, and the true one."""
    return Sides(known_reward(at.problem, at.known), _earned(at))


def errors_where_known(at: KnownSetting) -> Sides:
    """The known value, and the true one with what the model's errors on known pairs may add."""
    return Sides(known_reward(at.problem, at.known), _earned(at) + price_of_errors(at.problem, at.known))


def _earned(at: KnownSetting) -> Array:
    return expected_reward(at.problem.mdp, at.problem.policy)


KNOWN_CLAIMS: tuple[Claim, ...] = (
    Claim("known value <= (1 - gamma) J, M = T", "keep", "<=", right_where_known, False, ONCE),
    Claim("the same, M wrong there too", "keep", "<=", wrong_where_known, False, ONCE),
    Claim("known value <= that + E[TV(M, T) span]", "keep", "<=", errors_where_known, False, ONCE),
)

KNOWN = Study(KNOWN_CLAIMS, setting, ONCE)
