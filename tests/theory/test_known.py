"""The value among known pairs: by hand, against sampled episodes, and its claims."""

from __future__ import annotations

import numpy as np
import pytest

from damorl.theory import known
from damorl.theory.claims import check
from damorl.theory.families import Problem, pick, random_problems
from damorl.theory.mdp import MDP, expected_reward


def loop(gamma: float) -> Problem:
    """One state that is never left, two actions: both earn 1, and the model says so."""
    stays, earns = np.ones((1, 1, 2, 1)), np.ones((1, 1, 2, 1))
    law = np.full((1, 1, 2), 0.5)
    mdp = MDP(stays, earns, np.ones((1, 1)), np.array([gamma]))
    return Problem(mdp, stays, law, law, np.ones(1))


def test_an_episode_ends_with_its_first_unknown_pair():
    """Half of the steps are known: sum over t of (1/2) (gamma / 2)^t, times 1 - gamma."""
    value = known.known_reward(loop(0.5), np.array([[[True, False]]]))
    np.testing.assert_allclose(value, 0.5 * 0.5 / (1.0 - 0.25), atol=1e-12)
    np.testing.assert_allclose(known.known_reward(loop(0.5), np.ones((1, 1, 2), bool)), 1.0, atol=1e-12)


def test_what_errors_may_add_by_hand():
    """A coin toss that the model takes for sure: TV 1/2, and heads are worth 1 more, in a state visited 1 - gamma."""
    gamma = 0.5
    truth, model = np.zeros((2, 1, 3, 1, 3))
    for dynamics, odds in ((truth, 0.5), (model, 1.0)):
        dynamics[0, 0, 0] = 0.0, odds, 1.0 - odds
        dynamics[0, 1, 0, 1] = dynamics[0, 2, 0, 2] = 1.0
    reward = np.zeros_like(truth)
    reward[0, 0, 0, 1] = 1.0
    mdp = MDP(truth, reward, np.array([[1.0, 0.0, 0.0]]), np.array([gamma]))
    at = known.KnownSetting(Problem(mdp, model, np.ones((1, 3, 1)), np.ones((1, 3, 1)), np.ones(1)), np.ones((1, 3, 1)))
    np.testing.assert_allclose(known.price_of_errors(at.problem, at.known), (1.0 - gamma) * 0.5, atol=1e-12)
    left, right = known.errors_where_known(at)
    np.testing.assert_allclose(left, right, atol=1e-12)  # no slack here


@pytest.mark.parametrize("family", ["dense", "absorbing"])
def test_the_known_value_is_the_mean_of_sampled_episodes(family):
    problem = random_problems(np.random.default_rng(3), family, "far", (3, 2), 4)
    problem = pick(problem, slice(0, 1))
    at, rng = known.setting(problem, known.ONCE[0]), np.random.default_rng(0)
    gamma, episodes = float(np.asarray(problem.mdp.gamma)[0]), 4000
    steps = int(np.ceil(np.log(1e-4) / np.log(gamma)))
    state = rng.choice(3, size=episodes, p=problem.mdp.initial[0])
    alive, total = np.ones(episodes, bool), np.zeros(episodes)
    for t in range(steps):
        action = (rng.uniform(size=episodes) > problem.policy[0, state, 0]).astype(int)
        alive &= at.known[0, state, action]
        odds = np.cumsum(problem.model[0, state, action], axis=-1)
        after = np.minimum(np.sum(rng.uniform(size=(episodes, 1)) > odds, axis=-1), 2)
        total += alive * (1.0 - gamma) * gamma**t * problem.mdp.reward[0, state, action, after]
        state = after
    error = np.std(total) / np.sqrt(episodes)
    assert abs(np.mean(total) - known.known_reward(problem, at.known)[0]) < 5 * error + 2e-4


def test_with_everything_known_and_a_true_model_nothing_is_lost():
    problem = random_problems(np.random.default_rng(0), "dense", "equal", (4, 3), 50)
    everything = np.ones(problem.policy.shape, bool)
    found = known.known_reward(problem, everything)
    np.testing.assert_allclose(found, expected_reward(problem.mdp, problem.policy), rtol=1e-12)


def test_it_is_a_lower_bound_where_the_model_is_right_and_not_where_it_is_wrong():
    right, wrong, priced = check(300, 0, progress=False, study=known.KNOWN)
    assert right.holds
    assert not wrong.holds
    assert priced.holds
