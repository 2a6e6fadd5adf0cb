"""The paper's experiments by name: run what is missing, make what is asked for, and list what there is."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from matplotlib import rc_context

from damorl.errors import UserError
from damorl.experiment.config import RunConfig, defaults
from damorl.files import atomic_file, writing
from damorl.paper import makers, plan
from damorl.paper.draw import save
from damorl.paper.makers import Make, Work
from damorl.paper.plan import SCALES, Planned, Request
from damorl.record import store
from damorl.report.curves import STYLE
from damorl.sweeps.live import Form
from damorl.sweeps.run import Options, run_configs


class Experiment(NamedTuple):
    """A figure or table of the paper."""

    shows: str
    plan: Callable[[Request], list[Planned]]
    make: Make
    partial: bool = False
    """Whether it can be made of the runs that exist."""


EXPERIMENTS = {
    "fig2": Experiment("which of three roads each kind of planning takes", lambda request: [], makers.fig2),
    "table1": Experiment("values of out-of-distribution pairs, two actors", plan.table1, makers.table1),
    "fig3": Experiment("where data, model and world lie, for the ablations", plan.ablations, makers.fig3),
    "fig4": Experiment("score and value while training, for the ablations", plan.ablations, makers.fig4),
    "fig5": Experiment("the divergence weight, swept and in the actor", plan.fig5, makers.fig5, partial=True),
    "table2": Experiment("scores of all algorithms", plan.table2, makers.table2, partial=True),
    "fig1": Experiment("transitions of MOPO, MOBILE and DAMO", plan.fig1, makers.fig1, partial=True),
}


def find_experiment(name: str) -> Experiment:
    """Look an experiment up; UserError with the known names otherwise."""
    if name not in EXPERIMENTS:
        raise UserError(f"unknown experiment '{name}': choose one of {', '.join(EXPERIMENTS)}, or list")
    return EXPERIMENTS[name]


def result_path(name: str, request: Request, out: Path) -> Path:
    """Where the numbers go; the picture is beside them."""
    updates = "" if request.updates is None else f"-{request.updates}"
    return out / f"{name}-{request.scale}{updates}.json"


def different(planned: Sequence[Planned]) -> list[Planned]:
    """Each run once."""
    return list({each.config.name(): each for each in planned}.values())


def run_missing(planned: Sequence[Planned], out: Path, quiet: bool, make: bool = True) -> None:
    """Train what is not finished, on every core; what was interrupted continues. UserError if a run fails."""
    missing = [each.config for each in different(planned) if not each.finished(out)]
    if not missing:
        return
    form: Form = "quiet" if quiet else "live" if sys.stderr.isatty() else "lines"
    result = run_configs(missing, out, form=form, make=make, chosen=Options(seeds_per_process=0))
    if result.failed:
        first = result.failed[0]
        where, why = out / first["run"], first["reason"]
        raise UserError(f"{len(result.failed)} of {len(missing)} runs failed, the first, {where}, by: {why}")


def make_experiment(
    name: str,
    request: Request,
    out: Path,
    train: bool = True,
    quiet: bool = False,
    given: tuple[Path, ...] = (),
    make: bool = True,
) -> dict[str, Any]:
    """Make a figure or table below `out`; returns its numbers, `lines` for the reader and the paths of its files.

    With `train`, runs that are missing are made first, and with `make`, built-in data sets that are. UserError where
    they are missing and needed.
    """
    experiment = find_experiment(name)
    planned = experiment.plan(request)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    if train:
        run_missing(planned, out, quiet, make)
    missing = [each for each in different(planned) if not each.finished(out)]
    if missing and not experiment.partial:
        labels = ", ".join(f"{each.label} ({each.config.name()})" for each in missing)
        raise UserError(f"{name} needs finished runs in {out}, not found: {labels}; run it without --no-train")
    path = result_path(name, request, out)
    with rc_context(STYLE):
        result = experiment.make(Work(request, planned, out, quiet, given, make))
        save(result.figure, path.with_suffix(".png"))
    content = describe(name, request, planned, out, result)
    write_compact(path, content)
    return content | {"lines": result.lines, "json": path, "picture": path.with_suffix(".png")}


def describe(name: str, request: Request, planned: Sequence[Planned], out: Path, result: makers.Made) -> dict[str, Any]:
    """What the JSON file holds: how it was made, the runs, the numbers, and the paper's own beside them."""
    runs = [describe_run(each, out) for each in different(planned)]
    hashes = {each["dataset_sha256"] for each in runs if "dataset_sha256" in each}
    command = ["damorl", "paper", name, *words(dataclasses.asdict(request))]
    provenance = store.provenance(command, ", ".join(sorted(hashes)), jax.devices()[0].device_kind)
    provenance.pop("started")  # the same runs give the same file
    return {
        "experiment": name,
        "shows": EXPERIMENTS[name].shows,
        "measured": result.measured,
        "printed_in_the_paper": result.printed,
        "runs": runs,
        "provenance": provenance,
    }


