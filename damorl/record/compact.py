"""The record of a finished run: one small JSON that can be committed, and that reports read like the run's directory.

    format          "damorl-run-1"
    run             the run directory's name
    config          the resolved settings, seeds included
    data            name, sha256, task, references and returns of the data
    provenance      command (without --out), start, git revision, versions, machine
    model_sha256    per seed: hash of the dynamics that the first update began with; null where nothing was fitted
    seconds         fit, train, eval: wall-clock of all seeds together; null where it was not measured. A fit that was
                    read from the cache took no time
    seeds           per seed: `updates` made, `final` (mean of the last ten evaluations, in full) and `curves`
                    (`steps` of the evaluations; `score`, `return`, `mean_q` there, five significant digits)

As everywhere, numbers that are not finite are the strings "nan", "inf" and "-inf".
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from damorl.errors import UserError
from damorl.files import atomic_file, writing
from damorl.record.seal import check_format
from damorl.record.store import CONFIG, METRICS, MODELS, NOT_FINITE, PROVENANCE, Row, plain, read_json, read_metrics

FORM = "damorl-run"
FORMAT = f"{FORM}-1"
SUFFIX = ".json"
LAST = 10  # evaluations in a final score
DIGITS = 5
METRIC_OF = {"score": "eval/score", "return": "eval/return_mean", "mean_q": "critic/q_mean"}
SCORED = ("score", "return")
DATA = (
    "name",
    "sha256",
    "task",
    "num_transitions",
    "reference_min",
    "reference_max",
    "return_mean",
    "return_max",
    "best_discounted_return",
)
MADE = ("command", "started", "git", "versions", "python", "platform", "cpu_count", "device_kind")
SECONDS = {"train": "time/train_seconds", "eval": "time/eval_seconds"}
KINDS: Mapping[str, type | tuple[type, ...]] = {
    "run": str,
    "config": dict,
    "config.algo": str,
    "config.seeds": list,
    "config.algo_config": dict,
    "config.loop": dict,
    "config.loop.total_updates": int,
    "data": dict,
    "data.name": str,
    "data.sha256": str,
    "provenance": dict,
    "model_sha256": dict,
    "seconds": dict,
    "seeds": dict,
}
"""What a record must have."""


def write_record(run_dir: Path, directory: Path) -> Path:
    """Write the record of the finished run in `run_dir` as `directory/RUN.json`, atomically; return its path.

    UserError if the run is not finished, if its files are missing or damaged, or if nothing can be written.
    """
    run_dir = run_dir.resolve()
    record = make_record(run_dir)
    with writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{run_dir.name}{SUFFIX}"
    with atomic_file(path) as temporary:
        temporary.write_text(as_text(record), encoding="utf-8")
    return path


def make_record(run_dir: Path) -> dict[str, Any]:
    """The content of a finished run's record. UserError as `write_record`."""
    config, rows = read_json(run_dir / CONFIG), read_metrics(run_dir)
    provenance = read_json(run_dir / PROVENANCE) if (run_dir / PROVENANCE).exists() else {}
    models = read_json(run_dir / MODELS) if (run_dir / MODELS).exists() else {}
    seeds, total = [str(seed) for seed in config["seeds"]], config["loop"]["total_updates"]
    own = {seed: [row for row in rows if str(row["seed"]) == seed] for seed in seeds}
    for seed, found in own.items():
        updates = max((row["step"] for row in found), default=0)
        if updates < total:
            raise UserError(
                f"cannot record {run_dir}: expected a finished run, found {updates:,} of {total:,} updates of seed "
                f"{seed} in {METRICS}; finish it with --resume"
            )
    interval = config["loop"].get("eval_interval", 1)
    return plain(
        {
            "format": FORMAT,
            "run": run_dir.name,
            "config": {key: value for key, value in config.items() if key != "data"},
            "data": {key: config["data"].get(key) for key in DATA},
            "provenance": {key: provenance.get(key) for key in MADE}
            | {key: provenance[key] for key in ("algorithm",) if key in provenance}
            | {"command": without_out(provenance.get("command") or [])},
            "model_sha256": {seed: models.get("sha256", {}).get(seed) for seed in seeds},
            "seconds": {"fit": models.get("prepare_seconds")} | seconds(own[seeds[0]]),
            "seeds": {seed: seed_entry(found, interval) for seed, found in own.items()},
        }
    )


def seconds(rows: Sequence[Row]) -> dict[str, float | None]:
    """Seconds of training and evaluation. Seeds run together, so the rows of one tell those of all."""
    sums = {}
    for name, key in SECONDS.items():
        found = [row[key] for row in rows if key in row]
        sums[name] = rounded(sum(found)) if found else None
    return sums


