"""The run directory survives kills, full disks and damaged files."""

from __future__ import annotations

import errno
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from damorl.errors import UserError
from damorl.record import store, tensorboard


def rows_until(last: int) -> list[store.Row]:
    return [
        {"step": step, "seed": seed, "critic/loss": step + seed / 7} for step in range(1, last + 1) for seed in (0, 1)
    ]


def test_json_comes_back_with_arrays_as_lists_and_paths_as_text(tmp_path):
    written = {"a": np.float32(0.5), "b": np.arange(3), "c": Path("x") / "y", "d": (1, None, True), "é": math.inf}
    store.write_json(tmp_path / "config.json", written)
    assert store.read_json(tmp_path / "config.json") == {
        "a": 0.5,
        "b": [0, 1, 2],
        "c": "x/y",
        "d": [1, None, True],
        "é": "inf",
    }
    assert os.listdir(tmp_path) == ["config.json"]


def test_a_failed_write_keeps_the_old_file_and_leaves_no_other(tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    store.write_json(path, {"score": 1})

    def no_space(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", no_space)
    with pytest.raises(UserError, match=r"result\.json.*No space left on device.*--out"):
        store.write_json(path, {"score": 2})
    assert store.read_json(path) == {"score": 1}
    assert os.listdir(tmp_path) == ["result.json"]


def test_a_folder_that_is_a_file_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"config\.json.*Not a directory"):
        store.write_json(tmp_path / "file" / "config.json", {})


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"\xff\xfe\x00", b"[1,]"])
def test_damaged_json_is_one_sentence(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(UserError, match=r"config\.json: expected a JSON file.*invalid JSON"):
        store.read_json(tmp_path / "config.json")


def test_missing_json_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"config\.json.*No such file"):
        store.read_json(tmp_path / "config.json")


def test_metrics_come_back_exactly_and_in_order(tmp_path):
    rows = rows_until(3)
    rows[0]["critic/loss"] = 0.1 + 0.2
    for row in rows:
        store.append_metrics(tmp_path, [row])
    assert store.read_metrics(tmp_path) == rows


def test_values_that_json_lacks_survive_in_strict_json(tmp_path):
    values = {"a": math.nan, "b": math.inf, "c": -math.inf, "d": np.float32(np.nan), "e": np.float32(0.1)}
    store.append_metrics(tmp_path, [{"step": 1, "seed": 0, **values}])

    def refuse(constant):
        raise AssertionError(constant)

    json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=refuse)
    (row,) = store.read_metrics(tmp_path)
    assert math.isnan(row["a"])
    assert math.isnan(row["d"])
    assert (row["b"], row["c"], row["e"]) == (math.inf, -math.inf, float(np.float32(0.1)))


def test_whatever_byte_the_kill_fell_on_the_whole_lines_are_read(tmp_path):
    rows = rows_until(2)
    store.append_metrics(tmp_path, rows)
    path = tmp_path / "metrics.jsonl"
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        assert store.read_metrics(tmp_path) == rows[: data[:length].count(b"\n")]


def test_a_resumed_file_is_byte_for_byte_the_uninterrupted_one(tmp_path):
    straight, resumed = tmp_path / "a", tmp_path / "b"
    straight.mkdir()
    resumed.mkdir()
    store.append_metrics(straight, rows_until(5))
    store.append_metrics(resumed, rows_until(4))
    with open(resumed / "metrics.jsonl", "ab") as file:
        file.write(b'{"step": 5, "seed": 0, "critic/l')
    store.truncate_metrics(resumed, 2)
    assert store.read_metrics(resumed) == rows_until(2)
    store.append_metrics(resumed, rows_until(5)[4:])
    assert (resumed / "metrics.jsonl").read_bytes() == (straight / "metrics.jsonl").read_bytes()


