"""Rebuild a `damorl` data set on the user's machine: D4RL's recipe, our behaviour policies.

random: uniform actions. medium: actions sampled from a policy with about a third of the expert's return.
medium-replay: equal shares of rows sampled from snapshots along training, oldest first, up to medium. medium-expert: a
share of medium rows, then a share of expert rows.

Rows come in whole episodes. Where another part follows, the episode in which a share runs out is played to its end and
the next part gets as much less, so that no two episodes ever meet without a terminal or a timeout between them. (D4RL
dropped that episode; dropping favours short ones and leaves an odd size.) The file is cut at exactly its size, and as
in D4RL its last episode then ends with neither flag, for it did not end: a timeout there would put a piece of an
episode among the returns. Every row carries its own next observation, so no transition is lost or wrong either way.
"""

from __future__ import annotations

import json
import os
import sys
import zlib
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from tqdm import tqdm

from damorl.bars import Bar
from damorl.behaviour.collect import Rows, Shard, concatenate, run_shards
from damorl.behaviour.host_policy import NumpyPolicy
from damorl.behaviour.policies import Behaviours, load_policies
from damorl.behaviour.snapshots import versions
from damorl.data.datasets import dataset_path
from damorl.data.store import write_dataset
from damorl.errors import UserError
from damorl.files import locked, remove_leftovers
from damorl.world.tasks import DatasetName, Task, find_task, make_env, simulator_of

RECIPE = 1
"""Raised with every change that makes other rows from the same request, so that cached files are made again."""
SHARD_STEPS = 10_000
"""Rows of one errand to a worker: a second or two, and ten full episodes."""


class Part(NamedTuple):
    """A stretch of the data set played by one policy, up to the first end of an episode at or after row `end`."""

    label: str
    layers: NumpyPolicy | None
    """None: uniformly random actions."""
    start: int
    end: int


