"""The contract of a task."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax.numpy as jnp
import numpy as np

from damorl.errors import UserError
from damorl.testing.expect import expect
from damorl.world.task import Task, check_termination
from damorl.world.tasks import check_name, make_env

if TYPE_CHECKING:
    from damorl.world.simulators import Env


class Played(NamedTuple):
    """Random steps in a simulator, `[N, ...]`."""

    obs: np.ndarray
    action: np.ndarray
    """In [-1, 1]."""
    reward: np.ndarray
    next_obs: np.ndarray
    terminated: np.ndarray
    """The simulator's own flag."""
    truncated: np.ndarray


def check_task(task: Task, num_steps: int = 300) -> None:
    """Hold a task to what the library asks of one.

    - Its name is well-formed, and its two reference returns are ordered, or neither is given.
    - Its termination function works under JAX, judges each state by itself, and calls every state that is not
      finite ended, for a learned model may predict one.
    - If it has a simulator: sizes, action bounds and time limit are the simulator's, an episode from the same seed is
      the same, and the termination function agrees with the simulator's own flag on `num_steps` uniformly random steps.

    AssertionError with the first of these that it breaks.
    """
    try:
        check_name(task.name)
        check_termination(task)
        env = None if task.env_id is None else make_env(task)
    except UserError as error:
        raise AssertionError(str(error)) from error
    references = (task.reference_min, task.reference_max)
    expect(
        references == (None, None) or (None not in references and references[0] < references[1]),  # type: ignore[operator]
        f"task {task.name!r}: expected reference_min below reference_max, or neither, found {references}",
    )
    check_states(task)
    if env is not None:
        first, again = (played(task, env, num_steps) for _ in range(2))
        env.close()
        for name, values, others in zip(Played._fields, first, again, strict=True):
            expect(np.array_equal(values, others), f"task {task.name!r}: expected the same {name} from the same seed")
        check_flags(task, first)


def ended(task: Task, obs: np.ndarray, action: np.ndarray, next_obs: np.ndarray) -> np.ndarray:
    """What the termination function says, `[N]`."""
    return np.asarray(task.termination(*(jnp.asarray(array, jnp.float32) for array in (obs, action, next_obs))))


def check_states(task: Task) -> None:
    """The termination function on states of all sizes: row by row as together, and on states that are not finite."""
    rng = np.random.default_rng(0)
    sizes = 10.0 ** rng.uniform(-2, 3, (32, 1))
    obs, next_obs = (sizes * rng.normal(size=(32, task.obs_dim)) for _ in range(2))
    action = rng.uniform(-1, 1, (32, task.action_dim))
    together = ended(task, obs, action, next_obs)
    alone = [ended(task, obs[i : i + 1], action[i : i + 1], next_obs[i : i + 1])[0] for i in range(len(obs))]
    expect(
        np.array_equal(together, alone),
        f"task {task.name!r}: expected the termination function to judge each state by itself, found that it answers "
        "otherwise for a batch than for its rows; reduce over the last axis only",
    )
    for value in (np.nan, np.inf, -np.inf):
        broken = np.where(np.eye(task.obs_dim, dtype=bool), value, 0.0)  # one feature each
        finite = np.zeros_like(broken)
        flags = ended(task, finite, np.zeros((task.obs_dim, task.action_dim)), broken)
        expect(
            flags.all(),
            f"task {task.name!r}: expected every state that is not finite to be ended, found that {value} in feature "
            f"{np.argmin(flags)} is not; add `| ~jnp.isfinite(next_obs).all(axis=-1)`",
        )


def played(task: Task, env: Env, num_steps: int) -> Played:
    """Uniformly random steps from the seed 0 on."""
    rng, rows = np.random.default_rng(0), list[tuple[np.ndarray | float, ...]]()
    obs, _ = env.reset(seed=0)
    for _ in range(num_steps):
        action = rng.uniform(-1, 1, task.action_dim).astype(np.float32)
        next_obs, reward, terminated, truncated, _ = env.step(action)
        rows.append((obs, action, float(reward), next_obs, terminated, truncated))
        obs = env.reset()[0] if terminated or truncated else next_obs
    return Played(*(np.array(column) for column in zip(*rows, strict=True)))


def check_flags(task: Task, steps: Played) -> None:
    """Numbers are finite, no episode is longer than the task says, and the ends are those that the task predicts."""
    for name in ("obs", "reward", "next_obs"):
        expect(np.isfinite(getattr(steps, name)).all(), f"task {task.name!r}: expected finite {name} of its simulator")
    last = np.flatnonzero(steps.terminated | steps.truncated)
    longest = np.diff(last, prepend=-1).max(initial=0)
    expect(
        longest <= task.max_episode_steps,
        f"task {task.name!r}: expected episodes of at most {task.max_episode_steps} steps, found one of {longest}; "
        "correct max_episode_steps",
    )
    if task.termination_known:
        wrong = np.flatnonzero(ended(task, steps.obs, steps.action, steps.next_obs) != steps.terminated)
        expect(
            not wrong.size,
            f"task {task.name!r}: expected the termination function to agree with the simulator, found that it does "
            f"not in {wrong.size} of {len(steps.obs)} random steps, first at the state "
            f"{steps.next_obs[wrong[:1]].tolist()}, which the simulator calls "
            f"{'ended' if steps.terminated[wrong[:1]].any() else 'not ended'}",
        )
