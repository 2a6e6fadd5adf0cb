"""When a time budget and a selection score end a run."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from damorl.data.datasets import Dataset, load_dataset
from damorl.errors import UserError
from damorl.experiment import select as selection
from damorl.experiment.callbacks import Event, StartEvent, Stop
from damorl.experiment.choice import Estimator, candidates
from damorl.experiment.config import RunConfig, defaults
from damorl.experiment.select import SelectConfig, select
from damorl.experiment.stopping import EARLY_STOP, EarlyStop, TimeBudget, earlier_scores, without_gain
from damorl.experiment.train import train
from damorl.parts.dynamics import DynamicsConfig
from damorl.parts.fqe import FQEConfig
from damorl.record import store
from tests.experiment.test_select import write_data, write_policies, write_run

SETTINGS = SelectConfig(
    FQEConfig(200, 100, hidden=(16,), batch_size=64),
    DynamicsConfig(2, 2, (32, 32), 128, 3e-3, max_batches=600, epoch_batches=300, patience=100),
    starts=20,
)


def at(step: int) -> Event:
    return Event(run_dir=Path("run"), config={}, step=step)


def test_a_time_budget_ends_with_the_first_moment_after_it() -> None:
    now = [100.0]
    budget = TimeBudget(2.0, clock=lambda: now[0])
    for start in (100.0, 500.0):  # each call has all of it
        now[0] = start
        budget.on_start(StartEvent(run_dir=Path("run"), config={}, step=0, dataset=None))  # pyright: ignore[reportArgumentType]
        now[0] = start + 119.9
        budget.on_epoch(at(10))
        budget.on_checkpoint(at(10))
        now[0] = start + 120.0
        for moment in (budget.on_epoch, budget.on_checkpoint):
            with pytest.raises(Stop, match="the time budget of 2 minutes is spent"):
                moment(at(20))


@pytest.mark.parametrize("minutes", [0.0, -1.0, math.inf, math.nan])
def test_a_budget_of_no_time_is_refused(minutes: float) -> None:
    with pytest.raises(UserError, match="minutes must be a number above 0"):
        TimeBudget(minutes)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"patience": 0}, "patience must be at least 1 evaluation, found 0"),
        ({"estimator": "value"}, "estimator must be one of model_value, fqe, found 'value'"),
        ({"rule": "best"}, "rule must be one of pessimistic, mean, found 'best'"),
    ],
)
def test_settings_out_of_range_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        EarlyStop(**given)


@pytest.mark.parametrize(
    ("scores", "best", "since"),
    [
        ([1.0], 0, 0),
        ([1.0, 2.0, 1.5], 1, 1),
        ([2.0, 2.0, 2.0], 0, 2),  # as high is no gain
        ([1.0, None, 3.0, None], 2, 1),
        ([None, None], None, 2),
    ],
)
def test_evaluations_without_a_gain_are_counted(scores: list[float | None], best: int | None, since: int) -> None:
    rows = [{"step": index, "score": score} for index, score in enumerate(scores)]
    assert without_gain(rows) == (None if best is None else rows[best], since)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run of two seeds, for whose policies `GAINS` has a regulator each (300), none (200), or one runaway (100)."""
    write_data(tmp_path / "toy.hdf5")
    return write_run(tmp_path / "run", tmp_path / "toy.hdf5")


def moments(run_dir: Path) -> tuple[Any, Any]:
    """What makes a start, and an evaluation, at a step of the run."""
    config = store.read_json(run_dir / "config.json")
    dataset = load_dataset(config["dataset"])
    start = lambda step: StartEvent(run_dir=run_dir, config=config, step=step, dataset=dataset)

    def evaluation(step: int, policies: int) -> Event:
        write_policies(run_dir / "policies.safetensors", policies)
        return Event(run_dir=run_dir, config=config, step=step)

    return start, evaluation


