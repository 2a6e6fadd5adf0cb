"""What is made on first use is made once: by one process, while the others wait, whatever becomes of it."""

from __future__ import annotations

import errno
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock
import pytest

import damorl
from benchmarks.soak.processes import alive, children
from damorl import api
from damorl.behaviour.recipe import make_dataset
from damorl.cli import main
from damorl.data.datasets import dataset_path
from damorl.errors import UserError
from damorl.files import locked
from damorl.record.hold import held

MAKE = """
import sys, time, damorl
from pathlib import Path
from damorl.behaviour import recipe

steps, where, honest = int(sys.argv[1]), Path(sys.argv[2]), recipe.collect
def collect(*given):
    (where / "collecting").touch()
    while not (where / "go on").exists():
        time.sleep(0.05)
    return honest(*given)
recipe.collect = collect
print(damorl.load_dataset("inverted_double_pendulum-random", num_steps=steps).sha256)
"""
FIT = """
import os, sys, time, jax
from pathlib import Path
from damorl.experiment.remember import remember
from damorl.parts import dynamics

settings, key, where = dynamics.DynamicsConfig(hidden=(8,), max_batches=2), jax.random.key(3), Path(sys.argv[1])
def fit():
    (where / f"fitting-{os.getpid()}").touch()
    while not (where / "go on").exists():
        time.sleep(0.05)
    return dynamics.init_members(jax.random.key(os.getpid()), settings, 3, 2), {}
template = jax.eval_shape(lambda: dynamics.init_members(key, settings, 3, 2))
recall = remember("abc", lambda note: print(note, file=sys.stderr, flush=True), where / "models")
model, _ = recall(key, settings, template, fit)
print([leaf.tobytes().hex() for leaf in jax.tree.leaves(jax.device_get(model))])
"""


class Script:
    """A Python script in a process of its own, and what it says on standard error so far."""

    def __init__(self, source: str, where: Path, *words: object) -> None:
        where.mkdir(exist_ok=True)
        self.output, self.errors = where / f"{id(self)}.out", where / f"{id(self)}.err"
        with open(self.output, "wb") as output, open(self.errors, "wb") as errors:
            command = [sys.executable, "-c", source, *map(str, words)]
            self.process = subprocess.Popen(command, stdout=output, stderr=errors)

    @property
    def said(self) -> str:
        return self.errors.read_text(encoding="utf-8")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def result(self) -> str:
        assert self.process.wait(120) == 0, self.said
        return self.output.read_text(encoding="utf-8")


