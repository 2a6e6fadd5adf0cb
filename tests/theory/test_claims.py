"""Every claim on problems solved by hand; and wrong formulas, the misprints among them, are found out."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize

from damorl.errors import UserError
from damorl.theory import sides
from damorl.theory.claims import CLAIMS, Claim, check, rounded, setting, violation
from damorl.theory.families import Problem, occupancies, pick, random_problems
from damorl.theory.generators import CHI_SQUARE, CUBIC, CUBIC_SYMMETRIC, GENERATORS, HALF_CHI_SQUARE, KL, Generator
from damorl.theory.inner import dual_objective, log_ratio, regularised, residual, solve_inner, surrogate
from damorl.theory.mdp import MDP, Array, occupancy
from damorl.theory.sides import Setting, Sides
from damorl.theory.table import table_lines

ALL = pytest.mark.parametrize("generator", GENERATORS.values(), ids=GENERATORS)


def coin(weight: float, gamma: float, model_heads: float = 0.5) -> Problem:
    """Start, then heads (1 for the toss) or tails (0.0) for ever; fair in truth; one action, so pi is the behaviour."""
    truth = np.zeros((1, 3, 1, 3))
    truth[0, 1, 0, 1] = truth[0, 2, 0, 2] = 1.0
    model = truth.copy()
    truth[0, 0, 0, 1:], model[0, 0, 0, 1:] = 0.5, (model_heads, 1.0 - model_heads)
    reward = np.zeros((1, 3, 1, 3))
    reward[0, 0, 0, 1] = 1.0
    one = np.ones((1, 3, 1))
    return Problem(MDP(truth, reward, np.eye(3)[:1], np.array([gamma])), model, one, one, np.array([weight]))


def on(problem: Problem, claim: str, generator: Generator) -> tuple[float, float]:
    found = getattr(sides, claim)(setting(problem, generator))
    return float(found.left[0]), float(found.right[0])


def test_surrogate_by_hand():
    """Ratios 0.5 / 0.8 and 0.5 / 0.2 on the toss and after it: the log-ratio's mean is -KL(T || M)."""
    problem = coin(2.0, 0.6, model_heads=0.8)
    kl = 0.5 * np.log(0.5 / 0.8) + 0.5 * np.log(0.5 / 0.2)
    chi = 0.8 * (0.625 - 1) ** 2 + 0.2 * (2.5 - 1) ** 2
    expected = 0.4 * 0.5 + 2.0 * kl - 2.0 * chi
    assert surrogate(problem, CHI_SQUARE, occupancies(problem))[0] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("weight", "gamma"), [(1.0, 0.5), (0.3, 0.2), (3.0, 0.99)])
def test_theorem_5_1_fails_on_a_fair_coin_with_a_perfect_model(weight, gamma):
    """Eq. 2 may choose the odds p of heads: (1-g) p - w (2p-1)^2 is (1-g)/2 + (1-g)^2 / (16 w) at its best."""
    left, right = on(coin(weight, gamma), "maximin_is_surrogate", CHI_SQUARE)
    assert right == pytest.approx((1 - gamma) / 2, abs=1e-12)
    assert left == pytest.approx((1 - gamma) / 2 + (1 - gamma) ** 2 / (16 * weight), abs=1e-12)
    solution = solve_inner(coin(weight, gamma), CHI_SQUARE)
    assert solution.dynamics[0, 0, 0, 1] == pytest.approx(0.5 + (1 - gamma) / (8 * weight), abs=1e-9)
    np.testing.assert_allclose(solution.lower, solution.upper, atol=1e-12)


def test_eq_2_promises_more_than_the_true_return():
    """g = 0.2, w = 0.2: 0.4 + 0.64 / 3.2 = 0.6 against J = 0.4 / 0.8."""
    left, right = on(coin(0.2, 0.2), "maximin_below_return", CHI_SQUARE)
    assert (left, right) == (pytest.approx(0.6, abs=1e-12), pytest.approx(0.5))
    left, right = on(coin(0.2, 0.2), "maximin_below_reward", CHI_SQUARE)
    assert (left, right) == (pytest.approx(0.6, abs=1e-12), pytest.approx(0.4))


