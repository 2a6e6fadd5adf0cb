"""What of a grid is done, and which runs are left: the run directories themselves are the store.

A *cell* is one seed of one setting. Which cells are done is read from the run directories, whatever seeds each of them
holds, and from the compact records of earlier sittings; a directory that was begun is continued as it stands; the
cells that are left become new runs.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from damorl.errors import UserError
from damorl.experiment.config import RunConfig, run_config_from_dict
from damorl.parts.model_data import ModelSettings
from damorl.record import compact, ending, seal, store
from damorl.record.store import SWEEP

Cell = tuple[str, int]
"""(the setting's key, the seed)."""


@dataclass(frozen=True)
class Job:
    """One process' work: a run directory of one or more seeds, to be begun or continued."""

    config: RunConfig

    @property
    def name(self) -> str:
        """Its directory."""
        return self.config.name()

    @property
    def fits(self) -> frozenset[tuple[str, str, int]]:
        """What identifies the fits of the dynamics that it needs: data, settings, seed. Jobs share them."""
        settings = self.config.algo_config
        if not isinstance(settings, ModelSettings):
            return frozenset()
        dynamics = json.dumps(dataclasses.asdict(settings.dynamics), sort_keys=True)
        data = f"{self.config.dataset} {self.config.loop.dataset_steps}"
        return frozenset((data, dynamics, seed) for seed in self.config.seeds)


@dataclass(frozen=True)
class Plan:
    """A sweep as it stands."""

    jobs: tuple[Job, ...]
    """What is left, in the order to start it."""
    done: frozenset[Cell]
    """Cells with a result."""
    known: frozenset[Cell]
    """Cells of which only the record is here."""
    configs: tuple[RunConfig, ...] = field(repr=False)
    """The settings that were asked for, with all their seeds."""

    @property
    def total(self) -> int:
        """All cells."""
        return sum(len(config.seeds) for config in self.configs)

    @property
    def left(self) -> int:
        """Cells that are not done."""
        return sum(len(job.config.seeds) for job in self.jobs)


@dataclass(frozen=True)
class Stored:
    """A run directory of this or an earlier call."""

    path: Path
    config: RunConfig
    finished: bool


def setting_key(config: RunConfig) -> str:
    """A hash of everything that decides a run but its seeds."""
    settings = config.as_dict() | {"seeds": []}
    return seal.digest(settings)[:16]


def cells(config: RunConfig) -> list[Cell]:
    """The cells of a run."""
    key = setting_key(config)
    return [(key, seed) for seed in config.seeds]


def stored_runs(out: Path) -> Iterator[Stored]:
    """Every run directory right under `out` that this version can read; others are not the sweep's."""
    for path in sorted(out.glob(f"*/{store.CONFIG}")):
        try:
            config = run_config_from_dict(store.read_json(path))
        except (UserError, KeyError, TypeError):
            continue
        yield Stored(path.parent, config, ending.finished(path.parent))


def known_cells(directory: Path) -> dict[Cell, str]:
    """The cells of the records in `directory`, each with the hash of its data; none if there is no such folder."""
    found: dict[Cell, str] = {}
    for path in sorted(directory.glob("*.json")):
        record = store.read_json(path)
        if not compact.is_record(record):
            continue
        try:
            config = run_config_from_dict(record["config"])
        except (UserError, KeyError, TypeError):
            continue  # of a version with other settings: not the run that is asked for
        found |= dict.fromkeys(cells(config), str(record["data"]["sha256"]))
    return found


def make_plan(
    configs: Sequence[RunConfig],
    out: Path,
    known: Mapping[Cell, str] | None = None,
    data_hashes: Mapping[str, str] | None = None,
    seeds_per_process: int | None = 1,
) -> Plan:
    """Compare what is asked for with what is there.

    `data_hashes` are those of the data sets that are on this machine, by `RunConfig.dataset`: a record of other data
    under the same name is not counted. `seeds_per_process` None puts all seeds of a setting into one process.
    """
    asked = {cell for config in configs for cell in cells(config)}
    sets = {setting_key(config): config.dataset for config in configs}
    hashes = data_hashes or {}
    counted = {cell for cell, sha in (known or {}).items() if cell in asked and hashes.get(sets[cell[0]], sha) == sha}
    runs = [
        run for run in stored_runs(out) if asked.issuperset(cells(run.config)) and run.path.name == run.config.name()
    ]
    done = {cell for run in runs if run.finished for cell in cells(run.config)}
    taken, jobs = done | counted, []
    for run in runs:  # what was begun goes on as it is, unless all of it is done elsewhere
        if not run.finished and not taken.issuperset(cells(run.config)):
            jobs.append(Job(run.config))
            taken |= set(cells(run.config))
    for config in configs:
        left = [seed for key, seed in cells(config) if (key, seed) not in taken]
        size = len(left) if seeds_per_process is None else seeds_per_process
        jobs += [Job(dataclasses.replace(config, seeds=tuple(part))) for part in chunks(left, size)]
    return Plan(tuple(fits_first(jobs)), frozenset(done), frozenset(counted - done), tuple(configs))


def chunks(items: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """Consecutive pieces of at most `size`."""
    return (items[start : start + size] for start in range(0, len(items), max(size, 1)))


def fits_first(jobs: Iterable[Job]) -> list[Job]:
    """The same jobs, those first that are the first to need a fit of the dynamics: the others then find it made."""
    seen: set[tuple[str, str, int]] = set()
    leaders, others = [], []
    for job in jobs:
        (others if job.fits <= seen else leaders).append(job)
        seen |= job.fits
    return leaders + others


def stored_grids(out: Path) -> list[dict[str, Any]]:
    """The grids that were run in `out`, oldest first. UserError if the file is damaged."""
    path = out / SWEEP
    if not path.exists():
        return []
    content = store.read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("grids"), list):
        raise UserError(
            f"{path}: expected the grids of a sweep, found something else; remove it or choose another --out"
        )
    return content["grids"]


def store_grid(out: Path, grid: Mapping[str, Any], configs: Sequence[RunConfig] = ()) -> list[dict[str, Any]]:
    """Add the grid to those of `out`, unless it is there, and return them all: no grid is ever dropped.

    `configs` are the settings of all these grids, with all their seeds; they are written beside them, so that a report
    knows what was asked for.
    """
    grids = stored_grids(out)
    plain = json.loads(json.dumps(store.plain(grid)))
    grids += [plain] if plain not in grids else []
    content = {"grids": grids, "settings": [store.plain(config.as_dict()) for config in configs]}
    if not (out / SWEEP).exists() or store.read_json(out / SWEEP) != json.loads(json.dumps(content)):
        store.write_json(out / SWEEP, content)
    return grids


def merge(configs: Iterable[RunConfig]) -> list[RunConfig]:
    """One config per setting, with the seeds of all that have it: what several grids ask for together."""
    found: dict[str, RunConfig] = {}
    for config in configs:
        key = setting_key(config)
        before = found.get(key, config)
        found[key] = dataclasses.replace(before, seeds=tuple(dict.fromkeys(before.seeds + config.seeds)))
    return list(found.values())
