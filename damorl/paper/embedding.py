"""The plane that distributions are drawn in: the two principal axes of the standardised offline data."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from damorl.paper.measure import Scale, fit_scale


class Plane(NamedTuple):
    """Two orthonormal axes `[d, 2]` of standardised points, largest variance first."""

    scale: Scale
    axes: np.ndarray
    explained: float
    """Share of the data's variance that lies in the plane."""

    def project(self, points: np.ndarray) -> np.ndarray:
        """`[N, d]` in the data's units to `[N, 2]`."""
        return self.scale.apply(points) @ self.axes


def fit_plane(points: np.ndarray) -> Plane:
    """The plane of `[N, d]`, d at least 2. Each axis is turned so that its largest entry is positive."""
    scale = fit_scale(points)
    standard = scale.apply(points)
    values, vectors = np.linalg.eigh(standard.T @ standard / len(standard))
    axes = vectors[:, ::-1][:, :2]
    axes = axes * np.sign(axes[np.argmax(np.abs(axes), axis=0), [0, 1]])
    return Plane(scale, axes, float(values[-2:].sum() / values.sum()))
