"""The GPU kit: one command for a machine with an accelerator, a Python with jax and optax, and these sources.

    make gpu ARGS='--minutes 20'        or        python3 benchmarks/gpu.py --minutes 20

It measures the machine (`damorl bench`), then trains DAMO with the preset `paper` on as many seeds as the machine
trains at nearly the price of one, until the time is up. The next call continues where this one stopped. Missing
packages are named and cost only what needs them. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import statistics
import sys
import time
import types
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks/results/gpu"
sys.path.insert(0, str(ROOT))
TO_RUN, TO_TRAIN = ("numpy", "jax", "optax"), ("h5py", "safetensors", "tqdm")
TO_SCORE = ("gymnasium", "mujoco", "imageio")
TO_REPORT = {"tensorboardX": "tensorboard", "matplotlib": "curves"}
IMPORTED_ONLY = ("gymnasium", "platformdirs")
"""What the package imports at the top of modules that the kit uses, without calling it in the kit's way."""

SLOWDOWN = 1.5
"""Seeds are added until each trains this much slower than it would alone."""
MAX_SEEDS, SHARE_OF_MEMORY, HISTORY_POINTS = 32, 0.6, 200
LARGE = 10 * 2**20
"""Bytes from which a result is not for git."""
CALMER = {"eval_interval": 100_000}
"""Episodes in the simulator take seconds per seed, in which an accelerator makes thousands of updates."""
TINY = {"total_updates": 1_000_000, "dynamics.max_batches": 4, "dynamics.epoch_batches": 4}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20.0, help="time for everything (default: %(default)g)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="directory to write to and resume from")
    parser.add_argument("--dataset", default="hopper-medium-expert", help="built-in name, or the path of an HDF5 file")
    parser.add_argument("--preset", default="paper", help="paper, standard, quick or smoke (default: %(default)s)")
    parser.add_argument("--seeds", default="auto", help="how many, or auto (default)")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="change a setting")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes that mean nothing, to try the kit itself")
    parser.add_argument("--quiet", action="store_true", help="no progress on standard error")
    args = parser.parse_args(argv)
    if args.minutes <= 0 or not (args.seeds == "auto" or (args.seeds.isdigit() and int(args.seeds) > 0)):
        parser.error("expected --minutes above 0 and --seeds auto or at least 1")
    return args


def lacking(names: Sequence[str]) -> list[str]:
    """Which of these packages cannot be imported."""
    missing = []
    for name in names:
        try:
            importlib.import_module(name)
        except Exception:  # a package that is there but broken may raise anything
            missing.append(name)
    return missing


def stand_in(missing: Sequence[str], results: Path) -> None:
    """Let the package be imported where it names a missing package without needing it here."""
    for name in set(IMPORTED_ONLY) & set(missing):
        sys.modules[name] = types.ModuleType(name)
    if "platformdirs" in missing:
        os.environ.setdefault("DAMORL_HOME", str(results.resolve() / "cache"))


def say(text: str) -> None:
    print(f"gpu kit: {text}", file=sys.stderr, flush=True)


def bench(args: argparse.Namespace) -> dict[str, Any]:
    """The figures of this machine: those measured by an earlier call, or new ones."""
    import jax

    from damorl.bench.stages import format_bench, run_bench
    from damorl.record import store

    device = "tiny-" * args.tiny + re.sub("[^a-z0-9]+", "-", jax.devices()[0].device_kind.lower())
    path = args.results / f"bench-{device}.json"
    if path.exists() and store.read_json(path)["versions"]["jax"] == jax.__version__:
        say(f"using the figures in {path}")
        return store.read_json(path)
    figures = run_bench(min(3.0, 1.5 * args.minutes), args.quiet, tiny_workload() if args.tiny else None)
    store.write_json(path, figures)
    print(format_bench(figures))
    return figures


def tiny_workload() -> Any:
    """Of the smoke preset's sizes."""
    from damorl.bench.stages import Workload
    from damorl.experiment.config import defaults

    _, config = defaults("damo", "smoke", "")
    return Workload(config, num_rows=500, updates=10, fit_batches=10, matrix_sizes=(64,), eval_episodes=1)


