"""The split log-ratio and references: against hand values, another minimiser, enumeration, and a gamble."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.optimize import minimize

from damorl.theory import exact, split
from damorl.theory.claims import TOLERANCE, Claim, Study, check, violation
from damorl.theory.exact_inner import first_q, inner_value, minimise_inner
from damorl.theory.families import Problem, occupancies, random_problems
from damorl.theory.generators import CHI_SQUARE, CUBIC, HALF_CHI_SQUARE, KL, Generator
from damorl.theory.inner import log_ratio, solve_inner, surrogate
from damorl.theory.mdp import MDP, Array, expected_reward, occupancy
from damorl.theory.sides import Sides
from damorl.theory.split_claims import (
    CLIMB_CLAIMS,
    SPLIT_CLAIMS,
    ClimbSetting,
    SplitSetting,
    climb,
    eq_1_earns_the_guaranteed,
    guaranteed,
    setting,
    solved,
    states_only,
    states_with_a_wrong_clone,
    three_parts,
)
from damorl.theory.table import table_lines

NOISY = {"dense", "sparse", "absorbing", "nearly unreachable"}
FAILS_FOR_ALL = {"the same, episodes chosen by return", "g(s) = state, wrong clone"}
NEEDS_KL = {"KL <= E[log-ratio] + D_f", "surrogate <= (1 - gamma) J", "the same, chosen episodes", "the same, g(s)"}
"""A.1 and 5.3: guaranteed for the divergences that dominate KL, which half_chi_square does not."""


def coin(heads: float, gamma: float) -> Problem:
    """Start, then heads (1 for the toss) or tails (0.0) for ever; fair in truth; one action."""
    truth = np.zeros((1, 3, 1, 3))
    truth[0, 1, 0, 1] = truth[0, 2, 0, 2] = 1.0
    model = truth.copy()
    truth[0, 0, 0, 1:], model[0, 0, 0, 1:] = 0.5, (heads, 1.0 - heads)
    reward = np.zeros((1, 3, 1, 3))
    reward[0, 0, 0, 1] = 1.0
    one = np.ones((1, 3, 1))
    return Problem(MDP(truth, reward, np.eye(3)[:1], np.array([gamma])), model, one, one, np.ones(1))


def gamble(weight: float, gamma: float) -> Problem:
    """0.5 for sure, the reference in nine of ten, or a fair coin for 0.9; nothing afterwards. The model is true."""
    truth, reward = np.zeros((1, 4, 2, 4)), np.zeros((1, 4, 2, 4))
    for end in (1, 2, 3):
        truth[0, end, :, end] = 1.0
    truth[0, 0, 0, 1], reward[0, 0, 0, 1] = 1.0, 0.5
    truth[0, 0, 1, 2:], reward[0, 0, 1, 2] = 0.5, 0.9
    policy = np.full((1, 4, 2), 0.5)
    policy[0, 0] = (0.9, 0.1)
    mdp = MDP(truth, reward, np.eye(4)[:1], np.array([gamma]))
    return Problem(mdp, truth, policy, policy, np.array([weight]))


def test_parts_of_a_coin_by_hand():
    """The toss itself is the dynamics' part, (1 - g) of the time; afterwards the state says how it fell."""
    problem = coin(0.8, 0.75)
    reference = split.of_policy(problem.mdp, problem.policy)
    found = split.parts(problem, reference)
    np.testing.assert_allclose(found.state[0, :, 0, 0], [0.0, np.log(1.6), np.log(0.4)], atol=1e-12)
    np.testing.assert_allclose(found.action, 0.0)
    np.testing.assert_allclose(found.dynamics[0, 0, 0], [0.0, np.log(1.6), np.log(0.4)], atol=1e-12)
    kl = 0.8 * np.log(1.6) + 0.2 * np.log(0.4)
    np.testing.assert_allclose(np.ravel(split.mean_divergences(problem, reference)), [0.75 * kl, 0.0, 0.25 * kl])


