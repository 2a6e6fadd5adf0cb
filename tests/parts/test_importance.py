"""Importance weights on a finite MDP whose every trajectory is listed: expectations are sums, and values are exact."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from damorl.parts import importance
from damorl.parts.importance import Episodes
from damorl.theory import mdp as finite

STEPS, STATES, ACTIONS, GAMMA = 3, 3, 2, 0.8
END = STATES - 1
"""Whoever steps into this state has ended."""


def make_mdp(deterministic: bool = False) -> finite.MDP:
    rng = np.random.default_rng(0)
    moves = rng.dirichlet(np.ones(STATES), (STATES, ACTIONS))
    if deterministic:
        moves = np.eye(STATES)[np.array([[1, 0], [0, 1], [2, 2]])]
    moves[END] = np.eye(STATES)[END]
    reward = np.broadcast_to(rng.normal(size=(STATES, ACTIONS, 1)), (STATES, ACTIONS, STATES)).copy()
    reward[END] = 0.0
    return finite.MDP(moves, reward, np.array([0.3, 0.7, 0.0]), GAMMA)


def make_policies() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.dirichlet(np.ones(ACTIONS), STATES), rng.dirichlet(np.ones(ACTIONS), STATES)


def listed(mdp: finite.MDP, q: np.ndarray, cut: bool = False) -> tuple[Episodes, np.ndarray]:
    """Every trajectory of the behaviour up to `STEPS` as an episode, and how likely each is. `q` `[STEPS, S, A]` is the
    estimate; with `cut` an episode that has not ended is followed by V of its last state."""
    policy, behaviour = make_policies()
    rows, chances = [], []
    for states in itertools.product(range(STATES), repeat=STEPS + 1):
        for actions in itertools.product(range(ACTIONS), repeat=STEPS):
            chance, row = mdp.initial[states[0]], np.zeros((3, STEPS))
            v = np.zeros(STEPS + 1)
            for t, (state, action) in enumerate(zip(states[:-1], actions, strict=True)):
                if state == END:  # what it would do afterwards is no part of the episode
                    chance *= float(action == 0 and states[t + 1] == END)
                    continue
                chance *= behaviour[state, action] * mdp.transition[state, action, states[t + 1]]
                row[:, t] = np.log(policy / behaviour)[state, action], mdp.reward[state, action, 0], q[t, state, action]
                v[t] = policy[state] @ q[t, state]
            if cut and states[-1] != END:
                v[-1] = policy[states[-1]] @ q[-1, states[-1]]
            rows.append((*row, v))
            chances.append(chance)
    likely = np.array(chances) > 0.0
    episodes = Episodes(*(np.array(column)[likely] for column in zip(*rows, strict=True)))
    return episodes, np.array(chances)[likely]


def horizon_q(mdp: finite.MDP) -> np.ndarray:
    """Q of the policy with 3, 2 and 1 steps to go, `[STEPS, S, A]`."""
    policy, _ = make_policies()
    q = [np.zeros((STATES, ACTIONS))]
    for _ in range(STEPS):
        q.append(mdp.reward[..., 0] + GAMMA * mdp.transition @ np.sum(policy * q[-1], axis=-1))
    return np.array(q[:0:-1])


def value_of(mdp: finite.MDP) -> float:
    return float(mdp.initial @ np.sum(make_policies()[0] * horizon_q(mdp)[0], axis=-1))


@pytest.mark.parametrize("name", ["pdis", "wpdis", "dr", "wdr"])
def test_the_expectation_over_all_trajectories_is_the_value(name: str):
    """With any Q. Of the weighted ones it is the limit: counts that are the probabilities."""
    mdp = make_mdp()
    episodes, chances = listed(mdp, np.random.default_rng(2).normal(size=(STEPS, STATES, ACTIONS)))
    assert chances.sum() == pytest.approx(1.0)
    on_data = chances @ (episodes.reward @ GAMMA ** np.arange(STEPS))
    assert abs(on_data - value_of(mdp)) > 0.05  # else the behaviour's own value would pass
    assert importance.estimates(episodes, GAMMA, chances[None])[name] == pytest.approx(value_of(mdp))


def test_whole_episodes_too():
    mdp = make_mdp()
    episodes, chances = listed(mdp, np.zeros((STEPS, STATES, ACTIONS)))
    found = importance.estimates(episodes, GAMMA, chances[None])
    assert found["wis"] == pytest.approx(value_of(mdp))
    assert found["dr"] == pytest.approx(found["pdis"])  # without a Q they are the same


def test_doubly_robust_goes_on_beyond_a_cut_and_others_do_not():
    """With the Q of the endless task, of which three steps were recorded."""
    mdp, policy = make_mdp(), make_policies()[0]
    endless = finite.q_values(mdp, policy)
    episodes, chances = listed(mdp, np.stack([endless] * STEPS), cut=True)
    found = importance.estimates(episodes, GAMMA, chances[None])
    value = mdp.initial @ np.sum(policy * endless, axis=-1)
    assert found["dr"] == pytest.approx(value)
    assert found["wdr"] == pytest.approx(value)
    assert found["pdis"] == pytest.approx(value_of(mdp))
    assert abs(value - value_of(mdp)) > 0.03


def test_with_the_true_q_doubly_robust_has_no_variance_in_a_deterministic_world():
    """Each trajectory alone then says the value of its first state; importance weights alone do not."""
    mdp = make_mdp(deterministic=True)
    episodes, chances = listed(mdp, horizon_q(mdp))
    found = importance.estimates(episodes, GAMMA, np.eye(len(chances)))
    first = episodes.v[:, 0]
    np.testing.assert_allclose(found["dr"], first)
    assert np.std(found["pdis"] - first) > 0.1


TWO = Episodes(
    np.log([[2.0, 0.5], [1.0, 3.0]]),
    np.array([[1.0, 2.0], [3.0, 4.0]]),
    np.array([[1.0, 1.0], [2.0, 2.0]]),
    np.array([[0.5, 1.0, 0.0], [1.0, 2.0, 0.0]]),
)
"""Weights 2, 1 of the first episode and 1, 3 of the second."""


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pdis", ((2.0 + 0.5 * 2.0) + (3.0 + 0.5 * 12.0)) / 2),
        ("wpdis", (2.0 + 3.0) / 3 + 0.5 * (2.0 + 12.0) / 4),
        ("wis", (1.0 * 2.0 + 3.0 * 5.0) / 4),
        ("dr", ((0.5 + 0.0) + 0.5 * (2.0 + 1.0) + (1.0 + 1.0) + 0.5 * (2.0 + 6.0)) / 2),
        ("wdr", (0.0 + 1.0) / 3 + 0.5 * (1.0 + 6.0) / 4 + 0.75 + 0.5 * (2.0 + 2.0) / 3),
    ],
)
def test_two_episodes_by_hand(name: str, value: float):
    assert importance.estimates(TWO, 0.5, np.ones((1, 2)))[name] == pytest.approx(value)
    twice = np.array([[2.0, 2.0], [2.0, 0.0], [1.0, 0.0]])
    whole, first, alone = importance.estimates(TWO, 0.5, twice)[name]
    assert whole == pytest.approx(value)
    assert first == pytest.approx(alone)


def test_effective_episodes_by_hand():
    found = importance.effective_episodes(TWO, 0.5)
    assert found["trajectory"] == pytest.approx(16 / 10)
    assert found["per_decision"] == pytest.approx(1.5 / (1 / (9 / 5) + 0.5 / (16 / 10)))
    equal = TWO._replace(log_ratio=np.full((2, 2), 300.0))
    assert importance.effective_episodes(equal, 0.9) == pytest.approx({"trajectory": 2.0, "per_decision": 2.0})


def test_weights_beyond_floats_leave_only_the_weighted_estimates():
    huge = TWO._replace(log_ratio=np.array([[800.0, 800.0], [0.0, 0.0]]))
    found = importance.estimates(huge, 0.5, np.ones((1, 2)))
    assert not np.isfinite(found["pdis"]).any()
    assert found["wis"] == pytest.approx(2.0)  # the first episode's return
    assert found["wpdis"] == pytest.approx(2.0)
    lost = importance.estimates(huge, 0.5, np.array([[0.0, 2.0]]))
    assert lost["wis"] == pytest.approx(5.0)  # a resample without the heavy one still has a mean


def test_rows_are_laid_out_episode_by_episode():
    found = importance.side_by_side(np.arange(5.0), np.array([0, 2]), np.array([2, 3]), 3)
    np.testing.assert_array_equal(found, [[0.0, 1.0, 0.0], [2.0, 3.0, 4.0]])


def test_intervals_hold_the_mean_as_often_as_they_say():
    """95 % of percentile intervals of the mean of 50 numbers; 400 trials, so three standard errors are 3 %."""
    rng = np.random.default_rng(0)
    counts = importance.resamples(200, 50, 1)
    assert np.all(counts.sum(axis=1) == 50)
    intervals = [importance.interval(counts @ rng.normal(size=50) / 50) for _ in range(400)]
    held = np.mean([found is not None and found[0] <= 0.0 <= found[1] for found in intervals])
    assert 0.90 < held < 0.98
    assert importance.interval(np.array([1.0, np.inf])) is None
