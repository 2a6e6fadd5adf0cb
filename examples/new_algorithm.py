"""Critic-regularised regression in its binary form (arXiv 2006.15134): clone what the critic prefers to the policy.

critic   min_Q   E[(Q(s, a) - r - gamma (1 - terminal) min_j Q'_j(s', a'))^2],  a' ~ pi(s')
actor    max_pi  E[1{min_j Q_j(s, a) > min_j Q_j(s, a~)} log pi(a|s)],  a~ ~ pi(s)

Deviations from the paper: one action a~ in the place of a mean over several; two critics, of which the lower counts.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

import damorl
from damorl.algos import ALGORITHMS
from damorl.algos.base import Algorithm, no_prepare, no_refresh
from damorl.core.buffer import sample_rows
from damorl.core.optim import Learner, adam, init_learner, minimise, polyak
from damorl.parts.actor import cloning_loss, init_actor, policy
from damorl.parts.critic import init_critic, q_min, q_values
from damorl.types import Params


@dataclass(frozen=True)
class Config:
    gamma: float = 0.99
    tau: float = 0.005
    batch_size: int = 256
    hidden: tuple[int, ...] = (64, 64)
    learning_rate: float = 3e-4


class State(NamedTuple):
    actor: Learner
    critic: Learner
    target_critic: Params


def init(key, config, problem, data):
    actor_key, critic_key = jax.random.split(key)
    actor = init_actor(actor_key, *problem.spec, config.hidden)
    critic = init_critic(critic_key, *problem.spec, config.hidden)
    tx = adam(config.learning_rate)
    return State(init_learner(actor, tx), init_learner(critic, tx), jax.tree.map(jnp.copy, critic))


def critic_loss(critic, batch, target):
    loss = jnp.mean(jnp.square(q_values(critic, batch.obs, batch.action) - target))
    return loss, {"critic/loss": loss}


def update(config, problem, state, data, key):
    row_key, next_key, own_key = jax.random.split(key, 3)
    batch, tx = sample_rows(data.rows, row_key, config.batch_size), adam(config.learning_rate)
    next_action, _ = policy(state.actor.params, batch.next_obs).sample(next_key)
    next_value = q_min(state.target_critic, batch.next_obs, next_action)
    target = batch.reward + config.gamma * (1.0 - batch.terminal) * next_value
    critic, metrics = minimise(lambda params: critic_loss(params, batch, target), state.critic, tx)
    own_action, _ = policy(state.actor.params, batch.obs).sample(own_key)
    theirs, ours = (q_min(critic.params, batch.obs, action) for action in (batch.action, own_action))
    better = (theirs > ours).astype(jnp.float32)
    actor, found = minimise(lambda params: cloning_loss(params, batch.obs, batch.action, better), state.actor, tx)
    metrics |= found | {"actor/cloned": jnp.mean(better)}
    return State(actor, critic, polyak(state.target_critic, critic.params, config.tau)), metrics


CRR = Algorithm("crr", Config, init, no_prepare, no_refresh, update, lambda state: state.actor.params)

if __name__ == "__main__":
    ALGORITHMS["crr"] = CRR
    print(damorl.train("crr", "inverted_double_pendulum-medium-replay", seeds=(0, 1, 2)).summary["last_10_mean"])
