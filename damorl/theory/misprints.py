"""The paper's misprints, each with numbers that show it: `misprints()` computes them all in well under a second."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar

from damorl.theory.families import Problem, occupancies
from damorl.theory.generators import CHI_SQUARE, CUBIC, HALF_CHI_SQUARE, KL, Generator
from damorl.theory.inner import expectation, log_ratio, solve_inner, surrogate
from damorl.theory.mdp import MDP, Array, divergence
from damorl.theory.printed import printed_table
from damorl.theory.sides import root

RATIOS = np.concatenate([np.geomspace(1e-9, 1.0, 4000), np.geomspace(1.0, 100.0, 2000)])


class Misprint(NamedTuple):
    """One misprint and its evidence."""

    where: str
    printed: str
    meant: str
    numbers: dict[str, float]
    """What was computed."""
    shown: bool
    """Whether the numbers bear it out."""


def lonely_state(reward: float, weight: float) -> Problem:
    """One state, one action, discount 1/2: all occupancies are equal, so Eq. 1 is the reward (less `weight f(1)`)."""
    one = np.ones((1, 1, 1, 1))
    mdp = MDP(one, reward * one, np.ones((1, 1)), np.array([0.5]))
    return Problem(mdp, one, np.ones((1, 1, 1)), np.ones((1, 1, 1)), np.array([weight]))


def coin(model_heads: float, behaviour_left: float = 0.5) -> Problem:
    """Start, then heads or tails for ever, fair in truth. Two actions that do the same; weight 1, gamma 1/2."""
    absorbing = np.broadcast_to(np.eye(3)[:, None, :], (3, 2, 3))
    truth, model = absorbing.copy(), absorbing.copy()
    truth[0], model[0] = (0.0, 0.5, 0.5), (0.0, model_heads, 1.0 - model_heads)
    policy = np.full((1, 3, 2), 0.5)
    behaviour = np.broadcast_to([behaviour_left, 1.0 - behaviour_left], (1, 3, 2))
    mdp = MDP(truth[None], np.full((1, 3, 2, 3), 0.5), np.eye(3)[:1], np.array([0.5]))
    return Problem(mdp, model[None], policy, behaviour, np.ones(1))


def log_reward() -> Misprint:
    """Thm 5.1: with `log r` in Phi the minimum is not the surrogate even where everything else is equal."""
    problem = lonely_state(0.5, 1.0)
    printed = problem._replace(mdp=problem.mdp._replace(reward=np.log(problem.mdp.reward)))
    numbers = {
        "surrogate": float(surrogate(problem, CHI_SQUARE, occupancies(problem))[0]),
        "minimum with r": float(solve_inner(problem, CHI_SQUARE).upper[0]),
        "minimum with log r": float(solve_inner(printed, CHI_SQUARE).upper[0]),
    }
    surrogate_, meant, wrong = numbers.values()
    shown = abs(meant - surrogate_) < 1e-9 and abs(wrong - surrogate_) > 1.0
    return Misprint("Thm 5.1", "Phi contains log r", "r, as in A.6 and A.7", numbers, shown)


def classifier_loss() -> Misprint:
    """Eq. 3: the printed loss falls without end as h -> 0; its one stationary point is a maximum, with logit -l."""

    def printed(logit: float) -> float:  # one transition, with density 0.2 in the data and 0.8 in the model
        return -0.2 * np.logaddexp(0.0, -logit) - 0.8 * np.logaddexp(0.0, logit)

    numbers = {f"loss at logit {z:g}": float(printed(z)) for z in (-1000.0, -10.0, 10.0, 1000.0)}
    peak: Any = minimize_scalar(lambda z: -printed(z), bounds=(-20.0, 20.0), method="bounded", options={"xatol": 1e-9})
    numbers |= {"logit at its maximum": float(peak.x), "log-ratio": float(np.log(0.8 / 0.2))}
    shown = numbers["loss at logit -1000"] < -199.0 and abs(peak.x + np.log(4.0)) < 1e-6
    meant = "binary cross-entropy with label 1 = model-generated, which makes Eq. 4 true"
    return Misprint("Eq. 3", "min_h E_R log h + E_M log(1 - h)", meant, numbers, shown)


def denominator() -> Misprint:
    """Thm 5.2 and others: with rho_T^pi below, the data-alignment term does not know the data."""

    def terms(behaviour_left: float) -> tuple[float, float]:
        occ = occupancies(coin(0.8, behaviour_left))
        meant = expectation(occ.real, log_ratio(occ))[0]
        return float(meant), float(expectation(occ.real, log_ratio(occ._replace(offline=occ.real)))[0])

    (meant, printed), (meant_other, printed_other) = terms(0.5), terms(0.1)
    numbers = {
        "printed term, behaviour 50:50": printed,
        "printed term, behaviour 10:90": printed_other,
        "meant term, behaviour 50:50": meant,
        "meant term, behaviour 10:90": meant_other,
    }
    shown = printed == printed_other and meant_other - meant > 0.1
    where = "Thm 5.2, 5.3, A.5-A.7, Alg. 1 line 7"
    return Misprint(where, "log rho_M^pi / rho_T^pi", "the denominator is rho_T of the behaviour", numbers, shown)


def numerator() -> Misprint:
    """A.1: with rho_T^pi above, the bound says only that D_f is not negative."""
    occ = occupancies(coin(0.8, 0.1))
    left = divergence(KL.f, occ.real, occ.offline)[0]
    d_f = divergence(CHI_SQUARE.f, occ.real, occ.synthetic)[0]
    numbers = {
        "KL": float(left),
        "printed bound": float(expectation(occ.real, np.log(_ratio(occ.real, occ.offline)))[0] + d_f),
        "meant bound": float(expectation(occ.real, log_ratio(occ))[0] + d_f),
    }
    shown = abs(numbers["printed bound"] - left - d_f) < 1e-12 and left < numbers["meant bound"] < left + d_f - 1e-3
    where, printed = "A.1, statement and first line of the proof", "E[log rho_T^pi / rho_T^beta] + D_f"
    return Misprint(where, printed, "rho_M^pi above, as in the proof's last line", numbers, shown)


def missing_weight() -> Misprint:
    """Eq. 6: without the weight before f*, the minimum is another one."""
    problem = lonely_state(0.5, 2.0)

    def value(q: float, factor: float) -> float:
        return 0.5 * q + factor * float(CHI_SQUARE.f_star(np.array((0.5 - 0.5 * q) / 2.0)))

    found: list[Any] = [minimize_scalar(value, args=(factor,)) for factor in (2.0, 1.0)]
    meant, printed = (float(least.fun) for least in found)
    target = float(surrogate(problem, CHI_SQUARE, occupancies(problem))[0])
    numbers = {"surrogate": target, "minimum of Eq. 2": meant, "minimum of Eq. 6": printed}
    shown = abs(meant - target) < 1e-9 and abs(printed - target) > 0.9
    return Misprint("A.6, Eq. 6", "E f*(Phi / alpha)", "alpha E f*(Phi / alpha), as in Eq. 2", numbers, shown)


def conjugate_pair() -> Misprint:
    """C.1: the printed f is not convex below 1, and even on x >= 1 its conjugate is another function."""
    x = np.linspace(1.0, 8.0, 70_001)
    f = (x - 1.0) ** 3 / 3.0
    numbers = {
        "conjugate at 2, f on x >= 1": float(np.max(2.0 * x - f)),
        "printed conjugate at 2": 2.0 / 3.0,
        "f(1/2)": (0.5 - 1.0) ** 3 / 3.0,
        "its chord from 0 to 1": 0.5 * (-1.0 / 3.0),
        "conjugate of x^3/3 at 2": float(np.max(2.0 * np.linspace(0, 8, 80_001) - np.linspace(0, 8, 80_001) ** 3 / 3)),
        "2/3 * 2^1.5": float(CUBIC.f_star(np.array(2.0))),
    }
    true, printed, middle, chord, usable, stored = numbers.values()
    shown = true - printed > 1.0 and middle > chord and abs(usable - stored) < 1e-6
    meant = "f = x^3/3 on x >= 0 with f*(y) = 2/3 max(y, 0)^1.5"
    return Misprint("C.1", "f = (x-1)^3/3 with f* = 2/3 (x-1)^1.5", meant, numbers, shown)


def exceeds_kl() -> Misprint:
    """C.1: which generators lie above KL's, once made tangent to it at 1, and what f(1) = 1/3 does for x^3/3."""

    def gap(generator: Generator, x: Array) -> Array:
        one = np.ones(())
        return generator.f(x) - generator.f(one) - generator.f_prime(one) * (x - 1.0) - KL.f(x)

    crossing = root(lambda x: gap(CUBIC, x), (), 1e-6, 0.5)
    numbers = {
        "x^3/3 less KL, least": float(np.min(gap(CUBIC, RATIOS))),
        "x^3/3 is below KL up to x =": float(crossing),
        "(x-1)^2/2 less KL, least": float(np.min(gap(HALF_CHI_SQUARE, RATIOS))),
        "(x-1)^2 less KL, least": float(np.min(gap(CHI_SQUARE, RATIOS))),
        "x^3/3 less x log x, least": float(np.min(CUBIC.f(RATIOS) - RATIOS * np.log(RATIOS))),
    }
    cubic, crossing_, half, chi, raw = numbers.values()
    shown = cubic < -0.3 and abs(crossing_ - 0.2145) < 1e-3 and half < -0.4 and chi >= -1e-12 and raw > 0.0
    meant = "guaranteed for (x-1)^2; for x^3/3 only because it says 1/3 of equal distributions"
    return Misprint("C.1", "f must exceed KL, so f = (x-1)^3/3", meant, numbers, shown)


