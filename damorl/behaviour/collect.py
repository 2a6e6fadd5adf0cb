"""Whole episodes from the real simulator, by processes that load neither JAX nor the caller's program."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import types
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import connection, current_process, get_context, parent_process
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from damorl.behaviour.host_policy import NumpyPolicy, log_density, squash

Rows = dict[str, np.ndarray]
"""Columns of equal length under D4RL's names."""

SINGLE_THREAD = {
    name: "1" for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
}


class Shard(NamedTuple):
    """One worker's errand: episodes of one policy, all their randomness from one seed."""

    env_id: str
    max_episode_steps: int
    layers: NumpyPolicy | None
    """None: uniformly random actions."""
    num_steps: int
    """Episodes are begun until there are at least that many rows."""
    seed: np.random.SeedSequence


def run_shards(shards: Sequence[Shard], workers: int) -> Iterator[Rows]:
    """The rows of each shard, in order, from `workers` processes.

    Even one worker is a process of its own, so that the arithmetic is the same for any number of them. Only where this
    process may start none does it do the work itself, with a warning that says why.
    """
    reason = why_alone()
    if reason is not None:
        warnings.warn(f"this process collects the episodes by itself, on one core: {reason}", stacklevel=2)
        yield from map(collect_shard, shards)
        return
    with ProcessPoolExecutor(min(workers, len(shards)), get_context("spawn"), end_with_starter) as pool:
        with plain_children():
            results = pool.map(collect_shard, shards)
        yield from results


def why_alone() -> str | None:
    """What keeps this process from starting others; None if nothing does."""
    if current_process().daemon:
        return "it is a daemonic process of multiprocessing, which may not start others"
    if not sys.executable:
        return "the interpreter is part of another program"
    try:
        get_context("spawn").Lock()
    except (ImportError, OSError) as error:
        return f"the system gives it no semaphores ({error})"
    return None


@contextmanager
def plain_children() -> Iterator[None]:
    """Processes spawned meanwhile use one BLAS thread each and do not import the caller's main module.

    Without the latter, a script that builds a data set outside `if __name__ == "__main__"` would start itself again.
    """
    main, environment = sys.modules["__main__"], os.environ.copy()
    sys.modules["__main__"] = types.ModuleType("__main__")
    os.environ.update(SINGLE_THREAD)
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        for name in SINGLE_THREAD:
            os.environ.pop(name)
        os.environ.update(environment)


def end_with_starter() -> None:
    """On Ctrl-C, which reaches every process of the terminal, a worker goes at once and without a traceback.

    It also goes when its starter was killed, which no message tells it: it would wait for errands for ever.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    starter = parent_process()
    if starter is not None:
        threading.Thread(target=leave_after, args=(starter.sentinel,), daemon=True).start()


def leave_after(sentinel: int) -> None:
    """Wait for the end of the process behind `sentinel`, and leave."""
    connection.wait([sentinel])
    os._exit(1)


def collect_shard(shard: Shard) -> Rows:
    """Whole episodes, one after another, at least `shard.num_steps` rows."""
    rng = np.random.default_rng(shard.seed)
    env = open_silently(shard.env_id, shard.max_episode_steps)
    episodes, num_rows = [], 0
    while num_rows < shard.num_steps:
        episodes.append(collect_episode(env, shard.layers, rng))
        num_rows += len(episodes[-1]["rewards"])
    env.close()
    return concatenate(episodes)


def open_silently(env_id: str, max_episode_steps: int) -> gymnasium.Env[np.ndarray, np.ndarray]:
    """Open a simulator without remarks: the parent process has opened the same one and passed them on."""
    mujoco: Any = importlib.import_module("mujoco")  # its callbacks are in no type stub
    previous = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda remark: None)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return gymnasium.make(env_id, max_episode_steps=max_episode_steps, disable_env_checker=True)
    finally:
        mujoco.set_mju_user_warning(previous)


def collect_episode(env: gymnasium.Env, layers: NumpyPolicy | None, rng: np.random.Generator) -> Rows:
    """One episode in D4RL's columns; `infos/qpos` and `infos/qvel` are the simulator's state before the action.

    They stay in double precision: rounded to single, a state next to a contact can step elsewhere (measured: 0.3 off
    in Walker2d), while from these every row replays to the last digit.
    """
    noise = draw_noise(env, layers, rng)
    simulator: Any = env.unwrapped
    obs, _ = env.reset(seed=int(rng.integers(2**31)))
    steps, ended = [], False
    while not ended:
        action = noise[len(steps)] if layers is None else squash(layers, obs, noise[len(steps)])
        state = simulator.data.qpos.copy(), simulator.data.qvel.copy()
        next_obs, reward, terminated, truncated, _ = env.step(action)
        # A fall on the very last step counts as the time limit, as in D4RL.
        steps.append((obs, action, reward, next_obs, terminated and not truncated, truncated, *state))
        obs, ended = next_obs, terminated or truncated
    return to_columns(steps, layers, noise[: len(steps)])


def draw_noise(env: gymnasium.Env, layers: NumpyPolicy | None, rng: np.random.Generator) -> np.ndarray:
    """An episode's randomness, `[max_episode_steps, action_dim]`: normal for a policy, uniform actions without one."""
    assert env.spec is not None
    assert env.action_space.shape is not None
    shape = (env.spec.max_episode_steps or 0, *env.action_space.shape)
    return (
        rng.uniform(-1.0, 1.0, shape).astype(np.float32) if layers is None else rng.standard_normal(shape, np.float32)
    )


COLUMNS = (
    ("observations", np.float32),
    ("actions", np.float32),
    ("rewards", np.float32),
    ("next_observations", np.float32),
    ("terminals", np.bool_),
    ("timeouts", np.bool_),
    ("infos/qpos", np.float64),
    ("infos/qvel", np.float64),
)


def to_columns(steps: list[tuple[Any, ...]], layers: NumpyPolicy | None, noise: np.ndarray) -> Rows:
    """Turn step tuples in the order of `COLUMNS` into arrays, and add the log densities of the actions."""
    columns = zip(COLUMNS, zip(*steps, strict=True), strict=True)
    rows = {name: np.asarray(values, dtype) for (name, dtype), values in columns}
    if layers is None:
        log_prob = np.full(len(steps), -noise.shape[1] * np.log(2.0))
    else:
        log_prob = log_density(layers, rows["observations"], noise)
    return rows | {"infos/action_log_probs": log_prob.astype(np.float32)}


def concatenate(parts: Sequence[Rows]) -> Rows:
    """Join columns end to end. The parts are emptied on the way, so that no more than a column is held twice."""
    return {name: np.concatenate([part.pop(name) for part in parts]) for name in tuple(parts[0])}
