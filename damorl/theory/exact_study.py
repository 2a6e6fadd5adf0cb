"""What exact DAMO's policy earns in the truth as the model gets worse, beside plain planning and cloning."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from damorl.theory.exact import Objective, best_of, maximin, surrogate
from damorl.theory.families import Problem
from damorl.theory.generators import GENERATORS
from damorl.theory.mdp import MDP, Array, expected_reward, optimal_policy, q_values

ERRORS = (0.0, 0.1, 0.2, 0.4, 0.6, 0.8, 0.95)
"""Share of the model that is not the truth."""
STATES, ACTIONS, GAMMA = 5, 3, 0.9
SKILL = 0.5
"""Share of the behaviour that is optimal; the rest is a random policy."""


class World(NamedTuple):
    """Random truths `[B]`, and what a model may wrongly believe."""

    mdp: MDP
    behaviour: Array
    """`[B, S, A]`"""
    noise: Array
    """`[B, S, A, S]`: other dynamics of the same kind."""
    promise: Array
    """`[B, S, A, S]`: the truth, but each state's least tried action leads to the state that is truly worth most."""


class Score(NamedTuple):
    """One method at one model error: normalised returns, 0 a random policy's, 100 the best policy's."""

    family: str
    method: str
    error: float
    scores: list[float]
    """One per MDP."""
    slack: float
    """Largest remaining `ascend` slack; 0 for methods without an ascent."""


def worlds(seed: int, count: int) -> World:
    """Dynamics with few likely next states, rewards in [0.05, 1], a behaviour that is half optimal."""
    rng = np.random.default_rng(seed)
    shape = (count, STATES, ACTIONS, STATES)
    draw = lambda: 0.98 * rng.dirichlet(np.full(STATES, 0.3), size=shape[:-1]) + 0.02 / STATES
    truth, noise = draw(), draw()
    reward = np.broadcast_to(rng.uniform(0.05, 1.0, size=(count, 1, 1, STATES)), shape)  # for the state reached
    mdp = MDP(truth, reward, np.full((count, STATES), 1.0 / STATES), np.full(count, GAMMA))
    best = optimal_policy(mdp)
    behaviour = SKILL * best + (1.0 - SKILL) * rng.dirichlet(np.ones(ACTIONS), size=shape[:2])
    values = np.max(q_values(mdp, best), axis=-1)
    goal = 0.98 * np.eye(STATES)[np.argmax(values, axis=-1)] + 0.02 / STATES
    rarest = np.eye(ACTIONS)[np.argmin(behaviour, axis=-1)][..., None]
    return World(mdp, behaviour, noise, rarest * goal[:, None, None] + (1.0 - rarest) * truth)


def problem_at(world: World, family: str, error: float, weight: float) -> Problem:
    """The model is `(1 - error)` truth and `error` noise or promise."""
    wrong = world.noise if family == "noise" else world.promise
    model = (1.0 - error) * world.mdp.transition + error * wrong
    weights = np.full(len(world.behaviour), weight)
    return Problem(world.mdp, model, world.behaviour, world.behaviour, weights)


def normalised(mdp: MDP, policy: Array) -> Array:
    """`[B]`: 100 (J - J_random) / (J_best - J_random)."""
    uniform = expected_reward(mdp, np.full_like(policy, 1.0 / policy.shape[-1]))
    best = expected_reward(mdp, optimal_policy(mdp))
    return 100.0 * (expected_reward(mdp, policy) - uniform) / (best - uniform)


DAMO_SETTINGS = (("chi_square", 0.1), ("chi_square", 0.3), ("chi_square", 1.0), ("kl", 0.1), ("cubic_symmetric", 0.1))
"""Divergences and weights that are compared."""


def methods() -> dict[str, tuple[Objective, float]]:
    """Name to objective and weight: DAMO in its settings, and Eq. 1 with the truth in it."""
    damo = {f"DAMO, {name} {weight:g}": (maximin(GENERATORS[name]), weight) for name, weight in DAMO_SETTINGS}
    return damo | {"Eq. 1, chi_square 0.1": (surrogate(GENERATORS["chi_square"]), 0.1)}


def compare(seed: int, count: int, errors: Sequence[float] = ERRORS) -> Iterator[Score]:
    """Every method at every error, in both families."""
    world = worlds(seed, count)
    for family in ("noise", "promise"):
        for error in errors:
            plain = problem_at(world, family, error, 1.0)
            planned = optimal_policy(world.mdp, plain.model)
            yield Score(family, "planning in the model", error, normalised(world.mdp, planned).tolist(), 0.0)
            yield Score(family, "cloning", error, normalised(world.mdp, world.behaviour).tolist(), 0.0)
            starts = (world.behaviour, 0.8 * planned + 0.2 / ACTIONS)
            for name, (objective, weight) in methods().items():
                end = best_of(plain._replace(weight=np.full(count, weight)), objective, starts, 150, 1e-5)
                scores = normalised(world.mdp, end.policy).tolist()
                yield Score(family, name, error, scores, float(np.max(end.slack)))
