"""Finds the runs: in run directories, records, and directories of either.

A directory that is no run but holds runs, records or a sweep stands for all of them. What a sweep was asked for and has
not made is a run, too: one without rows, and with a reason.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from damorl.errors import UserError
from damorl.record.compact import is_record
from damorl.record.members import describe, setting_config, settings_of
from damorl.record.store import CONFIG, FAILURE, SWEEP, read_json
from damorl.report.collect import NEEDED, Run, failure_of, find, read_run


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """All runs in the order given, each once, and then those that the sweeps among `paths` lack.

    A population is one run per setting.
    A path is a run directory, a record, or a directory of them. Of a run that is there as directory and as record, the
    directory counts. UserError for a path that is none of these, and for damaged files.
    """
    unique: dict[Path, Path] = {}
    for found in (found for path in paths for found in expand(path)):
        unique.setdefault(found.resolve(), found)
    runs = [run for path in unique.values() for run in split_settings(read_run(path))]
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
        if any(find(config, key) is None for key in NEEDED if not key.startswith("data.")):
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
