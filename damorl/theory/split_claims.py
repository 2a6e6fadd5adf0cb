"""The split log-ratio and references other than the behaviour, as claims for the table of `damorl theory`.

The reference is `split.expert_policy`'s occupancy, unless a claim says otherwise. Three studies: closed forms; a truth
without chance; and policies that climb DAMO's own objectives, exactly, from the reference.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from damorl.theory import claims, exact, sides, split
from damorl.theory.claims import ONCE, Claim, Study
from damorl.theory.dual_claims import RATIOS
from damorl.theory.families import Occupancies, Problem, occupancies
from damorl.theory.generators import KL, Generator
from damorl.theory.inner import expectation, log_ratio, surrogate
from damorl.theory.mdp import Array, divergence, expected_reward, occupancy
from damorl.theory.sides import Setting, Sides, worst
from damorl.theory.split import Reference

SEES_STATE_ACTION, SEES_STATE = (-1,), (-2, -1)
"""The axes that a classifier does not see."""
CLIMB = 20
"""Steps of mirror ascent: from the reference upwards, not necessarily to the top."""


class SplitSetting(NamedTuple):
    """A batch of problems, one divergence, the reference."""

    problem: Problem
    generator: Generator
    reference: Reference
    occ: Occupancies
    """With the reference's rows as `offline`."""


def setting(problem: Problem, generator: Generator) -> SplitSetting:
    """Occupancies with the expert's in the behaviour's place."""
    reference = split.of_policy(problem.mdp, split.expert_policy(problem))
    return SplitSetting(problem, generator, reference, occupancies(problem)._replace(offline=reference.rho))


def _chosen(at: SplitSetting) -> SplitSetting:
    """The behaviour's episodes, chosen by return, as the reference."""
    reference = split.of_rows(split.chosen_episodes(at.problem.mdp, at.problem.behaviour))
    return at._replace(reference=reference, occ=at.occ._replace(offline=reference.rho))


def states_only(at: SplitSetting) -> SplitSetting:
    """A log-ratio without the dynamics' part: that to the reference's pairs, continued by the model."""
    rows = at.reference.state[..., None, None] * at.reference.policy[..., None] * at.problem.model
    return at._replace(occ=at.occ._replace(offline=rows))


def three_parts(at: SplitSetting) -> Sides:
    """The log-ratio, and the sum of its parts."""
    part = split.parts(at.problem, at.reference)
    return _where_both(at, log_ratio(at.occ), part.state + part.action + part.dynamics)


def three_parts_chosen(at: SplitSetting) -> Sides:
    """The same for chosen episodes, the third part with the truth's dynamics."""
    return three_parts(_chosen(at))


def three_divergences(at: SplitSetting) -> Sides:
    """`KL(rho_M^pi || rho_T^ref)`, and the three mean divergences."""
    whole = divergence(KL.f, at.occ.synthetic, at.occ.offline)
    return Sides(whole, np.sum(split.mean_divergences(at.problem, at.reference), axis=0))


def offset_leaves_the_rest(at: SplitSetting) -> Sides:
    """The best g(s, a, s') beside the offset, and the parts of states and dynamics."""
    part = split.parts(at.problem, at.reference)
    g = split.best_logit(at.occ.synthetic, at.occ.offline, part.action)
    return _where_both(at, g, part.state + part.dynamics)


def pairs_see_the_state_part(at: SplitSetting) -> Sides:
    """The best g(s, a) beside the offset, and the states' part."""
    return _state_part(at, SEES_STATE_ACTION, at.reference.policy)


def states_see_the_state_part(at: SplitSetting) -> Sides:
    """The best g(s) beside the offset, and the states' part."""
    return _state_part(at, SEES_STATE, at.reference.policy)


def states_without_offset(at: SplitSetting) -> Sides:
    """The best g(s) with nothing beside it, and the states' part."""
    return _state_part(at, SEES_STATE, at.problem.policy)


def states_with_a_wrong_clone(at: SplitSetting) -> Sides:
    """The best g(s) beside an offset to the behaviour, while the rows are the reference's."""
    return _state_part(at, SEES_STATE, at.problem.behaviour)


def sum_with_a_wrong_clone(at: SplitSetting) -> Sides:
    """The best g(s, a, s') beside that wrong offset, plus the offset, and the log-ratio."""
    known = split.log_quotient(at.problem.policy, at.problem.behaviour)[..., None]
    g = split.best_logit(at.occ.synthetic, at.occ.offline, known)
    return _where_both(at, g + known, log_ratio(at.occ))


def upper_bound(at: SplitSetting) -> Sides:
    """A.1 with the reference."""
    distance = divergence(at.generator.f, at.occ.real, at.occ.synthetic)
    return Sides(divergence(KL.f, at.occ.real, at.occ.offline), expectation(at.occ.real, log_ratio(at.occ)) + distance)