def averages() -> Misprint:
    """Table 2: the printed averages against those of the printed rows."""
    table = printed_table(2)
    rows = np.array([[np.nan if x is None else x for x in row] for row in table["rows"].values()])
    numbers = {}
    for method, mean, printed in zip(table["methods"], np.mean(rows, axis=0), table["printed_average"], strict=True):
        if printed is not None:
            numbers |= {f"{method} printed": printed, f"{method} rows": float(mean)}
    wrong = [numbers[f"{m} printed"] - numbers[f"{m} rows"] for m in ("DAMO", "MOBILE", "MOPO", "COMBO", "TT", "RAMBO")]
    return Misprint("Table 2", "averages", "the means of the rows", numbers, min(map(abs, wrong)) > 0.25)


def nine_tasks() -> Misprint:
    """Table 2: means without the random sets, and MOBILE as its own authors report it."""
    table = printed_table(2)
    rows = np.array([row for name, row in table["rows"].items() if "random" not in name], np.float64)
    numbers = {f"{method}, nine tasks": float(x) for method, x in zip(table["methods"], rows.mean(0), strict=True)}
    elsewhere = table["mobile_elsewhere"]
    numbers |= {"MOBILE elsewhere, nine": elsewhere["nine"], "MOBILE elsewhere, twelve": elsewhere["twelve"]}
    shown = numbers["MOBILE elsewhere, nine"] - numbers["MOBILE, nine tasks"] > 5.0
    return Misprint("Table 2", "MOBILE retrained: 72.2", "its own authors report more; print both", numbers, shown)


CHECKS: tuple[Callable[[], Misprint], ...] = (
    log_reward,
    classifier_loss,
    denominator,
    numerator,
    missing_weight,
    conjugate_pair,
    exceeds_kl,
    averages,
    nine_tasks,
)


def misprints() -> list[Misprint]:
    """All of them, computed."""
    return [check() for check in CHECKS]


def _ratio(p: Array, q: Array) -> Array:
    return np.where(q > 0.0, p, 1.0) / np.where(q > 0.0, q, 1.0)
