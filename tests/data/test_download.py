"""D4RL's data sets, from mirrors that fail: what carries a name is whole and right, at every moment."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from damorl.cli.fetch import data_download
from damorl.data import pins
from damorl.data.download import D4RL_NAMES, OFFICIAL, download, downloaded_path, file_name
from damorl.data.examine import examine
from damorl.data.store import write_dataset
from damorl.data.transfer import Patience
from damorl.errors import UserError
from damorl.world.tasks import TASKS
from tests.data.http_server import Reply, Server, serving

pytestmark = pytest.mark.usefixtures("bare_machine")
NAME, FILE = "hopper-medium-v2", "hopper_medium-v2.hdf5"
QUICK = Patience(timeout=5.0, delays=(0.0, 0.0, 0.0))
THIRD = 100_000
"""Bytes after which a connection is cut: the file has three times as many and some."""


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def fetch(server: Server, *replies: Reply, refresh: bool = False) -> bytes:
    """What the downloaded file holds, once `server` has answered with `replies` and honestly after that."""
    server.replies[:] = replies
    return download(NAME, [server.url], refresh=refresh, patience=QUICK).read_bytes()


def ranges(server: Server) -> list[str | None]:
    return [request.range for request in server.requests]


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


# A good connection


def test_names_and_the_official_address_are_those_of_d4rl() -> None:
    assert len(D4RL_NAMES) == len(set(D4RL_NAMES)) == 24
    assert f"{OFFICIAL}/{file_name('halfcheetah-medium-replay-v2')}" == (
        "http://rail.eecs.berkeley.edu/datasets/offline_rl/gym_mujoco_v2/halfcheetah_medium_replay-v2.hdf5"
    )
    assert {file_name("ant-random-v2"), file_name("walker2d-full-replay-v2"), file_name(NAME)} == {
        "ant_random-v2.hdf5",
        "walker2d_full_replay-v2.hdf5",
        FILE,
    }


def test_a_download_is_whole_pinned_readable_and_done_once(server: Server, good: bytes, target: Path) -> None:
    assert fetch(server) == good
    assert visible(target.parent) == [FILE]
    assert downloaded_path(NAME) == target
    examination = examine(target, TASKS["hopper"])
    assert not examination.problems
    assert examination.rows is not None
    assert examination.rows.obs.shape == (3000, 11)
    entry = json.loads((target.parents[1] / "registry.json").read_text())[NAME]
    assert (entry["sha256"], entry["size"], entry["url"]) == (sha256(good), len(good), f"{server.url}/{FILE}")
    assert entry["files"] == {str(target): target.stat().st_mtime_ns}
    assert fetch(server) == good
    assert len(server.requests) == 1
    assert server.sent == len(good)


# Several mirrors


@pytest.mark.parametrize(
    ("bad", "num_requests", "reason"),
    [
        (Reply(status=404), 1, "HTTP 404 Not Found"),
        (Reply(status=500), 4, "HTTP 500 Internal Server Error"),
        (Reply(body=b"<html>please log in</html>"), 1, "expected an HDF5 file"),
        (Reply(body=bytes(2 * THIRD)), 1, "expected an HDF5 file"),
        (Reply(extra_length=7), 4, "HTTP 416"),
        (Reply(extra_length=-7), 1, "expected an HDF5 file"),
    ],
)
def test_a_mirror_that_fails_is_followed_by_the_next(
    server: Server, good: bytes, target: Path, bad: Reply, num_requests: int, reason: str
) -> None:
    with serving() as broken:
        broken.files[f"/{FILE}"] = good
        broken.replies[:] = [bad] * 12
        with pytest.raises(UserError) as refused:
            download(NAME, [broken.url], patience=QUICK)
        message = str(refused.value)
        assert f"{broken.url}/{FILE}: {reason}" in message
        assert f"/official/{FILE}: No such file or directory" in message
        assert f"put {FILE} into {target.parent} yourself" in message
        assert len(broken.requests) == num_requests
        assert not target.exists()
        broken.replies[:] = [bad] * 12
        assert download(NAME, [broken.url, server.url], patience=QUICK).read_bytes() == good
    assert visible(target.parent) == [FILE]


def test_wrong_numbers_are_refused_though_the_file_is_hdf5(
    server: Server, tmp_path: Path, target: Path, good: bytes
) -> None:
    rows = {"observations": np.zeros((9, 17)), "actions": np.zeros((9, 6)), "next_observations": np.zeros((9, 17))}
    flat = {"rewards": np.zeros(9), "terminals": np.zeros(9, bool), "timeouts": np.zeros(9, bool)}
    write_dataset(tmp_path / "walker.hdf5", rows | flat, {})
    with pytest.raises(UserError, match="expected 11 and 3 columns as in task hopper, found 17 and 6"):
        fetch(server, Reply(body=(tmp_path / "walker.hdf5").read_bytes()))
    assert visible(target.parent) == []
    assert not pins.read_pins()
    assert fetch(server) == good


def test_mirrors_are_asked_in_order_flags_environment_official(
    server: Server, good: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAMORL_MIRRORS", f"{server.url}/c/, {server.url}/d/{{name}}?raw=1\n{server.url}/e/{{file}}")
    with pytest.raises(UserError):
        download(NAME, [f"{server.url}/a", f"{server.url}/b"])
    asked = [request.path for request in server.requests]
    assert asked == [f"/a/{FILE}", f"/b/{FILE}", f"/c/{FILE}", f"/d/{NAME}?raw=1", f"/e/{FILE}"]
    (tmp_path / "official").mkdir()
    (tmp_path / "official" / FILE).write_bytes(good)
    assert download(NAME).read_bytes() == good


@pytest.mark.parametrize("kind", ["folder", "tilde", "file url", "template"])
def test_a_folder_is_a_mirror_too(kind: str, good: bytes, tmp_path: Path) -> None:
    share = tmp_path / "the share"
    share.mkdir()
    (share / FILE).write_bytes(good)
    mirror = {
        "folder": str(share),
        "tilde": "~/the share/",
        "file url": share.as_uri(),
        "template": f"{share}/{{file}}",
    }[kind]
    path = download(NAME, [mirror])
    assert path.read_bytes() == good
    assert pins.read_pins()[NAME].url == (share / FILE).as_uri()
    assert (share / FILE).read_bytes() == good


def test_a_mirror_of_an_unknown_kind_is_refused_at_once(server: Server) -> None:
    with pytest.raises(UserError, match="mirror 's3://bucket': expected a URL with http, https or file, or a folder"):
        download(NAME, [server.url, "s3://bucket"])
    assert not server.requests


# Deaths and crowds


def test_at_no_moment_does_half_a_file_carry_the_name(server: Server, good: bytes, other: bytes, target: Path) -> None:
    seen: set[str | None] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            try:
                seen.add(sha256(target.read_bytes()))
            except FileNotFoundError:
                seen.add(None)

    watcher = threading.Thread(target=watch)
    watcher.start()
    slow = Reply(pause=0.01)
    server.files[f"/bad/{FILE}"] = other[: 2 * THIRD]
    server.replies[:] = [replace(slow, cut=THIRD), slow] * 3  # the bad file is glued together, so fetched twice
    assert download(NAME, [f"{server.url}/bad", server.url], patience=QUICK).read_bytes() == good
    fetch(server, replace(slow, cut=THIRD), slow, refresh=True)
    done.set()
    watcher.join()
    assert seen == {None, sha256(good)}


def test_a_killed_process_frees_the_lock_and_leaves_what_it_got(
    server: Server, good: bytes, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.replies[:] = [Reply(cut=THIRD, stall=60.0)]
    part = target.parent / f"{FILE}.part"
    code = f"from damorl.cli.fetch import data_download; data_download([{NAME!r}, '--mirror', {server.url!r}])"
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60.0
        while not (part.exists() and part.stat().st_size == THIRD) and time.monotonic() < deadline:
            time.sleep(0.02)
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(download, NAME, [server.url], None, False, QUICK)
            time.sleep(0.8)
            assert "waiting for another process" in capsys.readouterr().err
            assert not waiting.done()
            assert len(server.requests) == 1  # it waits for the process
            process.send_signal(signal.SIGKILL)
            assert waiting.result(30.0).read_bytes() == good
    assert process.returncode == -signal.SIGKILL
    assert ranges(server) == [None, f"bytes={THIRD}-"]
    assert server.sent == len(good)


def test_a_process_that_died_with_all_bytes_here_needs_no_server(server: Server, good: bytes, target: Path) -> None:
    with pytest.raises(UserError):
        fetch(server, Reply(cut=THIRD), *[Reply(status=500)] * 4)
    (target.parent / f"{FILE}.part").write_bytes(good)
    num_requests = len(server.requests)
    assert fetch(server) == good
    assert len(server.requests) == num_requests


def test_a_damaged_old_half_costs_one_download_from_nothing(server: Server, good: bytes, target: Path) -> None:
    with pytest.raises(UserError):
        fetch(server, Reply(cut=THIRD), *[Reply(status=500)] * 4)
    (target.parent / f"{FILE}.part").write_bytes(bytes(THIRD))
    assert fetch(server) == good
    assert ranges(server)[-2:] == [f"bytes={THIRD}-", None]


def test_two_at_once_fetch_the_file_once(server: Server, good: bytes) -> None:
    server.replies[:] = [Reply(pause=0.01)]
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(download, NAME, [server.url]) for _ in range(2)]
    assert {job.result().read_bytes() for job in jobs} == {good}
    assert server.sent == len(good)


# The command


def test_the_command_prints_where_the_files_are(
    server: Server, good: bytes, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.files["/hopper_expert-v2.hdf5"] = good
    assert data_download([NAME, "hopper-expert-v2", "--mirror", f"{server.url}/no", "--mirror", server.url]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [str(target), str(target.parent / "hopper_expert-v2.hdf5")]
    assert f"gave up on {server.url}/no/{FILE}: HTTP 404 Not Found" in captured.err
    assert data_download([NAME, "--json", "--refresh", "--mirror", server.url]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row == {
        "name": NAME,
        "path": str(target),
        "sha256": sha256(good),
        "size": len(good),
        "url": f"{server.url}/{FILE}",
    }


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([NAME, "hoper-medium-v2"], "unknown D4RL data set 'hoper-medium-v2': did you mean 'hopper-medium-v2'"),
        ([], "expected a name, found none; give one or more of hopper-random-v2, "),
        ([NAME, "--timeout", "0"], "--timeout: expected a positive number of seconds, found 0"),
    ],
)
def test_mistakes_are_found_before_anything_is_fetched(server: Server, argv: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        data_download([*argv, "--mirror", server.url])
    assert not server.requests