def surrogate_below_reward(at: SplitSetting) -> Sides:
    """5.3 with the reference: Eq. 1 against `(1 - gamma) J(pi)`."""
    value = surrogate(at.problem, at.generator, at.occ)
    return Sides(value, expected_reward(at.problem.mdp, at.problem.policy))


def surrogate_below_reward_chosen(at: SplitSetting) -> Sides:
    """The same with chosen episodes."""
    return surrogate_below_reward(_chosen(at))


def surrogate_below_reward_states(at: SplitSetting) -> Sides:
    """The same without the dynamics' part."""
    return surrogate_below_reward(states_only(at))


def states_only_is_lower(at: SplitSetting) -> Sides:
    """Eq. 1 without the dynamics' part, and Eq. 1 less `weight * E_rho_T[KL(T || M)]`."""
    blind = surrogate(at.problem, at.generator, states_only(at).occ)
    pairs = np.sum(at.occ.real, axis=-1, keepdims=True)
    lost = divergence(KL.f, pairs * at.problem.mdp.transition, pairs * at.problem.model)
    return Sides(blind, surrogate(at.problem, at.generator, at.occ) - at.problem.weight * lost)


def at_the_reference(at: SplitSetting) -> Sides:
    """Eq. 1 for the reference's own policy, and `guaranteed`."""
    problem = at.problem._replace(policy=at.reference.policy)
    occ = occupancies(problem)._replace(offline=at.reference.rho)
    return Sides(surrogate(problem, at.generator, occ), guaranteed(problem, at.generator, at.reference.policy))


def error_moves_with_the_divergence(at: SplitSetting) -> Sides:
    """The model's error at pi less that at the reference, and its bound by the root of the mean KL."""
    return Sides(*split.error_gap(at.problem, at.reference.policy))


def guaranteed(problem: Problem, generator: Generator, policy: Array) -> Array:
    """`[*B]`: the reference's reward less `weight * (D_f - KL)(rho_T^ref || rho_M^ref)`, for the reference `policy`."""
    real, synthetic = occupancy(problem.mdp, policy), occupancy(problem.mdp, policy, problem.model)
    lost = divergence(generator.f, real, synthetic) - divergence(KL.f, real, synthetic)
    return expected_reward(problem.mdp, policy) - problem.weight * lost


def solved(problem: Problem, generator: Generator) -> Setting:
    """The inner minimum over Q with the reference in the behaviour's place."""
    with np.errstate(over="ignore", invalid="ignore"):  # a step that goes too far under an exponential is taken back
        return claims.setting(problem._replace(behaviour=split.expert_policy(problem)), generator)


class ClimbSetting(NamedTuple):
    """A batch of problems, one divergence, and the ends of two ascents from the reference."""

    problem: Problem
    """With the reference as the behaviour."""
    generator: Generator
    eq_1: exact.Ascent
    eq_2: exact.Ascent
    """Of the inner minimum over Q."""


def climb(problem: Problem, generator: Generator) -> ClimbSetting:
    """Exact DAMO with the reference in the behaviour's place. Model and truth must reach the same transitions."""
    problem = problem._replace(behaviour=split.expert_policy(problem))
    with np.errstate(divide="ignore", invalid="ignore"):  # a rounded truth may have lost a transition: nan, not used
        ends = [
            exact.ascend(problem, objective(generator), problem.behaviour, CLIMB)
            for objective in (exact.surrogate, exact.maximin)
        ]
    return ClimbSetting(problem, generator, *ends)


def optimum_above_guaranteed(at: ClimbSetting) -> Sides:
    """`guaranteed`, and the best of Eq. 2 that was found."""
    return Sides(guaranteed(at.problem, at.generator, at.problem.behaviour), at.eq_2.value)


def optimum_above_reference_in_model(at: ClimbSetting) -> Sides:
    """The reference's reward in the model less the KL of states and dynamics (and f(1)), and the best of Eq. 2."""
    problem, weight = at.problem._replace(policy=at.problem.behaviour), at.problem.weight
    states, _, dynamics = split.mean_divergences(problem, split.of_policy(problem.mdp, problem.behaviour))
    reward = expected_reward(problem.mdp, problem.behaviour, problem.model)
    return Sides(reward - weight * (states + dynamics + at.generator.at_one), at.eq_2.value)


def eq_1_earns_the_guaranteed(at: ClimbSetting) -> Sides:
    """`guaranteed`, and what the policy that climbed Eq. 1 earns in the truth."""
    earned = expected_reward(at.problem.mdp, at.eq_1.policy)
    return Sides(guaranteed(at.problem, at.generator, at.problem.behaviour), earned)


