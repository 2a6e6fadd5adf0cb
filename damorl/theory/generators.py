"""The registered f-divergences once more, in NumPy and float64: what an exact check and a SciPy solver can call.

`damorl.core.divergence` stays the one place where they are described; a test holds both to the same values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import xlogy

from damorl.theory.mdp import Array

Function = Callable[[Array], Array]


@dataclass(frozen=True)
class Generator:
    """One divergence; the functions work elementwise on float64 arrays of any shape."""

    name: str
    f: Function
    f_prime: Function
    """-inf at 0 where the slope is infinite there."""
    f_star: Function
    f_star_prime: Function
    """The ratio that a residual stands for; 0 below the domain."""
    curvature: Function
    """The second derivative of `f_star` for a solver. Of the cubics twice that: their true one makes Newton's step
    leap from small residuals into the flat part, where it is stuck."""
    whole_line: bool = False
    """Whether negative ratios are allowed, so that the conjugate grows for residuals far below zero."""

    @property
    def at_one(self) -> float:
        """`f(1)`: what `E_q[f(p / q)]` says of p = q. A divergence would say 0."""
        return float(self.f(np.ones(())))

    def centred(self, x: Array) -> Array:
        """f less f(1), so that equal distributions are at distance 0."""
        return self.f(x) - self.at_one


def _log(x: Array) -> Array:
    with np.errstate(divide="ignore"):
        return np.log(x)


def _exp(y: Array) -> Array:
    with np.errstate(over="ignore"):
        return np.exp(y)


def _positive(y: Array) -> Array:
    return np.maximum(y, 0.0)


def _inverse_root(y: Array) -> Array:
    """`1 / sqrt(|y|)`, with |y| kept off zero."""
    return 1.0 / np.sqrt(np.maximum(np.abs(y), 1e-16))


def _kl(x: Array) -> Array:
    return xlogy(x, x) - x + 1.0


CUBIC = Generator(
    name="cubic",
    f=lambda x: x**3 / 3.0,
    f_prime=np.square,
    f_star=lambda y: 2.0 / 3.0 * _positive(y) ** 1.5,
    f_star_prime=lambda y: np.sqrt(_positive(y)),
    curvature=lambda y: np.where(y > 0.0, _inverse_root(y), 0.0),
)
CUBIC_SYMMETRIC = Generator(
    name="cubic_symmetric",
    f=lambda x: np.abs(x) ** 3 / 3.0,
    f_prime=lambda x: x * np.abs(x),
    f_star=lambda y: 2.0 / 3.0 * np.abs(y) ** 1.5,
    f_star_prime=lambda y: np.sign(y) * np.sqrt(np.abs(y)),
    curvature=_inverse_root,
    whole_line=True,
)
CHI_SQUARE = Generator(
    name="chi_square",
    f=lambda x: np.square(x - 1.0),
    f_prime=lambda x: 2.0 * (x - 1.0),
    f_star=lambda y: np.maximum(y, -2.0) + 0.25 * np.square(np.maximum(y, -2.0)),
    f_star_prime=lambda y: _positive(0.5 * y + 1.0),
    curvature=lambda y: np.where(y > -2.0, 0.5, 0.0),
)
HALF_CHI_SQUARE = Generator(
    name="half_chi_square",
    f=lambda x: 0.5 * np.square(x - 1.0),
    f_prime=lambda x: x - 1.0,
    f_star=lambda y: np.maximum(y, -1.0) + 0.5 * np.square(np.maximum(y, -1.0)),
    f_star_prime=lambda y: _positive(y + 1.0),
    curvature=lambda y: np.where(y > -1.0, 1.0, 0.0),
)
SOFT_CHI_SQUARE = Generator(
    name="soft_chi_square",
    f=lambda x: np.where(x < 1.0, _kl(x), 0.5 * np.square(x - 1.0)),
    f_prime=lambda x: np.where(x < 1.0, _log(np.minimum(x, 1.0)), x - 1.0),
    f_star=lambda y: np.where(y < 0.0, np.expm1(np.minimum(y, 0.0)), _positive(y) + 0.5 * np.square(_positive(y))),
    f_star_prime=lambda y: np.where(y < 0.0, np.exp(np.minimum(y, 0.0)), y + 1.0),
    curvature=lambda y: np.where(y < 0.0, np.exp(np.minimum(y, 0.0)), 1.0),
)
KL = Generator(
    name="kl",
    f=_kl,
    f_prime=_log,
    f_star=lambda y: _exp(y) - 1.0,
    f_star_prime=_exp,
    curvature=_exp,
)

GENERATORS: dict[str, Generator] = {
    g.name: g for g in (CUBIC_SYMMETRIC, CUBIC, CHI_SQUARE, HALF_CHI_SQUARE, SOFT_CHI_SQUARE, KL)
}
