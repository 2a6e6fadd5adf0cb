"""What a sweep shows and expects: counts, times, the table, lines and JSON, and the command's exit codes."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from rich.console import Console

from damorl.cli import main
from damorl.experiment.config import resolve
from damorl.record import store
from damorl.sweeps.clock import duration, expected_seconds, remember_seconds, stored_timings, total_seconds
from damorl.sweeps.engine import Attempt, Progress
from damorl.sweeps.live import Counts, Display, counts, job_label, picture, remaining_seconds, standing
from damorl.sweeps.plan import Job, Plan, make_plan
from damorl.sweeps.process import Outcome


def job(seed: int, **changes: object) -> Job:
    return Job(resolve("damo", "hopper-medium", "smoke", (seed,), changes))


def half_way(tmp_path: Path) -> tuple[Plan, Progress]:
    """Four runs: one done, one failed, one at update 100 of 200, one waiting."""
    config = resolve("damo", "hopper-medium", "smoke", (0, 1, 2, 3), {})
    plan = make_plan([config], tmp_path)
    done, failed, running, waiting = plan.jobs
    progress = Progress(tmp_path, 2, [waiting], [Attempt(running, object(), time.monotonic())])
    progress.done.append((done, 8.0))
    progress.failed.append((failed, Outcome("user error", "gamma is wrong")))
    run_dir = tmp_path / running.name
    run_dir.mkdir()
    first = {"step": 50, "seed": 2, "eval/score": 12.25, "time/updates_per_second": 10.0}
    store.append_metrics(run_dir, [first, {"step": 100, "seed": 2, "time/updates_per_second": 20.0}])
    return plan, progress


def test_counts_and_the_table(tmp_path: Path) -> None:
    plan, progress = half_way(tmp_path)
    assert counts(plan, progress) == Counts(done=1, running=1, failed=1, left=1, total=4)
    console = Console(record=True, width=110)
    console.print(picture(plan, progress, []))
    text = console.export_text()
    for part in (
        "1 of 4 done, 1 running, 1 failed, 1 left",
        "20 updates/s",
        "100 / 200",
        "12.2",
        "damo  hopper-medium",
    ):
        assert part in text


def test_a_run_that_trains_tells_its_own_time_and_others_are_taken_to_be_alike(tmp_path: Path) -> None:
    plan, progress = half_way(tmp_path)
    assert remaining_seconds(progress, []) == 5.0  # 100 updates at 20 a second, twice, on two slots
    timings = [{"algo": "damo", "updates": 200, "hidden": [16, 16], "seeds": 1, "seconds": 15.0}]
    assert remaining_seconds(progress, timings) == (5.0 + 15.0) / 2
    assert plan.left == 4


def test_the_end_of_growing_metrics_is_read(tmp_path: Path) -> None:
    assert standing(tmp_path).step == 0
    (tmp_path / store.METRICS).write_bytes(b'{"step": 1, "seed": 0}\n{"step": 2, "seed": 0}\n{"st')
    assert standing(tmp_path).step == 2


def test_expected_times_come_from_runs_of_the_same_kind(tmp_path: Path) -> None:
    path = tmp_path / "timings.jsonl"
    other = resolve("damo", "hopper-random", "smoke", (0,), {})
    for seconds in (10.0, 30.0, 11.0):
        remember_seconds(Job(other), seconds, path)
    with path.open("a") as file:
        file.write("torn")
    timings = stored_timings(path)
    assert expected_seconds(job(5), timings) == 11.0  # the median, of another data set for want of its own
    remember_seconds(job(0), 50.0, path)
    assert expected_seconds(job(5), stored_timings(path)) == 50.0
    assert expected_seconds(job(5, total_updates=400), timings) is None
    assert total_seconds([job(0), job(1), job(2, total_updates=400)], timings, 2) == (16.5, 1)
    assert total_seconds([], timings, 2) == (0.0, 0)
    assert total_seconds([job(2, total_updates=400)], timings, 2) == (None, 1)


@pytest.mark.parametrize(("seconds", "text"), [(None, "?"), (40, "40 s"), (240, "4 min"), (11_100, "3 h 05 min")])
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_a_label_says_what_is_not_the_presets() -> None:
    changes = {"divergence_weight": 0.3, "dynamics.max_batches": 9}
    assert job_label(job(4, **changes)) == "damo  hopper-medium  seed 4  max_batches=9 divergence_weight=0.3"


def test_lines_and_json_tell_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan, progress = half_way(tmp_path)
    failed, outcome = progress.failed[0]
    with Display("lines", plan, progress, []) as display:
        display("failed", failed, outcome)
        display("tick", None, None)
    assert capsys.readouterr().err == "[1/4] failed   damo  hopper-medium  seed 1: gamma is wrong\n"
    with Display("json", plan, progress, []) as display:
        display("failed", failed, outcome)
    told = json.loads(capsys.readouterr().out)
    assert (told["event"], told["run"], told["reason"]) == ("failed", failed.name, "gamma is wrong")
    assert (told["done"], told["failed"], told["total"], told["eta_seconds"]) == (1, 1, 4, 5.0)
    with Display("quiet", plan, progress, []) as display:
        display("failed", failed, outcome)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("words", [[], ["--dry-run"]])
def test_a_bad_grid_is_a_users_mistake(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "grid.toml"
    path.write_text('algorithms = ["damo"]\ndatasets = ["hopper-medium"]\n[settings]\ngama = 1.0\n')
    assert main(["sweep", str(path), "--out", str(tmp_path / "out"), *words]) == 2
    assert "unknown setting 'gama' of damo: did you mean 'gamma'?" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_dry_run_makes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "grid.toml"
    path.write_text('algorithms = ["bc"]\ndatasets = ["hopper-expert-x.npz"]\npreset = "smoke"\nseeds = [0, 1]\n')
    assert main(["sweep", str(path), "--out", str(tmp_path / "out"), "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["total"], told["done"], told["left"], len(told["runs"])) == (2, 0, 2, 2)
    assert main(["sweep", str(path), "--out", str(tmp_path / "out"), "--dry-run"]) == 0
    assert "2 runs: 0 done, 0 known from records, 2 left" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_every_grid_in_the_docs_is_sound() -> None:
    from damorl.sweeps.grid import expand, read_grid

    root = Path(__file__).resolve().parents[2]
    grids = [root / "docs/leaderboard/grid.toml", *sorted((root / "docs/grids").glob("*.toml"))]
    assert len(grids) >= 5
    for path in grids:
        assert expand(read_grid(path)[0], str(path))
