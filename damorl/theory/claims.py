"""The paper's claims as a list, tried on random problems: how often each fails, how badly, and on which least case."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from damorl.bars import Bar
from damorl.errors import UserError
from damorl.theory import sides
from damorl.theory.families import FAMILIES, Problem, groups, occupancies, pick
from damorl.theory.generators import CUBIC, CUBIC_SYMMETRIC, GENERATORS, KL, Generator
from damorl.theory.inner import solve_inner
from damorl.theory.mdp import MDP, Array
from damorl.theory.sides import Setting, Sides

TOLERANCE = 1e-8
"""Of sides that are sums of at most 48 float64 terms and solutions bracketed to about 1e-11."""
OF_Q = 1e-6
"""For claims about the minimiser: a minimum known to float64's last digit leaves Q known to about half the digits."""
ALL = tuple(GENERATORS.values())
CUBICS = (CUBIC, CUBIC_SYMMETRIC)


@dataclass(frozen=True)
class Claim:
    """One statement, and how to compute both its sides."""

    name: str
    source: str
    relation: Literal["==", "<="]
    sides: Callable[[Any], Sides]
    """Takes what the study's `setting` makes of a problem."""
    printed: bool = True
    """Whether the paper says so; else it is what we found to be true, or a reading of it."""
    generators: tuple[Generator, ...] = ALL
    tolerance: float = TOLERANCE
    deterministic: bool = False
    """Only where the model is deterministic, hence equal to the truth wherever D_f is finite."""


ONCE = (KL,)
"""For what does not depend on the divergence."""

CLAIMS: tuple[Claim, ...] = (
    Claim("KL <= E[log-ratio] + D_f", "A.1", "<=", sides.upper_bound),
    Claim("the same with f - f(1)", "A.1", "<=", sides.upper_bound_centred, False, CUBICS),
    Claim("conjugate of D_f is E[f*]", "A.3", "==", sides.conjugate),
    Claim("D_f = max_y E[y] - E[f*(y)]", "A.4", "==", sides.biconjugate),
    Claim("surrogate = min over y(s,a,s')", "A.5", "==", sides.free_maximin),
    Claim("surrogate = min over Q(s,a)", "5.1, A.6", "==", sides.maximin_is_surrogate),
    Claim("the same, model deterministic", "5.1, A.6", "==", sides.maximin_is_surrogate, False, deterministic=True),
    Claim("surrogate <= min over Q(s,a)", "ours", "<=", sides.surrogate_below_maximin, False),
    Claim("min over Q = Eq. 1 in best dynamics", "ours", "==", sides.maximin_is_best_dynamics, False),
    Claim("condition on Q*, true occupancy", "5.2, A.7", "==", sides.optimality_printed, tolerance=OF_Q),
    Claim("condition on Q*, best dynamics'", "ours", "==", sides.optimality_corrected, False, tolerance=OF_Q),
    Claim("surrogate <= J", "5.3", "<=", sides.surrogate_below_return),
    Claim("surrogate <= (1 - gamma) J", "5.3", "<=", sides.surrogate_below_reward, False),
    Claim("the same with f - f(1)", "5.3", "<=", sides.surrogate_centred_below_reward, False, CUBICS),
    Claim("min over Q(s,a) <= J", "5.1 + 5.3", "<=", sides.maximin_below_return),
    Claim("min over Q(s,a) <= (1 - gamma) J", "5.1 + 5.3", "<=", sides.maximin_below_reward, False),
    Claim("best logit = log-ratio", "Eq. 4", "==", sides.classifier_optimum, True, ONCE),
    Claim("printed loss has a least point", "Eq. 3", "<=", sides.printed_classifier_loss, True, ONCE),
    Claim("weight 1: residual term x sqrt(weight)", "C.2", "==", sides.fixed_weight_scales, False),
    Claim("weight 1: gradient's direction stays", "C.2", "==", sides.fixed_weight_direction, False),
    Claim("weight 1: no state's step turns", "C.2", "<=", sides.fixed_weight_ascends, False),
)


class Row(NamedTuple):
    """One line of the table."""

    claim: str
    source: str
    divergence: str
    printed: bool
    cases: int
    violations: int
    largest: float
    """Of `(left - right) / max(1, |left|, |right|)`, its absolute value for an equality."""
    holds: bool
    example: dict[str, Any] | None
    """The smallest counter-example, rounded as far as it stays one."""


def violation(claim: Claim, found: Sides) -> Array:
    """`[*B]`: `(left - right) / max(1, |left|, |right|)` (absolute for an equality); 0 for equal infinities."""
    left, right = (np.asarray(side, np.float64) for side in found)
    both = np.isfinite(left) & np.isfinite(right)
    size = np.maximum(1.0, np.maximum(np.abs(np.where(both, left, 0.0)), np.abs(np.where(both, right, 0.0))))
    gap = np.where(both, np.where(both, left, 0.0) - np.where(both, right, 0.0), 0.0) / size
    off = (left > right) if claim.relation == "<=" else (left != right)
    gap = np.abs(gap) if claim.relation == "==" else np.maximum(gap, 0.0)
    return np.where(both, gap, np.where(off | np.isnan(left) | np.isnan(right), np.inf, 0.0))


def setting(problem: Problem, generator: Generator) -> Setting:
    """Everything the sides need, the inner minimum solved."""
    return Setting(problem, occupancies(problem), generator, solve_inner(problem, generator))


