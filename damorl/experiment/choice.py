"""One choice among many runs: which setting, at which step, with which seed's policy, and how sure that is.

The rule is declared before anything is looked at. `pessimistic`, the default: of all settings and steps the one whose
estimate, averaged over the seeds, less its standard error is highest; of its seeds the one with the highest estimate.
`mean` leaves the error out. The estimate is the value in the learned model or that of fitted Q evaluation.

The standard error joins what is seen to vary: between the seeds and, for the value in the model, between the elites. It
does not hold what all estimates have wrong together.
"""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from damorl.errors import UserError
from damorl.experiment.command import changed_settings
from damorl.experiment.config import run_config_from_dict
from damorl.experiment.ranking import ESTIMATORS
from damorl.record.members import setting_config, settings_of

Rule = Literal["pessimistic", "mean"]
Estimator = Literal["model_value", "fqe"]


@dataclass(frozen=True)
class Candidate:
    """A setting at a step: what its seeds are thought to be worth, and what the simulator said where there was one."""

    setting: str
    step: int
    seeds: tuple[int, ...]
    values: tuple[float, ...]
    error: float | None
    """Standard error of the mean; None for one seed of an estimate without an error of its own."""
    scores: tuple[float | None, ...]
    run_dirs: tuple[str, ...]
    """Of each seed."""

    @property
    def value(self) -> float:
        """The estimate, averaged over the seeds."""
        return statistics.fmean(self.values)

    @property
    def score(self) -> float | None:
        """The real score, averaged over the seeds; None where one is not known."""
        known = [score for score in self.scores if score is not None]
        return statistics.fmean(known) if len(known) == len(self.scores) else None

    def bound(self, rule: Rule) -> float:
        """What the rule compares."""
        return self.value - (self.error or 0.0) * (rule == "pessimistic")


def setting_label(config: Mapping[str, Any]) -> str:
    """Algorithm, preset and the settings that are not the preset's; a hash for a run that another version made."""
    try:
        run = run_config_from_dict(config)
    except (UserError, KeyError, TypeError):
        settings = json.dumps([config.get("loop"), config.get("algo_config")], sort_keys=True)
        return f"{config.get('algo', 'unknown')} {hashlib.sha256(settings.encode()).hexdigest()[:8]}"
    changed = ", ".join(f"{name}={value}" for name, value in changed_settings(run).items())
    return f"{run.algo} {run.preset}" + (f" ({changed})" if changed else "")


def candidates(
    selections: Sequence[Mapping[str, Any]], labels: Sequence[str], estimator: Estimator
) -> Iterator[Candidate]:
    """Every setting at every step that all its seeds kept. A setting whose estimate diverged for a seed is left out at
    that step: nobody knows what it is worth."""
    rows: dict[tuple[str, int], list[tuple[Mapping[str, Any], str]]] = {}
    seeds: dict[str, set[int]] = {}
    for selection, label in zip(selections, labels, strict=True):
        for policy in selection["policies"]:
            rows.setdefault((label, policy["step"]), []).append((policy, selection["run_dir"]))
            seeds.setdefault(label, set()).add(policy["seed"])
    for (label, step), found in rows.items():
        if len(found) < len(seeds[label]) or any(policy[estimator] is None for policy, _ in found):
            continue
        policies = [policy for policy, _ in found]
        values = tuple(float(policy[estimator]) for policy in policies)
        own = [policy["model_std"] for policy in policies] if estimator == "model_value" else None
        yield Candidate(
            label,
            step,
            tuple(policy["seed"] for policy in policies),
            values,
            standard_error(values, own),
            tuple(policy["score"] for policy in policies),
            tuple(run_dir for _, run_dir in found),
        )


def standard_error(values: Sequence[float], own: Sequence[float | None] | None) -> float | None:
    """Of the mean over seeds: the variance between them, and the mean variance of their own errors, over their number.

    A single seed has only its own error; without one nothing is known.
    """
    between = statistics.variance(values) if len(values) > 1 else None
    known = [error for error in own or [] if error is not None]
    within = statistics.fmean(error**2 for error in known) if known else None
    if between is None and within is None:
        return None
    return math.sqrt(((between or 0.0) + (within or 0.0)) / len(values))


