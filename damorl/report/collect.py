"""What the run directories, and the compact records of runs, hold: settings, scores of each seed, and what else was
left there.

`stores` finds them.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

from damorl.errors import UserError
from damorl.record.compact import read_record, record_rows
from damorl.record.store import CONFIG, FAILURE, METRICS, MODELS, PROVENANCE, Row, read_json, read_metrics

PNG = b"\x89PNG\r\n\x1a\n"
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
    """One run directory or record, or one setting of a population in it, read once.

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
    failure: str = ""
    """Why the last try of a sweep failed."""
    finals: Mapping[tuple[int, str], float] = field(default_factory=dict, repr=False)
    """Of a record: the last-10 mean by seed and metric, in full where the curves are rounded."""
    models: Mapping[int, str] = field(default_factory=dict, repr=False)
    """The hash of the dynamics that each seed was given, of those that have one."""
    title: str = ""
    """What to call it if not by its directory."""
    setting: str | None = None
    """Of a population, what this setting is."""

    @property
    def name(self) -> str:
        """The directory's own name, with the setting of a population."""
        own = self.title or self.path.resolve().name
        return own if self.setting is None else f"{own} [{self.setting}]"

    @property
    def place(self) -> str:
        """What tells it from every other run: its directory, with the setting of a population."""
        return f"{self.path}" if self.setting is None else f"{self.path} [{self.setting}]"

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
        if find(config, key) is None:
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
        models=_models((optional(MODELS) or {}).get("sha256")),
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
        models=_models(record["model_sha256"]),
        title=record["run"],
    )


def _models(hashes: Mapping[str, str | None] | None) -> dict[int, str]:
    return {int(seed): sha256 for seed, sha256 in (hashes or {}).items() if sha256}


def failure_of(run_dir: Path) -> str:
    """Why a sweep's last try at a run failed, in one sentence; nothing if none did."""
    if not (run_dir / FAILURE).exists():
        return ""
    told = read_json(run_dir / FAILURE)
    told = told if isinstance(told, dict) else {}
    return f"{told.get('kind', 'failed')}: {told.get('reason') or 'it left no word'}"


def _read_picture(path: Path) -> bytes | None:
    """The picture, or None if there is none. UserError if it is damaged."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    if not is_whole_png(content):
        raise UserError(
            f"cannot use {path}: expected a picture, found a damaged one; remove it or restore it from a copy"
        )
    return content


def is_whole_png(content: bytes) -> bool:
    """Whether it is a PNG to its end, each part of which has its checksum."""
    if not content.startswith(PNG):
        return False
    place, kind = len(PNG), b""
    while place + 12 <= len(content):
        (length,) = struct.unpack(">I", content[place : place + 4])
        kind, body = content[place + 4 : place + 8], content[place + 4 : place + 8 + length]
        if zlib.crc32(body).to_bytes(4, "big") != content[place + 8 + length : place + 12 + length]:
            return False
        place += 12 + length
    return kind == b"IEND" and place == len(content)


def find(config: Any, key: str) -> Any:
    """The value under a dotted key; None if there is none."""
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
