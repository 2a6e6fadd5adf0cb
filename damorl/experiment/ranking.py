"""What estimates are good for: which policy they choose, what that costs, and how well they rank."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

ESTIMATORS = {"fqe": "FQE", "model_value": "model"}
"""Field of a policy's row, and what people call it."""

Policy = dict[str, Any]
"""`seed` (and `setting` in a population), `step`, `fqe`, `model_value`, `model_std` and `score`; None where there is
none, or an estimate diverged. `policy` is a digest of the network, where it is known."""


def distinct(policies: Iterable[Policy]) -> list[Policy]:
    """Each network once, however many steps it was kept at: its first row, with the mean of the scores of all.

    A run may keep one policy for long (`keep = "validated"`). Each of its evaluations has other starts, so that their
    mean is the better score, and counted one by one they would pass for as many policies with the same estimate.
    """
    groups: dict[Any, list[Policy]] = {}
    for index, policy in enumerate(policies):
        groups.setdefault(policy.get("policy", index), []).append(policy)
    return [group[0] | {"score": mean_score(group)} for group in groups.values()]


def mean_score(policies: Sequence[Policy]) -> float | None:
    """The mean of the scores that are known; None without any."""
    known = [policy["score"] for policy in policies if policy["score"] is not None]
    return statistics.fmean(known) if known else None


def choose(policies: list[Policy], fields: Iterable[str] = ESTIMATORS) -> dict[str, Any]:
    """The policy that each estimator thinks best, and under `best` the one with the highest real score.

    Each is `{"seed", "step", "score", "regret"}`, with `setting` in a population, where the regret is the best score
    less this one's. None where no estimate, or no score, is known. A policy that was kept at several steps is one, with
    its first step and the mean of its scores.
    """
    policies = distinct(policies)
    scores = [policy["score"] for policy in policies if policy["score"] is not None]

    def greatest(field: str) -> dict[str, Any] | None:
        known = [policy for policy in policies if policy[field] is not None]
        if not known:
            return None
        best = max(known, key=lambda policy: policy[field])
        regret = None if best["score"] is None else max(scores) - best["score"]
        return {name: best[name] for name in ("seed", "setting", "step", "score") if name in best} | {"regret": regret}

    return {name: greatest(name) for name in fields} | {"best": greatest("score")}


def rank_correlation(policies: list[Policy], fields: Iterable[str] = ESTIMATORS) -> dict[str, Any]:
    """Spearman's rank correlation of each estimator with the real scores, and over how many policies.

    None where fewer than three distinct scores, or only one distinct estimate, leave nothing to rank. A policy whose
    estimate diverged is left out of that estimator's correlation; one that was kept at several steps counts once.
    """
    policies = distinct(policies)
    of = lambda field: spearman([(p[field], p["score"]) for p in policies if None not in (p["score"], p[field])])
    scored = sum(policy["score"] is not None for policy in policies)
    return {name: of(name) for name in fields} | {"num_policies": scored}


def spearman(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Of (estimate, score); None where they leave nothing to rank."""
    from scipy.stats import spearmanr

    if len({score for _, score in pairs}) < 3 or len({value for value, _ in pairs}) < 2:
        return None
    result: Any = spearmanr([value for value, _ in pairs], [score for _, score in pairs])
    return float(result.statistic)


def pooled_correlations(selections: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """`rank_correlation` over the policies of all runs on the same data with the same discount and measure.

    Only where there is more than one such run; each with `dataset`, `gamma` and `num_runs`.
    """
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for selection in selections:
        key = (selection["dataset_sha256"], selection["settings"]["fqe"]["gamma"], selection["metric"])
        groups.setdefault(key, []).append(selection)
    return [
        {"dataset": group[0]["dataset"], "gamma": gamma, "num_runs": len(group)}
        | rank_correlation([policy for selection in group for policy in selection["policies"]])
        for (_, gamma, _), group in groups.items()
        if len(group) > 1
    ]


def format_selection(selection: dict[str, Any]) -> str:
    """The table of one run, as plain text."""
    measure = {"eval/score": "score", "eval/return_mean": "return"}.get(selection["metric"], "score")
    chosen = selection["chosen"]
    lines = [
        f"{selection['run']} on {selection['dataset']}, discount {selection['settings']['fqe']['gamma']:g}, "
        f"{selection['horizon']} model steps",
        "",
        f"{'seed':>6} {'step':>10} {'FQE value':>12} {'model value':>24} {'real ' + measure:>12}",
    ]
    for policy in selection["policies"]:
        marks = [name for field, name in {**ESTIMATORS, "best": "best"}.items() if same(policy, chosen[field])]
        model = number(policy["model_value"])
        if policy["model_value"] is not None:
            model += f" +- {number(policy['model_std'], '?'):<8}"
        lines.append(
            f"{name_of(policy):>6} {policy['step']:>10,} {number(policy['fqe']):>12} {model:>24} "
            f"{number(policy['score'], '-'):>12}" + (f"   <- {', '.join(marks)}" if marks else "")
        )
    lines += ["", *(describe_choice(name, chosen[field], measure) for field, name in ESTIMATORS.items())]
    return "\n".join([*lines, describe_correlation(selection["rank_correlation"], measure)])


def same(policy: Policy, choice: dict[str, Any] | None) -> bool:
    """Is this the policy that was chosen?"""
    return choice is not None and all(policy.get(name) == choice.get(name) for name in ("seed", "setting", "step"))


def name_of(policy: Policy) -> str:
    """Its seed, behind its setting in a population: `2` or `1/2`."""
    return f"{policy['setting']}/{policy['seed']}" if "setting" in policy else str(policy["seed"])


def number(value: float | None, missing: str = "diverged") -> str:
    """One decimal, or a word."""
    return missing if value is None else f"{value:.1f}"


def describe_choice(name: str, choice: dict[str, Any] | None, measure: str) -> str:
    """What an estimator would choose, in one line."""
    if choice is None:
        return f"{name} chooses none: every estimate diverged"
    setting = f"setting {choice['setting']}, " if "setting" in choice else ""
    line = f"{name} chooses {setting}seed {choice['seed']} at step {choice['step']:,}"
    if choice["score"] is None:
        return line
    return f"{line}: {measure} {choice['score']:.1f}, {choice['regret']:.1f} below the best kept"


def describe_correlation(correlation: dict[str, Any], measure: str = "score") -> str:
    """The rank correlations in one line."""
    parts = [f"{name} {number_or_missing(correlation[field])}" for field, name in ESTIMATORS.items()]
    return f"rank correlation with the real {measure} over {correlation['num_policies']} policies: {', '.join(parts)}"


def number_or_missing(value: float | None) -> str:
    """Two decimals, or that there were too few distinct scores."""
    return "missing" if value is None else f"{value:.2f}"
