"""Exact DAMO: against closed forms, finite differences, another solver, and every policy of a grid."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from damorl.theory.exact import LEAST, ascend, best_of, maximin, mirror_step, slack, surrogate
from damorl.theory.exact_inner import first_q, inner_value, minimise_inner
from damorl.theory.exact_study import normalised, problem_at, worlds
from damorl.theory.families import Problem, occupancies, random_problems
from damorl.theory.generators import CHI_SQUARE, GENERATORS, KL
from damorl.theory.inner import solve_inner
from damorl.theory.inner import surrogate as eq_1
from damorl.theory.mdp import MDP, optimal_policy

GAMMA = 0.8
ALL = pytest.mark.parametrize("name", GENERATORS)


def problems(closeness: str = "far", count: int = 6, size: tuple[int, int] = (3, 2)) -> Problem:
    return random_problems(np.random.default_rng(3), "dense", closeness, size, count)


def test_ascent_reaches_the_tilted_behaviour() -> None:
    """Two states that change places but for a slip, whatever is done: rho(s) does not depend on the policy.

    With KL and the model true, pi* = beta exp(r / weight) / Z, worth weight * sum_s rho(s) log Z(s).
    """
    slip, weight = 0.1, 0.5
    moves = np.array([[slip, 1.0 - slip], [1.0 - slip, slip]])
    turn = np.broadcast_to(moves[:, None, :], (2, 2, 2))[None]
    reward = np.array([[1.0, 0.2], [0.1, 0.7]])
    behaviour = np.array([[[0.5, 0.5], [0.9, 0.1]]])
    mdp = MDP(turn, np.broadcast_to(reward[:, :, None], (2, 2, 2))[None], np.array([[1.0, 0.0]]), np.array([GAMMA]))
    problem = Problem(mdp, turn, behaviour, behaviour, np.array([weight]))
    tilted = behaviour * np.exp(reward / weight)
    norm = np.sum(tilted, axis=-1)
    second = GAMMA * (1.0 - slip) / (1.0 + GAMMA - 2.0 * GAMMA * slip)
    value = weight * ((1.0 - second) * np.log(norm[0, 0]) + second * np.log(norm[0, 1]))
    end = ascend(problem, surrogate(KL), behaviour, tolerance=1e-12)
    np.testing.assert_allclose(end.policy, tilted / norm[..., None], atol=1e-5)
    np.testing.assert_allclose(end.value, value, atol=1e-9)
    assert ascend(problem, maximin(KL), behaviour).value > value + 1e-3  # it may also choose when to slip


@ALL
def test_inner_minimum_equals_the_certified_one(name: str) -> None:
    problem, generator = problems(), GENERATORS[name]
    occ = occupancies(problem)
    q = minimise_inner(problem, generator, occ, first_q(problem, generator, occ), steps=200)
    solution = solve_inner(problem, generator)
    np.testing.assert_allclose(inner_value(problem, generator, occ, q), solution.upper, atol=1e-9)
    np.testing.assert_allclose(solution.lower, solution.upper, atol=1e-9)


@ALL
@pytest.mark.parametrize("objective", [maximin, surrogate])
def test_slope_by_finite_differences(name: str, objective) -> None:
    problem, at = problems(), objective(GENERATORS[name])
    point = at(problem, np.zeros_like(problem.policy))
    direction = np.random.default_rng(0).normal(size=problem.policy.shape)
    direction -= np.mean(direction, axis=-1, keepdims=True)
    step = 1e-5 * np.min(problem.policy)
    ahead, behind = (at(problem._replace(policy=problem.policy + s * direction), point.q).value for s in (step, -step))
    slope = np.sum(point.slope * direction, axis=(1, 2))
    np.testing.assert_allclose((ahead - behind) / (2.0 * step), slope, rtol=1e-5, atol=1e-5)


def test_the_held_gradient_leaves_the_rollouts_out() -> None:
    """What Algorithm 1 follows is another direction than the gradient of what it says it maximises."""
    problem = problems()
    start = np.zeros_like(problem.policy)
    whole, held = maximin(CHI_SQUARE)(problem, start), maximin(CHI_SQUARE, whole_gradient=False)(problem, start)
    np.testing.assert_allclose(whole.value, held.value, atol=1e-12)
    centred = lambda slope: slope - np.mean(slope, axis=-1, keepdims=True)
    assert np.max(np.abs(centred(whole.slope) - centred(held.slope))) > 0.05


@pytest.mark.parametrize("objective", [maximin(CHI_SQUARE), surrogate(CHI_SQUARE), maximin(KL)])
def test_ascent_finds_the_best_of_all_policies(objective) -> None:
    problem = problems(count=3, size=(2, 2))
    ticks = np.linspace(0.005, 0.995, 41)
    grid = np.array([[[a, 1.0 - a], [b, 1.0 - b]] for a, b in itertools.product(ticks, ticks)])
    starts = [np.full_like(problem.policy, 0.5), np.tile([[0.9, 0.1], [0.1, 0.9]], (3, 1, 1))]
    end = best_of(problem, objective, [*starts, problem.behaviour])
    for i in range(3):
        repeat = lambda x, i=i: np.broadcast_to(np.asarray(x)[i], (len(grid), *np.asarray(x).shape[1:]))
        many = Problem(MDP(*map(repeat, problem.mdp)), *map(repeat, problem[1:]))._replace(policy=grid)
        values = objective(many, np.zeros_like(grid)).value
        assert np.max(values) - 1e-6 <= end.value[i] <= np.max(values) + 0.02
    assert np.max(end.slack) < 1e-5


def test_maximin_lies_above_the_surrogate_and_meets_it_in_a_deterministic_model() -> None:
    noisy = problems("close")
    uniform = np.full_like(noisy.policy, 0.5)
    above, below = (ascend(noisy, objective(CHI_SQUARE), uniform).value for objective in (maximin, surrogate))
    assert np.all(above > below + 1e-4)
    sure = random_problems(np.random.default_rng(0), "deterministic", "equal", (3, 2), 6)
    np.testing.assert_allclose(
        solve_inner(sure, CHI_SQUARE).upper, eq_1(sure, CHI_SQUARE, occupancies(sure)), atol=1e-8
    )


def test_under_kl_the_model_cancels() -> None:
    """D_KL(d, rho_M) + E_d[log rho_M / rho_beta] = D_KL(d, rho_beta): whatever the model, the policy is the same."""
    problem = problems("close", count=4)
    other = random_problems(np.random.default_rng(9), "dense", "equal", (3, 2), 4).mdp.transition
    ends = [ascend(problem._replace(model=m), maximin(KL), problem.behaviour) for m in (problem.model, other)]
    np.testing.assert_allclose(ends[0].value, ends[1].value, atol=1e-7)
    np.testing.assert_allclose(ends[0].policy, ends[1].policy, atol=1e-3)
    chi = [ascend(problem._replace(model=m), maximin(CHI_SQUARE), problem.behaviour) for m in (problem.model, other)]
    assert np.max(np.abs(chi[0].value - chi[1].value)) > 1e-2


def test_weight_leads_from_planning_to_cloning() -> None:
    world = worlds(0, 8)
    problem = problem_at(world, "noise", 0.0, 1e-3)
    start = np.full_like(world.behaviour, 1.0 / 3.0)
    bold = ascend(problem, surrogate(CHI_SQUARE), start, tolerance=1e-6).policy
    timid = ascend(problem._replace(weight=np.full(8, 1e3)), surrogate(CHI_SQUARE), start, tolerance=1e-6).policy
    assert np.min(normalised(world.mdp, bold)) > 99.0
    np.testing.assert_allclose(timid, world.behaviour, atol=1e-2)


def test_worlds_are_what_they_say() -> None:
    world = worlds(1, 5)
    np.testing.assert_allclose(np.sum(world.promise, axis=-1), 1.0)
    assert np.all(problem_at(world, "noise", 0.0, 1.0).model == world.mdp.transition)
    np.testing.assert_allclose(normalised(world.mdp, optimal_policy(world.mdp)), 100.0)
    misled = normalised(world.mdp, optimal_policy(world.mdp, problem_at(world, "promise", 0.9, 1.0).model))
    assert np.all(misled <= 100.0 + 1e-9)
    assert np.mean(misled) < 80.0


def test_mirror_step_by_hand() -> None:
    policy = np.array([[[0.5, 0.5]]])
    stepped = mirror_step(policy, np.array([[[1.0, 0.0]]]), np.array([np.log(3.0)]))
    np.testing.assert_allclose(stepped, [[[0.75, 0.25]]])
    far = mirror_step(policy, np.array([[[1.0, 0.0]]]), np.array([1e6]))
    np.testing.assert_allclose(far, [[[1.0, LEAST]]], atol=1e-15)
    np.testing.assert_allclose(slack(policy, np.array([[[3.0, 1.0]]])), [1.0])