def words(settings: dict[str, Any]) -> list[str]:
    """Settings as words of a command, those that are None left out."""
    found = []
    for name, value in settings.items():
        values = value if isinstance(value, tuple | list) else [value]
        found += [] if value is None else [f"--{name.replace('_', '-')}", *map(str, values)]
    return found


def train_command(config: RunConfig) -> str:
    """The `damorl train` that makes the same run."""
    loop, algo_config = defaults(config.algo, config.preset, config.dataset)
    settings = {"dataset": config.dataset, "preset": config.preset, "seeds": config.seeds}
    for found, default in ((config.loop, loop), (config.algo_config, algo_config)):
        for field in dataclasses.fields(found):
            value = getattr(found, field.name)
            if value != getattr(default, field.name):
                settings[field.name] = "None" if value is None else value
    return " ".join(["damorl", "train", config.algo, *words(settings)])


def describe_run(planned: Planned, out: Path) -> dict[str, Any]:
    """Where a number came from; `finished` false where the run is missing."""
    config, directory = planned.config, planned.directory(out)
    found: dict[str, Any] = {
        "label": planned.label,
        "command": train_command(config),
        "name": config.name(),
        "finished": planned.finished(out),
        "dataset": config.dataset,
        "preset": config.preset,
        "seeds": list(config.seeds),
        "updates": config.loop.total_updates,
    }
    if not found["finished"]:
        return found
    provenance = store.read_json(directory / store.PROVENANCE)
    return found | {key: provenance[key] for key in ("dataset_sha256", "git", "device_kind")}


def write_compact(path: Path, content: dict[str, Any]) -> None:
    """JSON with each list of numbers on one line, atomically."""
    text = json.dumps(store.plain(content), indent=1, allow_nan=False, ensure_ascii=False)
    text = re.sub(r"\[[^\[\]{}]*\]", lambda found: re.sub(r"\s*\n\s*", " ", found[0]).replace("[ ", "["), text)
    with atomic_file(path) as temporary:
        temporary.write_text(text.replace(" ]", "]") + "\n", encoding="utf-8")


def list_experiments(request: Request, out: Path) -> list[dict[str, Any]]:
    """Every experiment with its runs at this scale, how many are finished, and whether it was made."""
    rows = []
    for name, experiment in EXPERIMENTS.items():
        planned = different(experiment.plan(request))
        path = result_path(name, request, out)
        rows.append(
            {
                "name": name,
                "shows": experiment.shows,
                "runs": len(planned),
                "finished": sum(each.finished(out) for each in planned),
                "made": str(path) if path.exists() else None,
            }
        )
    return rows


def format_list(rows: Sequence[dict[str, Any]], request: Request) -> str:
    """The list as plain text."""
    lines = [f"{'name':<8}{'runs':>6}{'finished':>10}  shows"]
    for row in rows:
        mark = f"  -> {row['made']}" if row["made"] else ""
        lines.append(f"{row['name']:<8}{row['runs']:>6}{row['finished']:>10}  {row['shows']}{mark}")
    return "\n".join([*lines, "", f"One DAMO run at scale {request.scale}: {SCALES[request.scale].cost}."])