def eq_2_earns_the_guaranteed(at: ClimbSetting) -> Sides:
    """The same for Eq. 2."""
    earned = expected_reward(at.problem.mdp, at.eq_2.policy)
    return Sides(guaranteed(at.problem, at.generator, at.problem.behaviour), earned)


def eq_2_earns_the_references(at: ClimbSetting) -> Sides:
    """The reference's reward, nothing taken off, and what the policy that climbed Eq. 2 earns."""
    earned = expected_reward(at.problem.mdp, at.eq_2.policy)
    return Sides(expected_reward(at.problem.mdp, at.problem.behaviour), earned)


def _state_part(at: SplitSetting, blind: tuple[int, ...], clone: Array) -> Sides:
    """The best g beside the offset to `clone`, and the states' part, where they differ most."""
    known = split.log_quotient(at.problem.policy, clone)[..., None]
    g = split.best_logit(at.occ.synthetic, at.occ.offline, known, blind)
    return _where_both(at, g, split.parts(at.problem, at.reference).state)


def _where_both(at: SplitSetting, left: Array, right: Array) -> Sides:
    """Both sides at the transition, of those that model and reference reach, at which they differ most."""
    both = (at.occ.synthetic > 0.0) & (at.occ.offline > 0.0)
    return worst(np.where(both, left, 0.0), np.where(both, right, 0.0), both)


SPLIT_CLAIMS: tuple[Claim, ...] = (
    Claim("log-ratio = state + action + dynamics", "split", "==", three_parts, False, ONCE),
    Claim("its mean = the sum of three KLs", "split", "==", three_divergences, False, ONCE),
    Claim("the same, episodes chosen by return", "split", "==", three_parts_chosen, False, ONCE),
    Claim("the same, deterministic", "split", "==", three_parts_chosen, False, ONCE, deterministic=True),
    Claim("g(s,a,s') = state + dynamics", "offset", "==", offset_leaves_the_rest, False, ONCE),
    Claim("g(s,a) = state", "offset", "==", pairs_see_the_state_part, False, ONCE),
    Claim("g(s) = state", "offset", "==", states_see_the_state_part, False, ONCE),
    Claim("g(s) = state, without an offset", "offset", "==", states_without_offset, False, ONCE),
    Claim("g(s) = state, wrong clone", "offset", "==", states_with_a_wrong_clone, False, ONCE),
    Claim("g(s,a,s') + wrong clone = log-ratio", "offset", "==", sum_with_a_wrong_clone, False, ONCE),
    Claim("KL <= E[log-ratio] + D_f", "A.1", "<=", upper_bound, False),
    Claim("surrogate <= (1 - gamma) J", "5.3", "<=", surrogate_below_reward, False),
    Claim("the same, chosen episodes", "5.3", "<=", surrogate_below_reward_chosen, False),
    Claim("the same, g(s)", "5.3", "<=", surrogate_below_reward_states, False),
    Claim("g(s) lowers it by w E[KL(T, M)]", "Eq. 1", "==", states_only_is_lower, False),
    Claim("at ref: value = reward - w (D_f - KL)", "Eq. 1", "==", at_the_reference, False),
    Claim("|e(pi) - e(ref)| <= c sqrt(mean KL)", "keep", "<=", error_moves_with_the_divergence, False, ONCE),
)

CERTAIN_CLAIMS: tuple[Claim, ...] = (
    Claim("truth deterministic: Eq. 2 = Eq. 1", "5.1", "==", sides.maximin_is_surrogate, False, RATIOS),
    Claim("truth deterministic: <= (1 - gamma) J", "5.1 + 5.3", "<=", sides.maximin_below_reward, False, RATIOS),
)

CLIMB_CLAIMS: tuple[Claim, ...] = (
    Claim("reward - w (D_f - KL) <= optimum", "Eq. 2", "<=", optimum_above_guaranteed, False),
    Claim("model's reward - w (2 KLs) <= optimum", "Eq. 2", "<=", optimum_above_reference_in_model, False),
    Claim("reward - w (D_f - KL) <= earned", "Eq. 1", "<=", eq_1_earns_the_guaranteed, False),
    Claim("reward - w (D_f - KL) <= earned", "Eq. 2", "<=", eq_2_earns_the_guaranteed, False),
    Claim("reward <= earned", "Eq. 2", "<=", eq_2_earns_the_references, False),
    Claim("reward <= earned, deterministic", "Eq. 2", "<=", eq_2_earns_the_references, False, deterministic=True),
)

SPLIT = Study(SPLIT_CLAIMS, setting)
CERTAIN = Study(CERTAIN_CLAIMS, solved, RATIOS, ("deterministic",))
CLIMBS = Study(CLIMB_CLAIMS, climb, families=("dense",))
