"""How fast an algorithm plans on this machine: plans per second, for one episode and for several in one call.

Weights are not trained: a plan costs the same. The data is synthetic, of Hopper's shape.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from damorl._version import __version__
from damorl.bench.clock import clock, interleave, machine, peak_memory
from damorl.bench.stages import PROBLEM, synthetic_data
from damorl.errors import UserError
from damorl.experiment.config import defaults, find_algorithm
from damorl.experiment.planning import Player

NUM_ROWS = 2_000  # enough to fit bins to
NUM_EPISODES = (1, 10)


def run_planner_bench(
    algo: str,
    seconds: float = 3.0,
    quiet: bool = False,
    config: Any = None,
    num_episodes: Sequence[int] = NUM_EPISODES,
) -> dict[str, Any]:
    """Measure `algo` for about `seconds` for each number of episodes, with `config` or else its preset's settings for
    hopper-medium: paper on an accelerator, quick on a CPU, where a plan of the paper's size takes many seconds.

    Progress goes to standard error unless `quiet`. UserError for an algorithm that does not plan.
    """
    algorithm = find_algorithm(algo)
    if algorithm.planner is None:
        raise UserError(
            f"expected an algorithm that plans, found '{algo}': leave --algo out to measure DAMO's training"
        )
    preset = "quick" if jax.default_backend() == "cpu" else "paper"
    config, preset = (defaults(algo, preset, "hopper-medium")[1], preset) if config is None else (config, None)
    data = synthetic_data(NUM_ROWS)
    init = jax.jit(lambda key, data: algorithm.actor(algorithm.init(key, config, PROBLEM, data)))
    actor = init(jax.random.key(0), data)
    jobs, compiling = {}, {}
    for num in num_episodes:
        if not quiet:
            print(f"bench: compiling the planner for {num} episodes", file=sys.stderr, flush=True)
        player = Player(algorithm, config, PROBLEM.spec, actor)
        player.reset(num, 0)
        job = partial(player.act, np.resize(np.asarray(data.initial_obs), (num, PROBLEM.spec.obs_dim)))
        jobs[str(num)], compiling[num] = job, clock(job)
    medians = interleave(jobs, seconds)
    return machine() | {
        "algo": algo,
        "preset": preset,
        "plans": [
            {"num_episodes": num, "plans_per_second": num / medians[str(num)], "compile_seconds": compiling[num]}
            for num in num_episodes
        ],
        "peak_memory": peak_memory(),
    }


def format_planner_bench(figures: Mapping[str, Any]) -> str:
    """The figures of `run_planner_bench` as a table."""
    lines = [
        f"{figures['device_kind']} ({figures['backend']}), {figures['usable_cpus']} CPUs, "
        f"jax {figures['versions']['jax']}, damorl {__version__}",
        "",
        f"{figures['algo']}, {figures['preset'] or 'own'} settings, Hopper's size, one plan per step and episode:",
    ]
    for row in figures["plans"]:
        label = f"{row['num_episodes']} episode{'s' if row['num_episodes'] > 1 else ''} in one call"
        lines.append(
            f"  {label:<28}{row['plans_per_second']:>10,.2f} plans per second   "
            f"(first call with compiling {row['compile_seconds']:.1f} s)"
        )
    return "\n".join(lines)
