"""What the run directories, and the compact records of runs, hold: settings, scores of each seed, and what else was
left there.

A directory that is no run but holds runs, records or a sweep stands for all of them. What a sweep was asked for and has
not made is a run, too: one without rows, and with a reason.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

from damorl.errors import UserError
from damorl.record.compact import is_record, read_record, record_rows
from damorl.record.store import CONFIG, METRICS, PROVENANCE, Row, read_json, read_metrics

CARD, PICTURE, SELECTION = "dataset.json", "dataset.png", "selection.json"
FAILURE, SWEEP = "failure.json", "sweep.json"
SCORE, RETURN = "eval/score", "eval/return_mean"
UNITS = {SCORE: "score", RETURN: "return"}
LAST = 10  # evaluations averaged for the score to quote
NEEDED = ("algo", "seeds", "algo_config", "loop.total_updates", "data.name", "data.sha256")


class Status(StrEnum):
    """How far a seed came."""

    FINISHED = "finished"
    UNFINISHED = "unfinished"
    NOT_SCORED = "not scored"  # finished, without a simulator
    MISSING = "missing"  # asked for, and nothing of it is there
    FAILED = "failed"  # a sweep tried, and wrote down why it failed
    DUPLICATE = "duplicate"  # the same seed of the same method is in another run directory, too


@dataclass(frozen=True)
class SeedScore:
    """One seed of a run in the unit of one metric; None where nothing was evaluated."""

    seed: int
    status: Status
    updates: int
    evaluations: int = 0
    """How many evaluations `last_10_mean` averages: fewer than ten where there were fewer."""
    last_10_mean: float | None = None
    last: float | None = None
    best: float | None = None


@dataclass(frozen=True)
class Run:
    """One run directory or record, read once. What need not be there is None or empty if it is not."""

    path: Path
    config: Mapping[str, Any]
    provenance: Mapping[str, Any] = field(repr=False)
    rows: Sequence[Row] = field(repr=False)
    card: Mapping[str, Any] | None = field(default=None, repr=False)
    """The data set's card, from `dataset.json`."""
    picture: bytes | None = field(default=None, repr=False)
    """The card's picture as PNG."""
    selection: Mapping[str, Any] | None = field(default=None, repr=False)
    """What `damorl select` thinks of the run's policies."""
    failure: str = ""
    """Why the last try of a sweep failed."""
    finals: Mapping[tuple[int, str], float] = field(default_factory=dict, repr=False)
    """Of a record: the last-10 mean by seed and metric, in full where the curves are rounded."""
    title: str = ""
    """What to call it if not by its directory."""

    @property
    def name(self) -> str:
        """The run directory's own name."""
        return self.title or self.path.resolve().name

    @property
    def absent(self) -> bool:
        """Whether nothing of it is there but the wish for it."""
        return not self.rows and not self.provenance and bool(self.title)

    @property
    def algo(self) -> str:
        """The algorithm's name."""
        return str(self.config["algo"])

    @property
    def data(self) -> Mapping[str, Any]:
        """What the config says of the data."""
        return self.config["data"]

    @property
    def data_key(self) -> tuple[str, str]:
        """Name and sha256: what makes two data sets the same."""
        return str(self.data["name"]), str(self.data["sha256"])

    @property
    def total_updates(self) -> int:
        """The budget."""
        return int(self.config["loop"]["total_updates"])

    @property
    def command(self) -> Sequence[str]:
        """The words of the command that made it; none if they were not recorded."""
        return [str(word) for word in self.provenance.get("command") or []]

    @property
    def metric(self) -> str | None:
        """The best measure recorded: normalised score, else return, else None."""
        return next((key for key in UNITS if any(key in row for row in self.rows)), None)


def read_run(path: Path) -> Run:
    """Read a run directory, of which only `config.json` must be there, or the record of a run.

    UserError if that, or any other file, is damaged.
    """
    if path.is_file():
        return _from_record(path)
    config = read_json(path / CONFIG)
    for key in NEEDED:
        if _find(config, key) is None:
            raise UserError(
                f"cannot use {path / CONFIG}: expected the config of a run with the key '{key}', found none; "
                "check that its directory is a run directory"
            )
    optional = lambda name: read_json(path / name) if (path / name).exists() else None
    return Run(
        path=path,
        config=config,
        provenance=optional(PROVENANCE) or {},
        rows=read_metrics(path) if (path / METRICS).exists() else [],
        card=optional(CARD),
        picture=_read_picture(path / PICTURE),
        selection=optional(SELECTION),
        failure=failure_of(path),
    )


def _from_record(path: Path) -> Run:
    record = read_record(path)
    metrics = {unit: metric for metric, unit in UNITS.items()}
    return Run(
        path=path,
        config=record["config"] | {"data": record["data"]},
        provenance=record["provenance"],
        rows=record_rows(record),
        finals={
            (seed, metrics[unit]): value
            for seed in record["config"]["seeds"]
            for unit, value in record["seeds"][str(seed)]["final"].items()
            if unit in metrics
        },
        title=record["run"],
    )