class Study(NamedTuple):
    """Claims that are tried on the same problems."""

    claims: tuple[Claim, ...]
    setting: Callable[[Problem, Generator], Any]
    """What the claims' sides take."""
    generators: tuple[Generator, ...] = ALL
    families: tuple[str, ...] = tuple(FAMILIES)
    """Of the problems; for claims about deterministic models the one family that they are about."""


PAPER = Study(CLAIMS, setting)


def check(cases: int = 1200, seed: int = 0, progress: bool = True, study: Study = PAPER) -> list[Row]:
    """Every claim of `study` on at least `cases` random problems. Raises `UserError` for a number below 1."""
    if cases < 1 or seed < 0:
        raise UserError(f"theory: expected --cases of at least 1 and --seed of at least 0, found {cases} and {seed}")
    batches = {
        False: list(groups(seed, cases, study.families)),
        True: list(groups(seed, cases, ("deterministic",), ("equal",))),
    }
    found: dict[tuple[Claim, Generator], list[Trial]] = {}
    total = len(study.generators) * sum(len(batch) for batch in batches.values())
    with Bar(total=total, desc="theory", unit="batch", disable=not progress) as bar:
        for generator in study.generators:
            for deterministic, batch in batches.items():
                claims = [c for c in study.claims if generator in c.generators and c.deterministic == deterministic]
                for name, problem in batch:
                    at = study.setting(problem, generator)
                    for claim in claims:
                        trial = Trial(name, problem, violation(claim, claim.sides(at)))
                        found.setdefault((claim, generator), []).append(trial)
                    bar.update()
    pairs = [(claim, g) for claim in study.claims for g in study.generators if g in claim.generators]
    return [_row(study, claim, g, found[claim, g]) for claim, g in pairs]


class Trial(NamedTuple):
    """A claim tried on one batch."""

    name: str
    problem: Problem
    violation: Array


def _row(study: Study, claim: Claim, generator: Generator, trials: list[Trial]) -> Row:
    violations = sum(int(np.sum(trial.violation > claim.tolerance)) for trial in trials)
    return Row(
        claim=claim.name,
        source=claim.source,
        divergence="any" if claim.generators == ONCE else generator.name,
        printed=claim.printed,
        cases=sum(len(trial.violation) for trial in trials),
        violations=violations,
        largest=max(float(np.max(trial.violation)) for trial in trials),
        holds=violations == 0,
        example=_smallest(study, claim, generator, trials) if violations else None,
    )


def _smallest(study: Study, claim: Claim, generator: Generator, trials: list[Trial]) -> dict[str, Any]:
    """A violated case with the fewest states and actions, there the worst finite one, in as few digits as it allows."""

    def rank(trial: Trial) -> tuple[bool, int, float]:
        worst = float(np.max(finite(trial.violation)))
        return worst <= claim.tolerance, trial.problem.policy[0].size, -worst

    trial = min(trials, key=rank)
    if rank(trial)[0]:  # they are all infinite
        trial = min(
            trials, key=lambda trial: (not np.any(trial.violation > claim.tolerance), trial.problem.policy[0].size)
        )
    index = int(np.argmax(finite(trial.violation) if not rank(trial)[0] else trial.violation))
    for decimals in (1, 2, 3, 4, 17):
        problem = rounded(pick(trial.problem, slice(index, index + 1)), decimals)
        if not _finite_inside(problem):
            continue
        found = claim.sides(study.setting(problem, generator))
        size = violation(claim, found)[0]
        if 0.3 * trial.violation[index] < size and (np.isfinite(size) or not np.isfinite(trial.violation[index])):
            break
    left, right = (float(side[0]) for side in found)
    return {"kind": trial.name, "left": left, "right": right} | written_out(problem)


def _finite_inside(problem: Problem) -> bool:
    """Whether rounding left the model all that the truth can do, and the behaviour all that the policy does."""
    lost = np.any((problem.mdp.transition > 0.0) & (problem.model == 0.0))
    return not (lost or np.any((problem.policy > 0.0) & (problem.behaviour == 0.0)))


def finite(values: Array) -> Array:
    """The values, infinite ones as 0."""
    return np.where(np.isfinite(values), values, 0.0)


def rounded(problem: Problem, decimals: int) -> Problem:
    """The problem with fewer digits; what rounding takes from a distribution goes to its largest entry."""

    def share(p: Array) -> Array:
        p = np.round(p, decimals)
        largest = np.arange(p.shape[-1]) == np.argmax(p, axis=-1)[..., None]
        return p + largest * (1.0 - np.sum(p, axis=-1, keepdims=True))

    mdp = problem.mdp
    mdp = MDP(share(mdp.transition), np.round(mdp.reward, decimals), share(mdp.initial), mdp.gamma)
    return Problem(mdp, share(problem.model), share(problem.policy), share(problem.behaviour), problem.weight)


def written_out(problem: Problem) -> dict[str, Any]:
    """A batch of one problem as plain lists, enough to type it in again."""
    mdp, model, policy, behaviour, weight = pick(problem, 0)
    arrays = {
        "T[s][a][s']": mdp.transition,
        "M[s][a][s']": model,
        "r[s][a][s']": mdp.reward,
        "start[s]": mdp.initial,
        "gamma": mdp.gamma,
        "weight": weight,
        "policy[s][a]": policy,
        "behaviour[s][a]": behaviour,
    }
    return {name: np.round(np.asarray(array), 17).tolist() for name, array in arrays.items()}
