"""Callbacks that copy a run's metrics to an experiment tracker: Weights & Biases or MLflow.

Each member of a run (a seed or, in a population, a setting with a seed) is a run of its own there, so that the tracker
can average over seeds; the members of one run directory share a group (W&B) or a tag (MLflow). Their ids are kept in
the run directory: a run that continues goes on in the same places, and what was logged before is not logged again.

The packages are the extras `damorl[wandb]` and `damorl[mlflow]`; they are imported when a run starts.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from damorl.errors import UserError
from damorl.experiment.callbacks import Callback, EndEvent, Event, StartEvent
from damorl.record import store
from damorl.record.members import Member, members_of

WANDB_IDS, MLFLOW_IDS = "wandb.json", "mlflow.json"
MARKS = ("step", "seed", "setting")
"""What says whose a row is, and is no metric."""
MAX_PARAMS = 100
"""Of one request to MLflow."""
EVERY_ROW = "time/updates_per_second"
"""A metric that each row has."""


def require(package: str, extra: str) -> None:
    """UserError, naming the extra, where the package is not installed."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:  # a mere folder of that name, as W&B makes in the working directory
        raise UserError(
            f"logging to {extra}: expected the package {package}, found none; install it with "
            f"`pip install 'damorl[{extra}]'`"
        )


class WandbLogger(Callback):
    """Logs to Weights & Biases.

    `settings` are further arguments of `wandb.init`, such as `entity`, `tags` or `mode="offline"`. UserError without
    the package.
    """

    def __init__(self, project: str = "damorl", group: str | None = None, **settings: Any) -> None:
        require("wandb", "wandb")
        self.project, self.group, self.settings = project, group, settings
        self.runs: list[Any] = []

    def on_start(self, event: StartEvent) -> None:
        """Open a run for each member, new or the one of an earlier call."""
        wandb = import_module("wandb")
        self.runs = []
        members, name = members_of(event.config), event.run_dir.resolve().name
        ids = member_ids(event.run_dir / WANDB_IDS, members, lambda member: secrets.token_hex(4))
        for member in members:
            given = {
                "project": self.project,
                "group": self.group or name,
                "name": f"{name}/{member.folder}",
                "id": ids[member.key],
                "resume": "allow",
                "reinit": "create_new",
                "dir": str(event.run_dir),
                "config": member_config(event.config, member),
            }
            self.runs.append(wandb.init(**given | self.settings))

    def on_epoch(self, event: Event) -> None:
        """Log each member's row at its step; W&B passes over steps that it has."""
        for run, row in zip(self.runs, event.rows, strict=True):
            if event.step >= run.step:
                run.log(metrics_of(row), step=event.step)

    def on_end(self, event: EndEvent) -> None:
        """Put the end into the summaries and close the runs; those of a failed run are marked as failed."""
        while self.runs:
            run = self.runs.pop()
            run.summary.update({"damorl/status": event.status, "damorl/reason": event.reason})
            run.finish(exit_code=int(event.status == "failed"))


