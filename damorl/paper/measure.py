"""How far points lie from the offline data, and how well two samples can be told apart. All on plain arrays.

Features are standardised by the data's own means and deviations first, so that no unit counts more than another.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.spatial import KDTree

NEIGHBOUR = 5
"""k: a point's distance to the data is that to its k-th nearest neighbour; also the votes of `two_sample_accuracy`."""
QUANTILE = 0.99
"""A point is outside the support if it is farther away than this share of rows of unseen episodes of the data."""


class Scale(NamedTuple):
    """What standardises points `[N, d]`."""

    mean: np.ndarray
    std: np.ndarray
    """1 where a feature is constant."""

    def apply(self, points: np.ndarray) -> np.ndarray:
        """Zero mean and unit deviation on the data that it was fitted to."""
        return (np.asarray(points, np.float64) - self.mean) / self.std


def fit_scale(points: np.ndarray) -> Scale:
    """Mean and deviation of each feature of `[N, d]`."""
    points = np.asarray(points, np.float64)
    std = points.std(axis=0)
    return Scale(points.mean(axis=0), np.where(std < 1e-6, 1.0, std))


def neighbour_distance(tree: KDTree, points: np.ndarray, neighbour: int = NEIGHBOUR) -> np.ndarray:
    """Distance of each point `[N, d]` to its `neighbour`-th nearest in the tree, `[N]`."""
    distance, _ = tree.query(points, k=neighbour)
    return np.reshape(distance, (len(points), neighbour))[:, -1]


class Support(NamedTuple):
    """The region that the data cover."""

    tree: KDTree
    scale: Scale
    radius: float
    """Largest distance of a point inside."""
    neighbour: int

    def outside(self, points: np.ndarray) -> np.ndarray:
        """Which of `[N, d]`, in the data's units, lie outside: `[N]` bool. What is not finite does."""
        points = self.scale.apply(points)
        finite = np.isfinite(points).all(axis=1)
        beyond = np.ones(len(points), bool)
        beyond[finite] = neighbour_distance(self.tree, points[finite], self.neighbour) > self.radius
        return beyond


def fit_support(
    reference: np.ndarray, unseen: np.ndarray, neighbour: int = NEIGHBOUR, quantile: float = QUANTILE
) -> Support:
    """The support of `reference` `[N, d]`; its radius is the `quantile` of the distances of `unseen` `[M, d]`.

    `unseen` must come from other episodes than `reference`: rows of one episode are neighbours of each other, and a
    radius taken from them would call fresh episodes of the same policy outside.
    """
    scale = fit_scale(reference)
    tree = KDTree(scale.apply(reference))
    distance = neighbour_distance(tree, scale.apply(unseen), neighbour)
    return Support(tree, scale, float(np.quantile(distance, quantile)), neighbour)


def share(flags: np.ndarray) -> float:
    """The share of true entries; NaN of none."""
    return float(np.mean(flags)) if len(flags) else float("nan")


class Grouped(NamedTuple):
    """Points `[N, d]` with the episode or rollout that each belongs to, `[N]`."""

    points: np.ndarray
    group: np.ndarray


def split_groups(sample: Grouped, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The points of a random half of the groups, and the others'. With one group, its first and its second half."""
    groups = rng.permutation(np.unique(sample.group))
    if len(groups) < 2:
        half = len(sample.points) // 2
        return sample.points[:half], sample.points[half:]
    first = np.isin(sample.group, groups[: len(groups) // 2])
    return sample.points[first], sample.points[~first]


def two_sample_accuracy(first: Grouped, second: Grouped, seed: int = 0, neighbour: int = NEIGHBOUR) -> float:
    """How often a nearest-neighbour vote tells which of two samples an unseen point is from: 0.5 by chance, at best 1.

    Half of each sample's groups vote, the others are judged, in equal numbers from both: rows of one episode never
    stand on both sides, or they would give each other away. Features are standardised on the voters.
    """
    rng = np.random.default_rng(seed)
    halves = [split_groups(sample, rng) for sample in (first, second)]
    voters, judged = (balanced([half[side] for half in halves], rng) for side in (0, 1))
    scale = fit_scale(np.concatenate(voters))
    tree = KDTree(scale.apply(np.concatenate(voters)))
    _, found = tree.query(scale.apply(np.concatenate(judged)), k=neighbour)
    votes = np.mean(np.reshape(found, (-1, neighbour)) >= len(voters[0]), axis=1) > 0.5
    return float(np.mean(votes == (np.arange(len(votes)) >= len(judged[0]))))


def balanced(samples: list[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """As many random rows of each as the smallest has."""
    count = min(map(len, samples))
    return [sample[rng.permutation(len(sample))[:count]] for sample in samples]
