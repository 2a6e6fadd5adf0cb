"""`damorl sweep`: a grid, a place, a backend."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from damorl.data.datasets import load_dataset
from damorl.errors import UserError
from damorl.experiment.config import RunConfig
from damorl.experiment.sources import is_missing, make_missing
from damorl.files import writing
from damorl.sweeps.clock import remember_seconds, stored_timings
from damorl.sweeps.engine import Backend, Progress, run_jobs
from damorl.sweeps.grid import expand, read_grid
from damorl.sweeps.live import Display, Form
from damorl.sweeps.local import Local, find_device, usable_cores
from damorl.sweeps.plan import Cell, Job, Plan, known_cells, make_plan, merge, store_grid, stored_grids, stored_runs
from damorl.sweeps.process import Outcome

BackendName = Literal["local", "ray", "slurm"]


@dataclass(frozen=True)
class Options:
    """How a sweep is carried out; none of it changes a result."""

    workers: int | None = None
    """Runs at once. None: one per core, or per GPU; on a cluster as many as it has room for."""
    seeds_per_process: int | None = None
    """Seeds of one setting that train together in a process; 0 is all. None: 1 on a CPU, where side by side is faster,
    and all of them on a GPU, where together is nearly free."""
    retries: int = 2
    """Further tries for a run that crashed, was killed, ran out of memory or lost its node."""
    refit: bool = False
    """Fit the dynamics, also where the cache has the same fit."""
    cpus_per_run: float = 1.0
    """Of a Ray or Slurm cluster."""
    gpus_per_run: float = 0.0
    """Of a Ray or Slurm cluster; Ray takes fractions."""
    address: str | None = None
    """Of a running Ray cluster (`auto`: the one of this machine). None: a cluster of this machine alone."""
    slurm: Mapping[str, str] | None = None
    """Further words for sbatch, as submitit calls them: `slurm_partition`, `timeout_min`, `mem_gb`, ..."""


@dataclass(frozen=True)
class SweepResult:
    """What a call of `sweep` left behind."""

    out: Path
    total: int
    """Runs that were asked for, each seed counted."""
    done: int
    failed: tuple[dict[str, str], ...]
    """`run`, `kind` and `reason` of those that failed in this call."""

    @property
    def complete(self) -> bool:
        """Whether every run has its result."""
        return self.done == self.total


def sweep(
    grid: Path | str | Mapping[str, Any],
    backend: BackendName = "local",
    out: Path | str | None = None,
    known: Path | str | None = None,
    form: Form = "lines",
    make: bool = True,
    **options: Any,
) -> SweepResult:
    """Run everything that the grid asks for and `out` does not have yet; call it again after any interruption.

    `grid` is a TOML file or a dictionary with the same keys (see `damorl.sweeps.grid`), `out` by default
    `sweeps/NAME-OF-THE-FILE`. Grids that were run in `out` before stay in force. Runs recorded in `known` count as
    done, and the records of finished ones are written there. `options` are the fields of `Options`. UserError for a bad
    grid, before anything starts.
    """
    chosen, out = Options(**options), place_of(grid, out)
    configs, content = asked_for(grid, out)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    store_grid(out, content, configs)
    return run_configs(configs, out, backend, None if known is None else Path(known), form, make, chosen)


def run_configs(
    configs: Sequence[RunConfig],
    out: Path,
    backend: BackendName = "local",
    known: Path | None = None,
    form: Form = "lines",
    make: bool = True,
    chosen: Options = Options(),
) -> SweepResult:
    """Run what `out` does not have of the settings, each with all its seeds: a sweep without a grid."""
    if make:
        make_data_sets(configs, quiet=form in ("quiet", "json"))
    engine = make_backend(backend, out, chosen)
    together = seeds_together(backend, engine, chosen)
    plan = plan_sweep(configs, out, known, together)
    if form in ("live", "lines"):
        print(describe_plan(plan, engine, together), file=sys.stderr, flush=True)
    progress = Progress(out, engine.slots, list(plan.jobs))
    timings, keep = stored_timings(), recorder(out, known)
    with Display(form, plan, progress, timings) as display:
        run_jobs(progress, engine, chosen.retries, noticing(display, keep, progress))
    failed = tuple({"run": job.name, "kind": o.kind, "reason": o.reason} for job, o in progress.failed)
    done = plan.total - sum(len(job.config.seeds) for job, _ in progress.failed)
    return SweepResult(out, plan.total, done, failed)


def place_of(grid: Path | str | Mapping[str, Any], out: Path | str | None) -> Path:
    """Where the runs go."""
    if out is not None:
        return Path(out)
    return Path("sweeps") / ("grid" if isinstance(grid, Mapping) else Path(grid).stem)


def asked_for(grid: Path | str | Mapping[str, Any], out: Path) -> tuple[list[RunConfig], dict[str, Any]]:
    """The settings of this grid and of those that were run in `out` before, and this grid's content."""
    parsed, content = read_grid(grid)
    label = "grid" if isinstance(grid, Mapping) else str(grid)
    configs = expand(parsed, label)
    for earlier in stored_grids(out):
        configs += expand(read_grid(earlier)[0], f"an earlier grid in {out / 'sweep.json'}")
    return merge(configs), content


