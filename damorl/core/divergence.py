"""f-divergences as records: the generator f, its derivative, the inverse of that, and the convex conjugate f*.

`D_f(p || q) = E_q[f(p / q)]`, and DAMO needs `f*(y) = sup_x (x y - f(x))` (paper Eq. 2). Two facts are stored with each
and tested: whether f, made tangent to KL's generator at 1, lies above it everywhere (then Thm 5.3's bound holds), and
whether f* is least at zero and only there, which a critic with a frozen target needs (otherwise every update pushes
Q up).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp

from damorl.types import Array

Function = Callable[[Array], Array]
LEAST_WEIGHT = 1e-10
DivergenceName = Literal["cubic_symmetric", "cubic", "chi_square", "half_chi_square", "soft_chi_square", "kl"]


@dataclass(frozen=True)
class Divergence:
    """One f-divergence. All functions work elementwise on arrays of any shape."""

    name: DivergenceName
    f: Function
    """Generator, finite on the domain (x >= 0 unless `whole_line`)."""
    f_prime: Function
    """Derivative of f on the domain."""
    f_prime_inverse: Function
    """The x with f'(x) = y; where no such x is in the domain, its nearest edge. Equals the derivative of `f_star`."""
    f_star: Function
    """Convex conjugate over the domain."""
    dominates_kl: bool
    """Whether f minus its tangent at 1 is at least `x log x - x + 1` for every x >= 0."""
    conjugate_least_at_zero: bool
    """Whether 0 is the one minimum of f*, so that a frozen-target critic may use it."""
    whole_line: bool = False
    """Whether the domain is the whole real line instead of x >= 0."""

    log_f_prime_inverse: Function | None = None
    """Its logarithm where that has a form that neither underflows nor loses its gradient."""

    def weight(self, residual: Array) -> Array:
        """The density ratio that the residual stands for, `max((f')^-1(residual), 0)`: the actor's weight."""
        return jnp.maximum(self.f_prime_inverse(residual), 0.0)

    def log_weight(self, residual: Array) -> Array:
        """The logarithm of `weight`; where the weight reaches 0, that of `LEAST_WEIGHT` (without gradient)."""
        if self.log_f_prime_inverse is not None:
            return self.log_f_prime_inverse(residual)
        return jnp.log(jnp.maximum(self.weight(residual), LEAST_WEIGHT))


def _sqrt(y: Array) -> Array:
    """Square root of the positive part, with derivative 0 (not NaN) where y <= 0."""
    positive = y > 0.0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, y, 1.0)), 0.0)


def _power_1_5(y: Array) -> Array:
    """`max(y, 0)^1.5`, with derivative 0 (not NaN) where y <= 0."""
    return jnp.maximum(y, 0.0) * _sqrt(y)


def _x_log_x(x: Array) -> Array:
    return jnp.where(x > 0.0, x * jnp.log(jnp.where(x > 0.0, x, 1.0)), 0.0)


def _kl(x: Array) -> Array:
    return _x_log_x(x) - x + 1.0


CUBIC = Divergence(
    name="cubic",  # what the paper's C.1 must mean: its printed (x-1)^3/3 is not convex and not the conjugate's mate
    f=lambda x: x**3 / 3.0,
    f_prime=jnp.square,
    f_prime_inverse=_sqrt,
    f_star=lambda y: 2.0 / 3.0 * _power_1_5(y),
    dominates_kl=False,
    conjugate_least_at_zero=False,  # flat for all y <= 0: low residuals are never pulled back
)

CUBIC_SYMMETRIC = Divergence(
    name="cubic_symmetric",  # 2/3 |y|^1.5, the loss that the closest public code (OMPO) trains with
    f=lambda x: jnp.abs(x) ** 3 / 3.0,
    f_prime=lambda x: x * jnp.abs(x),
    f_prime_inverse=lambda y: jnp.sign(y) * _sqrt(jnp.abs(y)),
    f_star=lambda y: 2.0 / 3.0 * _power_1_5(jnp.abs(y)),
    dominates_kl=False,
    conjugate_least_at_zero=True,
    whole_line=True,
)

CHI_SQUARE = Divergence(
    name="chi_square",
    f=lambda x: jnp.square(x - 1.0),
    f_prime=lambda x: 2.0 * (x - 1.0),
    f_prime_inverse=lambda y: jnp.maximum(0.5 * y + 1.0, 0.0),
    f_star=lambda y: jnp.where(y > -2.0, y + 0.25 * jnp.square(y), -1.0),
    dominates_kl=True,
    conjugate_least_at_zero=False,
)

HALF_CHI_SQUARE = Divergence(
    name="half_chi_square",
    f=lambda x: 0.5 * jnp.square(x - 1.0),
    f_prime=lambda x: x - 1.0,
    f_prime_inverse=lambda y: jnp.maximum(y + 1.0, 0.0),
    f_star=lambda y: jnp.where(y > -1.0, y + 0.5 * jnp.square(y), -0.5),
    dominates_kl=False,
    conjugate_least_at_zero=False,
)

SOFT_CHI_SQUARE = Divergence(
    name="soft_chi_square",  # KL below 1, chi-square above: OptiDICE's choice
    f=lambda x: jnp.where(x < 1.0, _kl(x), 0.5 * jnp.square(x - 1.0)),
    f_prime=lambda x: jnp.where(x < 1.0, jnp.log(jnp.minimum(x, 1.0)), x - 1.0),
    f_prime_inverse=lambda y: jnp.where(y < 0.0, jnp.exp(jnp.minimum(y, 0.0)), y + 1.0),
    f_star=lambda y: jnp.where(y < 0.0, jnp.expm1(jnp.minimum(y, 0.0)), y + 0.5 * jnp.square(y)),
    dominates_kl=True,
    conjugate_least_at_zero=False,
    log_f_prime_inverse=lambda y: jnp.where(y < 0.0, y, jnp.log1p(jnp.maximum(y, 0.0))),
)

KL = Divergence(
    name="kl",
    f=_kl,
    f_prime=jnp.log,
    f_prime_inverse=jnp.exp,
    f_star=jnp.expm1,
    dominates_kl=True,
    conjugate_least_at_zero=False,
    log_f_prime_inverse=lambda y: y,
)

DIVERGENCES: dict[str, Divergence] = {
    d.name: d for d in (CUBIC_SYMMETRIC, CUBIC, CHI_SQUARE, HALF_CHI_SQUARE, SOFT_CHI_SQUARE, KL)
}
