"""What the run directories hold: the settings of each run, the scores of each seed, and what else was left there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

from damorl.errors import UserError
from damorl.record.members import describe, setting_config, settings_of
from damorl.record.store import CONFIG, METRICS, PROVENANCE, Row, read_json, read_metrics

CARD, PICTURE, SELECTION = "dataset.json", "dataset.png", "selection.json"
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
    """One run directory, or one setting of a population in it, read once.

    What need not be there is None or empty if it is not.
    """

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
    setting: str | None = None
    """Of a population, what this setting is."""

    @property
    def name(self) -> str:
        """The directory's own name, with the setting of a population."""
        own = self.path.resolve().name
        return own if self.setting is None else f"{own} [{self.setting}]"

    @property
    def place(self) -> str:
        """What tells it from every other run: its directory, with the setting of a population."""
        return f"{self.path}" if self.setting is None else f"{self.path} [{self.setting}]"

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
    """Read a run directory; only `config.json` must be there. UserError if that, or any other file, is damaged."""
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
    )


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """All runs in the order given, each directory once; of a population one run per setting."""
    unique: dict[Path, Path] = {}
    for path in paths:
        unique.setdefault(path.resolve(), path)
    return [run for path in unique.values() for run in split_settings(read_run(path))]


def split_settings(run: Run) -> list[Run]:
    """Each setting of a population as a run of its own; any other run as it is."""
    if not run.config.get("population"):
        return [run]
    found = []
    for number, values in enumerate(settings_of(run.config)):
        rows = [row for row in run.rows if row.get("setting") == number]
        policies = [item for item in (run.selection or {}).get("policies") or [] if item.get("setting") == number]
        selection = None if run.selection is None else {**run.selection, "policies": policies}
        config = setting_config(run.config, number)
        found.append(replace(run, config=config, rows=rows, selection=selection, setting=describe(values)))
    return found


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
        return SeedScore(seed, Status.MISSING, 0)
    updates = int(max(row["step"] for row in rows))
    finished = updates >= run.total_updates
    values = [float(row[metric]) for row in rows if metric in row]
    if not values:
        return SeedScore(seed, Status.NOT_SCORED if finished else Status.UNFINISHED, updates)
    recent = values[-LAST:]
    return SeedScore(
        seed=seed,
        status=Status.FINISHED if finished else Status.UNFINISHED,
        updates=updates,
        evaluations=len(recent),
        last_10_mean=float(np.mean(recent)),
        last=values[-1],
        best=max(values),
    )
