"""The behaviour policies that ship with the package: chosen from a training run, stored small, loaded by task name."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Mapping
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from damorl.behaviour.host_policy import NumpyPolicy, episode_return, from_arrays, to_arrays
from damorl.behaviour.snapshots import read_log, read_run, read_snapshot, versions, write_arrays, write_json
from damorl.errors import UserError
from damorl.world.tasks import Task, make_env

NUM_EPISODES = 10
SELECTION_SEED, CARD_SEED = 20_000, 30_000
"""First reset seeds; the card has its own, so that its returns are not those that the policies were chosen by."""
NUM_CANDIDATES = 5
"""How many of the best logged snapshots are evaluated again, to see through a lucky evaluation."""
MEDIUM_FRACTION = 1.0 / 3.0
"""Medium's return over the expert's, as D4RL describes it."""
OVERSHOOT_FRACTION = 0.5
"""A first crossing above this fraction of the expert is no longer called medium."""
CROSSING_WINDOW = 3
NUM_REPLAY = 16


class Selection(NamedTuple):
    """Training steps of the chosen snapshots, and the deterministic returns of two of them."""

    expert: int
    medium: int
    replay: tuple[int, ...]
    """Oldest first, from the untrained policy to medium."""
    expert_return: float
    medium_return: float


class Behaviours(NamedTuple):
    """A task's behaviour policies in float32, and where they come from."""

    expert: NumpyPolicy
    medium: NumpyPolicy
    replay: tuple[NumpyPolicy, ...]
    card: dict[str, Any]
    sha256: str
    """Of the array file."""


def evaluate(task: Task, layers: NumpyPolicy, seed: int, sampled: bool = False) -> list[float]:
    """Returns of `NUM_EPISODES` episodes reset with `seed`, `seed + 1`, ...; actions are the mode, or sampled."""
    env = make_env(task)
    rng = np.random.default_rng(seed) if sampled else None
    returns = [episode_return(env, layers, seed + i, rng) for i in range(NUM_EPISODES)]
    env.close()
    return returns


def select(raw_dir: Path, task: Task) -> Selection:
    """Choose expert, medium and replay among the snapshots of a training run (`damorl.behaviour.snapshots`).

    What decides are means over 10 fresh episodes of the snapshot as it would ship. Expert: among the 5 snapshots with
    the highest logged return, the one whose lower mean, of deterministic and of sampled actions, is highest: scores are
    taken of the former, data made of the latter, and a policy can be far better at one (seen in Hopper: 3125 and 2339).
    Medium: by deterministic actions, the first to reach a third of the expert; should it overshoot to more than half,
    then the one nearest to a third among it and the 3 snapshots on either side. Replay: up to 16, evenly spread from
    step 0 to medium. UserError if no snapshot earlier than the expert is medium.
    """
    logged = read_log(raw_dir)

    @cache
    def mean_return(step: int, sampled: bool = False) -> float:
        return float(np.mean(evaluate(task, read_snapshot(raw_dir, step), SELECTION_SEED, sampled)))

    candidates = sorted(logged, key=logged.__getitem__)[-NUM_CANDIDATES:]
    expert = max(candidates, key=lambda step: min(mean_return(step), mean_return(step, sampled=True)))
    earlier = [step for step in logged if step < expert]
    medium = choose_medium(earlier, mean_return(expert), mean_return)
    if medium is None:
        raise UserError(
            f"{raw_dir}: expected a snapshot with a third of the expert's return ({mean_return(expert):.0f}) before "
            f"its step {expert}, found none; train with a smaller snapshot interval or longer"
        )
    until = earlier[: earlier.index(medium) + 1]
    spread = np.unique(np.linspace(0, len(until) - 1, min(NUM_REPLAY, len(until))).round().astype(int))
    replay = tuple(until[i] for i in spread)
    return Selection(expert, medium, replay, mean_return(expert), mean_return(medium))