def plan_sweep(configs: Sequence[RunConfig], out: Path, known: Path | None, together: int | None) -> Plan:
    """What is done and what is left."""
    recorded: dict[Cell, str] = {} if known is None else known_cells(known)
    return make_plan(configs, out, recorded, data_hashes(configs) if recorded else {}, together)


def data_hashes(configs: Iterable[RunConfig]) -> dict[str, str]:
    """The hashes of the data sets that are on this machine, by name."""
    found: dict[str, str] = {}
    for config in configs:
        if config.dataset in found or is_missing(config.dataset, config.loop.dataset_steps):
            continue
        found[config.dataset] = load_dataset(
            config.dataset,
            config.task,
            config.loop.dataset_steps,
            columns=config.columns or None,
            action_bounds=config.action_bounds,
        ).sha256
    return found


def make_data_sets(configs: Iterable[RunConfig], quiet: bool) -> None:
    """Make the built-in data sets that are missing, one after the other with all cores, before any run needs them."""
    for config in configs:
        make_missing(config.dataset, config.loop.dataset_steps, quiet=quiet)


def make_backend(name: BackendName, out: Path, options: Options) -> Backend:
    """The backend of that name. UserError if its package is not there."""
    if options.workers is not None and options.workers < 1:
        raise UserError(f"workers: expected at least 1, found {options.workers}; leave it out for one per core")
    if name == "ray":
        from damorl.sweeps.on_ray import Ray

        return Ray(out, options.workers, options.cpus_per_run, options.gpus_per_run, options.address, options.refit)
    if name == "slurm":
        from damorl.sweeps.on_slurm import Slurm

        return Slurm(
            out, options.workers, options.cpus_per_run, options.gpus_per_run, options.slurm or {}, options.refit
        )
    device = find_device()
    slots = options.workers or (device.count if device.accelerated else len(usable_cores()))
    return Local(out, device, slots, options.refit)


def seeds_together(name: BackendName, backend: Backend, options: Options) -> int | None:
    """Seeds per process: what was asked for, or all on a GPU and one on a CPU."""
    if options.seeds_per_process is not None:
        return options.seeds_per_process or None
    accelerated = backend.device.accelerated if isinstance(backend, Local) else options.gpus_per_run > 0
    return None if accelerated else 1


def describe_plan(plan: Plan, backend: Backend, together: int | None) -> str:
    """What a sweep sets out to do, in one line."""
    seeds = "all seeds of a setting" if together is None else f"{together} seed{'s' * (together > 1)}"
    done = len(plan.done) + len(plan.known)
    return f"damorl: {plan.total} runs, {done} done, {plan.left} left: {backend.slots} at once, {seeds} in a process"


def recorder(out: Path, known: Path | None) -> Callable[[Job], None]:
    """What writes the record of a finished run, if records are kept; those of earlier calls are written now."""
    if known is None:
        return lambda job: None
    from damorl.record.compact import write_record

    with writing(known):
        known.mkdir(parents=True, exist_ok=True)
    for run in stored_runs(out):
        if run.finished and not (known / f"{run.path.name}.json").exists():
            write_record(run.path, known)

    def keep(job: Job) -> None:
        write_record(out / job.name, known)

    return keep


def noticing(display: Display, keep: Callable[[Job], None], progress: Progress) -> Callable[..., None]:
    """The display, and what is kept of a finished run: its record, and the time it took if it was not resumed."""

    def show(event: str, job: Job | None, outcome: Outcome | None) -> None:
        if event == "done" and job is not None:
            seconds = progress.done[-1][1]
            if seconds and job.name not in progress.tries:
                remember_seconds(job, seconds)
            keep(job)
        display(event, job, outcome)

    return show
