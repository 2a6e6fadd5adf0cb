"""The report on a model: what it is judged by, what the command line says and writes, and that a run stays as it is."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

import damorl
from damorl.cli import main
from damorl.data.datasets import Dataset, write_dataset
from damorl.errors import UserError
from damorl.experiment.fitted import fit_held_out, fit_split, fit_to, model_of_run
from damorl.experiment.model_report import format_report, report_model, write_report
from damorl.parts import dynamics_fit
from damorl.parts.dynamics import DynamicsConfig
from damorl.report.model import model_figure
from tests.experiment.conftest import TINY


@pytest.fixture(scope="module")
def report(dataset: Dataset) -> dict[str, Any]:
    """Of a model that held whole episodes out."""
    return report_model(fit_held_out(dataset, "smoke", quiet=True), horizon=8)


@pytest.mark.parametrize("early_stop", ["one_step", "k_step"])
def test_the_rows_that_the_fit_held_out_are_found_again(
    early_stop: Any, dataset: Dataset, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = []

    def told(split: Any, *rest: Any) -> Any:
        splits.append(split)
        raise KeyboardInterrupt  # before anything is fitted

    monkeypatch.setattr(dynamics_fit, "make_rows", told)
    settings = DynamicsConfig(**{**vars(TINY), "early_stop": early_stop})
    with pytest.raises(KeyboardInterrupt):
        fit_to(dataset, settings, seed=8, quiet=True)
    own = fit_split(dataclasses.replace(model_of_run(run_dir), settings=settings, seed=8))
    for one, other in zip(jax.tree.leaves(own), jax.tree.leaves(splits[0]), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_report_holds_every_feature_and_every_step(report: dict[str, Any], dataset: Dataset) -> None:
    assert report["held_out"]["kind"] == "episodes"
    assert report["held_out"]["rows"] == 150  # whole episodes of 50, at least a fifth of 600
    assert [own["index"] for own in report["features"]] == [*range(11), None]
    assert [own["name"] for own in report["features"]][:3] == ["height", "pitch", "thigh"]
    assert report["features"][-1]["name"] == "reward"
    errors = np.array([own["k_step_error"] for own in report["features"][:-1]])
    assert errors.shape == (11, 8)
    assert len(report["k_step"]["error"]) == 8
    assert (np.array(report["k_step"]["q10"]) <= report["k_step"]["median"]).all()
    assert (np.array(report["k_step"]["median"]) <= report["k_step"]["q90"]).all()
    assert report["calibration"]["pit"].sum() == pytest.approx(1.0)
    assert report["calibration"]["within_1"] < report["calibration"]["within_2"]
    assert -1.0 <= report["disagreement"]["rank_correlation"] <= 1.0
    text = format_report(report)
    assert "whole episodes that the fit held out" in text
    assert "2 thigh " in text


def test_the_command_judges_a_run_and_leaves_it_as_it_is(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hashes = lambda: {
        path: hashlib.sha256(path.read_bytes()).hexdigest() for path in run_dir.rglob("*") if path.is_file()
    }
    before = hashes()
    assert main(["model", str(run_dir), "--seed", "5", "--horizon", "5", "--json"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert said.err == ""
    after = hashes()
    assert {path.name for path in after.keys() - before.keys()} == {"model.json", "model.png"}
    assert before.items() <= after.items()
    written = json.loads((run_dir / "model.json").read_text())
    assert written == {name: value for name, value in found.items() if name != "paths"}
    assert found["seed"] == 5
    assert found["held_out"]["kind"] == "rows"  # the default fit holds out single rows
    with Image.open(run_dir / "model.png") as picture:
        assert picture.size[0] > 1000


def test_other_data_of_the_task_can_judge(run_dir: Path, dataset: Dataset, tmp_path: Path) -> None:
    model, rows = model_of_run(run_dir), dataset.transitions
    columns = {"observations": rows.obs, "actions": rows.action, "rewards": rows.reward, "terminals": rows.terminal > 0}
    columns |= {"next_observations": rows.next_obs, "timeouts": dataset.truncated}
    write_dataset(
        tmp_path / "hopper-half.hdf5", {name: np.asarray(column)[:300] for name, column in columns.items()}, {}
    )
    half = damorl.load_dataset(tmp_path / "hopper-half.hdf5")
    found = report_model(model, 5, half)
    assert found["held_out"] | {"paths": 0} == {
        "kind": "other data", "note": "another data set", "data": "hopper-half", "rows": 300, "judged_rows": 300,
        "paths": 0,
    }  # fmt: skip
    with pytest.raises(UserError, match="expected other data than the model was fitted to, found the same"):
        report_model(model, 5, dataset)
    narrow = {
        "obs": np.zeros((20, 2)),
        "action": np.zeros((20, 1)),
        "reward": np.zeros(20),
        "next_obs": np.ones((20, 2)),
    }
    with pytest.raises(UserError, match="expected 11 observations and 3 actions, found 2 and 1"):
        report_model(model, 5, damorl.load_dataset(narrow | {"terminals": np.zeros(20, bool)}, "none", name="narrow"))


MISTAKES = {
    "no such data": (["hoper-medium"], "did you mean"),
    "horizon 0": (["RUN", "--horizon", "0"], "horizon must be at least 1, found 0"),
    "horizon too long": (["RUN", "--horizon", "51"], "horizon is 51: expected an episode"),
    "no such seed": (["RUN", "--seed", "4"], "expected one of the seeds"),
    "task of a run": (["RUN", "--task", "hopper"], "expected no --task for a run"),
    "setting of a data set": (["DATA", "--setting", "0"], "expected no --setting for a data set"),
    "unknown preset": (["DATA", "--preset", "slow"], "unknown preset 'slow'"),
    "data not made": (["hopper-medium", "--no-make"], "run `damorl data make hopper-medium`"),
}


@pytest.mark.parametrize(("words", "told"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_one_sentence_and_code_2(
    words: list[str], told: str, run_dir: Path, data_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"RUN": str(run_dir), "DATA": str(data_path)}
    assert main(["model", *(places.get(word, word) for word in words)]) == 2
    said = capsys.readouterr()
    assert told in said.err
    assert "Traceback" not in said.err


def test_what_diverges_or_never_varies_is_drawn_all_the_same(report: dict[str, Any], tmp_path: Path) -> None:
    worst = dict(report)
    worst["k_step"] = report["k_step"] | {"q90": np.full(8, np.inf), "error": np.ones(8)}
    worst["features"] = [dict(own) for own in report["features"]]
    worst["features"][3] |= {"within_1": None, "within_2": None, "rank_correlation": None, "k_step_error": [None] * 8}
    worst["disagreement"] = {"rank_correlation": None, "bins": {"disagreement": np.zeros(3), "error": np.zeros(3)}}
    paths = write_report(worst, tmp_path / "new" / "folder")
    assert all(path.stat().st_size > 1000 for path in paths)
    figure = model_figure(json.loads(paths[0].read_text()))
    labels = [text.get_text() for axes in figure.axes for text in axes.get_yticklabels()]
    assert "2 thigh" in labels
    assert "3 leg" not in labels
    assert "3 leg" not in format_report(worst)
