"""How fast this machine trains: every stage of DAMO at full size, and the matrix rate that bounds it.

The data is synthetic, of Hopper's shape. What is compared is measured in turns: a busy machine slows both.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import import_module
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from damorl._version import __version__
from damorl.algos import damo
from damorl.algos.base import Algorithm, OfflineData, Problem
from damorl.bench.clock import (
    MIN_ROUNDS,
    clock,
    interleave,
    machine,
    matrix_job,
    peak_memory,
    product_flops,
    teller,
)
from damorl.core.scaler import fit_standardiser
from damorl.experiment.population import over_members
from damorl.parts import dynamics, dynamics_fit
from damorl.types import Key, Spec, Transition
from damorl.world.tasks import hopper_ended

OBS_DIM, ACTION_DIM = 11, 3  # Hopper's
PROBLEM = Problem(Spec(OBS_DIM, ACTION_DIM), hopper_ended)


@dataclass(frozen=True)
class Workload:
    """What is measured. The defaults are the paper's sizes."""

    config: Any = field(default_factory=damo.Config)
    """Settings of `algorithm`."""
    num_rows: int = 100_000
    """Rows of the synthetic dataset."""
    num_seeds: tuple[int, ...] = (1, 4)
    """Numbers of seeds trained together."""
    updates: int = 20
    """Updates in one compiled call."""
    fit_batches: int = 50
    """Batches of the dynamics fit in one compiled call."""
    matrix_sizes: tuple[int, ...] = (2048, 256)
    """Sizes n of the products `[n, n] @ [n, n]`. Updates are held against the fastest."""
    eval_episodes: int = 10
    algorithm: Algorithm = damo.ALGORITHM


def full_workload() -> Workload:
    """The paper's sizes. An accelerator gets longer calls: starting one would count for too much."""
    return Workload() if jax.default_backend() == "cpu" else Workload(updates=500, fit_batches=500)


class Seeds:
    """`num` seeds trained together, with the two compiled halves of an epoch, shaped as in `train.make_epoch`."""

    def __init__(self, workload: Workload, data: OfflineData, start: Any, num: int) -> None:
        """All seeds begin in the state `start`; their keys differ."""
        algorithm, config, self.num, self.data = workload.algorithm, workload.config, num, data
        self.keys, self.calls = jax.random.split(jax.random.key(num), num), 0
        self.state = jax.tree.map(lambda leaf: jnp.stack([leaf] * num), start)

        def updates(state: Any, data: OfflineData, key: Key) -> Any:
            keys = jax.random.split(key, workload.updates)
            return jax.lax.scan(lambda s, k: algorithm.update(config, PROBLEM, s, data, k), state, keys)

        began = time.perf_counter()
        self.refresh = self.compile(partial(algorithm.refresh, config, PROBLEM))
        self.updates = self.compile(updates)
        self.compile_seconds = time.perf_counter() - began
        self.run(self.refresh)  # updates sample from the model buffer
        self.run(self.updates)

    def compile(self, one_seed: Callable[..., Any]) -> Any:
        """Compile for all seeds: they share the data and give up the old state."""
        program = jax.jit(over_members(one_seed, self.num, (0, None, 0)), donate_argnums=0)
        return program.lower(self.state, self.data, self.keys).compile()

    def run(self, program: Any) -> None:
        """One call of `refresh` or `updates` with fresh keys, waited for."""
        keys = jax.vmap(partial(jax.random.fold_in, data=self.calls))(self.keys)
        self.state, metrics = program(self.state, self.data, keys)
        self.calls += 1
        jax.block_until_ready((self.state, metrics))

    def memory_bytes(self) -> int | None:
        """What state and scratch space of an epoch occupy on the device, or None where XLA does not tell."""
        analyses = [program.memory_analysis() for program in (self.refresh, self.updates)]
        if None in analyses:
            return None
        return sum(leaf.nbytes for leaf in jax.tree.leaves(self.state)) + max(a.temp_size_in_bytes for a in analyses)


