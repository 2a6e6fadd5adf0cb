"""Train a behaviour policy with SAC and keep every snapshot: `damorl data train-behaviour` calls this."""

from __future__ import annotations

import time
from dataclasses import asdict
from functools import partial
from pathlib import Path

from damorl.bars import Bar
from damorl.behaviour import sac
from damorl.behaviour.host_policy import NumpyPolicy
from damorl.behaviour.snapshots import versions, write_json, write_snapshot
from damorl.errors import UserError
from damorl.world.tasks import Task, make_env


def train_behaviour(task: Task, seed: int, config: sac.SACConfig, out_dir: Path, progress: bool = True) -> None:
    """Run SAC on `task` for `config.total_steps` and fill `out_dir` as `damorl.behaviour.snapshots` describes.

    Each snapshot is on disk, complete, before training goes on, so an interrupted run keeps all it had. UserError if
    `out_dir` already holds a run or cannot be written.
    """
    start_run(task, seed, config, out_dir)
    started = time.monotonic()
    with Bar(total=config.total_steps, desc=f"SAC {task.name}", unit="step", disable=not progress) as bar:

        def keep(step: int, layers: NumpyPolicy, returns: list[float], metrics: dict[str, float]) -> None:
            write_snapshot(out_dir, step, layers, returns, seconds=time.monotonic() - started, **metrics)
            bar.set_postfix({"return": f"{sum(returns) / len(returns):.0f}"})

        def advance(step: int) -> None:
            bar.update(step - bar.n)

        sac.train(partial(make_env, task), config, seed, keep, advance)


def start_run(task: Task, seed: int, config: sac.SACConfig, out_dir: Path) -> None:
    """Make `out_dir` and write its `run.json`. UserError if there is a run already."""
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
    except OSError as reason:
        raise UserError(f"{out_dir}: cannot be made ({reason.strerror}); choose another folder") from reason
    if (out_dir / "run.json").exists() or any(out_dir.glob("step_*.npz")):
        raise UserError(f"{out_dir}: already holds a behaviour run, and none is ever overwritten; choose a new folder")
    settings = asdict(config)
    record = {"task": task.name, "env_id": task.env_id, "seed": seed, "sac": settings, "versions": versions()}
    write_json(out_dir / "run.json", record)
