"""What AlgaeDICE, OptiDICE and O-DICE rest on, as claims for the table of `damorl theory`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from damorl.theory import duals
from damorl.theory.claims import OF_Q, Claim, Study
from damorl.theory.duals import Dual
from damorl.theory.families import Problem, occupancies
from damorl.theory.generators import CUBIC_SYMMETRIC, GENERATORS, Generator
from damorl.theory.mdp import Array, occupancy
from damorl.theory.sides import Sides

RATIOS = tuple(generator for generator in GENERATORS.values() if generator is not CUBIC_SYMMETRIC)
"""Those whose ratios are at least 0: the others describe no occupancy."""


class DualSetting(NamedTuple):
    """A batch of problems, one divergence, and the solved duals."""

    problem: Problem
    generator: Generator
    expected: Dual
    sampled: Dual
    """OptiDICE's, both readings."""
    values: Dual
    """O-DICE's."""


def setting(problem: Problem, generator: Generator) -> DualSetting:
    """Solve what several claims need."""
    expected, sampled = (duals.optidice(problem, generator, sampled) for sampled in (False, True))
    return DualSetting(problem, generator, expected, sampled, duals.odice(problem, generator))


def optidice_duality(at: DualSetting) -> Sides:
    """The dual's minimum, and the regularised return of the policy that its ratios give."""
    return Sides(at.expected.upper, at.expected.lower)


def ratio_is_occupancy(at: DualSetting) -> Sides:
    """Ratio times data, and the occupancy of the policy they give, where they differ most."""
    data = np.sum(occupancies(at.problem).offline, axis=-1)
    reached = np.sum(occupancy(at.problem.mdp, at.expected.policy), axis=-1)
    return _worst(at.expected.ratio * data, reached)


def mean_ratio_is_one(at: DualSetting) -> Sides:
    """`E_D[ratio]` without any multiplier, and 1."""
    data = np.sum(occupancies(at.problem).offline, axis=-1)
    mean = np.sum(at.expected.ratio * data, axis=(-2, -1))
    return Sides(mean, np.ones_like(mean))


def sampled_is_expected(at: DualSetting) -> Sides:
    """OptiDICE's minimum with one sampled next state in f*, and with their mean."""
    return Sides(at.sampled.upper, at.expected.upper)


def expected_below_sampled(at: DualSetting) -> Sides:
    """The same, ordered."""
    return Sides(at.expected.upper, at.sampled.upper)


def sampled_is_best_dynamics(at: DualSetting) -> Sides:
    """OptiDICE's sampled minimum, and the regularised return in the dynamics that its ratios give."""
    return Sides(at.sampled.upper, at.sampled.lower)


def algaedice_inner(at: DualSetting) -> Sides:
    """AlgaeDICE's minimum over Q, and the regularised return of its policy."""
    inner = duals.algaedice(at.problem, at.generator)
    return Sides(inner, duals.regularised_return(at.problem, at.generator, at.problem.policy))


def algaedice_sampled(at: DualSetting) -> Sides:
    """AlgaeDICE's minimum with s' and a' sampled in f*, and with their mean."""
    return Sides(duals.algaedice(at.problem, at.generator, sampled=True), duals.algaedice(at.problem, at.generator))


def algaedice_below_optidice(at: DualSetting) -> Sides:
    """AlgaeDICE's minimum for any policy, and OptiDICE's optimum."""
    return Sides(duals.algaedice(at.problem, at.generator), at.expected.upper)


def saddle(at: DualSetting) -> Sides:
    """AlgaeDICE's minimum for OptiDICE's policy, and OptiDICE's optimum."""
    best = at.problem._replace(policy=at.expected.policy)
    return Sides(duals.algaedice(best, at.generator), at.expected.upper)


def odice_duality(at: DualSetting) -> Sides:
    """O-DICE's minimum over V, and the regularised visits from the data's own states in the dynamics of its ratios."""
    return Sides(at.values.upper, at.values.lower)


def semi_gradient_is_minimum(at: DualSetting) -> Sides:
    """V where the semi-gradient (eta = 0) vanishes, and V of the minimum, in the state where they differ most."""
    seen = np.sum(occupancies(at.problem).offline, axis=(-2, -1)) > 0.0
    found = duals.semi_gradient_value(at.problem, at.generator, at.values.x)
    return _worst(np.where(seen, found, 0.0), np.where(seen, at.values.x, 0.0))


def orthogonal_at_minimum(at: DualSetting) -> Sides:
    """O-DICE's direction of descent at the minimum, where largest, and 0."""
    found = duals.orthogonal_gradient(at.problem, at.generator, at.values.x)
    return _worst(found, np.zeros_like(found))


def orthogonal_at_semi_gradient(at: DualSetting) -> Sides:
    """The same where the semi-gradient vanishes."""
    value = duals.semi_gradient_value(at.problem, at.generator, at.values.x)
    found = duals.orthogonal_gradient(at.problem, at.generator, value)
    return _worst(found, np.zeros_like(found))


def _worst(left: Array, right: Array) -> Sides:
    """The two sides in the entry of each problem where they differ most."""
    left, right = (side.reshape(len(side), -1) for side in (left, right))
    index = np.argmax(np.abs(left - right), axis=1)[:, None]
    return Sides(*(np.take_along_axis(side, index, axis=1)[:, 0] for side in (left, right)))


DUAL_CLAIMS: tuple[Claim, ...] = (
    Claim("min over Q = return - w D_f(d^pi, d^D)", "AlgaeDICE", "==", algaedice_inner, generators=RATIOS),
    Claim("the same with s', a' sampled", "AlgaeDICE", "==", algaedice_sampled, generators=RATIOS),
    Claim("a' sampled, deterministic", "AlgaeDICE", "==", algaedice_sampled, generators=RATIOS, deterministic=True),
    Claim("min over Q <= OptiDICE's optimum", "AlgaeDICE", "<=", algaedice_below_optidice, generators=RATIOS),
    Claim("saddle: equal for OptiDICE's policy", "AlgaeDICE", "==", saddle, generators=RATIOS),
    Claim("min over nu = best return - w D_f", "OptiDICE", "==", optidice_duality, generators=RATIOS),
    Claim("ratio x data = its policy's occupancy", "OptiDICE", "==", ratio_is_occupancy, True, RATIOS, OF_Q),
    Claim("mean ratio 1 without a multiplier", "OptiDICE", "==", mean_ratio_is_one, generators=RATIOS),
    Claim("the same minimum with s' sampled", "OptiDICE", "==", sampled_is_expected, generators=RATIOS),
    Claim("the same, deterministic", "OptiDICE", "==", sampled_is_expected, generators=RATIOS, deterministic=True),
    Claim("sampled is no lower", "OptiDICE", "<=", expected_below_sampled, generators=RATIOS),
    Claim("sampled = optimum in best dynamics", "OptiDICE", "==", sampled_is_best_dynamics, generators=RATIOS),
    Claim("min over V = regularised visits", "O-DICE", "==", odice_duality, generators=RATIOS),
    Claim("semi-gradient stands at the minimum", "O-DICE", "==", semi_gradient_is_minimum, True, RATIOS, OF_Q),
    Claim("orthogonal gradient 0 at the minimum", "O-DICE", "==", orthogonal_at_minimum, True, RATIOS, OF_Q),
    Claim("the same where the semi-gradient is", "O-DICE", "==", orthogonal_at_semi_gradient, True, RATIOS, OF_Q),
)

DUALS = Study(DUAL_CLAIMS, setting, RATIOS)
