"""Distances, votes and planes, by hand and against slow references."""

from __future__ import annotations

import numpy as np
import pytest

from damorl.paper.embedding import fit_plane
from damorl.paper.measure import Grouped, fit_support, share, split_groups, two_sample_accuracy


def brute_outside(reference: np.ndarray, unseen: np.ndarray, points: np.ndarray, k: int, quantile: float) -> np.ndarray:
    mean, std = reference.mean(axis=0), reference.std(axis=0)
    standard = lambda x: (x - mean) / std
    pairwise = lambda x: np.linalg.norm(standard(x)[:, None] - standard(reference)[None], axis=-1)
    kth = lambda x: np.sort(pairwise(x), axis=1)[:, k - 1]
    return kth(points) > np.quantile(kth(unseen), quantile)


def test_support_equals_brute_force():
    rng = np.random.default_rng(0)
    scale = np.array([1.0, 30.0, 0.1])
    reference, unseen = (rng.normal(size=(n, 3)) * scale for n in (80, 60))
    points = 1.5 * rng.normal(size=(50, 3)) * scale
    found = fit_support(reference, unseen, neighbour=4, quantile=0.9).outside(points)
    np.testing.assert_array_equal(found, brute_outside(reference, unseen, points, 4, 0.9))
    assert 0.1 < share(found) < 0.9


def test_support_by_hand():
    reference = np.array([[-1.0], [1.0], [-1.0], [1.0]])  # mean 0, deviation 1
    support = fit_support(reference, np.array([[1.5], [1.25]]), neighbour=1, quantile=1.0)
    assert support.radius == pytest.approx(0.5)
    points = np.array([[1.49], [1.51], [0.0], [np.nan], [-1.4]])
    np.testing.assert_array_equal(support.outside(points), [False, True, True, True, False])
    assert share(support.outside(points)) == pytest.approx(0.6)
    assert np.isnan(share(np.array([], bool)))


def test_fresh_episodes_of_the_same_policy_are_outside_as_often_as_the_quantile_says():
    rng = np.random.default_rng(1)
    reference, unseen, fresh = (rng.normal(size=(4000, 2)) for _ in range(3))
    assert share(fit_support(reference, unseen).outside(fresh)) == pytest.approx(0.01, abs=0.006)


def grouped(points: np.ndarray, rows: int) -> Grouped:
    return Grouped(points, np.arange(len(points)) // rows)


def test_equal_samples_cannot_be_told_apart_and_far_ones_always():
    rng = np.random.default_rng(2)
    first, second = (grouped(rng.normal(size=(2000, 3)), 10) for _ in range(2))
    assert two_sample_accuracy(first, second) == pytest.approx(0.5, abs=0.04)
    far = Grouped(second.points + np.array([0.0, 50.0, 0.0]), second.group)
    assert two_sample_accuracy(first, far) == 1.0


def test_rows_of_one_episode_do_not_give_each_other_away():
    rng = np.random.default_rng(3)  # each episode is one tight cluster: only its own rows are near
    clusters = [np.repeat(rng.normal(size=(40, 6)), 50, axis=0) + 1e-3 * rng.normal(size=(2000, 6)) for _ in range(2)]
    by_episode = two_sample_accuracy(grouped(clusters[0], 50), grouped(clusters[1], 50))
    by_row = two_sample_accuracy(grouped(clusters[0], 1), grouped(clusters[1], 1))
    assert by_row > 0.99
    assert by_episode == pytest.approx(0.5, abs=0.2)


def test_halves_share_no_group():
    sample = Grouped(np.arange(12.0)[:, None], np.arange(12) // 3)
    first, second = split_groups(sample, np.random.default_rng(0))
    assert {int(x) // 3 for x in first[:, 0]} & {int(x) // 3 for x in second[:, 0]} == set()
    assert len(first) == len(second) == 6
    alone = Grouped(np.arange(5.0)[:, None], np.zeros(5))
    assert [len(half) for half in split_groups(alone, np.random.default_rng(0))] == [2, 3]


def test_plane_equals_the_singular_vectors():
    rng = np.random.default_rng(4)
    points = rng.normal(size=(200, 5)) @ rng.normal(size=(5, 5)) + 3.0
    plane = fit_plane(points)
    standard = (points - points.mean(axis=0)) / points.std(axis=0)
    _, singular, axes = np.linalg.svd(standard, full_matrices=False)
    np.testing.assert_allclose(np.abs(plane.axes.T @ axes[:2].T), np.eye(2), atol=1e-9)
    assert plane.explained == pytest.approx(np.sum(singular[:2] ** 2) / np.sum(singular**2))
    np.testing.assert_allclose(plane.axes.T @ plane.axes, np.eye(2), atol=1e-12)
    assert (plane.axes[np.argmax(np.abs(plane.axes), axis=0), [0, 1]] > 0).all()


def test_new_points_are_projected_with_the_plane_of_the_old():
    points = np.array([[0.0, 0.0, 1.0], [2.0, 0.0, 1.0], [0.0, 4.0, 1.0], [2.0, 4.0, 1.0]])
    plane = fit_plane(points)  # deviations 1, 2, and a constant feature
    moved = plane.project(np.array([[3.0, 2.0, 5.0]]))
    assert np.linalg.norm(moved) == pytest.approx(2.0)  # (3 - 1) / 1; the constant feature has no part in the plane
