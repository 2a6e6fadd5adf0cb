"""Two stores of runs on the same data, compared seed by seed: what a change of the code or of the settings did.

Rows match by algorithm, data set (name and sha256) and seed; settings may differ, for they are the change under test.
Only finished seeds count, each with the mean of its last ten evaluations. Whatever finds no partner is named.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from damorl.errors import UserError
from damorl.report.collect import RETURN, SCORE, UNITS, Run, SeedScore, Status, seed_score
from damorl.report.methods import ABSENT, flatten
from damorl.report.statistics import Estimate, Floats, estimate_paired
from damorl.report.stores import read_runs

Cell = tuple[str, tuple[str, str]]
"""(algorithm, (data set's name, its sha256))."""
Store = Mapping[Cell, Sequence[Run]]
SIDES = ("A", "B")
NO_SCORE = ("checkpoint_interval", "keep_policy_every")  # settings that decide no score
UNKNOWN = "unknown"


@dataclass(frozen=True)
class PairedRow:
    """One algorithm on one data set."""

    algorithm: str
    dataset: str
    sha256: str
    metric: str | None
    """Normalised score or return, whichever both stores have on the same scale; None: neither."""
    seeds: tuple[int, ...]
    """Of the pairs."""
    a: tuple[float, ...]
    """Mean of the last ten evaluations of each, in the first store."""
    b: tuple[float, ...]
    difference: Estimate | None
    """Mean of B - A over the pairs, with its 95 % bootstrap interval; None without pairs."""
    settings: Mapping[str, tuple[str, str]]
    """Settings that differ, with the values of A and B."""
    notes: tuple[str, ...] = ()
    """Reasons for care."""


class Overall(NamedTuple):
    """One algorithm over all data sets that have normalised scores: every data set weighs the same."""

    algorithm: str
    datasets: tuple[str, ...]
    num_pairs: int
    difference: Estimate


@dataclass(frozen=True)
class Unmatched:
    """A seed of one store that finds no finished, scored partner."""

    algorithm: str
    dataset: str
    sha256: str
    seed: int
    reason: str


@dataclass(frozen=True)
class Paired:
    """The comparison of two stores."""

    rows: tuple[PairedRow, ...]
    overall: tuple[Overall, ...]
    """One for each algorithm with pairs in units of the score."""
    unmatched: tuple[Unmatched, ...]
    seed: int
    """Of every bootstrap."""
    names: tuple[str, str] = field(default=SIDES)
    """Where A and B came from."""

    @property
    def num_pairs(self) -> int:
        """All pairs."""
        return sum(len(row.seeds) for row in self.rows)


Paths = Path | str | Sequence[Path | str]


def compare(
    a: Paths,
    b: Paths,
    a_settings: Mapping[str, Any] | None = None,
    b_settings: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Paired:
    """Compare two stores, each a directory of runs or records (or several paths of either), seed by seed.

    `a_settings` and `b_settings` narrow a store to the runs with these settings, by dotted name. `seed` decides every
    bootstrap. UserError if a store has several settings of one algorithm on a data set, if nothing is left of a store,
    or for damaged files.
    """
    stores = [
        read_store(side, paths, settings or {})
        for side, paths, settings in zip(SIDES, (a, b), (a_settings, b_settings), strict=True)
    ]
    rows, unmatched = [], []
    for cell in sorted({*stores[0], *stores[1]}):
        row, lacking = pair_cell(cell, stores[0].get(cell, ()), stores[1].get(cell, ()), seed)
        rows += [row] if row.seeds else []
        unmatched += lacking
    noted = tuple(name_other_data(item, stores) for item in unmatched)
    return Paired(tuple(rows), tuple(gather_overall(rows, seed)), noted, seed, (_words(a), _words(b)))


def read_store(side: str, paths: Paths, wanted: Mapping[str, Any]) -> dict[Cell, list[Run]]:
    """The runs of a store that have the `wanted` settings, by algorithm and data set."""
    listed = [paths] if isinstance(paths, str | Path) else paths
    runs = read_runs([Path(path) for path in listed])
    texts = {key: next(iter(flatten({key: value}).values())) for key, value in wanted.items()}
    known = {key for run in runs for key in settings_of(run)}
    for key in texts:
        if key not in known:
            raise UserError(f"{side}: expected a setting of its runs to choose by, found '{key}'; correct the name")
    kept = [run for run in runs if all(_same(settings_of(run).get(k, ABSENT), text) for k, text in texts.items())]
    if not kept:
        narrowed = f" with {', '.join(f'{key}={text}' for key, text in texts.items())}" if texts else ""
        raise UserError(
            f"{side}: expected runs{narrowed} in {_words(paths)}, found none; name another store or setting"
        )
    found: dict[Cell, list[Run]] = {}
    for run in kept:
        found.setdefault((run.algo, run.data_key), []).append(run)
    for cell, own in found.items():
        refuse_mixture(side, cell, own)
    return found


def settings_of(run: Run) -> dict[str, str]:
    """What decides a run's scores but data and seeds: the algorithm's settings, the loop's, preset and task."""
    config = run.config
    loop = {key: value for key, value in config["loop"].items() if key not in NO_SCORE}
    named = {key: config[key] for key in ("preset", "task") if config.get(key) is not None}
    return flatten(config["algo_config"]) | flatten(loop) | flatten(named)


def refuse_mixture(side: str, cell: Cell, runs: Sequence[Run]) -> None:
    """UserError if the runs of one algorithm on one data set have several settings."""
    own = [settings_of(run) for run in runs]
    differing = differing_settings(own)
    if differing:
        key, values = next(iter(differing.items()))
        flag = f"--{side.lower()}-setting"
        raise UserError(
            f"{side}: expected one setting of {cell[0]} on {cell[1][0]}, found {len(values)} values of {key} "
            f"({', '.join(values)}){_and_others(differing)}; choose with {flag} {key}={values[0]}"
        )


def differing_settings(settings: Sequence[Mapping[str, str]]) -> dict[str, list[str]]:
    """The settings that are not the same everywhere, with their values in order of appearance."""
    keys = dict.fromkeys(key for own in settings for key in own)
    values = {key: list(dict.fromkeys(own.get(key, ABSENT) for own in settings)) for key in keys}
    return {key: found for key, found in values.items() if len(found) > 1}


def pair_cell(cell: Cell, a: Sequence[Run], b: Sequence[Run], seed: int) -> tuple[PairedRow, list[Unmatched]]:
    """The pairs of one algorithm on one data set, and the seeds without a partner."""
    algorithm, (dataset, sha256) = cell
    metric = common_metric(a, b)
    ours, theirs = finals(a, metric), finals(b, metric)
    both, lacking = [], []
    for number in sorted({*ours, *theirs}):
        reason = why_unmatched(ours.get(number), theirs.get(number), metric, sha256)
        if reason:
            lacking.append(Unmatched(algorithm, dataset, sha256, number, reason))
        else:
            both.append(number)
    columns = [[float(side[number].last_10_mean or 0.0) for number in both] for side in (ours, theirs)]
    differing = differing_settings([settings_of(runs[0]) for runs in (a, b) if runs])
    row = PairedRow(
        algorithm,
        dataset,
        sha256,
        metric,
        tuple(both),
        tuple(columns[0]),
        tuple(columns[1]),
        estimate_paired(as_column(columns[0]), as_column(columns[1]), seed) if both else None,
        {key: (values[0], values[1]) for key, values in differing.items()},
        tuple(notes_on(ours, theirs, both, metric)),
    )
    return row, lacking


def common_metric(a: Sequence[Run], b: Sequence[Run]) -> str | None:
    """The best measure that all scored runs of both have on one scale."""
    runs = [run for run in (*a, *b) if run.metric is not None]
    scales = {(run.data.get("reference_min"), run.data.get("reference_max")) for run in runs} - {(None, None)}
    if runs and len(scales) < 2 and all(run.metric == SCORE for run in runs):
        return SCORE
    return RETURN if any(RETURN in row for run in runs for row in run.rows) else None


def finals(runs: Sequence[Run], metric: str | None) -> dict[int, SeedScore]:
    """Each seed's score; of a seed that is there twice, the one that came further, then the first."""
    found: dict[int, SeedScore] = {}
    for run in runs:
        for number in run.config["seeds"]:
            score = seed_score(run, int(number), metric)
            if number not in found or score.updates > found[number].updates:
                found[int(number)] = score
    return found


def why_unmatched(a: SeedScore | None, b: SeedScore | None, metric: str | None, sha256: str) -> str:
    """Why two seeds are no pair; nothing if they are one."""
    if a is None or b is None:
        status = (a or b or SeedScore(0, Status.MISSING, 0)).status
        told = f", and {status} there" if status in (Status.MISSING, Status.FAILED, Status.UNFINISHED) else ""
        return f"only in {SIDES[a is None]}{told}"
    if sha256 == UNKNOWN:
        return "the data are unknown"
    for side, score in zip(SIDES, (a, b), strict=True):
        if score.status is not Status.FINISHED:
            return f"{score.status} in {side}"
        if score.last_10_mean is None:
            return f"no {UNITS.get(metric or '', 'score')} in {side}"
        if not np.isfinite(score.last_10_mean):
            return f"its score in {side} is not finite"
    return ""


def notes_on(
    a: Mapping[int, SeedScore], b: Mapping[int, SeedScore], pairs: Sequence[int], metric: str | None
) -> Iterator[str]:
    """Reasons not to believe a difference at once."""
    if pairs and metric == RETURN:
        yield "in returns: not both stores have scores on one scale"
    counts = [sorted({side[number].evaluations for number in pairs}) for side in (a, b)]
    if counts[0] != counts[1]:
        yield "scores are means of different numbers of evaluations"
    if len(pairs) == 1:
        yield "one pair: no interval"


def name_other_data(item: Unmatched, stores: Sequence[Store]) -> Unmatched:
    """Say so where the other store has the data set's name, with other bytes."""
    for side, store in zip(SIDES, stores, strict=True):
        others = [sha for _, (name, sha) in store if name == item.dataset and sha != item.sha256]
        if item.reason.startswith(f"only in {SIDES[side == 'A']}") and others and UNKNOWN not in (item.sha256, *others):
            reason = f"{item.reason}; {side} has other data of this name (sha256 {others[0][:8]})"
            return Unmatched(item.algorithm, item.dataset, item.sha256, item.seed, reason)
    return item


def gather_overall(rows: Sequence[PairedRow], seed: int) -> Iterator[Overall]:
    """Each algorithm over its data sets, stratified by data set."""
    for algorithm in dict.fromkeys(row.algorithm for row in rows):
        own = [row for row in rows if row.algorithm == algorithm and row.metric == SCORE and row.seeds]
        if own:
            most = max(len(row.seeds) for row in own)
            a, b = (np.concatenate([as_column(getattr(row, side), most) for row in own], axis=1) for side in ("a", "b"))
            names, pairs = tuple(row.dataset for row in own), sum(len(row.seeds) for row in own)
            yield Overall(algorithm, names, pairs, estimate_paired(a, b, seed))


def as_column(values: Sequence[float], length: int | None = None) -> Floats:
    """`[length, 1]`, filled up with NaN."""
    column = np.full((length or len(values), 1), np.nan)
    column[: len(values), 0] = values
    return column


def _same(stored: str, wanted: str) -> bool:
    """Numbers compare as numbers: 50000 and 50,000 are one."""
    try:
        return float(stored.replace(",", "")) == float(wanted.replace(",", ""))
    except ValueError:
        return stored.lower() == wanted.lower() or {stored, wanted.lower()} == {"null", "none"}


def _and_others(differing: Mapping[str, Sequence[str]]) -> str:
    others = len(differing) - 1
    return f" and {others} more setting{'s' * (others > 1)} that differ{'s' * (others == 1)}" if others else ""


def _words(paths: Paths) -> str:
    listed = [paths] if isinstance(paths, str | Path) else paths
    return " ".join(str(path) for path in listed)
