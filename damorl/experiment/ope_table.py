"""What off-policy estimates are good for, and how they are printed: which to trust, how they rank, what they cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from damorl.experiment.ranking import choose, distinct, name_of, number, number_or_missing, rank_correlation, spearman
from damorl.record.store import known

ESTIMATORS = {
    "wis": "WIS",
    "pdis": "PDIS",
    "wpdis": "WPDIS",
    "dr": "DR",
    "wdr": "WDR",
    "dice": "DICE",
    "fqe": "FQE",
    "model": "model",
}
"""Field of a policy's row, and what people call it."""
NAMES = {
    "wis": "importance weights by whole episodes, weighted",
    "pdis": "per decision",
    "wpdis": "per decision, weighted",
    "dr": "doubly robust",
    "wdr": "doubly robust, weighted",
    "dice": "ratio of occupancies",
    "fqe": "fitted Q evaluation",
    "model": "value in the learned model",
}
RELIABLE = 5.0
"""Effective episodes below which an estimate by weights is not to be trusted."""
RANK_RESAMPLES = 1000


def judged(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """An estimate's number under its name, None where it is not known, and under `about` its interval, its effective
    episodes and under `trusted` whether these are enough: without them it cannot be trusted, with them it may still be
    wrong. None where there are no weights."""
    about = {}
    for name, own in found.items():
        size = own.get("effective_episodes")
        interval = own.get("interval")
        about[name] = {
            "interval": None if interval is None or not np.isfinite(interval).all() else list(interval),
            "effective_episodes": size,
            "trusted": None if size is None else bool(size >= RELIABLE),
        }
    values = {name: None if own["value"] is None else known(own["value"]) for name, own in found.items()}
    return values | {"about": about}


def pooled(reports: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each data set and discount among the reports, what every estimator is worth over the policies of all runs.

    Rank correlation with the score and its 95 % interval over resampled policies, regret at 1 (the best score less that
    of the policy that the estimator puts first), how many estimates have enough episodes, and the median of these.
    """
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for report in reports:
        groups.setdefault(
            (report["dataset_sha256"], report["gamma"], report["metric"], report["densities"]), []
        ).append(report)
    return [summed_up(own) for own in groups.values()]


def summed_up(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The row of one group of `pooled`."""
    policies = distinct(policy for report in reports for policy in report["policies"])
    correlation, chosen = rank_correlation(policies, ESTIMATORS), choose(policies, ESTIMATORS)
    scores = [policy["score"] for policy in policies if policy["score"] is not None]
    about = {name: reports[0][name] for name in ("dataset", "gamma", "metric", "densities", "episodes", "saturated")}
    rows = {}
    for name in ESTIMATORS:
        own = [policy["about"][name] for policy in policies]
        sizes = [item["effective_episodes"] for item in own if item["effective_episodes"] is not None]
        rows[name] = {
            "rank_correlation": correlation[name],
            "interval": rank_interval(policies, name),
            "regret": None if chosen[name] is None else chosen[name]["regret"],
            "known": sum(policy[name] is not None for policy in policies),
            "trusted": sum(bool(item["trusted"]) for item in own) if sizes else None,
            "median_effective_episodes": float(np.median(sizes)) if sizes else None,
        }
    spread = {"best_score": max(scores, default=None), "mean_score": float(np.mean(scores)) if scores else None}
    return about | {"num_runs": len(reports), "num_policies": len(policies)} | spread | {"estimators": rows}


def rank_interval(policies: Sequence[Mapping[str, Any]], name: str) -> list[float] | None:
    """95 % of the rank correlations of resampled policies; None where fewer than five leave nothing to resample."""
    pairs = [(p[name], p["score"]) for p in policies if p[name] is not None and p["score"] is not None]
    if len(pairs) < 5 or spearman(pairs) is None:
        return None
    rng = np.random.default_rng(0)
    drawn = [spearman([pairs[i] for i in rng.integers(len(pairs), size=len(pairs))]) for _ in range(RANK_RESAMPLES)]
    low, high = np.quantile([value for value in drawn if value is not None], [0.025, 0.975])
    return [float(low), float(high)]


def format_report(report: Mapping[str, Any]) -> str:
    """The table of one run: every policy's estimates, `!` behind those that cannot be trusted."""
    lines = [
        f"{report['run']} on {report['dataset']}, discount {report['gamma']:g}, densities {report['densities']}",
        "the policy as it samples" + described_std(report) + ", discounted; the score is of its deterministic action",
        "",
        f"{'seed':>6}{'step':>9}" + "".join(f"{label:>11}" for label in ESTIMATORS.values()) + f"{'score':>9}",
    ]
    for policy in report["policies"]:
        cells = "".join(f"{marked(policy, name):>11}" for name in ESTIMATORS)
        lines.append(f"{name_of(policy):>6}{policy['step']:>9,}{cells}{number(policy['score'], '-'):>9}")
        sizes = {name: policy["about"][name]["effective_episodes"] for name in ("wis", "pdis", "dice")}
        told = ", ".join(f"{ESTIMATORS[name]} {size:.1f}" for name, size in sizes.items() if size is not None)
        lines.append(f"{'':>15}  effective episodes of {report['episodes']}: {told}")
    return "\n".join([*lines, *warnings(report)])


def described_std(report: Mapping[str, Any]) -> str:
    """The standard deviation, if it is not the policies' own."""
    std = report["settings"]["std"]
    return "" if std is None else f" with standard deviation {std:g} before the tanh"


def marked(policy: Mapping[str, Any], name: str) -> str:
    """The estimate, with `!` where it cannot be trusted."""
    return number(policy[name], "unknown") + "!" * (policy["about"][name]["trusted"] is False)


def warnings(report: Mapping[str, Any]) -> list[str]:
    """What speaks against the numbers, in sentences."""
    found = []
    bad = [
        label
        for name, label in ESTIMATORS.items()
        if any(policy["about"][name]["trusted"] is False for policy in report["policies"])
    ]
    if bad:
        found.append(
            f"! cannot be trusted, and neither can its interval: the weights leave fewer than {RELIABLE:g} effective "
            f"episodes ({', '.join(bad)})"
        )
    if report["densities"] == "cloned":
        found.append("the data record no densities: the behaviour is a Gaussian clone, and the weights are estimates")
    if report["saturated"] > 0.01:
        found.append(f"{report['saturated']:.0%} of the rows have an action at its bound, whose density is a guess")
    return found


def format_pooled(group: Mapping[str, Any]) -> str:
    """The table of one group, in Markdown."""
    best = group["best_score"]
    scores = "without scores" if best is None else f"best score {best:.1f}, mean {group['mean_score']:.1f}"
    lines = [
        f"{group['dataset']}, discount {group['gamma']:g}: {group['num_policies']} policies of {group['num_runs']} "
        f"runs, {group['episodes']} episodes, densities {group['densities']}; {scores}",
        "",
        "| estimate | rank correlation (95 %) | regret at 1 | enough episodes | effective episodes (median) |",
        "|---|---|---|---|---|",
    ]
    for name, row in group["estimators"].items():
        between = "" if row["interval"] is None else " ({:.2f} to {:.2f})".format(*row["interval"])
        trusted = "" if row["trusted"] is None else f"{row['trusted']} of {group['num_policies']}"
        size = "" if row["median_effective_episodes"] is None else f"{row['median_effective_episodes']:.1f}"
        lines.append(
            f"| {ESTIMATORS[name]}, {NAMES[name]} | {number_or_missing(row['rank_correlation'])}{between} | "
            f"{number(row['regret'], 'unknown')} | {trusted} | {size} |"
        )
    return "\n".join(lines)
