"""Random problems to try the theorems on: a truth, a model of it, a policy and the policy behind the data.

In every family the model gives weight to all that the truth can do, and the behaviour tries every action: otherwise
the objectives are infinite and there is nothing to compare. Rewards are positive, as the paper assumes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from damorl.theory.mdp import MDP, Array, occupancy

Rng = np.random.Generator

SIZES = ((2, 1), (2, 2), (3, 2), (4, 3))
"""States and actions."""
CLOSENESS = {"equal": 0.0, "close": 0.1, "far": 0.8}
"""How much of the model is something else than the truth."""
GAMMAS = (0.1, 0.5, 0.9, 0.99)
WEIGHTS = (0.1, 0.5, 1.0, 3.0)
"""Divergence weights, over the range in which the paper tunes its own."""
CLONED = 0.25
"""Share of problems whose policy is the behaviour's own."""
RARE = 1e-3
"""Probability of reaching a nearly unreachable state."""


class Problem(NamedTuple):
    """What Eq. 1 and Eq. 2 of the paper speak about, for one MDP or many (leading axes `[*B]`)."""

    mdp: MDP
    """The truth T, with rewards, initial states and discount."""
    model: Array
    """`[*B, S, A, S]`, the model M."""
    policy: Array
    """`[*B, S, A]`, the policy pi."""
    behaviour: Array
    """`[*B, S, A]`, the policy pi_beta that left the data in T."""
    weight: Array
    """`[*B]`, the divergence weight (alpha in the paper)."""


class Occupancies(NamedTuple):
    """The three transition occupancies `[*B, S, A, S]` of a problem."""

    real: Array
    """pi in T."""
    synthetic: Array
    """pi in M."""
    offline: Array
    """pi_beta in T."""


def occupancies(problem: Problem) -> Occupancies:
    """All three, by linear solves."""
    mdp = problem.mdp
    return Occupancies(
        real=occupancy(mdp, problem.policy),
        synthetic=occupancy(mdp, problem.policy, problem.model),
        offline=occupancy(mdp, problem.behaviour),
    )


def pick(problem: Problem, index: int | slice) -> Problem:
    """The problem, or the problems, at `index` of the first batch axis."""
    mdp = MDP(*(np.asarray(field)[index] for field in problem.mdp))
    return Problem(mdp, *(field[index] for field in problem[1:]))


def _dense(rng: Rng, shape: tuple[int, ...]) -> Array:
    """Distributions over the last axis that reach everything."""
    return 0.99 * rng.dirichlet(np.ones(shape[-1]), size=shape[:-1]) + 0.01 / shape[-1]


def _deterministic(rng: Rng, shape: tuple[int, ...]) -> Array:
    return np.eye(shape[-1])[rng.integers(shape[-1], size=shape[:-1])]


def _sparse(rng: Rng, shape: tuple[int, ...]) -> Array:
    """One or two next states each."""
    share = rng.uniform(0.1, 0.9, size=(*shape[:-1], 1))
    return share * _deterministic(rng, shape) + (1.0 - share) * _deterministic(rng, shape)


def _absorbing(rng: Rng, shape: tuple[int, ...]) -> Array:
    """The last state is never left: a fall."""
    dynamics = _dense(rng, shape)
    dynamics[..., -1, :, :] = np.eye(shape[-1])[-1]
    return dynamics


def _nearly_unreachable(rng: Rng, shape: tuple[int, ...]) -> Array:
    """The last state is entered about once in a thousand steps."""
    dynamics = _dense(rng, shape)
    dynamics[..., :-1, :, -1] = RARE * rng.uniform(0.1, 1.0, size=dynamics[..., :-1, :, -1].shape)
    return dynamics / np.sum(dynamics, axis=-1, keepdims=True)


FAMILIES: dict[str, Callable[[Rng, tuple[int, ...]], Array]] = {
    "dense": _dense,
    "sparse": _sparse,
    "deterministic": _deterministic,
    "absorbing": _absorbing,
    "nearly unreachable": _nearly_unreachable,
}


def random_problems(rng: Rng, family: str, closeness: str, size: tuple[int, int], count: int) -> Problem:
    """`count` problems of one family and size; `closeness` says how the model relates to the truth."""
    states, actions = size
    shape = (count, states, actions, states)
    truth, other = FAMILIES[family](rng, shape), FAMILIES[family](rng, shape)
    share = CLOSENESS[closeness]
    initial = _dense(rng, (count, states))
    if family == "nearly unreachable":
        initial[:, -1] = 0.0
        initial /= np.sum(initial, axis=-1, keepdims=True)
    mdp = MDP(truth, rng.uniform(0.05, 1.0, size=shape), initial, rng.choice(GAMMAS, size=count))
    policy, other_policy = _dense(rng, shape[:-1]), _dense(rng, shape[:-1])
    cloned = rng.uniform(size=(count, 1, 1)) < CLONED
    return Problem(
        mdp=mdp,
        model=(1.0 - share) * truth + share * other,
        policy=policy,
        behaviour=np.where(cloned, policy, other_policy),
        weight=rng.choice(WEIGHTS, size=count),
    )


def groups(
    seed: int, cases: int, families: tuple[str, ...] = tuple(FAMILIES), closeness: tuple[str, ...] = tuple(CLOSENESS)
) -> Iterator[tuple[str, Problem]]:
    """At least `cases` problems in all, as one batch for each family, closeness and size, with its name."""
    kinds = [(family, near, size) for family in families for near in closeness for size in SIZES]
    rng = np.random.default_rng(seed)
    for family, near, size in kinds:
        name = f"{family}, model {near}, {size[0]} states, {size[1]} actions"
        yield name, random_problems(rng, family, near, size, -(-cases // len(kinds)))
