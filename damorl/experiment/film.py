"""Films of policies: one episode each, side by side, from the same start."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from damorl.behaviour.host_policy import squash
from damorl.behaviour.policies import load_policies
from damorl.errors import UserError
from damorl.experiment.exported import task_of
from damorl.experiment.policy import Policy, holds_one, load_policy
from damorl.experiment.summary import variant_of
from damorl.record import store
from damorl.report.film import Strip, Written, check_name, write_film
from damorl.types import Spec
from damorl.world.evaluate import ACTION_STREAM, Act, action_draws
from damorl.world.filming import Take, opened_camera
from damorl.world.tasks import DATASET_NAMES, DatasetName, Task, normalised_score

SIDE = 200
"""Width and height of a panel in pixels."""
MAX_BYTES = 2_000_000
MAX_PANELS = 6


class Actor(NamedTuple):
    """Who acts in a panel, by what name."""

    name: str
    start: Callable[[], Act]
    """Begins an episode: the function of the state, `[1, obs_dim] -> [1, action_dim]` in [-1, 1]."""


@dataclasses.dataclass(frozen=True)
class Film:
    """A film and the episodes in it."""

    path: Path
    panels: tuple[dict[str, Any], ...]
    """In order, `name`, `return`, `length`, `terminated` and, where the task has one, `score` of each whole episode."""
    num_bytes: int
    num_frames: int
    fps: float
    size: tuple[int, int]
    """Width and height in pixels."""


def film(
    paths: Sequence[Path | str] | Path | str,
    out: Path | str = "film.webp",
    seed: int = 0,
    steps: int | None = None,
    names: Sequence[str] = (),
    behaviour: bool = False,
    policy_seed: int | None = None,
) -> Film:
    """Film one episode of each policy, all from the same start, side by side in one animated WebP or GIF of at most
    2 MB.

    `paths` are run directories, exported files or names of the zoo (`zoo:walker2d-medium-expert`), of one task. `seed`
    is what the episodes are reset with. The first `steps` steps are filmed, by default ten seconds of the simulated
    world; below each panel stands what the whole episode earned. `names` are the panels' names, by default the
    algorithms and what their settings change. With `behaviour` the first panel is the best of the policies that made
    the built-in data set, whose actions are sampled, as they were for the data. `policy_seed` says which seed's policy
    of runs, the first one by default. The same arguments give the same film on the same machine. UserError for policies
    of several tasks, a task without a simulator or without pictures, a name that ends in neither .webp nor .gif, and
    where MuJoCo can draw with neither EGL nor OSMesa.
    """
    paths, out = [Path(path) for path in ([paths] if isinstance(paths, str | Path) else paths)], Path(out)
    check_name(out)
    policies = [load_policy(path, None if holds_one(path) else policy_seed) for path in paths]
    task = common_task(paths, policies)
    actors = [behaviour_of(task, policies[0], seed)] if behaviour else []
    for path, policy in zip(paths, policies, strict=True):
        actors.append(Actor(name_of(path, policy), lambda own=policy: own))
    actors = renamed(actors, names)
    check_numbers(actors, seed, steps)
    spec = Spec(policies[0].obs_dim, policies[0].action_dim)
    with opened_camera(task, spec, SIDE) as camera:
        length = camera.default_steps if steps is None else steps
        takes = [camera.take(actor.start(), seed, length) for actor in actors]
        rows = [describe(task, actor.name, take) for actor, take in zip(actors, takes, strict=True)]
        strips = [strip_of(row, take, length) for row, take in zip(rows, takes, strict=True)]
        written = write_film(out, strips, camera.fps, MAX_BYTES)
    return made(written, rows)


def made(written: Written, rows: Sequence[dict[str, Any]]) -> Film:
    """The record of a film on the disk."""
    return Film(written.path, tuple(rows), written.num_bytes, written.num_frames, written.fps, written.size)


def common_task(paths: Sequence[Path], policies: Sequence[Policy]) -> Task:
    """The one task of all policies. UserError for none and for several."""
    if not policies:
        raise UserError("film: expected at least one policy, found none; name a run directory")
    tasks = [task_of(path, dict(policy.metadata)) for path, policy in zip(paths, policies, strict=True)]
    if others := [task.name for task in tasks if task.name != tasks[0].name]:
        raise UserError(
            f"film: expected policies of one task, found {tasks[0].name} and {others[0]}; make a film of each task"
        )
    return tasks[0]


def check_numbers(actors: Sequence[Actor], seed: int, steps: int | None) -> None:
    """UserError for too many panels, a seed below 0, and less than one step."""
    if len(actors) > MAX_PANELS:
        raise UserError(f"film: expected at most {MAX_PANELS} panels, found {len(actors)}; make several films")
    for name, value, least in (("seed", seed, 0), ("steps", steps, 1)):
        if value is not None and value < least:
            raise UserError(f"film: expected {name} of at least {least}, found {value}; choose a larger number")


def name_of(path: Path, policy: Policy) -> str:
    """Algorithm and what the run's settings change of its preset."""
    algorithm = str(policy.metadata["algorithm"])
    if holds_one(path):
        return algorithm
    try:
        return f"{algorithm} {variant_of(store.read_json(path / store.CONFIG))}".strip()
    except (UserError, KeyError):  # settings of another version
        return algorithm


def renamed(actors: Sequence[Actor], names: Sequence[str]) -> list[Actor]:
    """The actors by the names that are given, if any are. UserError for another number of names."""
    if not names:
        return list(actors)
    if len(names) != len(actors):
        raise UserError(
            f"film: expected a name for each of the {len(actors)} panels, found {len(names)}; name all or none"
        )
    return [actor._replace(name=name) for actor, name in zip(actors, names, strict=True)]


def behaviour_of(task: Task, policy: Policy, seed: int) -> Actor:
    """The best of the policies that made the policy's data set. UserError unless that is a built-in one."""
    data = policy.metadata["dataset"]["name"]
    if data not in DATASET_NAMES:
        raise UserError(
            f"film: expected a built-in data set for its behaviour policy, found {data!r}; leave --behaviour out"
        )
    quality = DatasetName.parse(data).quality
    if quality == "random":
        rng = np.random.default_rng((seed, ACTION_STREAM))
        return Actor("random actions", lambda: lambda obs: rng.uniform(-1.0, 1.0, (len(obs), task.action_dim)))
    policies = load_policies(task.short_name)
    layers = policies.expert if quality == "medium-expert" else policies.medium
    draws = action_draws(task, 1, seed)
    label = "expert" if quality == "medium-expert" else "medium"
    return Actor(f"behaviour ({label})", lambda: lambda obs: squash(layers, obs, next(draws)))


def describe(task: Task, name: str, take: Take) -> dict[str, Any]:
    """What the film's record says of a panel."""
    row: dict[str, Any] = {"name": name, "return": take.earned, "length": take.length, "terminated": take.terminated}
    return row if task.reference_min is None else row | {"score": normalised_score(task, take.earned)}


def strip_of(row: dict[str, Any], take: Take, steps: int) -> Strip:
    """The panel of a take."""
    measure = f"score {row['score']:.1f}" if "score" in row else f"return {row['return']:,.1f}"
    ended = f"ended after {take.length} steps" if take.terminated and take.length <= steps else None
    return Strip(row["name"], f"this episode: {measure}", take.frames, ended)
