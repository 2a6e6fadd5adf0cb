"""Occupancies, values and divergences against MDPs of two and three states solved by hand."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from damorl.core.divergence import DIVERGENCES
from damorl.theory.families import CLOSENESS, FAMILIES, groups, occupancies, random_problems
from damorl.theory.generators import CHI_SQUARE, GENERATORS, KL
from damorl.theory.mdp import (
    MDP,
    action_transition,
    divergence,
    expected_reward,
    occupancy,
    optimal_policy,
    q_values,
    state_occupancy,
)

# Two states. `stay` costs nothing and gives 1 in state 1 for ever; `go` moves from 0 to 1. Discount 1/2.
STAY, GO = 0, 1
TRANSITION = np.array([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]])
REWARD = np.zeros((2, 2, 2))
REWARD[1] = 1.0
TWO = MDP(TRANSITION, REWARD, np.array([1.0, 0.0]), 0.5)
EVEN = np.full((2, 2), 0.5)


def test_action_transition_mixes_the_actions():
    np.testing.assert_allclose(action_transition(EVEN, TRANSITION), [[0.5, 0.5], [0.0, 1.0]])


def test_occupancy_of_two_states():
    """rho(0) = 1/2 + 1/2 * 1/2 rho(0), hence 2/3."""
    np.testing.assert_allclose(state_occupancy(TWO, EVEN), [2 / 3, 1 / 3])
    expected = np.zeros((2, 2, 2))
    expected[0, STAY, 0] = expected[0, GO, 1] = 1 / 3
    expected[1, :, 1] = 1 / 6
    np.testing.assert_allclose(occupancy(TWO, EVEN), expected, atol=1e-15)


def test_values_of_two_states():
    """V(1) = 2; V(0) = 1/2 (1/2 V(0) + 1/2 V(1)), hence 2/3."""
    np.testing.assert_allclose(q_values(TWO, EVEN), [[1 / 3, 1.0], [2.0, 2.0]])
    assert expected_reward(TWO, EVEN) == pytest.approx(0.5 * 2 / 3)


def test_best_policy_goes_at_once():
    np.testing.assert_array_equal(optimal_policy(TWO), [[0.0, 1.0], [1.0, 0.0]])


def test_other_dynamics_and_rewards_stand_in():
    """A model in which `go` fails: state 0 for ever, and 3 a step there."""
    model = np.broadcast_to(np.eye(2)[:, None, :], (2, 2, 2))
    np.testing.assert_allclose(state_occupancy(TWO, EVEN, model), [1.0, 0.0])
    np.testing.assert_allclose(q_values(TWO, EVEN, model, np.full((2, 2, 2), 3.0)), 6.0)


def test_three_states_in_a_row():
    """0 -> 1 -> 2 -> 2: discounted visits 1, g, g^2 / (1 - g), times 1 - g."""
    chain = np.zeros((3, 1, 3))
    chain[[0, 1, 2], 0, [1, 2, 2]] = 1.0
    mdp = MDP(chain, np.ones((3, 1, 3)), np.array([1.0, 0.0, 0.0]), 0.9)
    np.testing.assert_allclose(state_occupancy(mdp, np.ones((3, 1))), [0.1, 0.09, 0.81])
    np.testing.assert_allclose(q_values(mdp, np.ones((3, 1))), 10.0)


def test_a_batch_is_its_members():
    problem = random_problems(np.random.default_rng(0), "dense", "far", (3, 2), 4)
    whole = occupancy(problem.mdp, problem.policy)
    for i in range(4):
        single = MDP(*(np.asarray(field)[i] for field in problem.mdp))
        np.testing.assert_allclose(occupancy(single, problem.policy[i]), whole[i], atol=1e-14)


def test_divergences_by_hand():
    p, q = np.array([[[0.5, 0.5]]]), np.array([[[0.8, 0.2]]])
    assert divergence(KL.f, p, q) == pytest.approx(0.5 * np.log(0.5 / 0.8) + 0.5 * np.log(0.5 / 0.2))
    assert divergence(CHI_SQUARE.f, p, q) == pytest.approx(0.09 / 0.8 + 0.09 / 0.2)
    assert divergence(KL.f, p, np.array([[[1.0, 0.0]]])) == np.inf
    assert divergence(CHI_SQUARE.f, np.array([[[1.0, 0.0]]]), p) == pytest.approx(1.0)


def test_the_generators_are_the_registered_divergences():
    assert list(GENERATORS) == list(DIVERGENCES)
    x, y = np.geomspace(1e-6, 50.0, 101), np.linspace(-6.0, 4.0, 101)
    with jax.enable_x64(True):
        for name, record in DIVERGENCES.items():
            ours = GENERATORS[name]
            for mine, theirs, at in (
                (ours.f, record.f, x),
                (ours.f_prime, record.f_prime, x),
                (ours.f_star, record.f_star, y),
                (ours.f_star_prime, record.f_prime_inverse, y),
            ):
                np.testing.assert_allclose(mine(at), np.asarray(theirs(jax.numpy.asarray(at))), atol=1e-13, rtol=1e-13)
            assert ours.whole_line == record.whole_line


@pytest.mark.parametrize("family", FAMILIES)
def test_families_are_what_they_are_called(family):
    problem = random_problems(np.random.default_rng(1), family, "far", (4, 3), 20)
    mdp, last = problem.mdp, occupancies(problem).real[:, -1].sum(axis=(-2, -1))
    for p in (mdp.transition, problem.model, problem.policy, problem.behaviour, mdp.initial):
        assert p.min() >= 0.0
        np.testing.assert_allclose(p.sum(axis=-1), 1.0)
    assert np.all(problem.model[mdp.transition > 0.0] > 0.0)
    assert mdp.reward.min() > 0.0
    support = np.sum(mdp.transition > 0.0, axis=-1)
    assert {"sparse": support.max() == 2, "deterministic": support.max() == 1}.get(family, support[:, 0].min() == 4)
    assert (last.max() < 5e-3) == (family == "nearly unreachable")
    assert (np.min(mdp.transition[:, -1, :, -1]) == 1.0) == (family == "absorbing")


def test_closeness_orders_the_models_and_seeds_repeat():
    def distance(closeness):
        problem = random_problems(np.random.default_rng(2), "dense", closeness, (3, 2), 50)
        return np.abs(problem.model - problem.mdp.transition).mean()

    equal, close, far = map(distance, CLOSENESS)
    assert equal == 0.0 < close < 0.2 * far
    first, second = (list(groups(3, 60)) for _ in range(2))
    assert sum(len(problem.weight) for _, problem in first) >= 60
    for (name, one), (other, two) in zip(first, second, strict=True):
        assert name == other
        np.testing.assert_array_equal(one.mdp.transition, two.mdp.transition)
