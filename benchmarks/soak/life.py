"""Lives of a `damorl` command, each in a process forked from this one, which has imported all and computed nothing.

Starting Python and importing JAX takes longer than a tiny run. A fork has all of it at once; it is safe only as long
as this process has a single thread, so JAX must not have been used here. Compiled programs come from a cache on the
disk that the first life fills and the others only read.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.soak.calls import Call, watching

NEEDED = (
    "damorl.api",
    "damorl.behaviour.recipe",
    "damorl.experiment.train",
    "damorl.report.card",
    "damorl.report.curves",
    "gymnasium.envs.mujoco.inverted_double_pendulum_v4",
    "matplotlib.backends.backend_agg",
    "tensorboardX.event_file_writer",
    "tensorboardX.summary",
    "damorl.testing.algorithms",
    "typeguard",
)
"""What a training imports on its way."""
CALLS, SECONDS, KILL = "call", "second", "kill"


class Moment(NamedTuple):
    """When a life ends: `delay` seconds after call number `call` of a phase, or of the first later one there is."""

    phase: str
    call: int
    delay: float


class Seen(NamedTuple):
    """A call of a life that was not stopped."""

    phase: str
    seconds: float
    """Since the life began."""
    call: Call


@dataclass
class Life:
    """What became of one."""

    code: int
    """Exit code; minus the number of the signal that ended it."""
    said: str
    """On standard error."""
    seconds: float
    phase: str = ""
    """In which it was killed."""
    calls: list[Seen] = field(default_factory=list)


@dataclass(frozen=True)
class Lives:
    """Where lives are spent."""

    folder: Path
    """Everything they write is below it: runs below `runs`, data and fits below `home`."""
    phase_of: Callable[[Call], str]
    order: Mapping[str, int]
    """The phases; those of a higher number come later."""

    def spend(self, words: list[str], moment: Moment | None = None, fill_cache: bool = False) -> Life:
        """Run `damorl WORDS` to its end or to its moment, and wait for it."""
        began, said = time.monotonic(), self.folder.parent / f"{self.folder.name}.said"
        ours, theirs = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(ours)
            self._live(words, moment, theirs, said, fill_cache)
        os.close(theirs)
        with os.fdopen(ours, "r") as pipe:
            phase, calls = _listen(pipe, pid)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return Life(status, said.read_text("utf-8"), time.monotonic() - began, phase, calls)

    def _live(self, words: list[str], moment: Moment | None, pipe: int, said: Path, fill_cache: bool) -> None:
        """In the child; does not return."""
        code = 70
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
            sys.argv = ["damorl", *words]
            os.environ["DAMORL_HOME"] = str(self.folder / "home")
            _use_cache(os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(self.folder.parent / "compiled"), fill_cache)
            from damorl.cli import main

            with watching(self.folder, _Watch(self, moment, pipe)):
                code = main(words)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)


class _Watch:
    """Follows the calls of a life, tells of them, and ends it at its moment."""

    def __init__(self, lives: Lives, moment: Moment | None, pipe: int) -> None:
        self.lives, self.moment, self.pipe = lives, moment, pipe
        self.began, self.count, self.told = time.monotonic(), 0, False

    def __call__(self, call: Call) -> None:
        """One more call."""
        phase = self.lives.phase_of(call)
        if self.moment is None:
            self._tell(CALLS, phase, time.monotonic() - self.began, call.kind, call.path)
            return
        order = self.lives.order
        self.count += phase == self.moment.phase
        if not self.told and (order[phase] > order[self.moment.phase] or self.count > self.moment.call):
            self.told = True
            if self.moment.delay:
                self._tell(SECONDS, phase, self.moment.delay)
            else:
                self._tell(KILL, phase)
                os.kill(os.getpid(), signal.SIGKILL)

    def _tell(self, *words: object) -> None:
        os.write(self.pipe, ("\t".join(map(str, words)) + "\n").encode())


def _listen(pipe: Any, pid: int) -> tuple[str, list[Seen]]:
    """Hear a life out; SIGKILL when the time comes that it tells."""
    phase, calls = "", list[Seen]()
    for line in pipe:
        kind, *rest = line.rstrip("\n").split("\t")
        if kind == CALLS:
            calls.append(Seen(rest[0], float(rest[1]), Call(rest[2], Path(rest[3]))))
            continue
        phase = rest[0]
        if kind == SECONDS and not select.select([pipe], [], [], float(rest[1]))[0]:  # else it has ended
            os.kill(pid, signal.SIGKILL)
    return phase, calls


def _use_cache(folder: str, fill: bool) -> None:
    import jax

    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    # a program that is killed while it writes an entry would leave half of one for all the others
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0 if fill else 1e9)


def prepare() -> None:
    """Import what lives need. AssertionError if this process has threads, which a fork would not have."""
    os.environ["MPLBACKEND"] = "Agg"
    for name in NEEDED:
        import_module(name)
    threads = len(os.listdir("/proc/self/task"))
    assert threads == 1, f"expected a single thread, found {threads}: set OPENBLAS_NUM_THREADS=1, and use no JAX before"