def make_dataset(
    name: str,
    num_steps: int = 200_000,
    seed: int = 0,
    path: Path | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> Path:
    """Build the data set `name` and return its path (by default in the user's cache).

    `num_steps` rows, twice as many for medium-expert. The same arguments give the same arrays on the same machine,
    whatever the number of `workers` (default: all cores); a file already made by them is returned as it is. In the
    cache a set is made once, however many processes ask for it at the same time: the others wait, which a line on
    standard error says. UserError for an unknown name, sizes below 1, a task without behaviour policies, a `path` that
    holds something else, or a place that cannot be written.
    """
    parsed = DatasetName.parse(name)
    workers = os.cpu_count() or 1 if workers is None else workers
    require_positive(num_steps, seed, workers)
    task = find_task(parsed.task)
    behaviours = None if parsed.quality == "random" else load_policies(task.name)
    target = path or dataset_path(name, num_steps, seed)
    request = describe_request(name, num_steps, seed, behaviours)
    if target.exists() and stored_request(target) == request:
        return target
    if path is not None and path.exists():
        raise UserError(
            f"{path}: expected no file, or {name} of {num_steps} steps and seed {seed}, found another; remove it or "
            "choose another path"
        )
    lock = target.with_name(f".{target.name}.lock")
    locking = nullcontext(False) if path else locked(lock, say, f"making {name}")  # nothing stays beside a user's file
    with locking as alone:
        if path is None and target.exists() and stored_request(target) == request:  # made in the meantime
            return target
        if alone:
            remove_leftovers(target.parent, target.name)
        rows = collect(task, plan(parsed.quality, num_steps, behaviours), seed, workers, progress)
        write_dataset(target, rows, describe(parsed, seed, behaviours) | {"request": request})
    return target


def say(note: str) -> None:
    """One line to the user, above the bar."""
    tqdm.write(f"damorl: {note}", file=sys.stderr)


def require_positive(num_steps: int, seed: int, workers: int) -> None:
    """UserError unless there is something to do and someone to do it."""
    for name, value, least in (("num_steps", num_steps, 1), ("seed", seed, 0), ("workers", workers, 1)):
        if value < least:
            raise UserError(f"{name}: expected at least {least}, found {value}; choose a larger number")


def plan(quality: str, num_steps: int, behaviours: Behaviours | None) -> tuple[Part, ...]:
    """The parts of a data set, in the order of its rows. `behaviours` is None for random."""
    if behaviours is None:
        return (Part("random", None, 0, num_steps),)
    medium = Part("medium", behaviours.medium, 0, num_steps)
    if quality == "medium":
        return (medium,)
    if quality == "medium-expert":
        return medium, Part("expert", behaviours.expert, num_steps, 2 * num_steps)
    bounds = [num_steps * i // len(behaviours.replay) for i in range(len(behaviours.replay) + 1)]
    parts = zip(behaviours.replay, bounds[:-1], bounds[1:], strict=True)
    return tuple(Part(f"replay/{i}", *part) for i, part in enumerate(parts) if part[1] < part[2])


def collect(task: Task, parts: tuple[Part, ...], seed: int, workers: int, progress: bool) -> Rows:
    """Play every part in the simulator and join the rows."""
    make_env(task).close()  # remarks and refusals are heard here, once, not from every worker
    shards = [(part.label, shard) for part in parts for shard in split(task, part, seed)]
    played: dict[str, list[Rows]] = {part.label: [] for part in parts}
    results = run_shards([shard for _, shard in shards], workers)
    total = sum(shard.num_steps for _, shard in shards)
    with Bar(total=total, desc=f"collect {task.name}", unit="step", unit_scale=True, disable=not progress) as bar:
        for (label, shard), rows in zip(shards, results, strict=True):
            played[label].append(rows)
            bar.update(shard.num_steps)
    return join(parts, played)


def split(task: Task, part: Part, seed: int) -> list[Shard]:
    """A part's errands. Their seeds depend on task, part and `seed`: medium-expert begins with the rows of medium."""
    steps = part.end - part.start
    count = max(1, round(steps / SHARD_STEPS))
    label = zlib.crc32(f"{task.name}/{part.label}".encode())
    seeds = np.random.SeedSequence([seed, label]).spawn(count)
    return [
        Shard(simulator_of(task), task.max_episode_steps, part.layers, -(-steps // count), child) for child in seeds
    ]


def join(parts: tuple[Part, ...], played: dict[str, list[Rows]]) -> Rows:
    """Put the parts one after another, and cut at the last one's end."""
    kept: list[Rows] = []
    num_rows = 0
    for part in parts:
        rows = concatenate(played.pop(part.label))
        keep = episode_end(rows, part.end - num_rows)
        kept.append(first_rows(rows, keep))
        num_rows += keep
    return first_rows(concatenate(kept), parts[-1].end)


def episode_end(rows: Rows, least: int) -> int:
    """How many rows to keep so as to have `least` of them and whole episodes."""
    ends = np.flatnonzero(rows["terminals"] | rows["timeouts"]) + 1
    return int(ends[np.searchsorted(ends, least)]) if least > 0 else 0


def first_rows(rows: Rows, count: int) -> Rows:
    """The first `count` rows of every column."""
    return {key: column[:count] for key, column in rows.items()}


def describe_request(name: str, num_steps: int, seed: int, behaviours: Behaviours | None) -> str:
    """What decides the arrays, as text: two files with the same request need not be made twice."""
    policies = behaviours.sha256 if behaviours else None
    return json.dumps({"recipe": RECIPE, "name": name, "num_steps": num_steps, "seed": seed, "policies": policies})


def stored_request(path: Path) -> str | None:
    """The request that the file at `path` was made for; None if it is not one of ours, or damaged."""
    try:
        with h5py.File(path, "r") as file:
            request = file["metadata/request"]
            return str(request.asstr()[()]) if isinstance(request, h5py.Dataset) else None
    except (OSError, KeyError, TypeError):
        return None


def describe(name: DatasetName, seed: int, behaviours: Behaviours | None) -> dict[str, str | int]:
    """The metadata of a data set made here: what it is, that it is not D4RL's, and from which policies."""
    task = find_task(name.task)
    return {
        "name": str(name),
        "origin": "damorl",
        "task": task.name,
        "env_id": simulator_of(task),
        "algorithm": "SAC" if behaviours else "uniform",
        "recipe": "D4RL's, with behaviour policies of damorl: sampled actions, whole episodes",
        "seed": seed,
        "versions": json.dumps(versions()),
        "behaviours": json.dumps(behaviours.card if behaviours else None),
    }
