"""What a policy is worth by a ratio of occupancies (the DICE family), in closed form for linear features.

The value is `E_d[w(s, a) r] / (1 - gamma)` with `w = d_pi / d`, the policy's discounted occupancy over the data's
distribution d. The ratio is what balances the flow for every test function nu:

    (1 - gamma) E_{s0, a0 ~ pi}[nu(s0, a0)] + E_d[w (gamma (1 - terminal) nu(s', a') - nu(s, a))] = 0,   a' ~ pi(s')

DualDICE (Nachum et al., NeurIPS 2019, arXiv 1906.04733) and its kin look for the saddle point in w and nu by gradient
steps on two networks; Yang et al. (NeurIPS 2020, arXiv 2007.03438) show that all of them are the Lagrangian of one
linear program with different regularisers. Here both are linear in the same features phi. The saddle point is then the
solution of a linear system: no step size, no networks that chase each other, nothing left to tune but the features and
one strength. With F(nu) for the left side above, it is

    min_w max_nu  2 F(nu) - E_d[nu^2] + strength E_d[(w - 1)^2],

the most that any test function of size 1 finds out of balance, squared, beside the ratio's distance from 1. With
strength 0 this is the linear case of minimax weight learning (Uehara, Huang & Jiang, ICML 2020, arXiv 1910.12809): if
the features tell all pairs apart, the ratio is exact. The strength draws w to 1, the data's own average, where the
balance says little. No density of the behaviour is needed. Nothing keeps w positive.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from damorl.core.scaler import Standardiser, fit_standardiser
from damorl.types import Array, Key

Floats = np.ndarray
"""float64."""

NEGLIGIBLE = 1e-5
"""Directions of the features whose second moment is a smaller share of the largest are left out: float32 sums do not
know them, and features may depend on each other."""
PAIRS = 1000
"""Of the data, whose median distance is the features' width."""


class Moments(NamedTuple):
    """Sums over groups of the data, `[*G, ...]` in float64, k features each; groups may be added up."""

    rows: Floats
    """`[*G]`: how many."""
    starts: Floats
    """`[*G]`: how many first states."""
    first: Floats
    """`[*G, k]`: of phi in the first states, with the policy's actions."""
    here: Floats
    """`[*G, k]`: of phi."""
    square: Floats
    """`[*G, k, k]`: of `phi phi^T`."""
    onward: Floats
    """`[*G, k, k]`: of `(1 - terminal) phi' phi^T`."""
    reward: Floats
    """`[*G, k]`: of `r phi`."""


class Fourier(NamedTuple):
    """Random cosine features of pairs: `sqrt(2 / k) cos(z W + b)` of standardised states and actions, and a 1."""

    inputs: Standardiser
    """Of state and action, `[obs_dim + action_dim]`."""
    weight: Array
    """`[obs_dim + action_dim, k - 1]`."""
    phase: Array
    """`[k - 1]`."""


def fit_fourier(key: Key, pairs: Array, num_features: int) -> Fourier:
    """Features that stand for a Gaussian kernel as wide as the median distance between `pairs` `[N, d]` (Rahimi &
    Recht, NeurIPS 2007)."""
    inputs = fit_standardiser(pairs)
    weight_key, phase_key, pick_key = jax.random.split(key, 3)
    some = inputs.apply(pairs[jax.random.choice(pick_key, len(pairs), (min(PAIRS, len(pairs)),), replace=False)])
    distance = jnp.sqrt(jnp.sum(jnp.square(some[: len(some) // 2] - some[-(len(some) // 2) :]), axis=-1))
    width = jnp.maximum(jnp.median(distance), 1e-6)
    weight = jax.random.normal(weight_key, (pairs.shape[1], num_features - 1)) / width
    return Fourier(inputs, weight, jax.random.uniform(phase_key, (num_features - 1,), maxval=2.0 * jnp.pi))


def fourier(features: Fourier, pairs: Array) -> Array:
    """`[N, d] -> [N, k]`."""
    waves = jnp.cos(features.inputs.apply(pairs) @ features.weight + features.phase)
    return jnp.concatenate([waves * (2.0 / features.weight.shape[1]) ** 0.5, jnp.ones((len(pairs), 1))], axis=1)


def solve(moments: Moments, gamma: float, strength: float) -> tuple[float, Floats]:
    """The value, and the coefficients `[k]` of the ratio `w = phi . coefficients`; the moments are of one group.

    NaN and NaNs where the moments are not finite.
    """
    count = moments.rows
    if not all(np.isfinite(leaf).all() for leaf in moments):
        return float("nan"), np.full(moments.here.shape[-1], np.nan)
    sizes, directions = np.linalg.eigh(moments.square / count)
    whiten = (directions / np.sqrt(np.maximum(sizes, 1e-300))).T[sizes > NEGLIGIBLE * sizes[-1]]  # phi: orthonormal
    flow = whiten @ ((moments.square - gamma * moments.onward) / count) @ whiten.T
    source = (1.0 - gamma) * whiten @ (moments.first / moments.starts)
    mean = whiten @ (moments.here / count)
    found = np.linalg.solve(flow.T @ flow + strength * np.eye(len(mean)), flow.T @ source + strength * mean)
    coefficients = whiten.T @ found
    return float(coefficients @ moments.reward / count / (1.0 - gamma)), coefficients


def effective_share(moments: Moments, coefficients: Floats) -> float:
    """`E_d[w]^2 / E_d[w^2]`: the share of the data's rows that the ratio amounts to."""
    mean = coefficients @ moments.here / moments.rows
    return float(mean**2 / (coefficients @ (moments.square / moments.rows) @ coefficients))


def added(moments: Moments, counts: Floats) -> Moments:
    """The moments of one resample, in which group g is `counts[g]` times."""
    return Moments(*(np.tensordot(counts, leaf, axes=1) for leaf in moments))
