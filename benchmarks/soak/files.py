"""Malformed data files by the thousand, each loaded in a child process under limits, and what became of them.

A file is `loaded` (and a reader of its own, `plain_reader`, finds the same rows), `refused` (one UserError of one
sentence), or one of the faults: `crash` (any other exception, or the process died), `hang` (no answer in time) and
`misread` (other rows than the reader finds).
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.soak import malformed, plain_reader

OUTCOMES = ("loaded", "refused", "crash", "hang", "misread")
FAULTS = OUTCOMES[2:]
SECONDS, MEMORY = 30.0, 2**30


class Outcome(NamedTuple):
    """What became of one file."""

    number: int
    kind: str
    done: list[str]
    """What was wrong with it."""
    outcome: str
    told: str


def serve(pipe: Any, memory: int) -> None:
    """In the child: load what the pipe names, and answer with the outcome and a sentence."""
    import resource

    from damorl.data.card import summary
    from damorl.data.datasets import load_dataset

    load_dataset({key: np.zeros(3) for key in ("observations", "actions", "rewards", "terminals", "timeouts")})
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (in_use + memory, in_use + memory))
    pipe.send(("ready", ""))
    while (asked := pipe.recv()) is not None:
        pipe.send(load(load_dataset, summary, Path(asked[0]), asked[1]))


def load(load_dataset: Any, summary: Any, path: Path, kind: str) -> tuple[str, str]:
    """Outcome and sentence for one file."""
    from damorl.errors import UserError

    try:
        dataset = load_dataset(f"minari:soak/{path.name}" if kind.startswith("minari") else path)
        summary(dataset)
    except UserError as error:
        return ("refused", str(error)) if "\n" not in str(error) else ("crash", f"several lines: {error}")
    except BaseException as error:
        return "crash", f"{type(error).__name__}: {error}"
    try:
        expected = plain_reader.rows_of(path, kind)
    except Exception as error:
        return "misread", f"loaded, but the plain reader says {type(error).__name__}: {error}"
    for name, found, wanted in zip(
        plain_reader.NAMES, (*dataset.transitions, dataset.truncated), expected, strict=False
    ):
        if not np.array_equal(np.asarray(found, np.float32), wanted.astype(np.float32)):
            return "misread", f"{name} differ from what the plain reader finds"
    return "loaded", ""


class Child:
    """A process that loads files, started again whenever a file was its end."""

    def __init__(self, seconds: float, memory: int) -> None:
        self.seconds, self.memory = seconds, memory
        self.start()

    def start(self) -> None:
        """A fresh process, ready to load."""
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, self.memory), daemon=True)
        self.process.start()
        theirs.close()
        self.pipe.recv()

    def ask(self, path: Path, kind: str) -> tuple[str, str]:
        """The outcome of one file."""
        try:
            self.pipe.send((str(path), kind))
            if self.pipe.poll(self.seconds):
                return self.pipe.recv()
            found = "hang", f"no answer in {self.seconds:g} s"
        except (EOFError, OSError):
            self.process.join(5)
            found = "crash", f"the process ended with {self.process.exitcode}"
        self.process.kill()
        self.stop()
        self.start()
        return found

    def stop(self) -> None:
        """End it, politely where it still listens."""
        with suppress(OSError):
            self.pipe.send(None)
        self.process.join(2)
        self.process.kill()
        self.process.join()
        self.pipe.close()


@contextmanager
def store_in(folder: Path) -> Iterator[None]:
    """Minari's store is in `folder`, for this process and its children."""
    before = os.environ.get("MINARI_DATASETS_PATH")
    os.environ["MINARI_DATASETS_PATH"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["MINARI_DATASETS_PATH"]
        else:
            os.environ["MINARI_DATASETS_PATH"] = before


def soak(files: int, seed: int, keep: Path | None = None, first: int = 0, seconds: float = SECONDS) -> list[Outcome]:
    """Make and load that many files. Those at fault are copied to `keep`."""
    outcomes = []
    with tempfile.TemporaryDirectory() as name, store_in(Path(name) / "minari"):
        folder = Path(name)
        child = Child(seconds, MEMORY)
        try:
            for number in range(first, first + files):
                path, kind, done = malformed.make(folder, seed, number)
                outcomes.append(Outcome(number, kind, done, *child.ask(path, kind)))
                if outcomes[-1].outcome in FAULTS and keep is not None:
                    keep.mkdir(parents=True, exist_ok=True)
                    copy = shutil.copytree if path.is_dir() else shutil.copy
                    copy(path, keep / f"{seed}-{path.name}")
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        finally:
            child.stop()
    return outcomes


def report(outcomes: list[Outcome], seed: int, seconds: float) -> dict[str, Any]:
    """Counts in all, by kind of file, by what was done to it, and every fault."""
    count = lambda rows: {name: sum(row.outcome == name for row in rows) for name in OUTCOMES}
    ways = Counter(way.rpartition(": ")[2] for row in outcomes for way in set(row.done))
    return {
        "files": len(outcomes),
        "seed": seed,
        "seconds": round(seconds, 1),
        "outcomes": count(outcomes),
        "by_kind": {kind: count([row for row in outcomes if row.kind == kind]) for kind in malformed.KINDS},
        "done_to_them": dict(ways.most_common()),
        "faults": [row._asdict() for row in outcomes if row.outcome in FAULTS],
    }
