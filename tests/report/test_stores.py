"""Records of runs, directories of runs, and half-finished sweeps, read by a report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from damorl.errors import UserError
from damorl.record.compact import read_record, write_record
from damorl.record.store import append_metrics, write_json
from damorl.report.collect import Status, read_run
from damorl.report.compare import compare
from damorl.report.page import write_report
from damorl.report.stores import read_runs


def test_a_record_has_the_numbers_of_its_directory(make_run, tmp_path: Path) -> None:
    run_dir = make_run("damo-a", levels={0: 50.123456789, 7: -3.0})
    record = write_record(run_dir, tmp_path / "records")
    assert record == tmp_path / "records" / "damo-a.json"
    assert record.stat().st_size < 4000
    before, after = read_run(run_dir), read_run(record)
    assert after.name == before.name
    assert after.data_key == before.data_key
    (one,), (other,) = compare([before]).results, compare([after]).results
    assert one.scores.tolist() == other.scores.tolist()  # in full, though curves are rounded
    assert one.estimate(0) == other.estimate(0)
    assert other.state == "finished"
    assert [score.updates for _, score in other.seeds] == [12_000, 12_000]
    assert one.average("best") == pytest.approx(other.average("best"), rel=1e-4)


def test_what_a_record_keeps(make_run, tmp_path: Path) -> None:
    run_dir = make_run("damo-a", levels={3: 50.0})
    write_json(run_dir / "models.json", {"prepare_seconds": 1.5, "sha256": {"3": "ab"}})
    provenance = json.loads((run_dir / "provenance.json").read_text())
    provenance["command"] += ["--out", "/home/me/runs", "--seeds", "3"]
    write_json(run_dir / "provenance.json", provenance)
    record = read_record(write_record(run_dir, tmp_path / "records"))
    assert record["format"] == "damorl-run-1"
    assert record["config"]["seeds"] == [3]
    assert "data" not in record["config"]
    assert record["data"]["return_max"] == 900.0
    assert record["data"]["reference_min"] is None
    assert record["provenance"]["command"][-3:] == ["my data.hdf5", "--seeds", "3"]
    assert record["model_sha256"] == {"3": "ab"}
    assert record["seconds"] == {"fit": 1.5, "train": None, "eval": None}
    curves = record["seeds"]["3"]["curves"]
    assert curves["steps"] == list(range(1000, 13_000, 1000))
    assert curves["score"] == [49.0 + k for k in range(12)]
    assert curves["mean_q"][-1] == 120.0
    assert record["seeds"]["3"]["final"] == {"score": 55.5, "return": 30 * 55.5}  # mean of 51 to 60


def test_a_run_without_a_simulator_keeps_its_other_curves(make_run, tmp_path: Path) -> None:
    run_dir = make_run("offline", total=12_000)
    (run_dir / "metrics.jsonl").unlink()
    rows = [
        {"step": step, "seed": 0, "critic/q_mean": float("nan"), "time/train_seconds": 2.0} for step in (6000, 12_000)
    ]
    append_metrics(run_dir, rows)
    record = read_record(write_record(run_dir, tmp_path / "records"))
    assert record["seeds"]["0"]["final"] == {}
    assert set(record["seeds"]["0"]["curves"]) == {"steps", "mean_q"}
    assert record["seeds"]["0"]["curves"]["mean_q"][0] != record["seeds"]["0"]["curves"]["mean_q"][0]  # NaN again
    assert record["seconds"]["train"] == 4.0
    (result,) = compare(read_runs([tmp_path / "records"])).results
    assert result.state == "not scored"


def test_an_unfinished_run_has_no_record(make_run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"found 12,000 of 50,000 updates of seed 0"):
        write_record(make_run("a", total=50_000), tmp_path / "records")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"format": "damorl-run-x"}, "the format 'damorl-run-1', found 'damorl-run-x'"),
        ({"format": None}, "found none"),
        ({"config": []}, "'config' in the record, found a list"),
        ({"data": {"name": "x"}}, "'data.sha256' in the record, found none"),
        ({"seeds": {}}, "curves of equal length for seed 0"),
        ({"seeds": {"0": {"updates": 9, "final": {}, "curves": {"steps": [1, 2], "score": [1.0]}}}}, "equal length"),
        ({"seeds": {"0": {"updates": 9, "final": {}, "curves": {"steps": [1], "score": ["much"]}}}}, "equal length"),
    ],
)
def test_a_damaged_record_is_told(make_run, tmp_path: Path, change, told: str) -> None:
    path = write_record(make_run("a"), tmp_path / "records")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=told):
        read_run(path)


def test_a_file_cut_short_is_told_and_a_foreign_one_passed_over(make_run, tmp_path: Path) -> None:
    path = write_record(make_run("a"), tmp_path / "records")
    (tmp_path / "records" / "notes.json").write_text('{"format": "mine"}')
    (tmp_path / "records" / "list.json").write_text("[1]")
    assert [run.name for run in read_runs([tmp_path / "records"])] == ["a"]
    path.write_text(path.read_text()[:100])
    with pytest.raises(UserError, match=r"a\.json.*invalid JSON"):
        read_runs([tmp_path / "records"])


def test_a_directory_stands_for_its_runs_and_a_run_counts_once(make_run, tmp_path: Path) -> None:
    for name in ("b", "a"):
        make_run(f"store/{name}", data="hopper-medium", levels={0 if name == "a" else 1: 50.0})
    write_record(tmp_path / "store" / "a", tmp_path / "store")
    write_record(tmp_path / "store" / "b", tmp_path / "store")
    shutil.rmtree(tmp_path / "store" / "b")
    (tmp_path / "store" / "killed").mkdir()
    (tmp_path / "store" / "killed" / "log.txt").write_text("...")
    (tmp_path / "store" / ".lock").write_text("")
    runs = read_runs([tmp_path / "store"])
    assert [(run.name, run.path.is_dir()) for run in runs] == [("a", True), ("b", False)]
    assert len(read_runs([tmp_path / "store", tmp_path / "store" / "b.json"])) == 2
    with pytest.raises(UserError, match=r"config\.json"):
        read_runs([tmp_path / "store" / "killed"])


def half_finished(make_run, tmp_path: Path) -> Path:
    """A sweep of three seeds of damo: one done, one failed before it began, one never begun."""
    sweep = tmp_path / "sweep"
    done = make_run("sweep/damo-0", levels={0: 50.0})
    settings = {k: v for k, v in json.loads((done / "config.json").read_text()).items() if k != "data"}
    write_json(sweep / "sweep.json", {"grids": [], "settings": [settings | {"seeds": [0, 1, 2]}]})
    failure = {"kind": "out of memory", "reason": "no room", "seeds": [1], "settings": settings | {"seeds": [1]}}
    (sweep / "damo-1").mkdir()
    write_json(sweep / "damo-1" / "failure.json", failure)
    return sweep


def test_what_a_sweep_lacks_is_missing_and_what_failed_says_why(make_run, tmp_path: Path) -> None:
    sweep = half_finished(make_run, tmp_path)
    (result,) = compare(read_runs([sweep])).results  # the same data set: its hash is that of the run that is there
    assert {score.seed: score.status for _, score in result.seeds} == {
        0: Status.FINISHED,
        1: Status.FAILED,
        2: Status.MISSING,
    }
    assert result.state == "2 missing"
    content = write_report([sweep], tmp_path / "report.html")
    assert [(lack["seed"], lack["reason"]) for lack in content["missing"]] == [
        (1, "out of memory: no room"),
        (2, "asked for, and not begun"),
    ]
    assert [run["name"] for run in content["runs"]] == ["damo-0"]
    page = (tmp_path / "report.html").read_text()
    assert "What is missing" in page
    assert "out of memory: no room" in page


def test_a_record_elsewhere_is_not_missing(make_run, tmp_path: Path) -> None:
    sweep = half_finished(make_run, tmp_path)
    write_record(make_run("elsewhere/damo-2", levels={2: 60.0}), tmp_path / "records")
    (result,) = compare(read_runs([sweep, tmp_path / "records"])).results
    assert sorted(score.seed for score in result.counted) == [0, 2]
    assert result.missing == 1


def test_a_run_that_failed_on_the_way_is_failed_and_unread_data_has_no_hash(make_run, tmp_path: Path) -> None:
    sweep = half_finished(make_run, tmp_path)
    write_json(sweep / "damo-0" / "failure.json", {"kind": "not finite", "reason": "loss"})
    content = json.loads((sweep / "sweep.json").read_text())
    content["settings"].append(content["settings"][0] | {"dataset": "walker2d-medium", "seeds": [4]})
    write_json(sweep / "sweep.json", content)
    for path in (sweep / "sweep.json", sweep / "damo-0" / "config.json"):
        path.write_text(path.read_text().replace('"total_updates": 12000', '"total_updates": 99000'))
    comparison = compare(read_runs([sweep]))
    statuses = {(r.data.name, s.seed): s.status for r in comparison.results for _, s in r.seeds}
    assert statuses["hopper-medium", 0] is Status.FAILED
    assert [data.sha256 for data in comparison.data if data.name == "walker2d-medium"] == ["unknown"]
