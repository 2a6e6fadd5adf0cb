"""A finished run with everything in it: data, model, critic and policies, and the samples that they give."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from damorl.algos.base import OfflineData, Problem
from damorl.behaviour.collect import collect_episode
from damorl.behaviour.host_policy import NumpyPolicy
from damorl.core.buffer import sample_rows
from damorl.data.datasets import Dataset
from damorl.errors import UserError
from damorl.experiment.config import RunConfig
from damorl.experiment.inputs import make_problem, to_device
from damorl.experiment.result import load_layers
from damorl.experiment.train import init_state
from damorl.experiment.units import in_units, observer, own_rows
from damorl.paper.measure import Grouped
from damorl.parts.actor import policy
from damorl.parts.critic import q_values
from damorl.parts.dynamics import Dynamics, sample_step
from damorl.parts.rollout import rollout
from damorl.record import checkpoint
from damorl.types import Array, Key, Params, Transition
from damorl.world.simulators import make_env
from damorl.world.task import Task

ROLLOUT_STREAM = 2 * 10**9  # training folds in its epochs, selection other numbers
PLAY_STREAM = 3


class Samples(NamedTuple):
    """Transitions, each with the episode or rollout that it belongs to."""

    obs: np.ndarray
    action: np.ndarray
    next_obs: np.ndarray
    group: np.ndarray

    def take(self, index: np.ndarray) -> Samples:
        """Some of the rows."""
        return Samples(*(column[index] for column in self))

    def states(self) -> Grouped:
        """`[N, obs_dim]`."""
        return Grouped(self.obs, self.group)

    def pairs(self) -> Grouped:
        """(s, a), `[N, obs_dim + action_dim]`."""
        return Grouped(np.concatenate([self.obs, self.action], axis=1), self.group)

    def triples(self) -> Grouped:
        """(s, a, s')."""
        return Grouped(np.concatenate([self.obs, self.action, self.next_obs], axis=1), self.group)


def at_most(samples: Samples, count: int, seed: int) -> Samples:
    """`count` random rows in their order, or all if there are fewer."""
    order = np.random.default_rng(seed).permutation(len(samples.obs))[:count]
    return samples.take(np.sort(order))


def offline_halves(dataset: Dataset) -> tuple[Samples, Samples]:
    """The data's even episodes, and its odd ones."""
    rows, episode = dataset.transitions, np.cumsum(dataset.episode_start) - 1
    every = Samples(*map(np.asarray, (rows.obs, rows.action, rows.next_obs)), group=episode)
    return every.take(episode % 2 == 0), every.take(episode % 2 == 1)


class Trained(NamedTuple):
    """A finished run, restored from its last checkpoint."""

    config: RunConfig
    run_dir: Path
    dataset: Dataset
    problem: Problem
    data: OfflineData
    """These two, and all that is in the state, in the units that the run worked in."""
    state: Any
    """Of all seeds, stacked."""

    def seed_state(self, index: int) -> Any:
        """The state of the seed at `index`."""
        return jax.tree.map(lambda leaf: leaf[index], self.state)

    def layers(self, index: int) -> NumpyPolicy:
        """The policy that is scored, on the host."""
        return load_layers(self.run_dir, self.config.seeds[index])

    @property
    def task(self) -> Task:
        """The task with its simulator. UserError without."""
        if self.dataset.task is None or self.dataset.task.env_id is None:
            raise UserError(f"{self.dataset.name}: expected data of a task with a simulator, found none; choose others")
        return self.dataset.task


def restore(config: RunConfig, run_dir: Path, dataset: Dataset, warn: Callable[[str], None]) -> Trained:
    """The run of `config` in `run_dir`. UserError without a sound checkpoint."""
    work = in_units(config, make_problem(dataset), to_device(dataset))
    template = jax.eval_shape(partial(init_state, *work))
    found = checkpoint.restore(run_dir / "checkpoint", template, {"config": config.digest()}, warn)
    if found is None:
        raise UserError(f"{run_dir}: expected the run's last checkpoint, found none; remove the run and train it again")
    return Trained(config, run_dir, dataset, work.problem, work.data, found[0])


def synthetic(trained: Trained, index: int, count: int) -> Samples:
    """At least `count` transitions, if none end early: the scored policy in the run's own model, from dataset states.

    Rollouts branch and end as in training. UserError for an algorithm without a dynamics model.
    """
    state, config = trained.seed_state(index), trained.config.algo_config
    model = getattr(state, "model", None)
    if model is None:
        raise UserError(f"{trained.config.algo} has no dynamics model, so there are no synthetic data to show")
    elites = model.params.layers[0].kernel.shape[0]
    length = config.rollout_length
    starts = elites * -(-count // (elites * length))
    key = jax.random.fold_in(jax.random.key(trained.config.seeds[index]), ROLLOUT_STREAM)
    actor = trained.config.algorithm.actor(state)
    shape = Shape(starts, length, config.rollout_noise)
    rows, keep = imagine(trained.problem, shape, model, actor, trained.data.rows, key)
    rows, kept = own_rows(rows, trained.data.units), np.asarray(keep)
    columns = (np.asarray(column)[kept] for column in (rows.obs, rows.action, rows.next_obs))
    return Samples(*columns, group=np.tile(np.arange(starts), length)[kept])


class Shape(NamedTuple):
    """Rollouts: how many, how long, and whether they sample the model's noise."""

    starts: int
    length: int
    noise: bool


@partial(jax.jit, static_argnames=("problem", "shape"))
def imagine(
    problem: Problem, shape: Shape, model: Dynamics, actor: Params, rows: Transition, key: Key
) -> tuple[Transition, Array]:
    """`[length * starts]` rows and which of them count; compiled once for all runs of one shape."""
    start_key, rollout_key = jax.random.split(key)
    start_obs = sample_rows(rows, start_key, shape.starts).obs
    act = lambda obs, k: policy(actor, obs).sample(k)[0]
    world = partial(sample_step, model, noise=shape.noise)
    found, keep, _ = rollout(world, act, problem.termination, start_obs, rollout_key, shape.length)
    return found, keep


def real(trained: Trained, index: int, episodes: int) -> Samples:
    """Whole episodes of the scored policy in the simulator, from its start states, actions sampled as in the model."""
    rng = np.random.default_rng((trained.config.seeds[index], PLAY_STREAM))
    env = make_env(trained.task)
    played = [collect_episode(env, trained.layers(index), rng) for _ in range(episodes)]
    env.close()
    columns = ("observations", "actions", "next_observations")
    joined = (np.concatenate([rows[name] for rows in played]) for name in columns)
    return Samples(*joined, group=np.repeat(np.arange(episodes), [len(rows["rewards"]) for rows in played]))


def critic_values(trained: Trained, index: int, obs: np.ndarray, action: np.ndarray) -> np.ndarray:
    """The critics' mean Q at `[N]` pairs, in and out in the data's units. UserError for one without a critic."""
    critic = getattr(trained.seed_state(index), "critic", None)
    if critic is None:
        raise UserError(f"{trained.config.algo} has no critic, so there are no values to show")
    observed, units = jnp.asarray(obs, jnp.float32), trained.data.units
    observed = observed if units is None else observer(units).apply(observed)
    values = np.asarray(jnp.mean(q_values(critic.params, observed, jnp.asarray(action, jnp.float32)), axis=0))
    return values.astype(np.float64) / (1.0 if units is None else float(units.reward_factor))