def test_truncating_to_step_zero_empties_and_a_missing_file_stays_missing(tmp_path):
    store.truncate_metrics(tmp_path, 3)
    assert os.listdir(tmp_path) == []
    store.append_metrics(tmp_path, rows_until(2))
    store.truncate_metrics(tmp_path, 0)
    assert (tmp_path / "metrics.jsonl").read_bytes() == b""


@pytest.mark.parametrize("line", [b"nonsense\n", b"[1, 2]\n", b'{"step": 1}\n'])
def test_damage_before_the_last_line_is_refused_with_its_number(tmp_path, line):
    good = b'{"step": 1, "seed": 0}\n'
    (tmp_path / "metrics.jsonl").write_bytes(good + line + good)
    with pytest.raises(UserError, match=r"metrics\.jsonl.*line 2"):
        store.read_metrics(tmp_path)
    with pytest.raises(UserError, match=r"metrics\.jsonl.*line 2"):
        store.truncate_metrics(tmp_path, 1)


def test_metrics_of_no_run_are_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"metrics\.jsonl.*No such file.*run directory"):
        store.read_metrics(tmp_path)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_is_one_sentence(tmp_path):
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"metrics\.jsonl.*No space left on device.*--out"):
        store.append_metrics(tmp_path, rows_until(1))


def test_an_append_that_runs_out_of_space_halfway_is_undone(tmp_path):
    """The kernel's own limit on file sizes cuts the second append in the middle of a line."""
    script = f"""
import resource
from pathlib import Path
from damorl.errors import UserError
from damorl.record import store
run = Path({str(tmp_path)!r})
store.append_metrics(run, [{{"step": 1, "seed": 0}}])
resource.setrlimit(resource.RLIMIT_FSIZE, (40, 40))
try:
    store.append_metrics(run, [{{"step": 2, "seed": 0, "critic/loss": 0.123456789}}])
except UserError as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "File too large" in result.stdout
    assert (tmp_path / "metrics.jsonl").read_bytes() == b'{"step": 1, "seed": 0}\n'


def test_a_new_run_directory_is_made_and_an_empty_one_taken(tmp_path):
    run_dir = store.create_run_dir(tmp_path / "out", "first")
    assert run_dir == tmp_path / "out" / "first"
    (run_dir / ".config.json.tmp").write_text("{")  # what a kill in the first second leaves
    assert store.create_run_dir(tmp_path / "out", "first") == run_dir


def test_an_earlier_run_is_continued_only_on_request(tmp_path):
    run_dir = store.create_run_dir(tmp_path, "run")
    store.write_json(run_dir / "config.json", {})
    with pytest.raises(UserError, match=r"--resume.*--out"):
        store.create_run_dir(tmp_path, "run")
    assert store.create_run_dir(tmp_path, "run", resume=True) == run_dir


@pytest.mark.parametrize("resume", [False, True])
def test_a_directory_of_other_things_is_refused(tmp_path, resume):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("")
    with pytest.raises(UserError, match=r"run as a run directory.*--out"):
        store.create_run_dir(tmp_path, "run", resume)


def test_an_unwritable_place_is_one_sentence(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UserError, match=r"cannot write .*out.run.*Not a directory.*--out"):
        store.create_run_dir(tmp_path / "out", "run")


def git(directory: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=n", "-c", "user.email=e@x", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(directory), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_revision_and_dirty_flag_of_a_checkout(tmp_path):
    source = tmp_path / "package" / "room" / "module.py"
    source.parent.mkdir(parents=True)
    source.write_text("x = 1\n")
    git(tmp_path, "init", "-q")
    assert store.git_revision(source) is None  # not tracked: an installed copy in somebody's repository
    git(tmp_path, "add", ".")
    assert store.git_revision(source) is None  # no commit yet
    git(tmp_path, "commit", "-q", "-m", "first")
    revision = git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "result.json").write_text("{}")
    assert store.git_revision(source) == {"revision": revision, "dirty": False}
    source.write_text("x = 2\n")
    assert store.git_revision(source) == {"revision": revision, "dirty": True}


def test_without_git_there_is_no_revision_and_no_failure(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert store.git_revision(Path(store.__file__)) is None


def test_provenance_can_be_stored_and_names_what_matters(tmp_path):
    record = store.provenance(["damorl", "train"], "abc", "cpu")
    store.write_json(tmp_path / "provenance.json", record)
    assert store.read_json(tmp_path / "provenance.json") == record
    assert record["versions"]["numpy"] == np.__version__
    assert (record["command"], record["dataset_sha256"], record["device_kind"]) == (["damorl", "train"], "abc", "cpu")


def read_events(path: Path) -> list[Any]:
    """Records are: length (8 bytes), its checksum (4), the event, its checksum (4)."""
    data, events = path.read_bytes(), []
    while data:
        length = int.from_bytes(data[:8], "little")
        events.append(tensorboard.protos().Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    return events


def test_tensorboard_holds_every_number_at_its_step_at_once(tmp_path):
    board = tensorboard.open_tensorboard(tmp_path, "seed_3")
    board.write({"step": 500, "seed": 3, "critic/loss": 0.25, "eval/score": math.nan})
    (path,) = (tmp_path / "tb" / "seed_3").iterdir()
    points = [
        (event.step, value.tag, value.simple_value) for event in read_events(path) for value in event.summary.value
    ]
    board.close()
    assert sorted(point[:2] for point in points) == [(500, "critic/loss"), (500, "eval/score")]
    assert 0.25 in [value for _, _, value in points]


@pytest.mark.parametrize("opening", [True, False])
def test_an_event_file_that_cannot_be_flushed_is_closed(tmp_path, monkeypatch, opening):
    board = None if opening else tensorboard.open_tensorboard(tmp_path, "seed_0")
    files = []

    def full(handle):
        files.append(handle)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left"):
        tensorboard.open_tensorboard(tmp_path, "seed_0") if board is None else board.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(files[0])


def test_a_resumed_tensorboard_purges_what_follows_the_checkpoint_and_keeps_the_old_file(tmp_path):
    tensorboard.open_tensorboard(tmp_path, "seed_0").close()
    tensorboard.open_tensorboard(tmp_path, "seed_0", purge_step=501).close()
    paths = list((tmp_path / "tb" / "seed_0").iterdir())
    assert len(paths) == 2
    starts = [event for path in paths for event in read_events(path) if event.HasField("session_log")]
    assert [(event.step, event.session_log.status) for event in starts] == [(501, 1)]  # 1 is START


def test_a_disk_that_fills_under_tensorboard_is_one_sentence_and_not_a_hang(tmp_path):
    script = f"""
