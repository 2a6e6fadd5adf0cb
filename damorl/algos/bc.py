"""Behaviour cloning: maximum likelihood of the dataset's actions. The reference point of every table.

With `reference_share` below 1 only the episodes of the highest returns are cloned.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax.numpy as jnp
import optax

from damorl.algos.base import Algorithm, OfflineData, Problem, no_prepare, no_refresh
from damorl.core.optim import Learner, init_learner, minimise
from damorl.parts.actor import cloning_loss, init_actor, policy
from damorl.parts.start import check_share, sample_reference
from damorl.types import Array, Key, Metrics, Params, Transition


@dataclass(frozen=True)
class Config:
    """Settings of behaviour cloning."""

    loss: Literal["nll", "mse"] = "nll"
    """`nll`: likelihood of the stochastic policy; `mse`: squared error of the deterministic action (TD3+BC's form)."""
    batch_size: int = 256
    hidden: tuple[int, ...] = (256, 256)
    learning_rate: float = 3e-4
    reference_share: float = 1.0
    """Best share of the data that is cloned: whole episodes by their return, up to this share of the rows. 1 is all of
    the data; less is percentage cloning (arXiv 2106.01345)."""

    def __post_init__(self) -> None:
        """Refuse a share that is none."""
        check_share(self.reference_share)


class State(NamedTuple):
    """Everything that changes."""

    actor: Learner


def mse_loss(params: Params, batch: Transition) -> tuple[Array, Metrics]:
    """`E ||tanh(mean(s)) - a||^2 / action_dim`."""
    loss = jnp.mean(jnp.square(policy(params, batch.obs).mode() - batch.action))
    return loss, {"actor/loss": loss}


def init(key: Key, config: Config, problem: Problem, data: OfflineData) -> State:
    """A fresh actor."""
    params = init_actor(key, problem.spec.obs_dim, problem.spec.action_dim, config.hidden)
    return State(init_learner(params, optax.adam(config.learning_rate)))


def update(config: Config, problem: Problem, state: State, data: OfflineData, key: Key) -> tuple[State, Metrics]:
    """One gradient step on a batch of offline rows."""
    batch = sample_reference(data, key, config.batch_size, config.reference_share)
    loss_fn = mse_loss if config.loss == "mse" else lambda p, rows: cloning_loss(p, rows.obs, rows.action)
    actor, metrics = minimise(lambda p: loss_fn(p, batch), state.actor, optax.adam(config.learning_rate))
    return State(actor), metrics


ALGORITHM = Algorithm("bc", Config, init, no_prepare, no_refresh, update, lambda state: state.actor.params)
