"""Advantage-weighted cloning, after AWR (arXiv 1910.00177, Algorithm 1).

V is fitted to the data by TD(0), and the data's actions are cloned with weight `min(exp(A / temperature), max_weight)`,
where `A = r + gamma V(s') - V(s)`. Deviations from the paper: V and A are TD(0), not TD(lambda) of whole episodes; one
gradient step of each part per update.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp

from damorl.algos.base import Algorithm, OfflineData, Problem, no_prepare, no_refresh
from damorl.core.buffer import sample_rows
from damorl.core.optim import Learner, adam, init_learner, minimise, polyak
from damorl.parts.actor import cloning_loss, init_actor
from damorl.parts.value import init_value, v_min
from damorl.types import REWARD_UNIT, Array, Key, Metrics, Params


@dataclass(frozen=True)
class Config:
    """Settings; each is an option of `damorl train awc`."""

    temperature: float = field(default=1.0, metadata=REWARD_UNIT)
    """The paper's beta, in units of reward: the lower, the more the better actions are preferred."""
    max_weight: float = 20.0
    """Highest weight of a row (released code)."""
    gamma: float = 0.99
    """Discount."""
    tau: float = 0.005
    """Polyak rate of the target of V."""
    batch_size: int = 256
    """Rows per update."""
    hidden: tuple[int, ...] = (64, 64)
    """Hidden widths of both networks."""
    learning_rate: float = 3e-4
    """Rate of both Adams."""


class State(NamedTuple):
    """Everything that changes."""

    actor: Learner
    value: Learner
    target_value: Params


def init(key: Key, config: Config, problem: Problem, data: OfflineData) -> State:
    """Fresh networks."""
    actor_key, value_key = jax.random.split(key)
    actor = init_actor(actor_key, *problem.spec, config.hidden)
    value = init_value(value_key, problem.spec.obs_dim, config.hidden, num_values=1)
    optimiser = adam(config.learning_rate)
    return State(init_learner(actor, optimiser), init_learner(value, optimiser), jax.tree.map(jnp.copy, value))


def weights(config: Config, advantage: Array) -> Array:
    """`min(exp(A / temperature), max_weight)`, `[B]`."""
    return jnp.minimum(jnp.exp(advantage / config.temperature), config.max_weight)


def value_loss(value: Params, obs: Array, target: Array) -> tuple[Array, Metrics]:
    """Mean squared error of V(s) to the TD(0) target, `[B]`."""
    loss = jnp.mean(jnp.square(v_min(value, obs) - target))
    return loss, {"value/loss": loss}


def update(config: Config, problem: Problem, state: State, data: OfflineData, key: Key) -> tuple[State, Metrics]:
    """One gradient step of V and one of the actor, on the same rows."""
    batch, optimiser = sample_rows(data.rows, key, config.batch_size), adam(config.learning_rate)
    target = batch.reward + config.gamma * (1.0 - batch.terminal) * v_min(state.target_value, batch.next_obs)
    weight = weights(config, target - v_min(state.value.params, batch.obs))
    value, value_metrics = minimise(lambda p: value_loss(p, batch.obs, target), state.value, optimiser)
    actor, metrics = minimise(lambda p: cloning_loss(p, batch.obs, batch.action, weight), state.actor, optimiser)
    metrics |= value_metrics | {"actor/weight": jnp.mean(weight)}
    return State(actor, value, polyak(state.target_value, value.params, config.tau)), metrics


ALGORITHM = Algorithm("awc", Config, init, no_prepare, no_refresh, update, lambda state: state.actor.params)