def test_any_policy_may_be_the_reference():
    problem, rng = random_problems(np.random.default_rng(1), "dense", "far", (4, 3), 30), np.random.default_rng(2)
    reference = split.of_policy(problem.mdp, rng.dirichlet(np.ones(3), size=(30, 4)))
    occ = occupancies(problem)._replace(offline=reference.rho)
    part = split.parts(problem, reference)
    np.testing.assert_allclose(log_ratio(occ), part.state + part.action + part.dynamics, atol=1e-12)
    mean = np.sum(occ.synthetic * log_ratio(occ), axis=(1, 2, 3))
    np.testing.assert_allclose(mean, np.sum(split.mean_divergences(problem, reference), axis=0), atol=1e-12)


def test_choosing_lucky_episodes_bends_the_coin():
    """Heads count e^c = 1 / sqrt(g) times: at g = 1/4, twice. The rows then say that heads have 2/3."""
    problem = coin(0.5, 0.25)
    rows = split.of_rows(split.chosen_episodes(problem.mdp, problem.policy))
    np.testing.assert_allclose(rows.rho[0, 0, 0, 1:] / rows.state[0, 0], [2.0 / 3.0, 1.0 / 3.0], atol=1e-12)
    worthless = problem.mdp._replace(reward=np.zeros_like(problem.mdp.reward))
    np.testing.assert_allclose(
        split.chosen_episodes(worthless, problem.policy), occupancy(worthless, problem.policy), atol=1e-12
    )


def test_chosen_episodes_by_enumeration():
    """Every path of up to 9 steps, by its probability times exp(c * return); longer ones weigh less than 1e-4."""
    problem = random_problems(np.random.default_rng(3), "dense", "equal", (2, 1), 1)
    mdp = problem.mdp._replace(gamma=np.array([0.1]))
    truth, favour = mdp.transition[0, :, 0], np.exp(0.5 * np.log(10.0) * mdp.reward[0, :, 0])
    visits = np.zeros((2, 2))
    for length in range(1, 10):
        for path in itertools.product(range(2), repeat=length + 1):
            steps = list(itertools.pairwise(path))
            chance = mdp.initial[0, path[0]] * 0.9 * 0.1 ** (length - 1) * np.prod([truth[s] for s in steps])
            for step in steps:
                visits[step] += chance * np.prod([favour[s] for s in steps])
    rows = split.chosen_episodes(mdp, problem.policy)[0, :, 0]
    np.testing.assert_allclose(rows, visits / np.sum(visits), atol=1e-4)


@pytest.mark.parametrize("blind", [(), (-1,), (-2, -1)])
@pytest.mark.parametrize("right", [True, False])
def test_best_logit_is_found_by_another_minimiser(blind, right):
    """BFGS on the cross-entropy itself, beside the right offset and beside a wrong one."""
    at = setting(random_problems(np.random.default_rng(4), "dense", "far", (2, 2), 1), KL)
    clone = at.reference.policy if right else at.problem.behaviour[..., ::-1]
    known = split.log_quotient(at.problem.policy, clone)[..., None]
    best = split.best_logit(at.occ.synthetic, at.occ.offline, known, blind)

    def loss(g: Array) -> float:
        logit = g.reshape(best.shape) + known
        model, data = np.logaddexp(0.0, -logit), np.logaddexp(0.0, logit)
        return float(np.sum(at.occ.synthetic * model + at.occ.offline * data))

    found = minimize(loss, np.zeros(best.size), method="BFGS", options={"gtol": 1e-9, "xrtol": 1e-12})
    np.testing.assert_allclose(found.x, best.ravel(), atol=2e-3)
    assert loss(best.ravel()) <= found.fun + 1e-12


def test_gradient_vanishes_at_the_two_other_parts():
    """For every transition, and stays zero when summed over what a classifier does not see if it drops the dynamics."""
    at = setting(random_problems(np.random.default_rng(5), "dense", "far", (3, 2), 20), KL)
    part = split.parts(at.problem, at.reference)

    def gradient(g: Array) -> Array:
        chance = 1.0 / (1.0 + np.exp(-g - part.action))
        return at.occ.offline * chance - at.occ.synthetic * (1.0 - chance)

    assert np.max(np.abs(gradient(part.state + part.dynamics))) < 1e-15
    without = gradient(part.state)
    assert np.max(np.abs(without)) > 1e-2
    assert np.max(np.abs(np.sum(without, axis=-1))) < 1e-15


