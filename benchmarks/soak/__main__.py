"""The command of the soak: its parts, and one report.

    python -m benchmarks.soak --files 10000 --seed 3
    python -m benchmarks.soak --kills 50 --disks --clock --updates 3000000 --out soak.json
    python -m benchmarks.soak --fingerprint here.json
    python -m benchmarks.soak --compare here.json there.json

The report says when and on what it was made, and has an entry for each part. The exit code is 1 if there is any fault.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

FORMAT = "damorl-soak-1"
FILES = 3000
PARTS = ("files", "kills", "disks", "clock", "updates", "fingerprint", "compare")


def parse(words: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser("soak", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--files", type=int, help=f"malformed data files to load (without any part: {FILES})")
    add("--first", type=int, default=0, help="number of the first file")
    add("--keep", type=Path, help="copy files at fault there")
    add("--kills", type=int, help="kill -9 so often")
    add("--algo", default="mopo", help="algorithm of --kills, --disks and --updates")
    add("--disks", action="store_true", help="a disk that is full from each write on")
    add("--clock", action="store_true", help="a clock that runs backwards")
    add("--updates", type=int, help="tiny updates at constant memory")
    add("--fingerprint", type=Path, help="write the numbers of short runs there")
    add("--compare", type=Path, nargs=2, help="two such files")
    add("--seed", type=int, default=0)
    add("--short", action="store_true", help="kills and clock without sweeps, full disks of one kind")
    add("--out", type=Path, default=Path("soak.json"))
    return parser.parse_args(words)


def soak_files(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Malformed files."""
    from benchmarks.soak import files

    began = time.monotonic()
    found = files.soak(args.files, args.seed, args.keep, args.first)
    return files.report(found, args.seed, time.monotonic() - began)


def soak_kills(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Kills."""
    from benchmarks.soak import kills

    return kills.soak(args.kills, args.seed, folder, args.algo, args.short, note)


def soak_disks(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Full disks."""
    import jax

    from benchmarks.soak import disks

    jax.config.update("jax_compilation_cache_dir", str(folder / "compiled"))  # not on the disk that is full
    rooms = disks.ROOMS[:1] if args.short else disks.ROOMS
    return disks.soak(args.algo, toy(folder), folder, rooms, tmpfs=not args.short, short=args.short)


def soak_clock(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Clocks."""
    from benchmarks.soak import clock

    return clock.soak(toy(folder), folder, sweeps=not args.short)


def soak_updates(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Memory."""
    from benchmarks.soak import updates

    return updates.soak(args.updates, args.algo, toy(folder))


def take_fingerprint(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The numbers of this machine."""
    from benchmarks.soak import fingerprint

    found = fingerprint.take(machine())
    args.fingerprint.write_text(json.dumps(found) + "\n", encoding="utf-8")
    return {"sha256": {algo: run["sha256"] for algo, run in found["runs"].items()}, "faults": []}


def compare(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Two machines."""
    from benchmarks.soak import fingerprint

    return fingerprint.compare(*map(fingerprint.read, args.compare))


RUN: dict[str, Callable[[argparse.Namespace, Path], dict[str, Any]]] = {
    "kills": soak_kills,  # first, as it forks a process that has not used JAX
    "files": soak_files,
    "disks": soak_disks,
    "clock": soak_clock,
    "updates": soak_updates,
    "fingerprint": take_fingerprint,
    "compare": compare,
}


def toy(folder: Path) -> Path:
    """A data set of 600 rows."""
    from damorl.testing.algorithms import write_toy

    path = folder / "hopper-toy.hdf5"
    return path if path.exists() else write_toy(path)


def machine() -> dict[str, Any]:
    """What the numbers belong to, without its name."""
    from damorl.record.store import provenance

    kept = ("python", "platform", "cpu_count", "versions")
    told = provenance((), "", "")
    return {"cpu": cpu_model()} | {key: told[key] for key in kept}


def cpu_model() -> str | None:
    """What the processor calls itself (Linux)."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)


def without_out(words: Sequence[str]) -> list[str]:
    """The words less `--out FILE`, and files without their folders: these say nothing to others."""
    kept = [word for word, before in zip(words, ["", *words], strict=False) if "--out" not in (word, before)]
    return [Path(word).name for word in kept]


def note(told: str) -> None:
    """One line to whoever waits."""
    print(told, file=sys.stderr, flush=True)


def main(words: list[str] | None = None) -> int:
    """Run it from the command line."""
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):  # a process with threads cannot be forked safely
        os.environ.setdefault(name, "1")
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("MPLBACKEND", "Agg")
    from damorl.errors import UserError
    from damorl.record.store import provenance

    args = parse(words)
    if not any(getattr(args, part) for part in PARTS):
        args.files = FILES
    began, parts = time.monotonic(), dict[str, dict[str, Any]]()
    told = provenance([], "", "")
    try:
        for name, run in RUN.items():
            if getattr(args, name):
                with tempfile.TemporaryDirectory() as folder:
                    parts[name] = run(args, Path(folder).resolve())
    except UserError as error:
        print(f"soak: {error}", file=sys.stderr)
        return 2
    faults = sum(len(part["faults"]) for part in parts.values())
    command = ["python", "-m", "benchmarks.soak", *without_out(sys.argv[1:] if words is None else words)]
    report = {"format": FORMAT, "git": told["git"], "started": told["started"], "command": command}
    report |= {"machine": machine(), "seconds": round(time.monotonic() - began, 1), "faults": faults, "parts": parts}
    args.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=2))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