class MlflowLogger(Callback):
    """Logs to MLflow, at `tracking_uri` or where MLflow itself would: `MLFLOW_TRACKING_URI`, or a local database.

    The extra has MLflow's client, which needs a server; a local database needs the whole package `mlflow`. UserError
    without either and, at the start, for a place that the client cannot log to.
    """

    def __init__(self, experiment: str = "damorl", tracking_uri: str | None = None) -> None:
        require("mlflow", "mlflow")
        self.experiment, self.tracking_uri = experiment, tracking_uri
        self.client: Any = None
        self.logged: dict[str, int] = {}
        """The last step that each run has, by its id, in the order of the members."""

    def on_start(self, event: StartEvent) -> None:
        """Open a run for each member, new or the one of an earlier call."""
        mlflow = import_module("mlflow")
        try:
            self.client = mlflow.MlflowClient(self.tracking_uri)
            self.client.get_experiment_by_name(self.experiment)
        except mlflow.exceptions.MlflowException as error:
            raise UserError(
                f"MLflow: expected a place to log to, found '{error}'; name a server (MLFLOW_TRACKING_URI, or "
                "tracking_uri), or install the whole package mlflow, which keeps a local database"
            ) from error
        members = members_of(event.config)
        ids = member_ids(event.run_dir / MLFLOW_IDS, members, lambda member: self._create(event, member))
        self.logged = {ids[member.key]: last_step(self.client, ids[member.key]) for member in members}
        for run_id in self.logged:
            self.client.update_run(run_id, "RUNNING")

    def on_epoch(self, event: Event) -> None:
        """Log each member's row at its step, unless an earlier call has."""
        metric = import_module("mlflow.entities").Metric
        now = int(1000 * time.time())
        for (run_id, last), row in zip(self.logged.items(), event.rows, strict=True):
            if event.step > last:
                found = [metric(key, value, now, event.step) for key, value in metrics_of(row).items()]
                self.client.log_batch(run_id, metrics=found)

    def on_end(self, event: EndEvent) -> None:
        """Note the end and close the runs: as finished, as failed, or as killed if they were stopped early."""
        status = {"finished": "FINISHED", "failed": "FAILED"}.get(event.status, "KILLED")
        for run_id in self.logged:
            self.client.set_tag(run_id, "damorl.status", event.status)
            self.client.set_tag(run_id, "damorl.reason", event.reason)
            self.client.set_terminated(run_id, status)

    def _create(self, event: Event, member: Member) -> str:
        param = import_module("mlflow.entities").Param
        name = event.run_dir.resolve().name
        found = self.client.get_experiment_by_name(self.experiment)
        experiment = self.client.create_experiment(self.experiment) if found is None else found.experiment_id
        run = self.client.create_run(experiment, run_name=f"{name}/{member.folder}", tags={"damorl.run": name})
        config = flat(member_config(event.config, member))
        params = [param(key, str(value)) for key, value in config.items()]
        for first in range(0, len(params), MAX_PARAMS):
            self.client.log_batch(run.info.run_id, params=params[first : first + MAX_PARAMS])
        return run.info.run_id


def member_ids(path: Path, members: Sequence[Member], make: Callable[[Member], str]) -> dict[str, str]:
    """The tracker's id of each member by its key: read from `path`, or made and written there."""
    known = store.read_json(path) if path.exists() else {}
    ids = {member.key: known.get(member.key) or make(member) for member in members}
    if ids != known:
        store.write_json(path, ids)
    return ids


def member_config(config: Mapping[str, Any], member: Member) -> dict[str, Any]:
    """The stored config as that of one member: one seed, its own values of what varies; of the data name and hash."""
    own = {key: value for key, value in config.items() if key not in ("seeds", "population", "data")}
    settings = {**config["algo_config"], **dict(member.values)}
    data = {key: config["data"][key] for key in ("name", "sha256")}
    return own | member.marks | {"algo_config": settings, "data": data}


def metrics_of(row: Mapping[str, Any]) -> dict[str, float]:
    """The finite metrics of a row."""
    return {key: value for key, value in row.items() if key not in MARKS and math.isfinite(value)}


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their dotted names."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return found


def last_step(client: Any, run_id: str) -> int:
    """The last step that a run of MLflow has metrics of; 0 if it has none."""
    known = EVERY_ROW in client.get_run(run_id).data.metrics
    history = client.get_metric_history(run_id, EVERY_ROW) if known else []
    return max((metric.step for metric in history), default=0)


def make_loggers(names: Sequence[Literal["wandb", "mlflow"]]) -> list[Callback]:
    """Loggers with their defaults, one for each name. UserError where a package is missing."""
    kinds: dict[str, type[WandbLogger] | type[MlflowLogger]] = {"wandb": WandbLogger, "mlflow": MlflowLogger}
    return [kinds[name]() for name in dict.fromkeys(names)]