def test_a_wrong_clone_misleads_a_classifier_of_states_by_hand():
    """One state, so its part is 0. But 1.4 h(g + log 5) + 0.6 h(g - log 9/5) = 1, h the sigmoid, at e^g = 0.36."""
    moves = np.ones((1, 1, 2, 1))
    mdp = MDP(moves, np.zeros_like(moves), np.ones((1, 1)), np.array([0.5]))
    policy, rows, wrong = (np.array([[p]]) for p in ([0.5, 0.5], [0.9, 0.1], [0.1, 0.9]))
    problem = Problem(mdp, moves, policy, wrong, np.ones(1))
    reference = split.of_policy(mdp, rows)
    at = SplitSetting(problem, KL, reference, occupancies(problem)._replace(offline=reference.rho))
    left, right = states_with_a_wrong_clone(at)
    np.testing.assert_allclose(left, np.log(0.36), atol=1e-12)
    assert right[0] == 0.0


@pytest.fixture(scope="module")
def rows():
    return check(60, 0, progress=False, study=Study(SPLIT_CLAIMS, setting, (CUBIC, CHI_SQUARE, HALF_CHI_SQUARE, KL)))


def test_verdicts_of_the_closed_forms(rows):
    for row in rows:
        fails = row.claim in FAILS_FOR_ALL or (row.claim in NEEDS_KL and row.divergence == "half_chi_square")
        assert row.holds or fails, row
        assert not row.holds or row.claim not in FAILS_FOR_ALL, row
    text = "\n".join(table_lines(rows))
    assert all(row.claim in text for row in rows)
    bent = next(row for row in rows if row.claim in FAILS_FOR_ALL)
    assert bent.example["kind"].split(",")[0] in NOISY


def test_a_log_ratio_without_its_dynamics_is_found_out():
    def wrong(at: SplitSetting) -> Sides:
        return three_parts(at._replace(problem=at.problem._replace(model=at.problem.mdp.transition)))

    at = setting(random_problems(np.random.default_rng(7), "dense", "far", (3, 2), 20), KL)
    for sides, off in ((three_parts, False), (wrong, True)):
        assert (np.max(violation(Claim("", "", "==", sides), sides(at))) > 1e-2) == off


def test_value_at_the_reference_by_hand():
    """The model says 0.8 for heads: (1 - g) / 2 less w (D_f - KL); with KL nothing is taken off."""
    problem = coin(0.8, 0.75)
    kl = 0.5 * np.log(0.5 / 0.8) + 0.5 * np.log(0.5 / 0.2)
    for generator, distance in ((KL, kl), (CHI_SQUARE, 0.5625), (CUBIC, (0.8 * 0.625**3 + 0.2 * 2.5**3) / 3)):
        found = guaranteed(problem, generator, problem.policy)
        np.testing.assert_allclose(found, 0.125 - (distance - kl), atol=1e-12)


def test_the_model_s_error_and_its_bound_by_hand():
    """Both tosses are fair in truth; the model gives the second 0.9, so it flatters pi by 0.4 (1 - g) pi(1)."""
    problem, start_share = coin(0.5, 0.75), 0.25
    truth = np.repeat(problem.mdp.transition, 2, axis=2)
    model = truth.copy()
    model[0, 0, 1, 1:] = 0.9, 0.1
    mdp = problem.mdp._replace(transition=truth, reward=np.repeat(problem.mdp.reward, 2, axis=2))
    law = lambda second: np.tile(np.array([1.0 - second, second]), (1, 3, 1))
    at = Problem(mdp, model, law(0.7), law(0.2), problem.weight)
    gap, bound = split.error_gap(at, law(0.2))
    kl = 0.7 * np.log(0.7 / 0.2) + 0.3 * np.log(0.3 / 0.8)
    # in truth no action is better, so that part's span is 0; the start has the share 1 - g of the time, and what is
    # done in the two ends has no value but counts as divergence
    np.testing.assert_allclose(gap, start_share * 0.4 * 0.5, atol=1e-12)
    np.testing.assert_allclose(bound, 0.4 * np.sqrt(kl / 2.0), atol=1e-12)


