"""The report on a learned model: its errors over k steps, whether its spread can be believed, whether its doubt tells.

What it is judged by is data that the fit did not see: the whole episodes that it held out or, where it held out single
rows, these rows; or another data set of the same task.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from damorl.data.datasets import Dataset
from damorl.errors import UserError
from damorl.experiment.fitted import FittedModel, fit_split
from damorl.experiment.inputs import to_device
from damorl.files import writing
from damorl.parts import model_check as check
from damorl.record import store
from damorl.report.model import draw_model, label
from damorl.types import Array, Transition

REPORT, PICTURE = "model.json", "model.png"
MAX_ROWS = 10_000
"""Rows of one-step predictions, evenly spread, at most."""
BINS, PIT_BINS = 10, 20
LEVELS = np.linspace(0.05, 0.95, 19)
PATH_STREAM = 4
"""What the key of the seed is folded with for the starts of the paths."""
NOTES = {
    "episodes": "whole episodes that the fit held out",
    "rows": "single rows that the fit held out; after its first step a path goes through rows that the model was "
    "fitted to, so the errors there are flattered",
    "other data": "another data set",
}
SHOWN = (1, 2, 5, 10, 20, 50, 100, 200, 500)
"""Numbers of steps in the printed table."""


class HeldOut(NamedTuple):
    """What a model is judged by."""

    kind: str
    """A key of `NOTES`."""
    rows: Transition
    episode: np.ndarray
    chosen: Array
    """Numbers of the rows that were held out, ascending."""
    name: str
    """Of the data set."""


def report_model(model: FittedModel, horizon: int = 20, test_data: Dataset | None = None) -> dict[str, Any]:
    """Judge `model` on what its fit held out, or on `test_data`; everything that JSON and picture show.

    UserError for a horizon below 1 or longer than any held-out episode, and for test data of other sizes or the very
    data that the model was fitted to.
    """
    if horizon < 1:
        raise UserError(f"horizon must be at least 1, found {horizon}: give a positive whole number")
    held = own_rows(model) if test_data is None else other_rows(model, test_data)
    key = jax.random.fold_in(jax.random.key(model.seed), PATH_STREAM)
    paths = check.find_paths(key, horizon, held.rows, held.episode, held.chosen)
    errors = check.path_errors(model.elites, paths, check.data_scale(model.data.rows))
    picked = held.chosen[:: -(-len(held.chosen) // MAX_ROWS)]
    judged = check.judge_rows(model.elites, jax.tree.map(lambda column: column[picked], held.rows))
    return {
        "run": None if model.run_dir is None else model.run_dir.resolve().name,
        "dataset": model.dataset.name,
        "dataset_sha256": model.dataset.sha256,
        "seed": model.seed,
        "elites": int(model.elites.params.layers[0].kernel.shape[0]),
        "moved": model.moved,
        "settings": dataclasses.asdict(model.settings),
        "held_out": {
            "kind": held.kind,
            "note": NOTES[held.kind],
            "data": held.name,
            "rows": len(held.chosen),
            "judged_rows": len(picked),
            "paths": paths.obs.shape[0],
        },
        "k_step": over_steps(errors) | {"horizon": horizon},
        "calibration": calibration(judged),
        "disagreement": doubts(judged),
        "features": list(features(model, errors, judged)),
        "provenance": store.provenance(store.own_command(), model.dataset.sha256, jax.devices()[0].device_kind),
    }


def own_rows(model: FittedModel) -> HeldOut:
    """What the fit held out."""
    split = fit_split(model)
    kind = "rows" if split.stretches is None else "episodes"
    return HeldOut(kind, model.data.rows, model.dataset.episode, jnp.sort(split.holdout), model.dataset.name)


def other_rows(model: FittedModel, other: Dataset) -> HeldOut:
    """All of another data set."""
    if other.spec != model.dataset.spec:
        raise UserError(
            f"test data {other.name}: expected {model.dataset.obs_dim} observations and {model.dataset.action_dim} "
            f"actions, found {other.obs_dim} and {other.action_dim}; give data of the model's task"
        )
    if other.sha256 == model.dataset.sha256:
        raise UserError(
            f"test data {other.name}: expected other data than the model was fitted to, found the same; give another "
            "data set of the task, or none"
        )
    return HeldOut("other data", to_device(other).rows, other.episode, jnp.arange(other.num_transitions), other.name)


def over_steps(errors: check.Errors) -> dict[str, Any]:
    """Over all features of the state, for each number of steps: the error as `holdout.k_step_error` has it, quantiles
    over paths and elites of what is not capped, and the error of a state that stays."""
    each = np.nanmean(errors.each[..., :-1], axis=-1)
    stays = np.nanmean(errors.no_change, axis=-1)[:, None]
    flat = each.reshape(len(each), -1)
    low, median, high = (np.quantile(flat, share, axis=1, method="nearest") for share in (0.1, 0.5, 0.9))
    known = {"error": check.capped(each), "q10": low, "median": median, "q90": high}
    return known | {"no_change": check.capped(stays)}


def calibration(judged: check.Judged) -> dict[str, Any]:
    """Over all features and the reward: shares within 1 and 2 predicted deviations, the histogram of the probability
    integral transform, and the share that each central interval holds."""
    transform = check.probability_transform(judged.deviations)
    values = transform[np.isfinite(transform)]
    within = {f"within_{times}": np.nanmean(check.share_within(judged.deviations, times)) for times in (1, 2)}
    histogram = np.histogram(values, PIT_BINS, (0.0, 1.0))[0] / max(1, len(values))
    return within | {"pit": histogram, "level": LEVELS, "observed": check.reliability(transform, LEVELS)}


def doubts(judged: check.Judged) -> dict[str, Any]:
    """How the error, over all features of the state, goes with the elites' disagreement."""
    error = np.sqrt(np.nanmean(np.square(judged.error[:, :-1]), axis=1))
    apart, found = check.binned(error, judged.disagreement, BINS)
    correlation = check.rank_agreement(error, judged.disagreement)
    return {"rank_correlation": correlation, "bins": {"disagreement": apart, "error": found}}