def failure_of(run_dir: Path) -> str:
    """Why a sweep's last try at a run failed, in one sentence; nothing if none did."""
    if not (run_dir / FAILURE).exists():
        return ""
    told = read_json(run_dir / FAILURE)
    told = told if isinstance(told, dict) else {}
    return f"{told.get('kind', 'failed')}: {told.get('reason') or 'it left no word'}"


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """All runs in the order given, each once, and then those that the sweeps among `paths` lack.

    A path is a run directory, a record, or a directory of them. Of a run that is there as directory and as record, the
    directory counts. UserError for a path that is none of these, and for damaged files.
    """
    unique: dict[Path, Path] = {}
    for found in (found for path in paths for found in expand(path)):
        unique.setdefault(found.resolve(), found)
    runs = [read_run(path) for path in unique.values()]
    identity = lambda run: (run.name, run.data_key)
    taken = {identity(run) for run in runs if run.path.is_dir()}
    kept = []
    for run in runs:
        if run.path.is_dir() or identity(run) not in taken:
            kept.append(run)
            taken.add(identity(run))
    for directory in dict.fromkeys(path.resolve() for path in paths if (path / SWEEP).is_file()):
        kept += runs_not_there(directory, kept)
    return kept


def expand(path: Path) -> list[Path]:
    """`path` itself if it is one run; the runs and records in it, by name, if it is a directory of them."""
    if not path.is_dir() or (path / CONFIG).exists():
        return [path]
    found = [entry for entry in sorted(path.iterdir()) if (entry / CONFIG).is_file() or _holds_record(entry)]
    return found if found or (path / SWEEP).is_file() else [path]


def _holds_record(path: Path) -> bool:
    return path.suffix == ".json" and path.is_file() and is_record(read_json(path))


def runs_not_there(directory: Path, runs: Sequence[Run]) -> list[Run]:
    """What the sweep in `directory` was asked for and is not among `runs`: a run without rows for each seed.

    The hash of its data is that of the other runs on data of the same name, or "unknown".
    """
    content = read_json(directory / SWEEP)
    asked = content.get("settings") or [] if isinstance(content, dict) else []
    there = {(setting_key(run.config), int(seed)) for run in runs for seed in run.config["seeds"]}
    named = lambda config: json.dumps([config.get("dataset"), config.get("task"), config["loop"].get("dataset_steps")])
    known = {named(run.config): run.data for run in runs}
    failures = _failures(directory)
    found = []
    for index, config in enumerate(asked):
        if any(_find(config, key) is None for key in NEEDED if not key.startswith("data.")):
            raise UserError(
                f"cannot use {directory / SWEEP}: expected the settings of runs, found something else; "
                "call the sweep again, which writes them anew"
            )
        data = known.get(named(config), {"name": config.get("dataset"), "sha256": "unknown"})
        for seed in config["seeds"]:
            if (setting_key(config), int(seed)) not in there:
                own = {**config, "seeds": [seed], "data": data}
                failure = failures.get((setting_key(config), int(seed)), "")
                path = directory / SWEEP / f"{index}-{seed}"
                found.append(Run(path, own, {}, [], failure=failure, title="not there"))
    return found


def _failures(directory: Path) -> dict[tuple[str, int], str]:
    """Why runs failed that never came to a config, by setting and seed."""
    found = {}
    for path in sorted(directory.glob(f"*/{FAILURE}")):
        told = read_json(path)
        if isinstance(told, dict) and isinstance(told.get("settings"), dict):
            key, reason = setting_key(told["settings"]), failure_of(path.parent)
            found |= {(key, int(seed)): reason for seed in told.get("seeds") or []}
    return found


def setting_key(config: Mapping[str, Any]) -> str:
    """Everything that decides a run but its seeds and the bytes of its data."""
    return json.dumps({key: value for key, value in config.items() if key not in ("seeds", "data")}, sort_keys=True)


def _read_picture(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _find(config: Any, key: str) -> Any:
    for name in key.split("."):
        config = config.get(name) if isinstance(config, Mapping) else None
    return config


def seed_scores(run: Run, metric: str | None) -> list[SeedScore]:
    """One entry for each seed that the run was asked for, in the unit of `metric`."""
    return [seed_score(run, int(seed), metric) for seed in run.config["seeds"]]


def seed_score(run: Run, seed: int, metric: str | None) -> SeedScore:
    """The mean of the last ten evaluations, the last, and the best."""
    rows = [row for row in run.rows if row["seed"] == seed]
    if not rows:
        return SeedScore(seed, Status.FAILED if run.failure else Status.MISSING, 0)
    updates = int(max(row["step"] for row in rows))
    finished = updates >= run.total_updates
    values = [float(row[metric]) for row in rows if metric in row]
    begun = Status.FAILED if run.failure else Status.UNFINISHED
    if not values:
        return SeedScore(seed, Status.NOT_SCORED if finished else begun, updates)
    recent = values[-LAST:]
    return SeedScore(
        seed=seed,
        status=Status.FINISHED if finished else begun,
        updates=updates,
        evaluations=len(recent),
        last_10_mean=run.finals.get((seed, str(metric)), float(np.mean(recent))),
        last=values[-1],
        best=max(values),
    )
