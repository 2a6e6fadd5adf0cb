"""The three roads, against values by hand."""

from __future__ import annotations

import numpy as np
import pytest

from damorl.paper.roads import (
    BOTTOM,
    DITCH,
    DOWN,
    FORK,
    GOAL,
    MIDDLE,
    STRAIGHT,
    TOP,
    UP,
    Learned,
    RoadConfig,
    count,
    fit,
    learn,
    make_problem,
    policies,
    road_chances,
    travel,
)
from damorl.theory.mdp import expected_reward

COUNTS = np.array([[10, 90, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0], [1, 0, 0, 9, 0, 0]], float)


def test_counts_and_model_by_hand():
    counted = count([[(UP, FORK), (UP, TOP)], [(DOWN, BOTTOM)]])
    assert counted[UP].tolist() == [1, 1, 0, 0, 0, 0]
    assert counted[DOWN].tolist() == [0, 0, 0, 1, 0, 0]
    model = fit(RoadConfig(borrow=0.02), COUNTS)
    np.testing.assert_allclose(model[FORK, UP], [0.1, 0.9, 0, 0, 0, 0])
    np.testing.assert_allclose(model[FORK, STRAIGHT], [11 / 110, 90 / 110, 0, 9 / 110, 0, 0])  # its neighbours' sum
    assert (model[MIDDLE, :, GOAL] == 1.0).all()
    np.testing.assert_allclose(model.sum(axis=-1), 1.0)


def test_values_by_hand_without_a_floor():
    config = RoadConfig(floor=0.0, stay=0.0)
    learned = Learned(fit(config, COUNTS * (np.arange(6) != FORK)), np.zeros((6, 3)), COUNTS)
    problem = make_problem(config, learned)
    straight = np.tile(np.eye(3)[STRAIGHT], (6, 1))
    # fork 0.5, road 0.5, then the goal's 1 for ever, each times (1 - gamma) gamma^t
    assert expected_reward(problem.mdp, straight, problem.model) == pytest.approx(0.05 + 0.045 + 0.81)
    assert expected_reward(problem.mdp, straight) == pytest.approx(0.05 + 0.045 + 0.81 * 0.05)
    up = np.tile(np.eye(3)[UP], (6, 1))
    assert expected_reward(problem.mdp, up) == pytest.approx(0.03 + 0.045 + 0.81)
    assert road_chances(straight, problem.mdp.transition) == {"top": 0.0, "middle": 1.0, "bottom": 0.0}
    assert road_chances(straight, problem.model)["top"] == pytest.approx(90 / 99)


def test_staying_at_the_fork_does_not_change_which_road_comes_first():
    config = RoadConfig(floor=0.0, stay=0.3)
    problem = make_problem(config, Learned(fit(config, COUNTS), np.zeros((6, 3)), COUNTS))
    policy = np.tile([0.2, 0.5, 0.3], (6, 1))
    found = road_chances(policy, problem.mdp.transition)
    assert list(found.values()) == pytest.approx([0.2, 0.5, 0.3])


@pytest.mark.parametrize("seed", [0, 1])
def test_planning_takes_the_phantom_road_and_damo_stays_on_the_data(seed: int):
    config = RoadConfig()
    found = policies(config, learn(config, seed))
    assert found["plain"][FORK, STRAIGHT] == 1.0
    assert found["MOPO-like"][FORK, STRAIGHT] == 1.0
    assert found["DAMO"][FORK, STRAIGHT] < 1e-3
    assert found["DAMO"][FORK, UP] > 0.9


def test_a_penalty_on_the_unseen_action_would_keep_mopo_away():
    """What MOPO lacks is disagreement where there are no data, not the penalty itself."""
    config = RoadConfig()
    learned = learn(config, 0)
    assert learned.disagreement[FORK, STRAIGHT] < learned.disagreement[FORK, DOWN]
    doubtful = learned.disagreement.copy()
    doubtful[FORK, STRAIGHT] = 1.0
    assert policies(config, learned._replace(disagreement=doubtful))["MOPO-like"][FORK, UP] == 1.0


def test_in_truth_the_phantom_road_ends_in_the_ditch():
    found = travel(RoadConfig(), 0)
    assert found["methods"]["plain"]["roads_in_truth"]["middle"] > 0.99
    assert found["methods"]["plain"]["reward_in_model"] > found["methods"]["DAMO"]["reward_in_model"]
    assert found["methods"]["plain"]["reward_in_truth"] < 0.2 < found["methods"]["DAMO"]["reward_in_truth"]
    assert found["counts_at_fork"][STRAIGHT] == [0] * 6
    assert DITCH == 5
    assert found == travel(RoadConfig(), 0)
