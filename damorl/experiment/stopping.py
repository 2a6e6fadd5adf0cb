"""Two callbacks that end a run early: after a time, and once an estimate of its policies' value does not rise."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from damorl.errors import UserError
from damorl.experiment.callbacks import Callback, EndEvent, Event, StartEvent, Stop
from damorl.record import store

if TYPE_CHECKING:
    from damorl.experiment.choice import Candidate, Estimator, Rule
    from damorl.experiment.select import Evidence, Run, SelectConfig

EARLY_STOP = "early_stop.json"
ESTIMATORS, RULES = ("model_value", "fqe"), ("pessimistic", "mean")


class TimeBudget(Callback):
    """Stops a run at the end of the first epoch that is over `minutes` after the start.

    The minutes begin before the dynamics are fitted, which is not cut short: a budget spent by then stops the run at
    update 0. Each call has the whole budget, also one that continues a run.
    """

    def __init__(self, minutes: float, clock: Callable[[], float] = time.monotonic) -> None:
        if not (minutes > 0.0 and math.isfinite(minutes)):
            raise UserError(f"TimeBudget: minutes must be a number above 0, found {minutes}: give for example 10")
        self.minutes, self.clock, self.began = minutes, clock, math.nan

    def on_start(self, event: StartEvent) -> None:
        """Start the clock."""
        self.began = self.clock()

    def on_epoch(self, event: Event) -> None:
        """Stop if the time is over."""
        if self.clock() - self.began >= 60.0 * self.minutes:
            raise Stop(f"the time budget of {self.minutes:g} minutes is spent")

    on_checkpoint = on_epoch


class EarlyStop(Callback):
    """Stops a run whose policies get no better by off-policy evaluation: no simulator is asked.

    After each evaluation of the run every member's policy is judged as `damorl select` judges it: by its value in a
    dynamics model fitted to the data, once, when the run starts (`estimator` "model_value"), or by fitted Q evaluation
    ("fqe", fitted anew each time). The selection score is the mean over the seeds, less its standard error under the
    `rule` "pessimistic"; in a population that of the best setting. The run stops once `patience` evaluations in a row
    have brought no higher score than the best before them. Scores are kept in `early_stop.json`, where a run that
    continues with the same settings finds those up to its checkpoint.

    Raises UserError for settings out of range and, at the start, for an algorithm that plans.
    """

    def __init__(
        self,
        patience: int = 5,
        estimator: Estimator = "model_value",
        rule: Rule = "pessimistic",
        settings: SelectConfig | None = None,
        quiet: bool = True,
    ) -> None:
        if patience < 1:
            raise UserError(f"EarlyStop: patience must be at least 1 evaluation, found {patience}: give for example 5")
        for name, value, known in (("estimator", estimator, ESTIMATORS), ("rule", rule, RULES)):
            if value not in known:
                raise UserError(f"EarlyStop: {name} must be one of {', '.join(known)}, found {value!r}: give one")
        self.patience, self.settings, self.quiet = patience, settings, quiet
        self.estimator: Estimator = estimator
        self.rule: Rule = rule
        self.judge: tuple[Run, Evidence] | None = None
        self.scores: list[dict[str, Any]] = []

    def on_start(self, event: StartEvent) -> None:
        """Fit the model that will judge, and find the scores of an earlier call."""
        from damorl.data.datasets import Dataset
        from damorl.experiment.result import require_network
        from damorl.experiment.select import Run, SelectConfig, gather, with_discount

        require_network(event.run_dir)
        if not isinstance(event.dataset, Dataset):
            raise UserError("EarlyStop: its model needs all rows in memory, found resident_rows: leave one of them out")
        run = Run(event.run_dir, event.config, with_discount(self.settings or SelectConfig(), event.config), ())
        self.scores = earlier_scores(event.run_dir, self.described(run), event.step)
        self.judge = run, gather(run, event.dataset, self.quiet)

    def on_evaluation(self, event: Event) -> None:
        """Judge the policies, and stop if the patience is at its end."""
        assert self.judge is not None
        run, evidence = self.judge
        best = best_candidate(run, evidence, event.step, self.estimator, self.rule, self.quiet)
        told = {"score": None} if best is None else {"score": best.bound(self.rule), "setting": best.setting}
        self.scores.append({"step": event.step} | told)
        store.write_json(
            event.run_dir / EARLY_STOP, {"settings": self.described(run), "scores": self.scores}, seal=True
        )
        top, since = without_gain(self.scores)
        if since >= self.patience:
            found = "no finite selection score" if top is None else f"no selection score above {top['score']:.4g}"
            where = "" if top is None else f", that of update {top['step']:,},"
            raise Stop(f"{found}{where} in {since} evaluations")

    def on_end(self, event: EndEvent) -> None:
        """Let the model go."""
        self.judge = None

    def described(self, run: Run) -> dict[str, Any]:
        """What decides a score, in JSON's own types."""
        judged = {"estimator": self.estimator, "rule": self.rule, "select": dataclasses.asdict(run.settings)}
        return store.plain(judged)


def earlier_scores(run_dir: Path, settings: Mapping[str, Any], step: int) -> list[dict[str, Any]]:
    """The scores up to `step` that were made with the same settings; none where there is no such file."""
    try:
        found = store.read_json(run_dir / EARLY_STOP)
        return [score for score in found["scores"] if score["step"] <= step] if found["settings"] == settings else []
    except (UserError, KeyError, TypeError):
        return []


def without_gain(scores: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any] | None, int]:
    """The first highest score, None where all diverged, and how many evaluations came after it."""
    known = [index for index, score in enumerate(scores) if score["score"] is not None]
    if not known:
        return None, len(scores)
    best = max(known, key=lambda index: scores[index]["score"])
    return scores[best], len(scores) - 1 - best


def best_candidate(
    run: Run, evidence: Evidence, step: int, estimator: Estimator, rule: Rule, quiet: bool
) -> Candidate | None:
    """The setting of the run whose policies, as they are in its directory at `step`, have the highest selection score.

    None if an estimate diverged in every setting.
    """
    from damorl.experiment import choice, select
    from damorl.experiment.result import load_layers
    from damorl.record.members import members_of

    run = dataclasses.replace(run, kept=tuple((step, member) for member in members_of(run.config)))
    actors = select.stack_actors([load_layers(run.run_dir, m.seed, None, m.setting) for _, m in run.kept])
    fqe = model = None
    if estimator == "fqe":
        fqe = select.fitted_values(run, evidence, actors, quiet)
    else:
        horizon = run.settings.horizon or select.default_horizon(evidence.dataset, run.settings.fqe.gamma)
        model = select.imagined_values(run, evidence, actors, horizon, quiet)
    policies = [row | {"score": None} for row in select.policy_rows(run, fqe, model)]
    selections, configs = choice.by_setting([{"policies": policies, "run_dir": str(run.run_dir)}], [run.config])
    labels = [choice.setting_label(config) for config in configs]
    found = choice.candidates(selections, labels, estimator)
    return max(found, key=lambda candidate: candidate.bound(rule), default=None)