def features(model: FittedModel, errors: check.Errors, judged: check.Judged) -> Iterator[dict[str, Any]]:
    """Every feature of the state by its index and, where the task tells, its name; the reward last. None for what is
    not known of those that never vary."""
    task, obs_dim = model.dataset.task, model.dataset.obs_dim
    names = task.obs_names if task is not None and task.obs_names else (None,) * obs_dim
    shares = [check.share_within(judged.deviations, times) for times in (1, 2)]
    per_step = check.capped(errors.each)
    for index, name in enumerate((*names, "reward")):
        yield {
            "index": index if index < obs_dim else None,
            "name": name,
            "k_step_error": [store.known(value) for value in per_step[:, index]],
            "within_1": store.known(shares[0][index]),
            "within_2": store.known(shares[1][index]),
            "rank_correlation": check.rank_agreement(judged.error[:, index], judged.spread[:, index]),
        }


def write_report(report: dict[str, Any], directory: Path) -> tuple[Path, Path]:
    """`model.json` and `model.png` in `directory`, which is made if needed; nothing else there is touched."""
    with writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
    store.write_json(directory / REPORT, report)
    return directory / REPORT, draw_model(store.plain(report), directory / PICTURE)


def format_report(report: dict[str, Any]) -> str:
    """The report as text for the terminal."""
    held, steps, spread = report["held_out"], report["k_step"], report["calibration"]
    shown = sorted({*(step for step in SHOWN if step < steps["horizon"]), steps["horizon"]})
    at = lambda values: "".join(f"{values[step - 1]:>9.3g}" for step in shown)
    lines = [
        f"the model of {report['run'] or report['dataset']}, seed {report['seed']}, {report['elites']} elites",
        f"judged by {held['rows']:,} rows of {held['data']}: {held['note']}",
        *["(its algorithm went on changing it after the fit, also on what that held out)"] * report["moved"],
        "",
        f"{'error after steps':<24}" + "".join(f"{step:>9}" for step in shown),
        f"{'all features':<24}{at(steps['error'])}",
        f"{'  median path':<24}{at(steps['median'])}",
        f"{'  if nothing changed':<24}{at(steps['no_change'])}",
        *(f"{label(own):<24}{at(own['k_step_error'])}" for own in report["features"] if own["within_1"] is not None),
        "(squared, as shares of the variance in the data; 1 is no better than the data's mean)",
        "",
        f"{'one step':<24}{'within 1 std':>14}{'within 2 std':>14}{'error ~ doubt':>15}",
        f"{'if calibrated':<24}{0.683:>14.3f}{0.954:>14.3f}",
        table_row("all", {**spread, **report["disagreement"]}),
        *(table_row(label(own), own) for own in report["features"] if own["within_1"] is not None),
        "(error ~ doubt: rank correlation of the error with how far the elites lie apart)",
    ]
    return "\n".join(lines)


def table_row(name: str, row: dict[str, Any]) -> str:
    """One line of the table of one-step figures."""
    correlation = row["rank_correlation"]
    last = f"{'-':>15}" if correlation is None else f"{correlation:>15.2f}"
    return f"{name:<24}{row['within_1']:>14.3f}{row['within_2']:>14.3f}{last}"
