"""The statistics: by hand, by their laws, and against `rliable`'s own numbers (see `make_rliable_reference.py`)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from damorl.report import statistics

NAN = np.nan
HAND = np.array([[0.0, 10.0], [20.0, 30.0], [40.0, 110.0], [60.0, 150.0]])
MISSING = np.array([[0.0, 10.0], [NAN, 30.0], [40.0, 110.0], [NAN, NAN]])
RLIABLE: dict[str, Any] = json.loads(Path(__file__).with_name("rliable_reference.json").read_text(encoding="utf-8"))
THEIRS = {name: np.array(matrix) for name, matrix in RLIABLE["matrices"].items()}
# `rliable`'s scores end at 1, ours at 100: only the optimality gap sees it
AGGREGATES = {**statistics.AGGREGATES, "optimality_gap": lambda x: statistics.optimality_gap(x, 1.0)}

quickly = settings(max_examples=30)
shapes = st.tuples(st.integers(2, 5), st.integers(1, 4))
scores_of = lambda shape: arrays(np.float64, shape, elements=st.floats(-50, 150).map(lambda x: round(x, 3)))
matrices = shapes.flatmap(scores_of)
pairs = st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 4)).flatmap(
    lambda size: st.tuples(scores_of((size[0], size[2])), scores_of((size[1], size[2])))
)


def test_aggregates_by_hand():
    assert statistics.task_means(HAND).tolist() == [30.0, 75.0]
    assert statistics.mean(HAND) == statistics.median(HAND) == 52.5
    # 0 10 | 20 30 40 60 | 110 150
    assert statistics.iqm(HAND) == (20 + 30 + 40 + 60) / 4
    assert statistics.optimality_gap(HAND) == 100 - (0 + 10 + 20 + 30 + 40 + 60 + 100 + 100) / 8
    assert statistics.median(np.array([[1.0, 2.0, 90.0]])) == 2.0


def test_the_deviation_is_that_of_a_sample():
    assert statistics.task_stds(np.array([[1.0, 5.0], [3.0, NAN]])).tolist()[0] == np.sqrt(2.0)
    assert np.allclose(statistics.task_stds(HAND), HAND.std(axis=0, ddof=1))
    assert np.isnan(statistics.task_stds(HAND[:1])).all()  # not zero: nobody knows


def test_missing_runs_are_counted_and_leave_the_others_as_they_are():
    assert statistics.num_missing(MISSING) == 3
    assert statistics.num_runs(MISSING).tolist() == [2, 3]
    assert statistics.mean(MISSING) == (20 + 50) / 2
    assert statistics.iqm(MISSING) == (10 + 30 + 40) / 3
    assert statistics.task_stds(MISSING).tolist() == [np.std([0, 40], ddof=1), np.std([10, 30, 110], ddof=1)]
    assert statistics.mean(np.array([[1.0, np.inf], [3.0, 5.0]])) == 3.5  # an infinite score is a broken run


def test_a_task_without_any_run_leaves_no_aggregate():
    scores = np.column_stack([HAND, np.full(4, NAN)])
    for name, found in statistics.aggregates(scores).items():
        assert np.isnan(found.value), name
        assert found.interval is None, name
    assert np.isnan(statistics.score_distribution(scores, np.array([0.0]))).all()


def test_probability_of_improvement_by_hand():
    ours, theirs = np.array([[3.0, 1.0], [1.0, 1.0]]), np.array([[2.0, 1.0], [1.0, 0.0], [0.0, 5.0]])
    # task 0: 3 wins thrice; 1 loses, ties, wins. task 1: 1 ties, wins, loses, twice
    assert statistics.probability_of_improvement(ours, theirs) == pytest.approx((4.5 / 6 + 3.0 / 6) / 2)
    u = stats.mannwhitneyu(ours[:, 0], theirs[:, 0], alternative="greater").statistic
    assert u / 6 == 4.5 / 6
    assert statistics.probability_of_improvement(ours, ours) == 0.5
    assert statistics.probability_of_improvement(np.array([[3.0], [NAN]]), np.array([[2.0]])) == 1.0
    assert np.isnan(statistics.probability_of_improvement(np.array([[3.0]]), np.array([[NAN]])))


def test_the_score_distribution_by_hand():
    profile = statistics.score_distribution(HAND, np.array([-1.0, 0.0, 35.0, 150.0]))
    assert profile.tolist() == [1.0, 7 / 8, 4 / 8, 0.0]
    assert statistics.score_distribution(MISSING, np.array([20.0])).tolist() == [3 / 5]


def test_a_stack_of_matrices_gives_each_its_own_number():
    stack = np.stack([HAND, HAND[::-1] + 1.0])
    for name, statistic in statistics.AGGREGATES.items():
        assert statistic(stack).tolist() == [statistic(HAND), statistic(HAND + 1.0)], name
    assert statistics.task_stds(stack).shape == (2, 2)


def test_runs_are_drawn_only_from_their_own_task_and_missing_ones_stay_missing():
    ordered = np.sort(MISSING, axis=0)
    drawn = statistics.resample(ordered, np.random.default_rng(0), 200)
    assert set(drawn[:, :2, 0].ravel()) == {0.0, 40.0}
    assert set(drawn[:, :3, 1].ravel()) == {10.0, 30.0, 110.0}
    assert np.isnan(drawn[:, 2:, 0]).all()
    assert np.isnan(drawn[:, 3, 1]).all()


def test_two_runs_of_one_task_have_a_bootstrap_one_can_count():
    # means 0, 5, 5, 10 with a quarter each
    low, high = statistics.bootstrap(statistics.mean, np.array([[0.0], [10.0]]), seed=0, reps=4000, confidence=0.4)
    assert (low, high) == (5.0, 5.0)
    assert statistics.estimate(statistics.mean, np.array([[0.0], [10.0]])).interval == (0.0, 10.0)


def test_one_run_has_no_interval():
    assert statistics.estimate(statistics.mean, HAND[:1]) == statistics.Estimate(5.0, None)
    lone = np.array([[1.0, 2.0], [3.0, NAN]])  # the second task's spread is unknown, so the whole's is
    assert all(found.interval is None for found in statistics.aggregates(lone).values())
    profile = statistics.performance_profile(lone, np.array([1.5]))
    assert profile.values.tolist() == [2 / 3]
    assert profile.low is profile.high is None


def test_the_seed_decides_the_interval():
    ends = [statistics.estimate(statistics.iqm, HAND, seed=seed, reps=50).interval for seed in (0, 0, 1)]
    assert ends[0] == ends[1] != ends[2]


def test_the_chunks_of_a_bootstrap_are_of_no_consequence(monkeypatch):
    whole = statistics.bootstrap(statistics.mean, HAND, seed=0, reps=20_000)
    monkeypatch.setattr(statistics, "CHUNK", 800)
    assert np.allclose(whole, statistics.bootstrap(statistics.mean, HAND, seed=0, reps=20_000), rtol=0.03)
    low, high = statistics.bootstrap(lambda x: x[:, 0], HAND, seed=0, reps=201)
    assert low.shape == high.shape == (2,)


def test_the_band_of_a_curve_is_open_where_fewer_than_two_seeds_were_seen():
    low, high = statistics.mean_band(np.array([[1.0, 1.0, NAN], [3.0, NAN, NAN]]))
    assert low[0] == 1.0
    assert high[0] == 3.0
    assert np.isnan([low[1:], high[1:]]).all()


def test_an_expert_leaves_no_gap():
    assert statistics.optimality_gap(np.full((3, 2), 130.0)) == 0.0


@given(matrices)
@quickly
def test_the_interquartile_mean_is_scipys_and_lies_between_the_extremes(scores):
    found = statistics.iqm(scores)
    assert found == stats.trim_mean(scores.ravel(), 0.25)
    assert scores.min() - 1e-9 <= found <= scores.max() + 1e-9


@given(matrices, st.randoms(use_true_random=False))
@quickly
def test_the_order_of_runs_within_a_task_changes_nothing(scores, random):
    shuffled = scores.T.copy()
    for column in shuffled:
        random.shuffle(column)
    ours, theirs = (statistics.aggregates(matrix, reps=100) for matrix in (scores, shuffled.T))
    for name in ours:
        assert ours[name].value == pytest.approx(theirs[name].value, abs=1e-9)
        assert ours[name].interval == pytest.approx(theirs[name].interval, abs=1e-9)


@given(matrices, st.floats(-20, 20))
@quickly
def test_aggregates_move_with_the_scores_and_the_gap_against_them(scores, shift):
    for statistic in (statistics.mean, statistics.median, statistics.iqm):
        assert statistic(scores + shift) == pytest.approx(statistic(scores) + shift, abs=1e-9)
    assert statistics.optimality_gap(scores + abs(shift)) <= statistics.optimality_gap(scores) + 1e-9
    assert statistics.task_stds(scores + shift) == pytest.approx(statistics.task_stds(scores), abs=1e-9)


@given(matrices)
@quickly
def test_intervals_lie_within_the_scores_and_hold_the_mean_of_symmetric_ones(scores):
    symmetric = np.concatenate([scores, -scores])
    low, high = statistics.bootstrap(statistics.mean, symmetric, seed=0, reps=2000)
    assert symmetric.min() - 1e-9 <= low <= 1e-9
    assert -1e-9 <= high <= symmetric.max() + 1e-9


@given(pairs)
@quickly
def test_improvements_either_way_sum_to_one(pair):
    forth, back = statistics.probability_of_improvement(*pair), statistics.probability_of_improvement(*pair[::-1])
    assert 0 <= forth <= 1
    assert forth + back == pytest.approx(1.0)


@given(matrices)
@quickly
def test_a_profile_falls_from_one_to_nothing(scores):
    values = statistics.score_distribution(scores, np.linspace(-51, 150, 30))
    assert values[0] == 1.0
    assert values[-1] == 0.0
    assert (np.diff(values) <= 0).all()


@given(matrices)
@quickly
def test_missing_rows_are_as_if_they_were_not_there(scores):
    padded = np.concatenate([np.full((2, scores.shape[1]), NAN), scores])
    for name, statistic in statistics.AGGREGATES.items():
        assert statistic(padded) == pytest.approx(statistic(scores), abs=1e-9), name


@pytest.mark.parametrize("name", sorted(THEIRS))
def test_aggregates_are_those_of_rliable(name, monkeypatch):
    monkeypatch.setattr(statistics, "AGGREGATES", AGGREGATES)
    ours, theirs = statistics.aggregates(THEIRS[name], seed=1), RLIABLE["aggregates"][name]
    assert ours.keys() == theirs.keys()
    for aggregate, (value, low, high) in theirs.items():
        assert ours[aggregate].value == pytest.approx(value, abs=1e-12)
        assert ours[aggregate].interval == pytest.approx((low, high), abs=0.02 * (high - low))  # two bootstraps


def test_the_probability_of_improvement_is_that_of_rliable():
    value, low, high = RLIABLE["probability_of_improvement"]
    matrices = THEIRS["scores"], THEIRS["others"]
    found = statistics.estimate(statistics.probability_of_improvement, *matrices, seed=1, reps=10_000)
    assert found.value == pytest.approx(value, abs=1e-12)
    assert found.interval == pytest.approx((low, high), abs=0.04 * (high - low))


@pytest.mark.parametrize("name", sorted(THEIRS))
def test_profiles_are_those_of_rliable(name):
    values, low, high = (np.array(line) for line in RLIABLE["profiles"][name])
    found = statistics.performance_profile(THEIRS[name], np.array(RLIABLE["thresholds"]), seed=1, reps=10_000)
    assert found.values == pytest.approx(values, abs=1e-12)
    one_run = 1 / THEIRS[name].size  # shares are multiples of it, so an end may fall on the next one
    assert found.low == pytest.approx(low, abs=one_run + 1e-9)
    assert found.high == pytest.approx(high, abs=one_run + 1e-9)


Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]


def normal(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return rng.normal(0.0, 1.0, shape)


def falls(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """One run in five falls over; mean 0, deviation 1."""
    return np.where(rng.uniform(size=shape) < 0.2, -2.0, 0.5)


PROMISED = [
    (3, 1, 0.74, 0.49),
    (5, 1, 0.83, 0.69),
    (10, 1, 0.90, 0.90),
    (3, 12, 0.87, 0.84),
    (5, 12, 0.89, 0.94),
]


def coverage(runs: int, tasks: int, trials: int = 300, draw: Draw = normal) -> float:
    """How often the interval of the mean of `draw`n scores holds the true mean."""
    rng = np.random.default_rng(0)
    levels = np.linspace(20, 100, tasks)
    ends = [
        statistics.bootstrap(statistics.mean, levels + 10.0 * draw(rng, (runs, tasks)), seed=trial, reps=400)
        for trial in range(trials)
    ]
    low, high = np.array(ends).T
    return float(np.mean((low <= levels.mean()) & (levels.mean() <= high)))


def test_the_interval_holds_the_truth_nearly_as_often_as_it_says_and_far_less_often_with_three_runs():
    assert 0.89 < coverage(runs=20, tasks=5) < 0.97
    assert 0.84 < coverage(runs=5, tasks=5) < 0.94
    assert 0.65 < coverage(runs=3, tasks=1) < 0.85  # what the report warns of


@pytest.mark.slow
@pytest.mark.parametrize(("runs", "tasks", "of_normal", "of_falls"), PROMISED)
def test_the_promised_coverage_is_what_a_simulation_finds(runs, tasks, of_normal, of_falls):
    """docs/trust.md has this table."""
    found = [coverage(runs, tasks, trials=2000, draw=draw) for draw in (normal, falls)]
    assert found == pytest.approx([of_normal, of_falls], abs=0.02)