import resource
from pathlib import Path
from damorl.errors import UserError
from damorl.record import tensorboard
board = tensorboard.open_tensorboard(Path({str(tmp_path)!r}), "seed_0")
resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
try:
    for step in range(50):
        board.write({{"step": step, "seed": 0, "critic/loss": 1.0}})
except UserError as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert "seed_0" in result.stdout
    assert "File too large" in result.stdout


def test_reading_a_run_does_not_load_jax():
    script = "import sys, damorl.record.store; assert 'jax' not in sys.modules and 'tensorboardX' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("program", ["/opt/venv/bin/damorl", "/opt/src/damorl/__main__.py"])
def test_the_command_is_damorl_however_it_was_called(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [program, "train", "bc"])
    assert store.own_command() == ["damorl", "train", "bc"]


def test_what_a_run_leaves_that_was_killed_before_its_config_is_no_obstacle(tmp_path: Path) -> None:
    run_dir = store.create_run_dir(tmp_path, "run")
    for name in (*store.BESIDE, *store.BEFORE_CONFIG):
        (run_dir / name).touch()
    assert store.create_run_dir(tmp_path, "run") == run_dir
    (run_dir / "notes").touch()
    with pytest.raises(UserError, match=r"found other files and no config\.json"):
        store.create_run_dir(tmp_path, "run", resume=True)
