"""The evaluations of a run: whole episodes of each member's policy in the real simulator, while it trains."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import numpy as np

from damorl.data.datasets import Dataset
from damorl.data.stored import StoredDataset
from damorl.experiment.config import RunConfig
from damorl.types import Spec
from damorl.world.evaluate import Episodes, Evaluator
from damorl.world.tasks import normalised_score

EVAL_SEED = 1_000_000  # far from any training seed, the same for every run: evaluations of two runs can be paired


def evaluate_actors(
    config: RunConfig,
    dataset: Dataset | StoredDataset,
    evaluator: Evaluator | None,
    actors: list[Any],
    rows: list[dict[str, float]],
    step: int,
) -> list[dict[str, float]]:
    """`rows`, one per member, with `eval/*` of deterministic episodes; as they are where there is no simulator.

    Each evaluation has starts of its own, so that the mean of several says what a fresh start earns.
    """
    if evaluator is None:
        return rows
    began, found = time.perf_counter(), []
    first_seed = EVAL_SEED + (step // config.loop.eval_interval - 1) * config.loop.eval_episodes
    for actor in actors:
        episodes = play(config, dataset.spec, evaluator, actor, first_seed)
        mean = float(np.mean(episodes.returns))
        row = {
            "eval/return_mean": mean,
            "eval/return_std": float(np.std(episodes.returns)),
            "eval/episode_length": float(np.mean(episodes.lengths)),
            "eval/first_seed": float(first_seed),
        }
        if dataset.task is not None and dataset.task.reference_min is not None:
            row["eval/score"] = normalised_score(dataset.task, mean)
        found.append(row)
    seconds = {"time/eval_seconds": time.perf_counter() - began}
    return [row | evaluation | seconds for row, evaluation in zip(rows, found, strict=True)]


def play(config: RunConfig, spec: Spec, evaluator: Evaluator, actor: Any, first_seed: int) -> Episodes:
    """The episodes of one evaluation of one member's actor, deterministic or planning, reset from `first_seed` on."""
    from damorl.behaviour.host_policy import act
    from damorl.experiment.planning import Player

    if config.algorithm.planner is None:
        return evaluator.run(partial(act, actor, rng=None), config.loop.eval_episodes, first_seed)
    player = Player(config.algorithm, config.algo_config, spec, actor)
    return player.play(evaluator, config.loop.eval_episodes, first_seed)
