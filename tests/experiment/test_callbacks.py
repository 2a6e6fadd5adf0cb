"""Callbacks hear of every moment once, may end a run, and cost it nothing: it goes on bit for bit."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

import damorl
from benchmarks.soak.same import numbers
from damorl.data.datasets import Dataset
from damorl.errors import CallbackError, UserError
from damorl.experiment import summary
from damorl.experiment import train as loop
from damorl.experiment.config import RunConfig, defaults
from damorl.experiment.result import list_policies, run_dirs_in
from damorl.record import checkpoint, ending, store
from damorl.record.compact import write_record
from damorl.report.collect import Status, read_run, seed_score
from damorl.sweeps.plan import stored_runs

BARE = ("curves", "tensorboard")


def tiny(data_path: Path, seeds: tuple[int, ...] = (0, 4)) -> RunConfig:
    run_loop, config = defaults("bc", "smoke", str(data_path))
    clock = {"total_updates": 20, "refresh_interval": 5, "eval_interval": 10, "checkpoint_interval": 10}
    run_loop = dataclasses.replace(run_loop, **clock, eval_episodes=1)
    return RunConfig("bc", str(data_path), None, "smoke", seeds, run_loop, config)


class Listener(damorl.Callback):
    """Writes down what it hears, and what is on the disk by then; stops or fails where it is told to."""

    def __init__(self, at: tuple[str, int] | None = None, error: Exception | None = None) -> None:
        self.heard: list[tuple[str, int]] = []
        self.at, self.error = at, error or damorl.Stop("enough")
        self.end: damorl.EndEvent | None = None

    def note(self, moment: str, event: damorl.Event) -> None:
        self.heard.append((moment, event.step))
        if self.at == (moment, event.step):
            raise self.error

    def on_start(self, event: damorl.StartEvent) -> None:
        assert event.config["seeds"] == [0, 4]
        assert event.dataset.sha256 == event.config["data"]["sha256"]
        self.note("start", event)

    def on_epoch(self, event: damorl.Event) -> None:
        assert list(event.rows) == store.read_metrics(event.run_dir)[-2:]
        assert [(row["step"], row["seed"]) for row in event.rows] == [(event.step, 0), (event.step, 4)]
        self.note("epoch", event)

    def on_evaluation(self, event: damorl.Event) -> None:
        assert all("eval/score" in row for row in event.rows)
        assert event.step in list_policies(event.run_dir)
        self.note("evaluation", event)

    def on_checkpoint(self, event: damorl.Event) -> None:
        assert checkpoint.checkpoints(event.run_dir / "checkpoint")[-1].stem == f"step_{event.step:09d}"
        self.note("checkpoint", event)

    def on_end(self, event: damorl.EndEvent) -> None:
        assert self.end is None
        self.end = event


WHOLE = [
    ("start", 0),
    ("checkpoint", 0),
    ("epoch", 5),
    ("epoch", 10),
    ("evaluation", 10),
    ("checkpoint", 10),
    ("epoch", 15),
    ("epoch", 20),
    ("evaluation", 20),
    ("checkpoint", 20),
]


def bits(run_dir: Path) -> dict[str, bytes]:
    """The last state."""
    arrays = load_file(checkpoint.checkpoints(run_dir / "checkpoint")[-1])
    return {name: array.tobytes() for name, array in arrays.items()}


@pytest.fixture(scope="module")
def whole(data_path: Path, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without callbacks."""
    run_dir = tmp_path_factory.mktemp("whole")
    loop.train(tiny(data_path), dataset, run_dir, quiet=True)
    return run_dir


def test_every_moment_is_told_once_and_in_order(data_path: Path, dataset: Dataset, whole: Path, tmp_path: Path) -> None:
    listener = Listener()
    result = loop.train(tiny(data_path), dataset, tmp_path, quiet=True, callbacks=[listener])
    assert listener.heard == WHOLE
    assert listener.end is not None
    assert (listener.end.status, listener.end.reason, listener.end.step) == ("finished", "", 20)
    assert listener.end.summary == result.summary
    assert result.stopped is None
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in whole.iterdir()}
    assert (bits(tmp_path), numbers(tmp_path)) == (bits(whole), numbers(whole))


