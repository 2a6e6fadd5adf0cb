"""Scoring the policies of a run, or an exported one, in the simulator of a task."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from damorl.errors import UserError
from damorl.experiment.describe import describe_episodes, simulator_of
from damorl.experiment.evaluation import EVAL_SEED
from damorl.experiment.exported import task_of
from damorl.experiment.policy import holds_one, load_policy
from damorl.experiment.result import load_layers, plans
from damorl.record import store
from damorl.record.members import Member, describe, members_of
from damorl.types import Spec
from damorl.world.evaluate import Episodes, Evaluator, action_draws
from damorl.world.tasks import Task, to_unit


@dataclass(frozen=True)
class Scoring:
    """How policies are scored."""

    episodes: int = 10
    noise: float = 0.0
    """Of measurement, as a share of each feature's standard deviation in the training data."""
    stochastic: bool = False
    step: int | None = None
    """Earlier policies of a run."""
    eval_seed: int = EVAL_SEED
    """Episode i is reset with `eval_seed + i`."""


class Player(NamedTuple):
    """A policy that can be scored in the simulator of its task."""

    marks: dict[str, Any]
    """What tells its rows from others': seed, in a population setting and label."""
    play: Callable[[Evaluator, float], Episodes]
    """Plays the episodes with so much measurement noise."""
    spec: Spec | None = None
    """Where the policy's sizes are to be checked."""


def score(path: Path, task: Task | None, how: Scoring) -> list[dict[str, Any]]:
    """Each policy of a run directory, or the one of an exported file, in the simulator: see `damorl.evaluate`."""
    task, players = find_players(path, task, how)
    with closing(Evaluator(task, players[0].spec)) as evaluator:
        return [
            row_marks(player, how) | describe_episodes(task, player.play(evaluator, how.noise)) for player in players
        ]


def row_marks(player: Player, how: Scoring) -> dict[str, Any]:
    """The front of a row of results."""
    return player.marks | {"episodes": how.episodes, "noise": how.noise, "stochastic": how.stochastic}


def find_players(path: Path, task: Task | None, how: Scoring) -> tuple[Task, list[Player]]:
    """The task to play, by default the one trained for, and who plays it. UserError as in `damorl.evaluate`."""
    if holds_one(path):
        return exported_player(path, task, how)
    task = simulator_of(path) if task is None else task
    config = store.read_json(path / store.CONFIG)
    if plans(config) and how.stochastic:
        raise UserError(f"{path}: expected no --stochastic for {config['algo']}, which plans; leave it out")
    make = planner if plans(config) else network
    obs_std = np.asarray(config["data"]["obs_std"])
    return task, [Player(marks_of(member), make(path, member, obs_std, task, how)) for member in members_of(config)]


def marks_of(member: Member) -> dict[str, Any]:
    """Seed, in a population setting and label."""
    return member.marks | ({} if member.setting is None else {"label": describe(member.values)})


def network(
    run_dir: Path, member: Member, obs_std: np.ndarray, task: Task, how: Scoring
) -> Callable[[Evaluator, float], Episodes]:
    """Plays the actor of a run."""
    from damorl.behaviour.host_policy import act, squash

    layers = load_layers(run_dir, member.seed, how.step, member.setting)

    def play(evaluator: Evaluator, noise: float) -> Episodes:
        draws = action_draws(task, how.episodes, how.eval_seed)
        sampled = lambda obs: squash(layers, obs, next(draws))
        policy = sampled if how.stochastic else partial(act, layers, rng=None)
        return evaluator.run(policy, how.episodes, how.eval_seed, noise, obs_std)

    return play


def planner(
    run_dir: Path, member: Member, obs_std: np.ndarray, task: Task, how: Scoring
) -> Callable[[Evaluator, float], Episodes]:
    """Plays a run that plans."""
    from damorl.experiment.planning import load_player

    own = load_player(run_dir, member.seed, how.step)
    return lambda evaluator, noise: own.play(evaluator, how.episodes, how.eval_seed, noise, obs_std)


def exported_player(path: Path, task: Task | None, how: Scoring) -> tuple[Task, list[Player]]:
    """The task and the policy of an exported file."""
    policy = load_policy(path)
    if how.step is not None or (how.stochastic and policy.gaussian is None):
        raise UserError(
            f"{path}: expected neither --step nor, of an export without --distribution, --stochastic: it is one "
            "deterministic policy; give them with its run directory"
        )
    chosen = task_of(path, dict(policy.metadata)) if task is None else task
    std = policy.metadata["observations"].get("obs_std")

    def play(evaluator: Evaluator, noise: float) -> Episodes:
        draws = action_draws(chosen, how.episodes, how.eval_seed) if how.stochastic else None
        act = lambda obs: to_unit(chosen, policy.act(obs, None if draws is None else next(draws)))
        return evaluator.run(act, how.episodes, how.eval_seed, noise, None if std is None else np.asarray(std))

    return chosen, [Player({"seed": policy.metadata["seed"]}, play, Spec(policy.obs_dim, policy.action_dim))]