def synthetic_data(num_rows: int, seed: int = 0) -> OfflineData:
    """Rows of Hopper's shape that look alive to its termination rule."""
    rng = np.random.default_rng(seed)
    centre, spread = np.zeros(OBS_DIM), np.full(OBS_DIM, 0.5)
    centre[0], spread[0], spread[1] = 1.25, 0.05, 0.02  # height, torso angle
    obs = centre + spread * rng.standard_normal((num_rows, OBS_DIM))
    next_obs = obs + 0.1 * spread * rng.standard_normal((num_rows, OBS_DIM))
    action = rng.uniform(-1.0, 1.0, (num_rows, ACTION_DIM))
    reward = 2.0 + rng.standard_normal(num_rows)
    columns = (obs, action, reward, next_obs, np.zeros(num_rows))
    rows = Transition(*(jnp.asarray(column, jnp.float32) for column in columns))
    return OfflineData(rows, rows.obs[:100], jnp.arange(num_rows) // 1000)


def fresh_state(config: Any, data: OfflineData, algorithm: Algorithm = damo.ALGORITHM) -> Any:
    """One seed's state. A model is not fitted, but has the data's units, so that rollouts live as in training."""
    init = jax.jit(lambda key, data: algorithm.init(key, config, PROBLEM, data))  # XLA would fold a constant
    state = init(jax.random.key(0), data)
    model = getattr(state, "model", None)
    if not isinstance(model, dynamics.Dynamics):
        return state
    inputs, targets = (fit_standardiser(array) for array in dynamics.model_arrays(data.rows))
    return state._replace(model=model._replace(inputs=inputs, targets=targets))


def update_flops(config: Any, data: OfflineData, algorithm: Algorithm = damo.ALGORITHM) -> float:
    """Floating-point operations of one update of one seed: XLA's count, or 6 per weight and row where it has none."""
    state = jax.eval_shape(partial(fresh_state, config, data, algorithm))
    update = partial(algorithm.update, config, PROBLEM)
    try:
        analysis: Any = jax.jit(update).lower(state, data, jax.random.key(0)).cost_analysis()
        counted = float(analysis["flops"])
    except Exception:  # each backend has its own way of not knowing
        counted = analytic_flops(config) if algorithm is damo.ALGORITHM else 0.0
    return max(counted, product_flops(update, state, data, jax.random.key(0)))  # XLA counts a loop's body once


def analytic_flops(config: damo.Config) -> float:
    """Matrix products of one update: 2 per weight and row forward, and 2 for each of the two gradients.

    Classifier: a step and a forward pass. Twin critics: a step, and the target without gradients of its weights.
    """
    weights = lambda *sizes: sum(a * b for a, b in pairwise(sizes))
    rows, initial = config.batch_size, config.initial_batch_size
    classifier = weights(2 * OBS_DIM + ACTION_DIM, *config.classifier_hidden, 1) * 8 * rows
    actor = weights(OBS_DIM, *config.hidden, 2 * ACTION_DIM) * 6 * (rows + initial)
    critic = weights(OBS_DIM + ACTION_DIM, *config.hidden, 1) * 2 * (6 * (rows + initial) + 4 * rows)
    return float((classifier if config.data_alignment else 0) + actor + critic)


def fit_rate(workload: Workload, data: OfflineData, seconds: float) -> float:
    """Batches per second of the dynamics fit, looks at the hold-out rows included."""
    ends: list[float] = []

    def on_epoch(done: int, figures: dict[str, float]) -> None:
        ends.append(time.perf_counter())
        if len(ends) > 2 * MIN_ROUNDS and ends[-1] - ends[0] > seconds:  # the first few may compile
            raise StopIteration

    endless = replace(workload.config.dynamics, max_batches=None, epoch_batches=workload.fit_batches, patience=10**9)
    with suppress(StopIteration):
        dynamics_fit.fit_members(jax.random.key(0), endless, data.rows, on_epoch)
    return workload.fit_batches / statistics.median(np.diff(ends).tolist())


def evaluation_rate(episodes: int) -> float | None:
    """Environment steps per second of the shipped Hopper expert in the simulator; None without a simulator."""
    try:
        _ = [import_module(name) for name in ("gymnasium", "mujoco")]
    except ImportError:
        return None
    from damorl.behaviour.host_policy import act
    from damorl.behaviour.policies import load_policies
    from damorl.world.evaluate import Evaluator
    from damorl.world.tasks import find_task

    layers, evaluator = load_policies("hopper").expert, Evaluator(find_task("hopper"))
    play = lambda: evaluator.run(lambda obs: act(layers, obs, None), episodes, 0)
    steps = int(play().lengths.sum())  # opens the simulators; the next call plays the same episodes
    seconds = clock(play)
    evaluator.close()
    return steps / seconds


def run_bench(seconds: float = 3.0, quiet: bool = False, workload: Workload | None = None) -> dict[str, Any]:
    """Measure every stage for about `seconds`, after compiling. Progress goes to standard error unless `quiet`."""
    say = teller(quiet)
    workload = workload or full_workload()
    data, trainers = synthetic_data(workload.num_rows), []
    start = fresh_state(workload.config, data)
    for num in workload.num_seeds:
        say(f"compiling an epoch for {num} seed{'s' if num > 1 else ''}")
        trainers.append(Seeds(workload, data, start, num))
    matrices = {size: matrix_job(size, min(seconds / 10, 0.3)) for size in workload.matrix_sizes}
    jobs = {f"update {trainer.num}": partial(trainer.run, trainer.updates) for trainer in trainers}
    jobs |= {"rollout": partial(trainers[0].run, trainers[0].refresh)}
    jobs |= {f"matrix {size}": run for size, (run, _) in matrices.items()}
    say(f"updates, rollouts and matrix products in turns, {seconds * len(jobs):.0f} s")
    medians = interleave(jobs, seconds)
    rates = {size: flops / medians[f"matrix {size}"] for size, (_, flops) in matrices.items()}
    flops = update_flops(workload.config, data)
    say("fitting the dynamics")
    batches = fit_rate(workload, data, seconds)
    transitions = workload.config.rollout_starts * workload.config.rollout_length
    return machine() | {
        "updates": [
            update_figures(trainer, workload.updates / medians[f"update {trainer.num}"], flops, max(rates.values()))
            for trainer in trainers
        ],
        "update_gflop": flops / 1e9,
        "matrix_gflops": {str(size): rate / 1e9 for size, rate in rates.items()},
        "rollout_transitions_per_second": transitions / medians["rollout"],
        "dynamics_batches_per_second": batches,
        "evaluation_steps_per_second": evaluation_rate(workload.eval_episodes),
        "compile_seconds": trainers[0].compile_seconds,
        "peak_memory": peak_memory(),
        "batch_size": workload.config.batch_size,
        "hidden": list(workload.config.hidden),
    }


def update_figures(trainer: Seeds, per_second: float, flops: float, matrix_rate: float) -> dict[str, Any]:
    """Speed of the updates of seeds trained together, and what they occupy."""
    rate = flops * trainer.num * per_second
    return {
        "num_seeds": trainer.num,
        "per_second": per_second,
        "gflops": rate / 1e9,
        "share_of_matrix_rate": rate / matrix_rate,
        "memory_bytes": trainer.memory_bytes(),
    }


def format_bench(figures: Mapping[str, Any]) -> str:
    """The figures of `run_bench` as a table."""
    lines = [
        f"{figures['device_kind']} ({figures['backend']}), {figures['usable_cpus']} CPUs, "
        f"jax {figures['versions']['jax']}, damorl {__version__}",
        "",
        f"DAMO updates of {figures['update_gflop']:.2f} GFLOP (batch {figures['batch_size']}, {figures['hidden']}):",
    ]
    for row in figures["updates"]:
        label = f"{row['num_seeds']} seed{'s' if row['num_seeds'] > 1 else ''} together"
        lines.append(
            f"  {label:<24}{row['per_second']:>12,.1f} per second and seed, {row['gflops']:,.0f} GFLOP/s "
            f"= {100 * row['share_of_matrix_rate']:.0f} % of the matrix rate"
        )
    lines += [f"  {f'matrix product {n}':<24}{rate:>12,.1f} GFLOP/s" for n, rate in figures["matrix_gflops"].items()]
    evaluation = figures["evaluation_steps_per_second"]
    lines += [
        "",
        f"{'model rollouts':<26}{figures['rollout_transitions_per_second']:>12,.0f} transitions per second",
        f"{'dynamics fit':<26}{figures['dynamics_batches_per_second']:>12,.1f} batches per second",
        f"{'evaluation':<26}{'no simulator' if evaluation is None else f'{evaluation:>12,.0f} steps per second'}",
        f"{'compiling an epoch':<26}{figures['compile_seconds']:>12,.1f} s",
    ]
    peaks = [(f"peak {name} memory", size) for name, size in figures["peak_memory"].items() if size is not None]
    lines += [f"{label:<26}{size / 2**30:>12,.2f} GiB" for label, size in peaks]
    return "\n".join(lines)
