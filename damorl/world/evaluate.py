"""Playing whole episodes of a policy in the real simulator."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from damorl.errors import UserError
from damorl.types import Spec
from damorl.world.playing import Place, Simulator, advance, begin, open_simulator
from damorl.world.simulators import simulator_of
from damorl.world.task import Task

if TYPE_CHECKING:
    from damorl.world.simulators import Env

Act = Callable[[np.ndarray], np.ndarray]
"""A policy on the host, `[N, obs_dim] -> [N, action_dim]`, with actions in [-1, 1] whatever the simulator's bounds."""

WRONG_TASK = "evaluate it on the task it was trained for"
# An episode's draws beside the simulator's own, from the same seed: noise on the state, sampling, noise on actions.
NOISE_STREAM, ACTION_STREAM, DISTURBANCE_STREAM = 1, 2, 3
BLOCK = 128  # steps for which draws are made at once


class Episodes(NamedTuple):
    """What N episodes gave, in the order of their seeds."""

    returns: np.ndarray
    """Undiscounted sums of the environment's rewards, float64 `[N]`."""
    lengths: np.ndarray
    """Steps until the end, int64 `[N]`."""
    terminated: np.ndarray
    """Whether the task ended it (a fall) rather than the time limit, bool `[N]`."""


class Evaluator:
    """Simulators that are opened once and play again at every evaluation.

    The episodes advance in lockstep, so the policy is called once per step for all of them; each environment plays
    exactly one, so short episodes are not counted more often than long ones. The simulators are plain objects stepped
    in a loop: as fast as Gymnasium's SyncVectorEnv, and one that has finished costs nothing. Its row stays in the
    policy's batch, whose shape is therefore constant: a jitted policy compiles once, and the rounding of a row does
    not depend on who else is still running.
    """

    def __init__(
        self,
        task: Task,
        spec: Spec | None = None,
        change: Callable[[Env], None] | None = None,
        action_noise: float = 0.0,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """`spec` holds the policy's dimensions; `UserError` if the task's differ, or if it has no simulator.

        `change` is done to each simulator when it is opened (see `damorl.world.physics`). `action_noise` is the
        standard deviation of Gaussian noise on the actions in [-1, 1], which are then clipped. `options` go to
        `gymnasium.make`.
        """
        simulator_of(task)
        if spec is not None and spec != task.spec:
            raise UserError(
                f"the policy does not fit the task {task.name!r}: expected {task.obs_dim} observations and "
                f"{task.action_dim} actions, found {spec.obs_dim} and {spec.action_dim}; {WRONG_TASK}"
            )
        self.task = task
        self.change, self.action_noise, self.options = change, action_noise, options or {}
        self.simulators: list[Simulator] = []

    @property
    def envs(self) -> list[Any]:
        """The environments that are open."""
        return [simulator.env for simulator in self.simulators]

    def run(
        self,
        act: Act,
        num_episodes: int,
        seed: int,
        noise: float = 0.0,
        obs_std: np.ndarray | None = None,
        on_reward: Callable[[np.ndarray], None] | None = None,
    ) -> Episodes:
        """Play `num_episodes` episodes; number i is reset with `seed + i`. The same arguments give the same numbers.

        With `noise` > 0 the policy sees `obs + noise * obs_std * standard normal` (`obs_std` is `[obs_dim]`); the
        simulator does not. `on_reward` is told each step's rewards, `[num_episodes]`, 0 where an episode is over: a
        policy with a memory may want them. Raises `UserError` for unusable arguments, for actions of the wrong shape
        or not finite, and, with episode and step, for a simulator that breaks the rules (`playing.advance`).
        """
        if num_episodes < 1 or seed < 0:
            raise UserError(
                f"cannot evaluate: expected at least 1 episode and a seed of 0 or more, found {num_episodes} and "
                f"{seed}; pass for example --episodes 10"
            )
        measure = measurement(noise, obs_std, self.task.obs_dim, range(seed, seed + num_episodes))
        disturb = disturbance(self.action_noise, self.task.action_dim, range(seed, seed + num_episodes))
        self.simulators += [self.opened() for _ in range(num_episodes - len(self.simulators))]
        place = lambda i, step: Place(i + 1, seed + i, step)
        obs = np.stack([begin(self.simulators[i], place(i, 0)) for i in range(num_episodes)])
        returns, lengths = np.zeros(num_episodes), np.zeros(num_episodes, np.int64)
        terminated, truncated = np.zeros(num_episodes, bool), np.zeros(num_episodes, bool)
        running = np.arange(num_episodes)
        while running.size:
            action = disturb(self.checked(np.asarray(act(measure(obs))), num_episodes))
            reward = np.zeros(num_episodes)
            for i in running:
                at = place(i, int(lengths[i]) + 1)
                obs[i], reward[i], terminated[i], truncated[i] = advance(self.simulators[i], action[i], at)
            returns += reward
            if on_reward is not None:
                on_reward(reward)
            lengths[running] += 1
            running = np.flatnonzero(~(terminated | truncated))
        return Episodes(returns, lengths, terminated)

    def opened(self) -> Simulator:
        """A new simulator of the task, changed."""
        simulator = open_simulator(self.task, **self.options)
        if self.change is not None:
            self.change(simulator.env)
        return simulator

    def checked(self, action: np.ndarray, num_episodes: int) -> np.ndarray:
        """The actions, if the simulator can take them."""
        expected = (num_episodes, self.task.action_dim)
        if action.shape != expected:
            raise UserError(
                f"the policy does not fit the task {self.task.name!r}: expected actions of shape {expected}, "
                f"found {action.shape}; {WRONG_TASK}"
            )
        if not np.isfinite(action).all():
            raise UserError(
                "the policy cannot be evaluated: expected finite actions, found NaN or infinity; "
                "its training has diverged, evaluate an earlier checkpoint"
            )
        return action

    def close(self) -> None:
        """Let the simulators go."""
        for simulator in self.simulators:
            simulator.env.close()


def evaluate(
    task: Task, act: Act, num_episodes: int, seed: int, noise: float = 0.0, obs_std: np.ndarray | None = None
) -> Episodes:
    """Open simulators, play once and close them: see `Evaluator.run`."""
    evaluator = Evaluator(task)
    try:
        return evaluator.run(act, num_episodes, seed, noise, obs_std)
    finally:
        evaluator.close()


def measurement(
    noise: float, obs_std: np.ndarray | None, obs_dim: int, seeds: Sequence[int]
) -> Callable[[np.ndarray], np.ndarray]:
    """What the policy sees of the states `[N, obs_dim]`: a copy, or with Gaussian noise, one stream per episode."""
    if noise == 0.0:
        return np.copy
    if not 0.0 < noise < np.inf:
        raise UserError(f"cannot evaluate: expected a noise of 0 or more, found {noise}; pass for example --noise 0.1")
    if obs_std is None or obs_std.shape != (obs_dim,):
        raise UserError(
            f"cannot add measurement noise: expected the standard deviations of {obs_dim} features, found "
            f"{'none' if obs_std is None else obs_std.shape}; take them from the dataset of the same task"
        )
    scale, draws = noise * obs_std, _normal_draws(seeds, NOISE_STREAM, obs_dim)
    return lambda obs: obs + scale * next(draws)


def disturbance(noise: float, action_dim: int, seeds: Sequence[int]) -> Callable[[np.ndarray], np.ndarray]:
    """What the simulator is given for actions in [-1, 1]: the same, or with Gaussian noise, one stream per episode."""
    if noise == 0.0:
        return lambda action: action
    draws = _normal_draws(seeds, DISTURBANCE_STREAM, action_dim)
    return lambda action: np.clip(action + noise * next(draws), -1.0, 1.0)


def action_draws(task: Task, num_episodes: int, seed: int) -> Iterator[np.ndarray]:
    """Standard normal float32 `[num_episodes, action_dim]`, one for each step of an `Evaluator.run` that samples.

    Row i is drawn from its own stream, of `seed + i`: that episode is the same whatever episodes run beside it, but
    for how the policy's arithmetic rounds in batches of other sizes. Make new ones for each run, for example
    `draws = action_draws(task, 10, 0)` and then `evaluator.run(lambda obs: squash(layers, obs, next(draws)), 10, 0)`.
    """
    return _normal_draws(range(seed, seed + num_episodes), ACTION_STREAM, task.action_dim, np.float32)


def _normal_draws(
    seeds: Sequence[int], stream: int, dim: int, dtype: type[np.floating] = np.float64
) -> Iterator[np.ndarray]:
    rngs = [np.random.default_rng((seed, stream)) for seed in seeds]
    while True:
        yield from np.stack([rng.standard_normal((BLOCK, dim), dtype) for rng in rngs], axis=1)
