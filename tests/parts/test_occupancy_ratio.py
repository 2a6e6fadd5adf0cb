"""The ratio of occupancies on finite MDPs, where it is known, and random features."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damorl.parts import occupancy_ratio
from damorl.parts.occupancy_ratio import Moments
from damorl.theory import mdp as finite

STATES, ACTIONS, GAMMA = 4, 2, 0.9
PAIRS = STATES * ACTIONS
DONE = 0.3
"""How likely every step out of state 0 is a terminal one."""


def problem() -> tuple[finite.MDP, np.ndarray, np.ndarray]:
    """An MDP without its terminals, the policy, and how often the data have each pair."""
    rng = np.random.default_rng(3)
    moves = rng.dirichlet(np.ones(STATES), (STATES, ACTIONS))
    reward = np.broadcast_to(rng.normal(size=(STATES, ACTIONS, 1)), moves.shape)
    policy = rng.dirichlet(np.ones(ACTIONS), STATES)
    return finite.MDP(moves, reward, rng.dirichlet(np.ones(STATES)), GAMMA), policy, rng.dirichlet(2 * np.ones(PAIRS))


def exact_moments(terminal: bool) -> tuple[Moments, np.ndarray, float]:
    """Moments of one-hot features in endless data; the policy's occupancy of pairs, and its value."""
    mdp, policy, share = problem()
    onward = np.einsum("sat,tb->tbsa", mdp.transition, policy).reshape(PAIRS, PAIRS)
    stays = np.ones((STATES, ACTIONS))
    stays[0] -= DONE * terminal
    onward = onward * stays.reshape(-1)
    first = (mdp.initial[:, None] * policy).reshape(-1)
    occupancy = np.linalg.solve(np.eye(PAIRS) - GAMMA * onward, (1.0 - GAMMA) * first)
    reward = mdp.reward[..., 0].reshape(-1)
    one = np.array(1.0)
    moments = Moments(one, one, first, share, np.diag(share), onward * share, reward * share)
    return moments, occupancy, float(occupancy @ reward) / (1.0 - GAMMA)


@pytest.mark.parametrize("terminal", [False, True])
def test_with_a_feature_for_each_pair_ratio_and_value_are_exact(terminal: bool):
    moments, occupancy, value = exact_moments(terminal)
    found, ratio = occupancy_ratio.solve(moments, GAMMA, 0.0)
    np.testing.assert_allclose(ratio, occupancy / moments.here, rtol=1e-5)
    assert found == pytest.approx(value, rel=1e-5)
    expected = occupancy.sum() ** 2 / np.sum(occupancy**2 / moments.here)
    assert occupancy_ratio.effective_share(moments, ratio) == pytest.approx(expected, rel=1e-5)
    if not terminal:
        mdp, policy, _ = problem()
        assert value == pytest.approx(float(finite.expected_reward(mdp, policy)) / (1.0 - GAMMA))


def test_strength_draws_the_ratio_to_the_datas_own_average():
    moments, _, value = exact_moments(terminal=False)
    own = moments.reward.sum() / (1.0 - GAMMA)
    assert abs(own - value) > 0.5
    found, ratio = occupancy_ratio.solve(moments, GAMMA, 1e9)
    np.testing.assert_allclose(ratio, 1.0, rtol=1e-5)
    assert found == pytest.approx(own, rel=1e-5)
    assert occupancy_ratio.solve(moments, GAMMA, 1e-8)[0] == pytest.approx(value, rel=1e-3)


def test_features_that_depend_on_each_other_are_as_good_as_one_of_them():
    """Every feature twice: the ratio of a pair is the sum of its two coefficients."""
    moments, occupancy, value = exact_moments(terminal=False)
    twice = np.concatenate([np.eye(PAIRS), np.eye(PAIRS)])
    of_both = lambda leaf: twice @ leaf @ twice.T if leaf.ndim == 2 else twice @ leaf
    doubled = Moments(moments.rows, moments.starts, *(of_both(leaf) for leaf in moments[2:]))
    found, coefficients = occupancy_ratio.solve(doubled, GAMMA, 0.0)
    assert found == pytest.approx(value, rel=1e-6)
    np.testing.assert_allclose(coefficients.reshape(2, -1).sum(axis=0), occupancy / moments.here, rtol=1e-5)


def test_groups_add_up_and_a_broken_moment_is_not_known():
    moments, _, value = exact_moments(terminal=False)
    two = Moments(*(np.stack([leaf, leaf]) for leaf in moments))
    again = occupancy_ratio.added(two, np.array([1.0, 2.0]))
    assert occupancy_ratio.solve(again, GAMMA, 0.0)[0] == pytest.approx(value, rel=1e-5)
    broken = moments._replace(reward=np.full(PAIRS, np.nan))
    assert np.isnan(occupancy_ratio.solve(broken, GAMMA, 0.0)[0])


def test_fourier_features_stand_for_a_gaussian_kernel():
    """`phi . phi'` is near `exp(-|z - z'|^2 / (2 width^2))`, whatever the units of the pairs."""
    key = jax.random.key(0)
    pairs = jax.random.normal(key, (400, 3)) * jnp.array([1.0, 100.0, 0.01])
    features = occupancy_ratio.fit_fourier(key, pairs, 4001)
    phi = np.asarray(occupancy_ratio.fourier(features, pairs[:30]), np.float64)
    np.testing.assert_array_equal(phi[:, -1], 1.0)
    z = np.asarray(features.inputs.apply(pairs[:30]))
    distance = np.sum(np.square(z[:, None] - z), axis=-1)
    weight = np.asarray(features.weight)
    width = 1.0 / np.sqrt(np.mean(np.square(weight)))
    np.testing.assert_allclose(phi[:, :-1] @ phi[:, :-1].T, np.exp(-distance / (2 * width**2)), atol=0.1)
    assert 1.5 < width < 3.0  # two independent normal vectors of three numbers lie about 2.3 apart