@pytest.mark.parametrize("at", [("epoch", 5), ("checkpoint", 10)])
def test_a_stopped_run_is_saved_is_not_finished_and_goes_on_bit_for_bit(
    at: tuple[str, int], data_path: Path, dataset: Dataset, whole: Path, tmp_path: Path
) -> None:
    config, step = tiny(data_path), at[1]
    run_dir, stopper, other = tmp_path / config.name(), Listener(at), Listener()
    run_dir.mkdir()
    result = loop.train(config, dataset, run_dir, quiet=True, without=BARE, callbacks=[stopper, other])
    told = store.read_json(run_dir / "result.json")
    assert told["stopped"] == {"by": "Listener", "reason": "enough"}
    assert told["updates"] == step
    assert set(told["per_seed"]) == ({"0", "4"} if step == 10 else set())
    assert result.stopped == ending.stopped(run_dir) == ("Listener", "enough")
    assert ending.final_step(run_dir) == step
    assert other.heard[-1] == ("checkpoint", step)  # the others hear of the same moment, and of the state saved
    assert other.end is not None
    assert (other.end.status, other.end.reason) == ("stopped", "enough")
    assert list(list_policies(run_dir)) == [step]
    damorl.load_policy(run_dir, step=step)

    assert not ending.finished(run_dir)
    with pytest.raises(UserError, match=f"expected a finished run, found {step} of 20 updates"):
        write_record(run_dir, tmp_path / "records")
    assert seed_score(read_run(run_dir), 0, "eval/score").status is Status.UNFINISHED
    assert all(entry["scores"] == [] for entry in summary.summary([tmp_path]))
    assert [run.finished for run in stored_runs(tmp_path)] == [False]
    with pytest.raises(UserError, match="expected finished runs, found none"):
        run_dirs_in([tmp_path])

    again = Listener()
    loop.train(config, dataset, run_dir, quiet=True, without=BARE, callbacks=[again])
    assert again.heard[0] == ("start", step)
    assert again.heard[1:] == [moment for moment in WHOLE if moment[1] > step]
    assert (bits(run_dir), numbers(run_dir)) == (bits(whole), numbers(whole))
    assert "stopped" not in store.read_json(run_dir / "result.json")
    assert ending.finished(run_dir)
    assert [run.finished for run in stored_runs(tmp_path)] == [True]
    write_record(run_dir, tmp_path / "records")


def test_a_stop_before_the_first_update_keeps_the_prepared_policies(
    data_path: Path, dataset: Dataset, tmp_path: Path
) -> None:
    result = loop.train(tiny(data_path), dataset, tmp_path, quiet=True, callbacks=[Listener(("start", 0))])
    assert result.summary["updates"] == 0
    assert result.stopped is not None
    assert result.curves.exists()
    assert list(list_policies(tmp_path)) == [0]


def test_a_stop_at_the_last_update_is_none(data_path: Path, dataset: Dataset, tmp_path: Path) -> None:
    listener = Listener(("evaluation", 20))
    result = loop.train(tiny(data_path), dataset, tmp_path, quiet=True, without=BARE, callbacks=[listener])
    assert listener.end is not None
    assert listener.end.status == "finished"
    assert "stopped" not in result.summary
    assert ending.finished(tmp_path)


def test_a_run_that_goes_on_is_no_stopped_one_while_it_runs(data_path: Path, dataset: Dataset, tmp_path: Path) -> None:
    listen = lambda **how: loop.train(tiny(data_path), dataset, tmp_path, quiet=True, without=BARE, **how)
    listen(callbacks=[Listener(("epoch", 5))])
    assert listen(deadline=0.0).summary == {"stopped_at": 10}
    assert not (tmp_path / "result.json").exists()


def test_a_callback_that_fails_is_named_and_the_run_goes_on_from_its_checkpoint(
    data_path: Path, dataset: Dataset, whole: Path, tmp_path: Path
) -> None:
    failing, other = Listener(("epoch", 15), KeyError("lost")), Listener()
    told = r"^callback Listener failed in on_epoch after 15 updates, with KeyError: 'lost'; .*checkpoint: .*--resume"
    with pytest.raises(CallbackError, match=told) as caught:
        loop.train(tiny(data_path), dataset, tmp_path, quiet=True, without=BARE, callbacks=[failing, other])
    assert isinstance(caught.value.__cause__, KeyError)
    for listener in (failing, other):
        assert listener.end is not None
        assert listener.end.status == "failed"
        assert "lost" in listener.end.reason
    assert not (tmp_path / "result.json").exists()
    again = Listener()
    loop.train(tiny(data_path), dataset, tmp_path, quiet=True, without=BARE, callbacks=[again])
    assert again.heard[:2] == [("start", 10), ("epoch", 15)]
    assert (bits(tmp_path), numbers(tmp_path)) == (bits(whole), numbers(whole))


def test_what_fails_at_the_end_leaves_a_finished_run(data_path: Path, dataset: Dataset, tmp_path: Path) -> None:
    class Late(damorl.Callback):
        def on_end(self, event: damorl.EndEvent) -> None:
            raise OSError("no line")

    listener = Listener()
    with pytest.raises(CallbackError, match="callback Late failed in on_end after 20 updates, with OSError: no line"):
        loop.train(tiny(data_path), dataset, tmp_path, quiet=True, without=BARE, callbacks=[Late(), listener])
    assert listener.end is not None
    assert listener.end.status == "finished"
    assert ending.finished(tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="cuts a file behind its writer's back")
def test_a_damaged_result_counts_as_none(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"updates": 4')
    assert not ending.finished(tmp_path)
    assert ending.final_step(tmp_path) is None


@pytest.mark.parametrize("given", [Listener, print])
def test_what_is_no_callback_is_refused(given: Any, data_path: Path, dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^callbacks\[1\]: expected an object of a class that derives from"):
        loop.train(tiny(data_path), dataset, tmp_path, quiet=True, without=BARE, callbacks=[Listener(), given])
