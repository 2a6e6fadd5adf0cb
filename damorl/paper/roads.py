"""Fig. 2 as a finite MDP: a fork with three roads, data that never saw the middle one, and three ways to plan.

Up and down lead to a good road each, straight ahead to the middle road, which ends in a ditch. Steering costs a
little, so going straight pays best for whoever believes that it leads to a good road. The behaviour nearly always
goes up, sometimes down, never straight.

The model is learned from sampled episodes by counting. Actions are ordered (up, straight, down), and each borrows a
little from its neighbours' counts, as a network does that never saw an action: with no counts of its own, straight
ahead is believed to lead where its neighbours lead, and the middle road is in no prediction. Methods:

- plain: the best policy of the model;
- MOPO-like: the same with `penalty` times the disagreement of an ensemble of models, fitted to resampled episodes,
  taken off the reward;
- DAMO: `min_Q` of Eq. 2 solved and the policy improved exactly (`theory.exact`), with an ideal classifier.

`floor` of every distribution is spread over all outcomes: it stands for "never" and keeps log-ratios finite.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from damorl.theory.exact import best_of, maximin
from damorl.theory.families import Problem
from damorl.theory.generators import GENERATORS
from damorl.theory.mdp import MDP, expected_reward, optimal_policy

FORK, TOP, MIDDLE, BOTTOM, GOAL, DITCH = range(6)
UP, STRAIGHT, DOWN = range(3)
STATES, ACTIONS = 6, 3
ROADS = {"top": TOP, "middle": MIDDLE, "bottom": BOTTOM}
BEHAVIOUR = (0.95, 0.0, 0.05)
METHODS = ("behaviour", "plain", "MOPO-like", "DAMO")


@dataclass(frozen=True)
class RoadConfig:
    """Settings of the example, all ours; the paper prints a drawing only."""

    episodes: int = 200
    """In the data."""
    stay: float = 0.1
    """Chance that an action at the fork has no effect."""
    gamma: float = 0.9
    road_reward: float = 0.5
    goal_reward: float = 1.0
    ditch_reward: float = 0.05
    fork_reward: float = 0.5
    """At the fork without steering."""
    steering: float = 0.2
    """What up and down cost of it."""
    borrow: float = 0.02
    """Weight of a neighbouring action's counts."""
    floor: float = 1e-3
    members: int = 7
    """Models in the ensemble."""
    penalty: float = 5.0
    """MOPO-like's weight of the disagreement."""
    divergence: str = "chi_square"
    divergence_weight: float = 0.1


class Learned(NamedTuple):
    """What was learned from the data."""

    model: np.ndarray
    """`[S, A, S]`"""
    disagreement: np.ndarray
    """`[S, A]`: root of the summed variances of the ensemble's predictions."""
    counts: np.ndarray
    """`[A, S]`: transitions seen at the fork."""


def with_floor(distribution: np.ndarray, floor: float) -> np.ndarray:
    """A share of `floor` spread evenly over the last axis."""
    return (1.0 - floor) * distribution + floor / distribution.shape[-1]


def true_dynamics(config: RoadConfig) -> np.ndarray:
    """`[S, A, S]`, without a floor."""
    after = np.array([FORK, GOAL, DITCH, GOAL, GOAL, DITCH])  # of the fork: replaced below
    dynamics = np.repeat(np.eye(STATES)[after][:, None], ACTIONS, axis=1)
    dynamics[FORK] = (1.0 - config.stay) * np.eye(STATES)[[TOP, MIDDLE, BOTTOM]] + config.stay * np.eye(STATES)[FORK]
    return dynamics


def rewards(config: RoadConfig) -> np.ndarray:
    """`[S, A, S]`; of the state and the action only, and known, as the paper assumes."""
    by_state = np.array([config.fork_reward, *[config.road_reward] * 3, config.goal_reward, config.ditch_reward])
    reward = np.repeat(by_state[:, None], ACTIONS, axis=1)
    reward[FORK, [UP, DOWN]] -= config.steering
    return np.repeat(reward[..., None], STATES, axis=2)


def sample_fork(config: RoadConfig, rng: np.random.Generator) -> list[list[tuple[int, int]]]:
    """Per episode the `(action, next state)` of its steps at the fork; beyond it the data hold nothing to choose."""
    dynamics, episodes = true_dynamics(config), []
    for _ in range(config.episodes):
        steps: list[tuple[int, int]] = []
        while not steps or steps[-1][1] == FORK:
            action = int(rng.choice(ACTIONS, p=BEHAVIOUR))
            steps.append((action, int(rng.choice(STATES, p=dynamics[FORK, action]))))
        episodes.append(steps)
    return episodes