def seed_entry(rows: Sequence[Row], eval_interval: int) -> dict[str, Any]:
    """Final scores and curves of one seed from its rows."""
    evaluations = [
        row for row in rows if row["step"] % eval_interval == 0 or any(METRIC_OF[name] in row for name in SCORED)
    ]
    curves: dict[str, Any] = {"steps": [row["step"] for row in evaluations]}
    final = {}
    for name, key in METRIC_OF.items():
        if any(key in row for row in evaluations):
            curves[name] = [rounded(row[key]) if key in row else None for row in evaluations]
        values = [row[key] for row in evaluations if key in row]
        if name in SCORED and values:
            final[name] = float(np.mean(values[-LAST:]))
    return {"updates": max(row["step"] for row in rows), "final": final, "curves": curves}


def rounded(value: float) -> float:
    """Five significant digits."""
    return float(f"{value:.{DIGITS}g}")


def without_out(command: Sequence[str]) -> list[str]:
    """A command without the folder of its runs, which is nobody else's business."""
    words = [str(word) for word in command if not str(word).startswith("--out=")]
    if "--out" in words:
        at = words.index("--out")
        words = words[:at] + words[at + 2 :]
    return words


def as_text(record: Mapping[str, Any]) -> str:
    """JSON with a line for each entry, and one for each seed: small, and easy on a diff."""
    short = lambda value: json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    lines = []
    for key, value in record.items():
        if key == "seeds":
            inner = ",\n".join(f"  {short(seed)}: {short(entry)}" for seed, entry in value.items())
            lines.append(f' "seeds": {{\n{inner}\n }}')
        else:
            lines.append(f" {short(key)}: {short(value)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def is_record(content: Any) -> bool:
    """Whether a parsed JSON claims to be the record of a run, of whatever version."""
    return isinstance(content, dict) and str(content.get("format", "")).startswith(f"{FORM}-")


def read_record(path: Path) -> dict[str, Any]:
    """A record, its curves and finals as floats. UserError if the file is missing, damaged, newer or no such record."""
    record = read_json(path)
    found = record.get("format") if isinstance(record, dict) else None
    check_format(path, found, FORM)
    if found != FORMAT:
        raise _wrong(path, f"the record of a run with the format '{FORMAT}'", repr(found) if found else "none")
    for key, kind in KINDS.items():
        value = _find(record, key)
        if not isinstance(value, kind):
            raise _wrong(path, f"'{key}' in the record", "none" if value is None else f"a {type(value).__name__}")
    for seed in record["config"]["seeds"]:
        entry = record["seeds"].get(str(seed))
        try:
            record["seeds"][str(seed)] = _checked(entry)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _wrong(
                path, f"updates, final and curves of equal length for seed {seed}", "something else"
            ) from error
    return record


def record_rows(record: Mapping[str, Any]) -> list[Row]:
    """The rows of metrics that a record still knows, as `read_metrics` gives them: those of the evaluations."""
    rows: list[Row] = []
    for seed in record["config"]["seeds"]:
        entry = record["seeds"][str(seed)]
        curves = entry["curves"]
        for index, step in enumerate(curves["steps"]):
            known = {key: curves[name][index] for name, key in METRIC_OF.items() if name in curves}
            rows.append({"step": step, "seed": seed} | {key: v for key, v in known.items() if v is not None})
        if not curves["steps"] or curves["steps"][-1] < entry["updates"]:
            rows.append({"step": entry["updates"], "seed": seed})
    return rows


def _checked(entry: Any) -> dict[str, Any]:
    """A seed's entry with real numbers; any of the usual errors if it is none."""
    curves: dict[str, Any] = {"steps": [int(step) for step in entry["curves"]["steps"]]}
    for name in METRIC_OF.keys() & entry["curves"].keys():
        curves[name] = [None if value is None else _number(value) for value in entry["curves"][name]]
        if len(curves[name]) != len(curves["steps"]):
            raise ValueError(name)
    final = {name: _number(value) for name, value in entry["final"].items()}
    return {"updates": int(entry["updates"]), "final": final, "curves": curves}


def _number(value: Any) -> float:
    return float(NOT_FINITE.get(value, value) if isinstance(value, str) else value)


def _find(content: Any, key: str) -> Any:
    for name in key.split("."):
        content = content.get(name) if isinstance(content, Mapping) else None
    return content


def _wrong(path: Path, expected: str, found: str) -> UserError:
    return UserError(f"cannot use {path}: expected {expected}, found {found}; write it again from its run directory")
