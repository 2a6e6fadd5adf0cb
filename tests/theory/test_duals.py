"""The duals of the DICE family against hand values, a primal solver that knows nothing of them, and the fair coin."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from damorl.theory import duals
from damorl.theory.claims import Study, check
from damorl.theory.dual_claims import DUAL_CLAIMS, DUALS, setting
from damorl.theory.families import Problem, occupancies, pick, random_problems
from damorl.theory.generators import CHI_SQUARE, GENERATORS, HALF_CHI_SQUARE, KL, SOFT_CHI_SQUARE, Generator
from damorl.theory.mdp import MDP, Array
from damorl.theory.table import table_lines

FAILS = {
    "the same with s', a' sampled",
    "a' sampled, deterministic",
    "the same minimum with s' sampled",
    "semi-gradient stands at the minimum",
    "orthogonal gradient 0 at the minimum",
    "the same where the semi-gradient is",
}
SMOOTH = pytest.mark.parametrize("generator", [CHI_SQUARE, HALF_CHI_SQUARE, SOFT_CHI_SQUARE, KL], ids=lambda g: g.name)


def bandit(rewards: list[float], behaviour: list[float], weight: float, gamma: float) -> Problem:
    """One state that is never left."""
    num_actions = len(rewards)
    moves, reward = np.ones((1, 1, num_actions, 1)), np.array(rewards).reshape(1, 1, num_actions, 1)
    policy = np.full((1, 1, num_actions), 1.0 / num_actions)
    mdp = MDP(moves, reward, np.ones((1, 1)), np.array([gamma]))
    return Problem(mdp, moves, policy, np.array(behaviour).reshape(1, 1, -1), np.array([weight]))


def test_optidice_on_a_bandit_by_hand():
    """Ratios 1 + (r - mean r) / (2 w); the value is the mean of r plus its variance over 4 w."""
    problem, mean, variance = bandit([0.2, 0.8], [0.75, 0.25], 0.5, 0.9), 0.35, 0.0675
    dual = duals.optidice(problem, CHI_SQUARE)
    np.testing.assert_allclose(dual.ratio[0, 0], [1.0 + (0.2 - mean), 1.0 + (0.8 - mean)], atol=1e-9)
    np.testing.assert_allclose(dual.upper, mean + variance / 2.0, atol=1e-12)
    np.testing.assert_allclose(dual.policy[0, 0], [0.75 * 0.85, 0.25 * 1.45], atol=1e-9)


def test_algaedice_on_a_bandit_by_hand():
    """Uniform policy against (3/4, 1/4): ratios 2/3 and 2, so D_f = 3/4 / 9 + 1/4 = 1/3."""
    problem = bandit([0.2, 0.8], [0.75, 0.25], 0.3, 0.9)
    np.testing.assert_allclose(duals.algaedice(problem, CHI_SQUARE), 0.5 - 0.3 / 3.0, atol=1e-12)


def test_odice_on_one_action_by_hand():
    """Ratio (1 - k) / (k (1 - gamma)) at the minimum, (1 - k) / k for the semi-gradient; V = (r - y) / (1 - gamma)."""
    share, gamma = duals.CONJUGATE_SHARE, 0.9
    problem = bandit([0.7], [1.0], 1.0, gamma)
    ratio = (1.0 - share) / share
    found = duals.odice(problem, CHI_SQUARE)
    at_minimum = (0.7 - 2.0 * (ratio / (1.0 - gamma) - 1.0)) / (1.0 - gamma)
    np.testing.assert_allclose(found.x, [[at_minimum]], rtol=1e-9)
    semi = duals.semi_gradient_value(problem, CHI_SQUARE, found.x)
    np.testing.assert_allclose(semi, [[(0.7 - 2.0 * (ratio - 1.0)) / (1.0 - gamma)]], rtol=1e-9)


def test_orthogonal_gradient_by_hand():
    """One state: the backward gradient is parallel to the forward one and goes, which leaves the semi-gradient."""
    problem = bandit([0.7], [1.0], 1.0, 0.9)
    slope = 0.5 * (0.7 - 0.1 * 2.0) + 1.0
    expected = 0.4 - 0.6 * slope
    np.testing.assert_allclose(duals.orthogonal_gradient(problem, CHI_SQUARE, np.array([[2.0]])), [[expected]])


def primal_optimum(problem: Problem, generator: Generator) -> tuple[float, Array]:
    """Value and ratios of `max_d E_d[r] - w D_f(d || d^D)` under the flow constraints, by SLSQP over d / d^D."""
    mdp, data = problem.mdp, np.sum(occupancies(problem).offline, axis=-1)
    gain, shape = np.sum(mdp.transition * mdp.reward, axis=-1), data.shape
    arrive = np.eye(len(mdp.initial))[:, :, None] - mdp.gamma * np.moveaxis(mdp.transition, -1, 0)
    arrive = (arrive * data).reshape(len(mdp.initial), -1)

    def loss(ratio: Array) -> float:
        return float(np.sum(data.ravel() * (problem.weight * generator.f(ratio) - gain.ravel() * ratio)))

    def slope(ratio: Array) -> Array:
        return data.ravel() * (problem.weight * generator.f_prime(ratio) - gain.ravel())

    flow = {
        "type": "eq",
        "fun": lambda ratio: arrive @ ratio - (1.0 - mdp.gamma) * mdp.initial,
        "jac": lambda ratio: arrive,
    }
    bounds = [(1e-9, None)] * data.size
    options = {"maxiter": 500, "ftol": 1e-14}
    found = minimize(
        loss, np.ones(data.size), jac=slope, bounds=bounds, constraints=[flow], method="SLSQP", options=options
    )
    return -float(found.fun), found.x.reshape(shape)


@SMOOTH
def test_optidice_equals_the_primal_program(generator):
    problems = random_problems(np.random.default_rng(5), "dense", "equal", (3, 2), 4)
    problems = problems._replace(mdp=problems.mdp._replace(gamma=np.array([0.1, 0.5, 0.9, 0.9])))
    dual = duals.optidice(problems, generator)
    for i in range(4):
        value, ratio = primal_optimum(pick(problems, i), generator)
        assert dual.upper[i] == pytest.approx(value, abs=1e-7)
        np.testing.assert_allclose(dual.ratio[i], ratio, atol=2e-3)
    assert np.std(dual.ratio) > 0.05


def test_sampling_the_next_state_overrates_a_fair_coin():
    """One action, so the return is what it is: (1-g)/2. Sampled, the odds may be chosen, for (1-g)^2 / (16 w) more."""
    truth, reward = np.zeros((1, 3, 1, 3)), np.zeros((1, 3, 1, 3))
    truth[0, 1, 0, 1] = truth[0, 2, 0, 2] = 1.0
    truth[0, 0, 0, 1:] = 0.5
    reward[0, 0, 0, 1] = 1.0
    one, weight, gamma = np.ones((1, 3, 1)), 1.0, 0.5
    problem = Problem(MDP(truth, reward, np.eye(3)[:1], np.array([gamma])), truth, one, one, np.array([weight]))
    expected = (1.0 - gamma) / 2.0
    bias = (1.0 - gamma) ** 2 / (16.0 * weight)
    for sampled, value in ((False, expected), (True, expected + bias)):
        np.testing.assert_allclose(duals.optidice(problem, CHI_SQUARE, sampled).upper, value, atol=1e-12)
        np.testing.assert_allclose(duals.algaedice(problem, CHI_SQUARE, sampled), value, atol=1e-12)


def test_claims_hold_and_fail_as_told():
    claims = tuple(claim for claim in DUAL_CLAIMS if SOFT_CHI_SQUARE in claim.generators)
    rows = check(60, 3, progress=False, study=Study(claims, setting, (SOFT_CHI_SQUARE,)))
    assert {row.claim for row in rows if not row.holds} == FAILS
    assert {row.claim for row in rows} == {claim.name for claim in DUAL_CLAIMS}
    text = "\n".join(table_lines(rows))
    assert "OptiDICE" in text
    assert "FAILS" in text


def test_a_wrong_dual_is_found_out():
    """With the penalty of another divergence the certificate no longer closes."""
    problem = random_problems(np.random.default_rng(1), "dense", "equal", (2, 2), 3)
    right = duals.optidice(problem, CHI_SQUARE)
    np.testing.assert_allclose(right.lower, right.upper, atol=1e-10)
    assert np.all(duals.regularised_return(problem, HALF_CHI_SQUARE, right.policy) > right.upper + 1e-4)


def test_the_study_leaves_signed_ratios_out():
    assert {generator.name for generator in DUALS.generators} == set(GENERATORS) - {"cubic_symmetric"}