def choose_setting(
    selections: Sequence[Mapping[str, Any]],
    configs: Sequence[Mapping[str, Any]],
    estimator: Estimator = "model_value",
    rule: Rule = "pessimistic",
) -> list[dict[str, Any]]:
    """One choice for each data set, discount and measure among the runs, each as plain numbers.

    `margin` is the chosen estimate less that of the best step of the best *other setting*, and `margin_error` its
    standard error, taken as independent. `regret` is the best candidate's real score less the chosen one's.
    """
    selections, configs = by_setting(selections, configs)
    groups: dict[tuple[Any, ...], list[int]] = {}
    for index, selection in enumerate(selections):
        key = (selection["dataset_sha256"], selection["settings"]["fqe"]["gamma"], selection["metric"])
        groups.setdefault(key, []).append(index)
    labels = [setting_label(config) for config in configs]
    found = []
    for (_, gamma, metric), members in groups.items():
        own = list(candidates([selections[i] for i in members], [labels[i] for i in members], estimator))
        about = {"dataset": selections[members[0]]["dataset"], "gamma": gamma, "metric": metric}
        found.append(about | {"rule": rule, "estimator": estimator} | describe_choice(own, rule))
    return found


def by_setting(
    selections: Sequence[Mapping[str, Any]], configs: Sequence[Mapping[str, Any]]
) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """The same with every setting of a population as a run of its own."""
    pairs: list[tuple[Mapping[str, Any], Mapping[str, Any]]] = []
    for selection, config in zip(selections, configs, strict=True):
        if not config.get("population"):
            pairs.append((selection, config))
            continue
        for number in range(len(settings_of(config))):
            policies = [policy for policy in selection["policies"] if policy["setting"] == number]
            pairs.append(({**selection, "policies": policies}, setting_config(config, number)))
    return [selection for selection, _ in pairs], [config for _, config in pairs]


def describe_choice(own: Sequence[Candidate], rule: Rule) -> dict[str, Any]:
    """What the rule takes of the candidates; `setting` is None where there are none."""
    if not own:
        return {"setting": None, "candidates": 0}
    chosen = max(own, key=lambda candidate: candidate.bound(rule))
    others = [candidate for candidate in own if candidate.setting != chosen.setting]
    second = max(others, key=lambda candidate: candidate.bound(rule), default=None)
    index = max(range(len(chosen.values)), key=lambda i: chosen.values[i])
    scores = [candidate.score for candidate in own if candidate.score is not None]
    errors = [chosen.error, second.error if second else None]
    return {
        "setting": chosen.setting,
        "step": chosen.step,
        "seed": chosen.seeds[index],
        "run_dir": chosen.run_dirs[index],
        "value": chosen.value,
        "error": chosen.error,
        "seeds": len(chosen.seeds),
        "candidates": len(own),
        "settings": len({candidate.setting for candidate in own}),
        "second": second.setting if second else None,
        "margin": chosen.value - second.value if second else None,
        "margin_error": math.hypot(*(error or 0.0 for error in errors)) if second and any(errors) else None,
        "score": chosen.score,
        "policy_score": chosen.scores[index],
        "best_score": max(scores, default=None),
        "regret": max(scores) - chosen.score if scores and chosen.score is not None else None,
    }


def format_choice(choice: Mapping[str, Any]) -> str:
    """The same for people."""
    head = (
        f"on {choice['dataset']}, discount {choice['gamma']:g}, by {ESTIMATORS[choice['estimator']]} ({choice['rule']})"
    )
    if choice["setting"] is None:
        return f"{head}: no choice, no estimate is known for every seed of any setting"
    error = "" if choice["error"] is None else f" +- {choice['error']:.1f}"
    lines = [
        f"{head}: of {choice['settings']} settings and {choice['candidates']} candidates",
        f"  take {choice['setting']} at step {choice['step']:,}, the policy of seed {choice['seed']}",
        f"  in {choice['run_dir']}",
        f"  estimated value {choice['value']:.1f}{error} (mean of {choice['seeds']} seeds, standard error)",
    ]
    if choice["second"] is not None:
        doubt = "" if choice["margin_error"] is None else f" +- {choice['margin_error']:.1f}"
        lines.append(f"  {choice['margin']:.1f}{doubt} more than the next setting, {choice['second']}")
    if choice["score"] is not None:
        lines.append(
            f"  in the simulator: {choice['score']:.1f}, regret {choice['regret']:.1f} against the best candidate"
        )
    return "\n".join(lines)
