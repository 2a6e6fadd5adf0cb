"""Off-policy estimates of what a run's policies are worth, side by side: importance weights, doubly robust, a ratio of
occupancies, fitted Q and the learned model, each with its interval and what speaks against it.

All judge the same thing: the discounted value, from the data's initial states, of the policy **as it samples**. A
deterministic action has no density, so that importance weights need the tanh-Gaussian; fitted Q and the model are
given the same one. (The simulator's scores are of the deterministic action, undiscounted.) What the standard deviation
of a policy is worth depends on its algorithm; `std` replaces it.

Doubly robust estimates take Q from fitted Q evaluation on the same data, and V as its mean over a few sampled actions.
Intervals are percentiles over resampled episodes, with Q and features as they are. Fitted Q has none: resampling its
starts would leave out the error of its fit. The model's is two standard deviations between its elites.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from damorl.errors import UserError
from damorl.experiment import densities, select
from damorl.experiment.ope_settings import OPEConfig
from damorl.experiment.ope_table import RELIABLE, judged
from damorl.experiment.select import Evidence, Run
from damorl.experiment.sources import load_run_dataset
from damorl.experiment.weighing import Recorded, check, gather, weighed
from damorl.files import writing
from damorl.parts.fqe import act_sampled
from damorl.record import store

OPE = "ope.json"


def ope(
    run_dirs: Sequence[Path | str],
    settings: OPEConfig | None = None,
    dataset: Path | str | None = None,
    force: bool = False,
    quiet: bool = True,
    make: bool = True,
) -> list[dict[str, Any]]:
    """Estimate the value of every policy that the runs kept, each once, and write each run's `ope.json`.

    Returns their contents in the order of `run_dirs`, each with its `run_dir`. A run that was judged before with the
    same settings is not judged again unless `force`. `dataset` says where the data is if not where it was in training.
    Raises UserError for a run without policies, for data that are missing, other than the run's or without a complete
    episode, and where recorded densities are asked for and there are none.
    """
    settings = settings or OPEConfig()
    runs = [distinct_run(select.read_run(Path(run_dir), settings.select)) for run_dir in run_dirs]

    def judge_group(group: Sequence[Run]) -> list[dict[str, Any]]:
        data = load_run_dataset(group[0].run_dir, group[0].config, dataset, make, quiet)
        check(data, settings.densities)  # before the model is fitted
        evidence = select.gather(group[0], data, quiet)
        recorded = gather(evidence, settings)
        return [judge(run, evidence, recorded, settings, quiet) for run in group]

    known = {} if force else {run.run_dir: read_estimates(run, settings) for run in runs}
    return select.judged_once(runs, known, judge_group)


def distinct_run(run: Run) -> Run:
    """The run with each network once, at the first step that it was kept at."""
    digests = [select.layers_digest(layers) for layers in select.load_kept(run)]
    return dataclasses.replace(run, kept=tuple(run.kept[digests.index(own)] for own in dict.fromkeys(digests)))


def described(run: Run, settings: OPEConfig) -> dict[str, Any]:
    """What decides the estimates, in JSON's own types."""
    return store.plain(dataclasses.asdict(dataclasses.replace(settings, select=run.settings)))


def read_estimates(run: Run, settings: OPEConfig) -> dict[str, Any] | None:
    """The finished estimates of the same policies with the same settings, if there are some."""
    try:
        found = store.read_json(run.run_dir / OPE)
        same = found["settings"] == described(run, settings)
        kept = [(policy["step"], policy["seed"], policy.get("setting")) for policy in found["policies"]]
    except (UserError, KeyError, TypeError):
        return None
    return found if same and kept == [(step, own.seed, own.setting) for step, own in run.kept] else None


def judge(run: Run, evidence: Evidence, recorded: Recorded, settings: OPEConfig, quiet: bool) -> dict[str, Any]:
    """Every estimate of every policy of a run beside its score; written to `ope.json`."""
    layers = select.load_kept(run)
    actors = select.stack_actors(layers)
    if settings.std is not None:
        actors = densities.with_std(actors, settings.std)
    horizon = run.settings.horizon or select.default_horizon(evidence.dataset, run.settings.fqe.gamma)
    fqe = select.fitted_values(run, evidence, actors, quiet, act_sampled)
    model = select.imagined_values(run, evidence, actors, horizon, quiet, act_sampled)
    metric, scores = kept_scores(run)
    policies = []
    for i, (step, member) in enumerate(run.kept):
        actor = jax.tree.map(lambda leaf, i=i: leaf[i], actors)
        found = weighed(actor, fqe, i, recorded, settings, run.settings.fqe.gamma)
        found |= {"fqe": {"value": fqe.value[i]}, "model": of_model(model.mean[i], model.std[i])}
        digest = select.layers_digest(layers[i])
        policies.append(member.marks | {"step": step, "policy": digest, "score": scores.get(digest)} | judged(found))
    report = {
        "run": run.run_dir.resolve().name,
        "algo": run.config.get("algo"),
        "dataset": run.config["data"]["name"],
        "dataset_sha256": evidence.dataset.sha256,
        "metric": metric,
        "densities": recorded.behaviour.source,
        "episodes": len(recorded.lengths),
        "saturated": densities.saturated(recorded.rows.action),
        "reliable": RELIABLE,
        "gamma": run.settings.fqe.gamma,
        "policies": policies,
        "settings": described(run, settings),
        "provenance": store.provenance(store.own_command(), evidence.dataset.sha256, jax.devices()[0].device_kind),
    }
    store.write_json(run.run_dir / OPE, report, seal=True)
    return store.plain(report)


def of_model(mean: float, std: float) -> dict[str, Any]:
    """The model's estimate with two deviations between its elites."""
    return {"value": mean, "interval": (mean - 2.0 * std, mean + 2.0 * std)}


def kept_scores(run: Run) -> tuple[str | None, dict[str, float]]:
    """What the simulator gave each network, by its digest: the mean over all steps that it was kept at."""
    full = select.read_run(run.run_dir, run.settings)
    metric, scores = select.real_scores(run)
    found: dict[str, list[float]] = {}
    for (step, member), layers in zip(full.kept, select.load_kept(full), strict=True):
        score = scores.get((step, member.seed, member.setting))
        found.setdefault(select.layers_digest(layers), []).extend([] if score is None else [score])
    return metric, {digest: float(np.mean(own)) for digest, own in found.items() if own}


def write_all(reports: Sequence[dict[str, Any]], groups: Sequence[dict[str, Any]], path: Path) -> None:
    """The estimates of several runs and what they are worth, with the command that asked for them, as one JSON file."""
    provenance = store.provenance(store.own_command(), reports[0]["dataset_sha256"], jax.devices()[0].device_kind)
    runs = [{name: value for name, value in report.items() if name != "run_dir"} for report in reports]
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    store.write_json(path, {"pooled": list(groups), "runs": runs, "provenance": provenance})
