"""All numbers of a report as plain data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from damorl.report.aggregate import Aggregate
from damorl.report.collect import Run
from damorl.report.compare import Comparison, cautions
from damorl.report.results import Lack, Result, gather_lacks
from damorl.report.series import Band
from damorl.report.statistics import AGGREGATE_REPS, CONFIDENCE, PAIR_REPS, Estimate, num_missing

Bands = Mapping[tuple[str, str], Mapping[str, Band]]
"""By method and data set, then by metric."""


def numbers(comparison: Comparison, bands: Bands, title: str) -> dict[str, Any]:
    """What `report.json` holds."""
    bootstrap = {"seed": comparison.seed, "confidence": CONFIDENCE, "reps": AGGREGATE_REPS, "pair_reps": PAIR_REPS}
    pairs = zip(comparison.results, comparison.estimates, strict=True)
    return {
        "title": title,
        "bootstrap": bootstrap,
        "cautions": cautions(comparison),
        "scores": [score_entry(result, estimate) for result, estimate in pairs],
        "aggregate": None if comparison.aggregate is None else aggregate_entry(comparison.aggregate),
        "curves": [
            {"method": method, "data_set": data, "metric": metric, **vars(band)}
            for (method, data), found in bands.items()
            for metric, band in found.items()
        ],
        "missing": [lack_entry(lack) for lack in gather_lacks(comparison.results)],
        "runs": [run_entry(run, comparison) for run in comparison.there],
    }


def estimate_entry(estimate: Estimate | None) -> dict[str, Any] | None:
    """Value and interval."""
    return None if estimate is None else estimate._asdict()


def score_entry(result: Result, estimate: Estimate | None) -> dict[str, Any]:
    """One method on one data set."""
    return {
        "method": result.method.label,
        "data_set": result.data.label,
        "dataset_sha256": result.data.sha256,
        "metric": result.data.metric,
        "state": result.state,
        "last_10_mean": estimate_entry(estimate),
        "std": result.std,
        "num_seeds": len(result.counted),
        "num_missing": result.missing,
        "last": result.average("last"),
        "best_not_to_be_quoted": result.average("best"),
        "seeds": [{"run": run.name, **dataclasses.asdict(score)} for run, score in result.seeds],
    }


def lack_entry(lack: Lack) -> dict[str, Any]:
    """A seed without a final score."""
    return {
        "method": lack.result.method.label,
        "data_set": lack.result.data.label,
        "seed": lack.score.seed,
        "state": str(lack.score.status),
        "reason": lack.reason,
        "run": None if lack.run.absent else lack.run.name,
    }


def aggregate_entry(aggregate: Aggregate) -> dict[str, Any]:
    """All methods over all data sets of the block."""
    profiles = {method.label: profile._asdict() for method, profile in aggregate.profiles.items()}
    return {
        "data_sets": [data.label for data in aggregate.data],
        "methods": {
            method.label: {
                "scores": scores,
                "num_missing": num_missing(scores),
                **{name: estimate_entry(found) for name, found in aggregate.estimates[method].items()},
            }
            for method, scores in aggregate.scores.items()
        },
        "probability_of_improvement": [
            {"first": pair.first.label, "second": pair.second.label, **pair.probability._asdict()}
            for pair in aggregate.pairs
        ],
        "performance_profiles": profiles,
    }


def run_entry(run: Run, comparison: Comparison) -> dict[str, Any]:
    """Where a number came from."""
    return {
        "name": run.name,
        "path": str(run.path),
        "method": comparison.method_of[run.place].label,
        "data": {key: run.data[key] for key in ("name", "sha256")},
        "config": run.config,
        "provenance": run.provenance,
        "selection": run.selection,
    }