def test_condition_on_q_fails_as_printed_and_holds_corrected():
    left, right = on(coin(1.0, 0.5), "optimality_printed", CHI_SQUARE)
    assert abs(left - right) == pytest.approx(0.25, abs=1e-9)  # f' = 2 (2p - 1), p = 1/2 + 1/16
    left, right = on(coin(1.0, 0.5), "optimality_corrected", CHI_SQUARE)
    assert left == pytest.approx(right, abs=1e-9)


def test_upper_bound_by_hand():
    """The model thinks tails rare: KL holds with equality, half chi-square fails where ratios are below 1."""
    kl = 0.5 * np.log(0.5 / 0.8) + 0.5 * np.log(0.5 / 0.2)
    for generator, distance in ((KL, kl), (HALF_CHI_SQUARE, 0.5 * 0.5625), (CHI_SQUARE, 0.5625)):
        left, right = on(coin(1.0, 0.5, 0.8), "upper_bound", generator)
        assert left == pytest.approx(0.0, abs=1e-12)
        assert right == pytest.approx(distance - kl, abs=1e-12)
    sparse = coin(1.0, 0.5, 0.5)
    sparse.mdp.transition[0, 0, 0] = (0.0, 1.0, 0.0)  # heads for sure; the model still thinks it fair: ratios 2 and 0
    left, right = on(sparse, "upper_bound", HALF_CHI_SQUARE)
    assert right - left == pytest.approx(0.5 - np.log(2.0))  # below 0
    left, right = on(sparse, "upper_bound", CUBIC)
    assert right - left == pytest.approx(4.0 / 3.0 - np.log(2.0))


def test_cubic_owes_its_bound_to_the_third_it_says_of_equal_distributions():
    """One in ten of the model's transitions never happens: 1/3 (1/0.81 - 1) < log(1/0.9)."""
    problem = coin(1.0, 0.5, 0.9)
    problem.mdp.transition[0, 0, 0] = (0.0, 1.0, 0.0)
    left, right = on(problem, "upper_bound_centred", CUBIC)
    assert right - left == pytest.approx((1 / 0.81 - 1) / 3 - np.log(1 / 0.9), abs=1e-12)
    assert right < left
    left, right = on(problem, "surrogate_centred_below_reward", CUBIC)
    assert left > right
    left, right = on(problem, "surrogate_below_reward", CUBIC)
    assert left < right


@ALL
def test_conjugates_and_free_minimum_by_hand(generator):
    problem = coin(1.5, 0.5, 0.8)
    chi = {"chi_square": 0.5625, "half_chi_square": 0.28125, "cubic": (0.8 * 0.625**3 + 0.2 * 2.5**3) / 3}
    left, right = on(problem, "biconjugate", generator)
    assert left == pytest.approx(right, abs=1e-12)
    assert left == pytest.approx(chi.get(generator.name, left), abs=1e-12)
    left, right = on(problem, "conjugate", generator)
    assert left == pytest.approx(right, abs=1e-12)
    left, right = on(problem, "free_maximin", generator)
    assert left == pytest.approx(right, abs=1e-12)


def other_solvers(one: Problem, generator: Generator) -> tuple[float, float]:
    """The inner minimum by Nelder-Mead, which knows no derivatives; its dual by SLSQP over the dynamics themselves."""
    occ = occupancies(one)

    def primal(x: Array) -> float:
        return float(dual_objective(one, generator, occ, x.reshape(1, 2, 1))[0])

    def dual(x: Array) -> float:
        dynamics = np.stack([x, 1.0 - x], axis=-1)[None, :, None, :]
        return -float(regularised(one, generator, occ, occupancy(one.mdp, one.policy, dynamics))[0])

    options = {"xatol": 1e-10, "fatol": 1e-13, "maxiter": 4000, "maxfev": 4000}
    least: Any = minimize(primal, np.zeros(2), method="Nelder-Mead", options=options)
    best: Any = minimize(dual, np.full(2, 0.5), method="SLSQP", bounds=[(1e-9, 1 - 1e-9)] * 2, options={"ftol": 1e-14})
    return float(least.fun), -float(best.fun)