Start = Callable[..., Script]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts scripts, and ends those that a failed test leaves."""
    scripts: list[Script] = []

    def begin(source: str, *words: object) -> Script:
        scripts.append(Script(source, tmp_path / "said", *words))
        return scripts[-1]

    yield begin
    for script in scripts:
        script.kill()


def wait_for(what: Callable[[], object], seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DAMORL_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_two_that_ask_at_once_make_a_data_set_once(home: Path, tmp_path: Path, start: Start) -> None:
    first = start(MAKE, 300, tmp_path)
    wait_for((tmp_path / "collecting").exists)
    second = start(MAKE, 300, tmp_path)
    wait_for(lambda: "waiting for it" in second.said)
    (tmp_path / "go on").touch()
    assert first.result() == second.result()
    assert "waiting for it" not in first.said
    (line,) = [line for line in second.said.splitlines() if "waiting for it" in line]
    assert f"process {first.process.pid} on " in line
    assert "making inverted_double_pendulum-random already" in line
    assert "collect" in first.said
    assert "collect" not in second.said


@pytest.mark.slow
def test_if_the_one_that_makes_it_is_killed_the_other_makes_it(home: Path, tmp_path: Path, start: Start) -> None:
    first = start(MAKE, 300, tmp_path)
    wait_for((tmp_path / "collecting").exists)
    second = start(MAKE, 300, tmp_path)
    wait_for(lambda: "waiting for it" in second.said)
    first.kill()
    (tmp_path / "go on").touch()
    sha256 = second.result().strip()
    assert "collect" in second.said
    assert damorl.load_dataset("inverted_double_pendulum-random", num_steps=300, make=False).sha256 == sha256


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_whose_starter_is_killed_goes_too(home: Path, tmp_path: Path, start: Start) -> None:
    (tmp_path / "go on").touch()
    first = start(MAKE, 2_000_000, tmp_path)
    wait_for(lambda: len(workers_of(first.process.pid)) >= 1)
    workers = workers_of(first.process.pid)
    time.sleep(0.5)
    first.kill()
    wait_for(lambda: not any(alive(worker) for worker in workers))


def workers_of(pid: int) -> list[int]:
    """The processes that it started and that play in the simulator."""
    return [one for one in children(pid) if b"spawn_main" in Path(f"/proc/{one}/cmdline").read_bytes()]


def test_two_that_need_a_fit_at_once_fit_it_once(tmp_path: Path, start: Start) -> None:
    scripts = [start(FIT, tmp_path), start(FIT, tmp_path)]
    wait_for(lambda: any("waiting for it" in script.said for script in scripts))
    (tmp_path / "go on").touch()
    first, second = (script.result() for script in scripts)
    assert first == second
    (made,) = tmp_path.glob("fitting-*")
    (waited,) = [script for script in scripts if "waiting for it" in script.said]
    line, then = waited.said.splitlines()
    assert f"process {made.name.removeprefix('fitting-')} on " in line
    assert "fitting the same dynamics already" in line
    assert "were fitted before" in then


@pytest.mark.slow
def test_if_the_one_that_fits_is_killed_the_other_fits(tmp_path: Path, start: Start) -> None:
    first = start(FIT, tmp_path)
    wait_for(lambda: list(tmp_path.glob("fitting-*")))
    second = start(FIT, tmp_path)
    wait_for(lambda: "waiting for it" in second.said)
    first.kill()
    (tmp_path / "go on").touch()
    assert second.result()
    assert (tmp_path / f"fitting-{second.process.pid}").exists()


@pytest.mark.slow
def test_a_script_without_a_main_guard_makes_what_is_missing(home: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("print('begun', flush=True)\n" + MAKE)
    (tmp_path / "go on").touch()
    found = subprocess.run([sys.executable, script, "300", tmp_path], capture_output=True, text=True, check=True)
    begun, sha256 = found.stdout.split()
    assert begun == "begun"
    assert damorl.load_dataset("inverted_double_pendulum-random", num_steps=300, make=False).sha256 == sha256


def make_in_a_daemon(path: str) -> None:
    with pytest.warns(UserWarning, match="by itself, on one core: it is a daemonic process"):
        make_dataset("hopper-medium", 300, path=Path(path), progress=False)


@pytest.mark.slow
def test_a_process_that_may_start_none_makes_the_same_by_itself(home: Path, tmp_path: Path) -> None:
    daemon = multiprocessing.get_context("spawn").Process(
        target=make_in_a_daemon, args=(str(tmp_path / "alone.hdf5"),), daemon=True
    )
    daemon.start()
    daemon.join(120)
    assert daemon.exitcode == 0
    together = damorl.load_dataset("hopper-medium", num_steps=300, quiet=True)
    assert damorl.load_dataset(tmp_path / "alone.hdf5", "hopper").sha256 == together.sha256


def test_the_command_line_makes_what_it_needs(home: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["data", "info", "hopper-random", "--steps", "120", "--picture", str(tmp_path / "card.png")]) == 0
    said = capfd.readouterr()
    assert "hopper-random is not on this machine yet" in said.err
    assert "120" in said.out
    assert main(["data", "check", "hopper-random", "--steps", "130", "--json"]) in (0, 2)
    assert capfd.readouterr().err == ""
    assert dataset_path("hopper-random", 130).exists()


def test_training_makes_its_data_unless_told_not_to(home: Path, tmp_path: Path) -> None:
    settings = {"dataset": "hopper-random", "preset": "smoke", "out": tmp_path, "quiet": True, "dataset_steps": 1500}
    with pytest.raises(UserError, match=r"not made yet \(.*\): run `damorl data make hopper-random --steps 1500`$"):
        api.train("bc", make=False, **settings)
    assert not dataset_path("hopper-random", 1500).exists()
    assert api.train("bc", total_updates=50, **settings).summary
    assert dataset_path("hopper-random", 1500).exists()


@pytest.mark.parametrize(
    "words",
    [
        ["train", "bc"],
        ["data", "info"],
        ["data", "check"],
        ["data", "export"],
        ["select"],
        ["ope"],
        ["model"],
        ["paper", "fig4"],
    ],
)
def test_every_command_takes_no_make(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([*words, "--help"])
    assert "--no-make" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["train", "bc", "--dataset"], ["data", "info"], ["data", "check"]])
def test_no_make_refuses(words: list[str], home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "hopper-random", "--no-make"]) == 2
    assert "run `damorl data make hopper-random" in capsys.readouterr().err
    assert not home.exists()


def test_a_home_that_cannot_be_written_is_told_before_anything_is_collected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("DAMORL_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("damorl.behaviour.recipe.collect", lambda *_: pytest.fail("collected"))
    with pytest.raises(
        UserError, match=r"^data set 'hopper-random' is not made yet, and cannot be: cannot write .*file"
    ):
        damorl.load_dataset("hopper-random", quiet=True)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a user who may be refused")
def test_a_read_only_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o500)
    monkeypatch.setenv("DAMORL_HOME", str(tmp_path))
    with pytest.raises(UserError, match="Permission denied"):
        damorl.load_dataset("hopper-random", quiet=True)


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP])
def test_where_there_are_no_locks_the_work_is_done_without(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_: object) -> None:
        raise OSError(code, "no locks here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    notes, done = list[str](), []
    with locked(tmp_path / "a.lock", notes.append, "making it"), locked(tmp_path / "a.lock", notes.append, "making it"):
        done.append(1)
    assert done
    assert len(notes) == 2
    assert "without locks" in notes[0]
    with held(tmp_path / "run"), held(tmp_path / "run"):
        pass


def test_a_place_whose_lock_is_refused_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    told = pytest.raises(UserError, match=r"cannot write .*a\.lock: .*'Read-only file system'")
    with told, locked(tmp_path / "a.lock", print, "making it"):
        pytest.fail("went on")


def test_a_failure_frees_the_lock(tmp_path: Path) -> None:
    notes: list[str] = []
    for _ in range(2):
        with pytest.raises(ValueError, match="no"), locked(tmp_path / "a.lock", notes.append, "making it"):
            raise ValueError("no")
    assert notes == []