def num_seeds(args: argparse.Namespace, figures: dict[str, Any], run_dir: Path) -> int:
    """As asked for; or as in the run to continue; or as many as fit: in memory, and at nearly the speed of one."""
    from damorl.record import store

    if args.seeds != "auto":
        return int(args.seeds)
    if (run_dir / store.CONFIG).exists():
        return len(store.read_json(run_dir / store.CONFIG)["seeds"])
    one, many = figures["updates"][0], figures["updates"][-1]
    extra = many["num_seeds"] - one["num_seeds"]
    seconds = max(1.0 / many["per_second"] - 1.0 / one["per_second"], 1e-9) / extra  # that one more seed costs
    fit = [MAX_SEEDS, 1 + int((SLOWDOWN - 1.0) / one["per_second"] / seconds)]
    if one["memory_bytes"] and many["memory_bytes"]:
        bytes_each = max(1, (many["memory_bytes"] - one["memory_bytes"]) // extra)
        fit.append(1 + int((SHARE_OF_MEMORY * memory() - one["memory_bytes"]) / bytes_each))
    return max(1, min(fit))


def memory() -> int:
    """Bytes that this process may use on the device."""
    import jax

    stats = jax.devices()[0].memory_stats() or {}
    return stats.get("bytes_limit") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def make_config(args: argparse.Namespace, seeds: int) -> Any:
    """The preset, then the kit's own changes, then the user's."""
    import dataclasses

    from damorl.errors import UserError
    from damorl.experiment.config import LoopConfig, RunConfig, defaults, replace

    preset = "smoke" if args.tiny else args.preset
    changes: dict[str, Any] = dict(TINY if args.tiny else CALMER if preset == "paper" else {})
    for text in args.set:
        name, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"--set {text}: expected NAME=VALUE, for example --set total_updates=500000")
        changes[name] = {"True": True, "False": False, "None": None}.get(value, value)
        with suppress(ValueError):
            changes[name] = json.loads(value)
    loop, config = defaults("damo", preset, args.dataset)
    loop_names = {field.name for field in dataclasses.fields(LoopConfig)}
    loop = replace(loop, {name: value for name, value in changes.items() if name in loop_names})
    config = replace(config, {name: value for name, value in changes.items() if name not in loop_names})
    return RunConfig("damo", args.dataset, None, preset, tuple(range(seeds)), loop, config)


def load_data(args: argparse.Namespace, steps: int, simulator: bool) -> Any:
    """The dataset at the path, or the built-in one, made now if need be and if there is a simulator."""
    from damorl.data.datasets import load_dataset
    from damorl.errors import UserError
    from damorl.world.tasks import DATASET_NAMES

    if args.dataset in DATASET_NAMES:
        if not simulator:
            raise UserError(
                f"{args.dataset} cannot be made here without {' and '.join(TO_SCORE)}: make it elsewhere with "
                f"`damorl data make {args.dataset} --steps {steps}` and give the file's path as --dataset"
            )
        from damorl.behaviour.recipe import make_dataset

        make_dataset(args.dataset, steps, progress=not args.quiet)
    return load_dataset(args.dataset, None, steps)


def train(args: argparse.Namespace, figures: dict[str, Any], missing: list[str], deadline: float) -> dict[str, Any]:
    """Train until the deadline, or to the end; the summary."""
    stand_in(missing, args.results)
    import jax

    from damorl.api import check_same_data
    from damorl.experiment.config import dataset_key
    from damorl.experiment.train import train as run_training
    from damorl.record import ending, store

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(args.results.resolve() / "cache"))
    simulator = not set(missing) & set(TO_SCORE)
    run_dir = args.results / f"damo-{dataset_key(args.dataset)}"
    config = make_config(args, num_seeds(args, figures, run_dir))
    dataset = load_data(args, config.loop.dataset_steps, simulator)
    store.create_run_dir(run_dir.parent, run_dir.name, resume=True)
    if (run_dir / store.CONFIG).exists():
        check_same_data(run_dir, dataset)
    before = updates_done(run_dir)
    say(f"{len(config.seeds)} seeds from update {before:,} of {config.loop.total_updates:,}, in {run_dir}")
    without = [word for name, word in TO_REPORT.items() if name in missing] + ["simulator"] * (not simulator)
    stop = deadline - reserve(figures, config, simulator)
    if not ending.finished(run_dir):
        run_training(config, dataset, run_dir, args.quiet, stop, without)
    return summarise(run_dir, before, missing)