@ALL
def test_the_solver_agrees_with_other_ones(generator):
    problem = random_problems(np.random.default_rng(5), "dense", "far", (2, 1), 3)._replace(weight=np.ones(3))
    solution = solve_inner(problem, generator)
    for i in range(3):
        primal, dual = other_solvers(pick(problem, slice(i, i + 1)), generator)
        assert solution.upper[i] == pytest.approx(primal, abs=1e-8)
        if not generator.whole_line:
            assert solution.lower[i] == pytest.approx(dual, abs=1e-6)


def test_a_conjugate_that_grows_on_both_sides_forbids_models_that_leave_the_data():
    problem = coin(1.0, 0.5, 0.9)
    problem.mdp.transition[0, 0, 0] = (0.0, 1.0, 0.0)
    assert solve_inner(problem, CUBIC_SYMMETRIC).upper[0] == np.inf
    assert np.isfinite(solve_inner(problem, CUBIC).upper[0])


def test_classifier_by_hand():
    at = setting(coin(1.0, 0.5, 0.8), KL)
    left, right = sides.classifier_optimum(at)
    assert left[0] == pytest.approx(right[0], abs=1e-12)
    assert np.max(np.abs(log_ratio(at.occ))) == pytest.approx(np.log(0.5 / 0.2))
    left, right = sides.printed_classifier_loss(at)
    assert right[0] == pytest.approx(-1000.0)  # of data with mass 1, at logit -1000
    assert left[0] > right[0]


def test_fixed_actor_weight_by_hand():
    """2/3 y^1.5 is homogeneous: at weight 4 the residual term of the actor is twice that of Eq. 2."""
    at = setting(coin(4.0, 0.5), CUBIC)
    phi = residual(at.problem, at.occ, at.solution.q)
    free = 4.0 * np.sum(at.occ.synthetic * CUBIC.f_star(phi / 4.0))
    left, right = sides.fixed_weight_scales(at)
    assert left[0] == pytest.approx(2.0 * free)
    assert right[0] == pytest.approx(2.0 * free)
    at = setting(coin(4.0, 0.5), CHI_SQUARE)
    assert not np.allclose(*sides.fixed_weight_scales(at))


def test_actor_gradient_is_the_derivative():
    problem = random_problems(np.random.default_rng(6), "dense", "close", (2, 2), 1)
    at = setting(problem, CHI_SQUARE)
    gradient = sides.actor_gradient(at, problem.weight)[0]

    def objective(logits: Array) -> float:  # rollouts and log-ratio held
        policy = np.exp(logits) / np.sum(np.exp(logits), axis=-1, keepdims=True)
        return float(dual_objective(problem._replace(policy=policy[None]), CHI_SQUARE, at.occ, at.solution.q)[0])

    logits = np.log(problem.policy[0])
    for index in np.ndindex(2, 2):
        step = np.zeros((2, 2))
        step[index] = 1e-6
        slope = (objective(logits + step) - objective(logits - step)) / 2e-6
        assert gradient[index] == pytest.approx(slope, abs=1e-8)


def test_violation_measures_both_relations():
    equal, below = Claim("", "", "==", sides.conjugate), Claim("", "", "<=", sides.conjugate)
    found = Sides(np.array([1.0, 4.0, np.inf, np.inf, np.nan]), np.array([2.0, 2.0, np.inf, 0.0, 0.0]))
    np.testing.assert_array_equal(violation(equal, found), [0.5, 0.5, 0.0, np.inf, np.inf])
    np.testing.assert_array_equal(violation(below, found), [0.0, 0.5, 0.0, np.inf, np.inf])


