"""Policies that plan: played with one compiled call per step for all episodes, and loaded from a run directory."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from damorl.algos.base import Algorithm, OfflineData, Problem
from damorl.errors import UserError
from damorl.experiment.algorithms import find_algorithm
from damorl.experiment.config import from_dict
from damorl.experiment.result import load_arrays
from damorl.record import store
from damorl.record.checkpoint import named_leaves
from damorl.types import Spec, Transition
from damorl.world.evaluate import Episodes, Evaluator
from damorl.world.tasks import never_ended


class Player:
    """A planner beside running episodes that begin together: it remembers, and is told the rewards."""

    def __init__(self, algorithm: Algorithm, config: Any, spec: Spec, actor: Any) -> None:
        """`actor` is what `algorithm.actor` found in a state, of one seed."""
        assert algorithm.planner is not None
        self.planner, self.config, self.spec = algorithm.planner, config, spec
        self.actor = jax.tree.map(jnp.asarray, actor)
        self.plans = 0
        """Calls of the compiled planner so far."""

    def reset(self, num_episodes: int, seed: int) -> None:
        """Forget everything; episode i draws from the seed `seed + i`, whatever episodes are beside it."""
        self.memory = self.planner.begin(self.config, self.spec, num_episodes)
        self.keys = jax.vmap(jax.random.key)(jnp.arange(seed, seed + num_episodes))
        self.reward = jnp.zeros(num_episodes)

    def act(self, obs: np.ndarray) -> np.ndarray:
        """The next actions of all episodes, `[N, obs_dim] -> [N, action_dim]`."""
        self.plans += 1
        action, self.memory = compiled_act(
            self.planner, self.config, self.actor, self.memory, jnp.asarray(obs, jnp.float32), self.reward, self.keys
        )
        return np.asarray(action)

    def told(self, reward: np.ndarray) -> None:
        """The rewards of the last actions, `[N]`."""
        self.reward = jnp.asarray(reward, jnp.float32)

    def play(
        self, evaluator: Evaluator, num_episodes: int, seed: int, noise: float = 0.0, obs_std: np.ndarray | None = None
    ) -> Episodes:
        """Play whole episodes: `Evaluator.run` with this policy, from a clean memory."""
        self.reset(num_episodes, seed)
        return evaluator.run(self.act, num_episodes, seed, noise, obs_std, on_reward=self.told)


@partial(jax.jit, static_argnums=(0, 1))
def compiled_act(planner: Any, config: Any, actor: Any, memory: Any, obs: Any, reward: Any, keys: Any) -> Any:
    """`planner.act`, compiled once per settings and number of episodes."""
    return planner.act(config, actor, memory, obs, reward, keys)


def load_player(run_dir: Path | str, seed: int | None = None, step: int | None = None) -> Player:
    """The planner of one seed (the first by default) of a run, after the last evaluation or at a kept `step`.

    UserError if there is none, or if the run's algorithm does not plan.
    """
    run_dir = Path(run_dir)
    config = store.read_json(run_dir / store.CONFIG)
    algorithm = find_algorithm(config["algo"])
    if algorithm.planner is None:
        raise UserError(f"{run_dir}: expected a run that plans, found {config['algo']}: use damorl.load_policy")
    settings = from_dict(algorithm.config_type, config["algo_config"])
    spec = Spec(len(config["data"]["obs_mean"]), len(config["data"]["action_low"]))
    template = actor_template(algorithm, settings, spec)
    arrays, chosen = load_arrays(run_dir, seed, step)
    leaves = [jnp.asarray(arrays[f"{chosen.key}/{name}"]) for name in named_leaves(template)]
    return Player(algorithm, settings, spec, jax.tree.unflatten(jax.tree.structure(template), leaves))


def actor_template(algorithm: Algorithm, settings: Any, spec: Spec) -> Any:
    """The shapes of what the algorithm acts with, which no data change."""
    row = lambda *shape: jnp.zeros((2, *shape))
    rows = Transition(row(spec.obs_dim), row(spec.action_dim), row(), row(spec.obs_dim), row())
    data = OfflineData(rows, row(spec.obs_dim), jnp.zeros(2, jnp.int32))
    make = lambda data: algorithm.actor(algorithm.init(jax.random.key(0), settings, Problem(spec, never_ended), data))
    return jax.eval_shape(make, data)