def count(episodes: list[list[tuple[int, int]]]) -> np.ndarray:
    """`[A, S]`: how often each action at the fork led where."""
    counts = np.zeros((ACTIONS, STATES))
    for steps in episodes:
        for action, state in steps:
            counts[action, state] += 1.0
    return counts


def fit(config: RoadConfig, counts: np.ndarray) -> np.ndarray:
    """The model `[S, A, S]` of one set of counts at the fork; beyond it, what the data show: every seen road ends at
    the goal, and so then does the unseen one between them. Nothing is known of the ditch."""
    neighbours = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    weights = counts + config.borrow * neighbours @ counts
    total = weights.sum(axis=1, keepdims=True)
    at_fork = np.where(total > 0.0, weights / np.where(total > 0.0, total, 1.0), 1.0 / STATES)
    model = np.repeat(np.eye(STATES)[[FORK, GOAL, GOAL, GOAL, GOAL, DITCH]][:, None], ACTIONS, axis=1)
    model[FORK], model[DITCH] = at_fork, 1.0 / STATES
    return model


def learn(config: RoadConfig, seed: int) -> Learned:
    """Sample the data, fit the model, and an ensemble of models to the episodes drawn anew with replacement."""
    rng = np.random.default_rng(seed)
    episodes = sample_fork(config, rng)
    draws = rng.integers(len(episodes), size=(config.members, len(episodes)))
    ensemble = np.stack([fit(config, count([episodes[i] for i in draw])) for draw in draws])
    disagreement = np.sqrt(np.sum(np.var(ensemble, axis=0), axis=-1))
    return Learned(fit(config, count(episodes)), disagreement, count(episodes))


def make_problem(config: RoadConfig, learned: Learned) -> Problem:
    """Truth, model, behaviour and weight, each with its floor."""
    truth = with_floor(true_dynamics(config), config.floor)
    behaviour = np.tile(with_floor(np.array(BEHAVIOUR), config.floor), (STATES, 1))
    behaviour[FORK + 1 :] = 1.0 / ACTIONS
    mdp = MDP(truth, rewards(config), np.eye(STATES)[FORK], config.gamma)
    model = with_floor(learned.model, config.floor)
    return Problem(mdp, model, behaviour, behaviour, np.array(config.divergence_weight))


def policies(config: RoadConfig, learned: Learned) -> dict[str, np.ndarray]:
    """`[S, A]` of each of `METHODS`."""
    problem = make_problem(config, learned)
    uncertain = problem.mdp.reward - config.penalty * learned.disagreement[..., None]
    stack = lambda x: np.asarray(x)[None]
    batch = Problem(MDP(*map(stack, problem.mdp)), *map(stack, problem[1:]))
    plain = optimal_policy(problem.mdp, problem.model)
    starts = (batch.behaviour, 0.8 * stack(plain) + 0.2 / ACTIONS)
    aligned = best_of(batch, maximin(GENERATORS[config.divergence]), starts)
    return {
        "behaviour": problem.behaviour,
        "plain": plain,
        "MOPO-like": optimal_policy(problem.mdp, problem.model, uncertain),
        "DAMO": aligned.policy[0],
    }


def road_chances(policy: np.ndarray, dynamics: np.ndarray) -> dict[str, float]:
    """Chance that the first state after the fork is each road."""
    moves = policy[FORK] @ dynamics[FORK]
    return {name: float(moves[state] / (1.0 - moves[FORK])) for name, state in ROADS.items()}


def switching_penalty(config: RoadConfig, learned: Learned) -> float | None:
    """The smallest of some penalties with which MOPO-like leaves the middle road; None if none of them does."""
    problem = make_problem(config, learned)
    for penalty in np.geomspace(0.1, 1000.0, 81):
        reward = problem.mdp.reward - penalty * learned.disagreement[..., None]
        if optimal_policy(problem.mdp, problem.model, reward)[FORK, STRAIGHT] < 0.5:
            return float(penalty)
    return None


def travel(config: RoadConfig, seed: int) -> dict[str, Any]:
    """Everything the picture shows, for one sample of data."""
    learned = learn(config, seed)
    problem = make_problem(config, learned)
    found: dict[str, Any] = {}
    for name, policy in policies(config, learned).items():
        found[name] = {
            "actions": policy[FORK].tolist(),
            "roads_in_model": road_chances(policy, problem.model),
            "roads_in_truth": road_chances(policy, problem.mdp.transition),
            "reward_in_model": float(expected_reward(problem.mdp, policy, problem.model)),
            "reward_in_truth": float(expected_reward(problem.mdp, policy)),
        }
    return {
        "seed": seed,
        "counts_at_fork": learned.counts.astype(int).tolist(),
        "disagreement_at_fork": learned.disagreement[FORK].tolist(),
        "mopo_leaves_the_middle_at_penalty": switching_penalty(config, learned),
        "methods": found,
    }