@pytest.fixture(scope="module")
def rows():
    return check(cases=60, seed=0, progress=False)


def test_verdicts_on_random_problems(rows):
    """What must hold does, for every divergence; what must fail does for some case, and the case is written out."""
    must_hold = {
        claim.name
        for claim in CLAIMS
        if claim.sides.__name__
        in {
            "conjugate",
            "biconjugate",
            "free_maximin",
            "surrogate_below_maximin",
            "maximin_is_best_dynamics",
            "optimality_corrected",
            "classifier_optimum",
        }
    } | {"the same, model deterministic"}
    for row in rows:
        assert row.holds or row.claim not in must_hold, row
        assert row.cases >= 60
        assert (row.example is None) == row.holds == (row.violations == 0)
    verdict = {(row.claim, row.divergence): row.holds for row in rows}
    assert not any(holds for (claim, _), holds in verdict.items() if claim == "surrogate = min over Q(s,a)")
    assert [d for (claim, d), holds in verdict.items() if claim == "KL <= E[log-ratio] + D_f" and not holds] == [
        "half_chi_square"
    ]


def test_counter_examples_can_be_typed_in_again(rows):
    row = next(row for row in rows if row.claim == "surrogate = min over Q(s,a)" and row.divergence == "chi_square")
    e = row.example
    mdp = MDP(*(np.array([e[name]]) for name in ("T[s][a][s']", "r[s][a][s']", "start[s]", "gamma")))
    rest = (np.array([e[name]]) for name in ("M[s][a][s']", "policy[s][a]", "behaviour[s][a]", "weight"))
    left, right = on(Problem(mdp, *rest), "maximin_is_surrogate", CHI_SQUARE)
    assert (left, right) == (pytest.approx(e["left"]), pytest.approx(e["right"]))
    assert abs(left - right) > 1e-3
    text = "\n".join(table_lines(rows))
    assert all(row.claim in text for row in rows)
    assert text.count("behaviour[s][a] = ") == text.count("  FAILS ")  # one example for each line that fails


def _wrong_denominator(at: Setting) -> Sides:
    return sides.upper_bound(at._replace(occ=at.occ._replace(offline=at.occ.real)))._replace(
        left=sides.upper_bound(at).left
    )


def _wrong_conjugate(at: Setting) -> Sides:
    printed = dataclasses.replace(at.generator, f_star=lambda y: 2 / 3 * np.maximum(y - 1.0, 0.0) ** 1.5)
    return sides.conjugate(at._replace(generator=printed))


def _wrong_weight(at: Setting) -> Sides:
    doubled = at.problem._replace(weight=2.0 * at.problem.weight)
    return Sides(surrogate(doubled, at.generator, at.occ), sides.free_maximin(at).right)


@pytest.mark.parametrize(
    ("relation", "wrong", "right"),
    [
        ("<=", _wrong_denominator, sides.upper_bound),
        ("==", _wrong_conjugate, sides.conjugate),
        ("==", _wrong_weight, sides.free_maximin),
    ],
)
def test_a_wrong_formula_is_found_out(relation, wrong, right):
    problem = random_problems(np.random.default_rng(7), "dense", "far", (3, 2), 50)
    at = setting(problem, CUBIC)
    assert np.max(violation(Claim("", "", relation, right), right(at))) < 1e-9
    assert np.max(violation(Claim("", "", relation, wrong), wrong(at))) > 1e-2


def test_rounding_keeps_distributions():
    problem = rounded(random_problems(np.random.default_rng(8), "dense", "far", (3, 2), 5), 1)
    for p in (problem.mdp.transition, problem.model, problem.policy, problem.behaviour, problem.mdp.initial):
        np.testing.assert_allclose(p.sum(axis=-1), 1.0)
        assert p.min() >= 0.0


def test_no_cases_are_refused():
    with pytest.raises(UserError, match="--cases"):
        check(0)
