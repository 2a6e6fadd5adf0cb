"""What the trackers have of a run, read back from where they keep it without a server."""

from __future__ import annotations

import importlib
import importlib.machinery
import json
from pathlib import Path
from typing import Any

import pytest

from damorl import loggers
from damorl.cli import main
from damorl.errors import UserError
from damorl.experiment.callbacks import Callback, EndEvent, Event, StartEvent
from damorl.record import store
from damorl.record.members import members_of

CONFIG = {
    "algo": "damo",
    "seeds": [0, 4],
    "loop": {"total_updates": 20},
    "algo_config": {"gamma": 0.99, "dynamics": {"hidden": [32, 32]}},
    "data": {"name": "toy", "sha256": "abc", "obs_std": [1.0, 2.0]},
}


def rows(step: int) -> list[store.Row]:
    row = {"critic/loss": 1.0 / step, "time/updates_per_second": 100.0, "eval/score": float("nan")}
    return [{"step": step, "seed": seed} | row | {"critic/q_mean": float(seed + step)} for seed in (0, 4)]


def play(logger: Callback, run_dir: Path, steps: tuple[int, ...], status: Any) -> None:
    """A call of the loop that makes the epochs ending at `steps`."""
    about = {"run_dir": run_dir, "config": CONFIG}
    dataset: Any = None
    logger.on_start(StartEvent(**about, step=steps[0] - 10, dataset=dataset))
    for step in steps:
        logger.on_epoch(Event(**about, step=step, rows=rows(step)))
    logger.on_end(EndEvent(**about, step=steps[-1], status=status, reason="enough" if status == "stopped" else ""))


def test_a_member_is_a_run_with_its_own_settings() -> None:
    population = {**CONFIG, "population": {"gamma": [0.9, 0.8]}}
    members = members_of(population)
    own = loggers.member_config(population, members[3])
    assert own["algo_config"] == {"gamma": 0.8, "dynamics": {"hidden": [32, 32]}}
    assert (own["seed"], own["setting"], own["data"]) == (4, 1, {"name": "toy", "sha256": "abc"})
    assert not own.keys() & {"seeds", "population"}
    assert loggers.flat(own)["algo_config.dynamics.hidden"] == [32, 32]


def test_marks_and_what_is_not_finite_are_no_metrics() -> None:
    assert loggers.metrics_of(rows(10)[1]) == {
        "critic/loss": 0.1,
        "time/updates_per_second": 100.0,
        "critic/q_mean": 14.0,
    }


def test_ids_are_made_once(tmp_path: Path) -> None:
    members, path = members_of(CONFIG), tmp_path / "ids.json"
    assert loggers.member_ids(path, members[:1], lambda member: "first") == {"0": "first"}
    assert loggers.member_ids(path, members, lambda member: "second") == {"0": "first", "4": "second"}
    assert store.read_json(path) == {"0": "first", "4": "second"}


@pytest.mark.parametrize("extra", ["wandb", "mlflow"])
@pytest.mark.parametrize("found", [None, importlib.machinery.ModuleSpec("folder", None)])
def test_a_missing_package_is_named_before_anything_is_made(
    extra: str, found: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loggers, "find_spec", lambda name: found)
    assert main(["train", "bc", "--dataset", "hopper-random", "--out", str(tmp_path / "runs"), "--log", extra]) == 2
    assert f"install it with `pip install 'damorl[{extra}]'`" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_an_unknown_tracker_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["train", "bc", "--log", "paper"])
    assert caught.value.code == 2
    assert "wandb" in capsys.readouterr().err


@pytest.mark.filterwarnings("default")  # the package's own
def test_mlflow_has_every_row_once_and_how_the_run_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # its newer versions ask for this
    uri, run_dir = (tmp_path / "store").as_uri(), tmp_path / "run"
    run_dir.mkdir()
    play(loggers.MlflowLogger("toys", uri), run_dir, (10, 20), "stopped")
    play(loggers.MlflowLogger("toys", uri), run_dir, (20, 30), "finished")  # from a checkpoint before the last row
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("toys")
    found = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert found.keys() == {"run/seed_0", "run/seed_4"}
    for name, run in found.items():
        seed = int(name[-1])
        assert run.data.params["algo_config.gamma"] == "0.99"
        assert run.data.params["seed"] == str(seed)
        assert (run.info.status, run.data.tags["damorl.status"], run.data.tags["damorl.run"]) == (
            "FINISHED",
            "finished",
            "run",
        )
        values = [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, "critic/q_mean")]
        assert values == [(step, seed + step) for step in (10, 20, 30)]
        assert "eval/score" not in run.data.metrics


@pytest.mark.filterwarnings("default")
def test_mlflow_says_when_it_has_nowhere_to_log_to(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    with pytest.raises(UserError, match=r"MLflow: expected a place to log to, found .*name a server"):
        play(loggers.MlflowLogger("toys", "nonsense://nowhere"), tmp_path, (10,), "finished")


@pytest.mark.filterwarnings("default")
def test_wandb_has_every_row_of_each_member(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    play(loggers.WandbLogger("toys", mode="offline"), run_dir, (10, 20), "stopped")
    wandb.teardown()  # the files are written by a process of its own
    ids = store.read_json(run_dir / "wandb.json")
    for seed in (0, 4):
        (path,) = (run_dir / "wandb").glob(f"offline-run-*-{ids[str(seed)]}/*.wandb")
        records = read_offline(path)
        (started,) = [record.run for record in records if record.HasField("run")]
        assert (started.project, started.run_group, started.display_name) == ("toys", "run", f"run/seed_{seed}")
        config = {item.key: json.loads(item.value_json) for item in started.config.update}
        assert config["seed"] == seed
        assert config["algo_config"]["gamma"] == 0.99
        lines = [dict(history_items(record.history)) for record in records if record.HasField("history")]
        assert [(line["_step"], line["critic/q_mean"]) for line in lines] == [(10, seed + 10), (20, seed + 20)]
        summary = {
            item.key or item.nested_key[0]: json.loads(item.value_json)
            for record in records
            if record.HasField("summary")
            for item in record.summary.update
        }
        assert (summary["damorl/status"], summary["damorl/reason"]) == ("stopped", "enough")


def history_items(history: Any) -> list[tuple[str, Any]]:
    return [(item.key or item.nested_key[0], json.loads(item.value_json)) for item in history.item]


def read_offline(path: Path) -> list[Any]:
    """The records in an offline run's file: after seven bytes, each with its checksum (4), length (2) and kind (1)."""
    kind = importlib.import_module("wandb.proto.wandb_internal_pb2").Record
    data, at, records = path.read_bytes(), 7, []
    while at < len(data):
        length = int.from_bytes(data[at + 4 : at + 6], "little")
        assert data[at + 6] == 1, "a record in parts: the file is longer than a block"
        records.append(kind.FromString(data[at + 7 : at + 7 + length]))
        at += 7 + length
    return records