def test_it_goes_by_the_bound_over_seeds_and_continues_where_it_was(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    means = {2.0: 1.0, 0.4: 5.0, 0.0: 2.0, -0.3: 3.0, -1.0: 8.0, -4.0: 10.0}  # of the policies, by their gain

    def values(run: selection.Run, evidence: object, actors: Any, *_: object) -> selection.ModelValue:
        gains = np.asarray(actors[0].kernel)[:, 0, 0]
        return selection.ModelValue(np.array([means[round(float(gain), 3)] for gain in gains]), np.full(2, 0.6))

    fits: list[int] = []
    monkeypatch.setattr(selection, "imagined_values", values)
    monkeypatch.setattr("damorl.experiment.select.gather", lambda run, data, quiet: fits.append(1) or Judge(data))
    start, evaluation = moments(run_dir)
    early = EarlyStop(patience=2, settings=SETTINGS)
    early.on_start(start(0))
    for step, policies in {10: 100, 20: 300, 30: 200}.items():
        early.on_evaluation(evaluation(step, policies))
    # the mean less the root of (the variance between two seeds, (a - b)^2 / 2, and 0.6^2, over two)
    bound = lambda a, b: (a + b) / 2 - math.sqrt(((a - b) ** 2 / 2 + 0.36) / 2)
    expected = [bound(1.0, 5.0), bound(8.0, 10.0), bound(2.0, 3.0)]
    assert [score["score"] for score in early.scores] == pytest.approx(expected)
    with pytest.raises(Stop, match=r"no selection score above 7\.914, that of update 20, in 2 evaluations"):
        early.on_evaluation(evaluation(40, 100))
    assert fits == [1]

    again = EarlyStop(patience=2, settings=SETTINGS)
    again.on_start(start(30))
    assert [score["step"] for score in again.scores] == [10, 20, 30]
    other = EarlyStop(patience=2, rule="mean", settings=SETTINGS)
    other.on_start(start(30))
    assert other.scores == []


class Judge(NamedTuple):
    """Stands in for the data with the fitted model."""

    dataset: Dataset


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["model_value", "fqe"])
def test_its_score_is_that_of_select(run_dir: Path, estimator: Estimator) -> None:
    start, evaluation = moments(run_dir)
    early = EarlyStop(estimator=estimator, settings=SETTINGS)
    early.on_start(start(0))
    for step, policies in {10: 100, 20: 300, 30: 200, 40: 100}.items():
        early.on_evaluation(evaluation(step, policies))
    scores = [score["score"] for score in early.scores]
    assert scores[0] == pytest.approx(scores[3], abs=1e-6)  # the same judge, the same draws
    evaluation(50, 300)
    (judged,) = select([run_dir], SETTINGS)
    by_step = {found.step: found.bound("pessimistic") for found in candidates([judged], ["toy"], estimator)}
    if estimator == "model_value":  # fitted Q of six policies draws other batches than that of two
        assert scores[:3] == pytest.approx([by_step[step] for step in (100, 300, 200)], rel=1e-3)
    assert scores[1] > scores[0]
    assert by_step[300] > by_step[100]


def test_no_earlier_scores_are_found_where_there_are_none(tmp_path: Path) -> None:
    assert earlier_scores(tmp_path, {}, 10) == []
    (tmp_path / EARLY_STOP).write_text("[1, 2]")
    assert earlier_scores(tmp_path, {}, 10) == []


def test_an_algorithm_that_plans_is_refused_at_once(tmp_path: Path) -> None:
    config = {"algo": "trajectory-transformer", "seeds": [0], "algo_config": {}}
    store.write_json(tmp_path / "config.json", config)
    with pytest.raises(UserError, match="which plans"):
        EarlyStop().on_start(StartEvent(run_dir=tmp_path, config=config, step=0, dataset=None))  # pyright: ignore[reportArgumentType]


@pytest.mark.slow
def test_it_stops_a_real_run(data_path: Path, dataset: Dataset, tmp_path: Path) -> None:
    run_loop, config = defaults("bc", "smoke", str(data_path))
    clock = {"total_updates": 100, "refresh_interval": 5, "eval_interval": 5, "checkpoint_interval": 100}
    run_loop = dataclasses.replace(run_loop, **clock, eval_episodes=1)
    run = RunConfig("bc", str(data_path), None, "smoke", (0, 4), run_loop, config)
    early = EarlyStop(patience=1, settings=dataclasses.replace(SETTINGS, horizon=20))
    result = train(run, dataset, tmp_path, quiet=True, without=("curves", "tensorboard"), callbacks=[early])
    found = store.read_json(tmp_path / EARLY_STOP)["scores"]
    assert [score["step"] for score in found] == list(range(5, result.summary["updates"] + 5, 5))
    assert all(later["score"] > earlier["score"] for earlier, later in itertools.pairwise(found[:-1]))
    assert result.stopped is not None
    assert result.stopped.by == "EarlyStop"
    assert found[-1]["score"] <= found[-2]["score"]