@pytest.mark.parametrize(("weight", "gamma"), [(0.3, 0.2), (0.5, 0.1)])
def test_eq_2_gambles_where_eq_1_does_not(weight, gamma):
    """Eq. 2 may choose the odds: the gamble counts 0.45 (1 - g) + 0.81 (1 - g)^2 / (16 w), above the safe 0.5 (1 - g).

    Either objective is its gain less w KL(pi || pi_ref), so log-odds move by the difference over w.
    """
    problem, scale = gamble(weight, gamma), 1.0 - gamma
    odds, reference = lambda x: np.log(x / (1.0 - x)), expected_reward(gamble(weight, gamma).mdp, gamble(1, 0.2).policy)
    extra = 0.81 * scale**2 / (16.0 * weight)
    for objective, bonus in ((exact.surrogate, 0.0), (exact.maximin, extra)):
        end = exact.ascend(problem, objective(CHI_SQUARE), problem.behaviour, 60, 1e-12)
        moved = odds(end.policy[0, 0, 1]) - odds(0.1)
        assert moved == pytest.approx((bonus - 0.05 * scale) / weight, abs=1e-5)
        earned = expected_reward(problem.mdp, end.policy)
        assert (earned > reference) == (bonus == 0.0)
        assert end.value[0] > reference[0]  # the objective itself always rises


def test_a_truth_without_chance_holds_eq_2_down_if_the_dynamics_are_seen():
    """Where the truth never goes the log-ratio is infinite, so the best dynamics are the truth, whatever the model.

    A ratio of states alone lets them be any that the model allows, and promises more than there is.
    """
    problem = random_problems(np.random.default_rng(0), "deterministic", "equal", (3, 2), 20)
    other = random_problems(np.random.default_rng(1), "dense", "far", (3, 2), 20).model
    problem = problem._replace(model=0.8 * problem.model + 0.2 * other)
    at = solved(problem, KL)
    earned = expected_reward(problem.mdp, problem.policy)
    np.testing.assert_allclose(at.solution.upper, surrogate(at.problem, KL, at.occ), atol=1e-10)
    assert np.all(at.solution.upper < earned)
    blind = states_only(setting(problem, KL)).occ
    start = first_q(problem, KL, blind)
    promised = inner_value(problem, KL, blind, minimise_inner(problem, KL, blind, start, 200))
    assert np.max(promised - earned) > 0.1


def test_verdicts_of_the_climbs():
    """Eq. 1 keeps its promise for what dominates KL; Eq. 2's value does, its policy only where nothing is random."""
    generators = (CHI_SQUARE, KL, HALF_CHI_SQUARE)
    rows = check(60, 0, progress=False, study=Study(CLIMB_CLAIMS, climb, generators, ("dense",)))
    dominating = {row.divergence for row in rows} - {"half_chi_square"}
    for row in rows:
        if "optimum" in row.claim or "deterministic" in row.claim or row.source == "Eq. 1":
            assert row.holds or row.divergence not in dominating, row
        assert row.holds or row.claim.split("<=")[-1] != " optimum", row
    plain = [row for row in rows if row.claim == "reward <= earned"]
    assert len(plain) == 3
    assert not any(row.holds for row in plain)


@pytest.mark.parametrize("generator", [CHI_SQUARE, KL], ids=lambda g: g.name)
def test_climbs_rise_and_end_on_certified_values(generator: Generator):
    at = climb(random_problems(np.random.default_rng(8), "dense", "close", (3, 2), 5), generator)
    certified = solve_inner(at.problem._replace(policy=at.eq_2.policy), generator)
    np.testing.assert_allclose(at.eq_2.value, certified.upper, atol=1e-8)
    np.testing.assert_allclose(certified.lower, certified.upper, atol=1e-8)
    assert np.all(at.eq_2.value > guaranteed(at.problem, generator, at.problem.behaviour) + 1e-4)


def test_an_objective_that_ignores_the_reference_breaks_the_promise():
    """Climbing the model's own return where the model is far off: the least that is guaranteed is not earned."""
    problem = random_problems(np.random.default_rng(9), "dense", "far", (4, 3), 40)._replace(weight=np.full(40, 0.1))
    at = climb(problem, KL)
    assert np.max(violation(Claim("", "", "<=", eq_1_earns_the_guaranteed), eq_1_earns_the_guaranteed(at))) < TOLERANCE
    planned = exact.Ascent(split.optimal_policy(problem.mdp, problem.model), at.eq_1.value, at.eq_1.slack)
    left, right = eq_1_earns_the_guaranteed(ClimbSetting(at.problem, KL, planned, at.eq_2))
    assert np.max(left - right) > 1e-2