def reserve(figures: dict[str, Any], config: Any, simulator: bool) -> float:
    """Seconds to keep for the epoch that the deadline falls into, its evaluation, and saving the state."""
    one, many, seeds = figures["updates"][0], figures["updates"][-1], len(config.seeds)
    each = (1.0 / many["per_second"] - 1.0 / one["per_second"]) / (many["num_seeds"] - one["num_seeds"])
    epoch = config.loop.refresh_interval * (1.0 / one["per_second"] + max(each, 0.0) * (seeds - 1))
    rollouts = config.algo_config.rollout_starts * config.algo_config.rollout_length * seeds
    epoch += rollouts / figures["rollout_transitions_per_second"]
    steps = 1000 * config.loop.eval_episodes * seeds * simulator
    evaluation = steps / (figures["evaluation_steps_per_second"] or 1e4)
    return epoch + evaluation + seeds * (one["memory_bytes"] or 0) / 2e8 + 3.0


def updates_done(run_dir: Path) -> int:
    """Updates in the newest checkpoint, or 0."""
    from damorl.record.checkpoint import checkpoints

    return max((int(path.stem.split("_")[1]) for path in checkpoints(run_dir / "checkpoint")), default=0)


def summarise(run_dir: Path, before: int, missing: list[str]) -> dict[str, Any]:
    """Write what is worth committing beside the policies: the history, thinned, and a summary of all sessions."""
    import jax

    from damorl.files import atomic_file
    from damorl.record import ending, store

    path, rows = run_dir / "summary.json", store.read_metrics(run_dir)
    sessions = store.read_json(path)["sessions"] if path.exists() else []
    config, done = store.read_json(run_dir / store.CONFIG), updates_done(run_dir)
    epoch = config["loop"]["refresh_interval"]
    every = epoch * max(1, -(-done // (HISTORY_POINTS * epoch)))
    kept = [row for row in rows if row["step"] % every == 0 or "eval/return_mean" in row]
    with atomic_file(run_dir / "history.jsonl") as temporary:
        temporary.write_text("".join(json.dumps(store.plain(row)) + "\n" for row in kept), encoding="utf-8")
    key = "eval/score" if any("eval/score" in row for row in rows) else "eval/return_mean"
    scores = {seed: [row[key] for row in rows if key in row and row["seed"] == seed][-10:] for seed in config["seeds"]}
    session = {"device": jax.devices()[0].device_kind, "jax": jax.__version__, "from": before, "to": done}
    summary = {
        "run_dir": run_dir.name,
        "seeds": config["seeds"],
        "updates": done,
        "total_updates": config["loop"]["total_updates"],
        "finished": ending.finished(run_dir),
        "updates_per_second": statistics.median(row["time/updates_per_second"] for row in rows),
        "metric": key,
        "mean_of_last_10": {seed: sum(values) / len(values) for seed, values in scores.items() if values},
        "missing_packages": missing,
        "sessions": [*sessions, session],
    }
    store.write_json(path, summary)
    return summary


def ignore_large(results: Path, everything: bool) -> None:
    """Keep from git what is large, or, while a run is under way, whatever may become large."""
    lines = ["cache/"]
    for path in sorted(results.glob("*/*")):
        files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
        if sum(file.stat().st_size for file in files) > LARGE:
            lines.append(path.relative_to(results).as_posix() + "/" * path.is_dir())
    (results / ".gitignore").write_text("\n".join([*lines, *["*/checkpoint/", "*/tb/"] * everything]) + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    """The kit. Exit code 2 for what the user can put right, 0 also where missing packages cost a part of the work."""
    args, began = parse(argv), time.monotonic()
    if sys.version_info < (3, 11):  # noqa: UP036  the kit runs where nothing was installed
        print(f"the GPU kit needs Python 3.11 or newer, found {sys.version.split()[0]}", file=sys.stderr)
        return 2
    if missing := lacking(TO_RUN):
        print(f"the GPU kit needs {' and '.join(missing)}, which {sys.executable} cannot import", file=sys.stderr)
        return 2
    missing = lacking([*TO_TRAIN, *TO_SCORE, *TO_REPORT, "platformdirs"])
    if missing:
        say(f"not found here: {', '.join(missing)}")
    from damorl.errors import UserError

    try:
        args.results.mkdir(parents=True, exist_ok=True)
        ignore_large(args.results, everything=True)
        figures = bench(args)
        if needed := set(missing) & set(TO_TRAIN):
            say(f"no training: it needs {' and '.join(sorted(needed))}")
            return 0
        summary = train(args, figures, missing, began + 60.0 * args.minutes)
        ignore_large(args.results, everything=False)
    except (UserError, OSError) as error:
        print(f"gpu kit: {error}", file=sys.stderr)
        return 2
    print(json.dumps(summary, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