def choose_medium(steps: list[int], expert_return: float, mean_return: Callable[[int], float]) -> int | None:
    """The first of `steps` at a third of the expert, or the closest around it if it overshoots; None without one."""
    goal = MEDIUM_FRACTION * expert_return
    first = next((i for i, step in enumerate(steps) if mean_return(step) >= goal), None)
    if first is None:
        return None
    if mean_return(steps[first]) <= OVERSHOOT_FRACTION * expert_return:
        return steps[first]
    near = steps[max(0, first - CROSSING_WINDOW) : first + CROSSING_WINDOW + 1]
    return min(near, key=lambda step: abs(mean_return(step) - goal))


def export(raw_dir: Path, task: Task, destination: Path, selection: Selection | None = None) -> Selection:
    """Write `{task}.npz` (float16) and its card `{task}.json` into `destination`; `select` chooses unless told.

    The card holds the run's seed, settings and versions, and for each policy its training step and its returns over
    10 deterministic and 10 sampled episodes, measured after rounding. UserError as `select`, or without a run.json.
    """
    run = read_run(raw_dir)
    selection = selection or select(raw_dir, task)
    steps = {"expert": selection.expert, "medium": selection.medium}
    steps |= {f"replay/{i}": step for i, step in enumerate(selection.replay)}
    policies = {label: read_snapshot(raw_dir, step) for label, step in steps.items()}
    card = {
        "task": task.name,
        "env_id": task.env_id,
        "training": run,
        "evaluation": {"episodes": NUM_EPISODES, "first_seed": CARD_SEED, "versions": versions()},
        "policies": {label: {"step": steps[label], **returns(task, policy)} for label, policy in policies.items()},
    }
    arrays = {
        name: array for label, policy in policies.items() for name, array in to_arrays(policy, f"{label}/").items()
    }
    halved = {name: array.astype(np.float16) for name, array in arrays.items()}
    write_arrays(destination / f"{task.short_name}.npz", halved)
    write_json(destination / f"{task.short_name}.json", card)
    return selection


def returns(task: Task, policy: NumpyPolicy) -> dict[str, dict[str, float]]:
    """Mean and standard deviation of a policy's returns, deterministic and sampled, for its card."""
    measured = {
        "deterministic": evaluate(task, policy, CARD_SEED),
        "sampled": evaluate(task, policy, CARD_SEED, sampled=True),
    }
    return {how: {"mean": float(np.mean(values)), "std": float(np.std(values))} for how, values in measured.items()}


def load_policies(task_name: str, folder: Traversable | None = None) -> Behaviours:
    """The policies of a task that ship with the package, or that `export` wrote into `folder`.

    UserError, with the tasks that have some, if this one has none.
    """
    folder = folder or resources.files("damorl.behaviour").joinpath("arrays")
    available = shipped(folder)
    if task_name not in available:
        raise UserError(
            f"task {task_name!r}: expected a task with behaviour policies, found none for it; choose one of: "
            f"{', '.join(available) or 'none is shipped yet'}"
        )
    content = folder.joinpath(f"{task_name}.npz").read_bytes()
    card = json.loads(folder.joinpath(f"{task_name}.json").read_text(encoding="utf-8"))
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        loaded: Mapping[str, np.ndarray] = dict(arrays)
    return Behaviours(
        expert=from_arrays(loaded, "expert/"),
        medium=from_arrays(loaded, "medium/"),
        replay=tuple(from_arrays(loaded, f"replay/{i}/") for i in range(count_replay(loaded))),
        card=card,
        sha256=hashlib.sha256(content).hexdigest(),
    )


def shipped(folder: Traversable | None = None) -> tuple[str, ...]:
    """The tasks with both arrays and card in `folder` (the package's own by default)."""
    folder = folder or resources.files("damorl.behaviour").joinpath("arrays")
    names = {file.name for file in folder.iterdir()} if folder.is_dir() else set()
    return tuple(sorted(name[:-4] for name in names if name.endswith(".npz") and f"{name[:-4]}.json" in names))


def count_replay(arrays: Mapping[str, np.ndarray]) -> int:
    """How many replay policies the arrays hold, numbered from 0."""
    return len({name.split("/")[1] for name in arrays if name.startswith("replay/")})
