"""ReBRAC: TD3+BC revisited, with a penalty of its own in the critic (arXiv 2305.09836), model-free.

    critic   min_Q   sum_j E[(Q_j(s, a) - y)^2],
             y = r + gamma (1 - terminal) (min_j Q'_j(s', a~') - critic_penalty ||a~' - a'||^2),
             a~' = clip(pi'(s') + clip(noise, -noise_clip, noise_clip), -1, 1),  noise ~ N(0, target_noise^2)
    actor    min_pi  E[actor_penalty ||pi(s) - a||^2 - min_j Q_j(s, pi(s)) / mean|min_j Q_j|]

The penalties are the paper's beta_1 (actor) and beta_2 (critic). a' is the action that the data took in s'; the squared
distances are sums over action dimensions. The mean of |min_j Q_j| is over the batch and carries no gradient. Critics
are layer-normalised and three layers deep. The actor and all targets move on every `policy_delay`-th update only.

a' is the action of the following row of the same episode. A terminal row needs none, for nothing follows. A row after
which its episode was cut (truncated, or the last of the data) has none, and takes no part in the critic's loss; the
released code leaves such rows out altogether.

Deviations from the released code: layer normalisation stands before the activations, there after them; networks start
as everywhere here, uniform in +-1/sqrt(fan_in), there with biases of 0.1 and smaller last layers; the targets follow
the new networks, there those before the step; `actor_averaging` is ours, off in the `paper` preset. The actor has the
format of all others here (mean and log deviation); its deviation is fixed at the least there is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp

from damorl.algos.base import Algorithm, OfflineData, OnProgress, Problem, no_refresh
from damorl.core.buffer import take
from damorl.core.optim import Learner
from damorl.errors import UserError
from damorl.parts import sac, td3
from damorl.parts.actor import policy
from damorl.parts.critic import init_critic, q_min
from damorl.types import REWARD_UNIT, Array, Key, Metrics, Params, Transition

TRACED = (
    *("actor_penalty", "critic_penalty", "target_noise", "noise_clip"),
    *("tau", "actor_averaging", "actor_lr", "critic_lr"),
)


@dataclass(frozen=True)
class Config:
    """Settings of ReBRAC. The defaults are the released code's for locomotion."""

    actor_penalty: float = 0.01
    """Weight of the squared distance to the data's action against the normalised value, the paper's beta_1. Tuned per
    dataset; the default is what hopper-medium has."""
    critic_penalty: float = field(default=0.01, metadata=REWARD_UNIT)
    """Weight of the squared distance between next actions in the target, the paper's beta_2. Tuned per dataset; the
    default is what hopper-medium has."""
    policy_delay: int = 2
    """Critic updates per update of actor and targets."""
    target_noise: float = 0.2
    """Deviation of the noise on the target's action."""
    noise_clip: float = 0.5
    """Bound of that noise."""
    critic_layer_norm: bool = True
    """Layer normalisation in the critics."""
    gamma: float = 0.99
    """Discount."""
    tau: float = 0.005
    """Polyak rate of the target networks."""
    batch_size: int = 1024
    """Rows per update."""
    hidden: tuple[int, ...] = (256, 256, 256)
    """Hidden widths of actor and critics."""
    actor_lr: float = 1e-3
    """Rate of the actor's Adam."""
    actor_averaging: float = 1.0
    """Polyak rate, per update, of the actor that is evaluated and saved: 1 is the actor itself. Ours, as in DAMO."""
    critic_lr: float = 1e-3
    """Rate of the critics' Adam."""


class State(NamedTuple):
    """Everything that changes."""

    actor: Learner
    average_actor: Params
    """What is evaluated: see `Config.actor_averaging`."""
    target_actor: Params
    critic: Learner
    target_critic: Params
    step: Array
    """Updates made, int32 scalar."""


def init(key: Key, config: Config, problem: Problem, data: OfflineData) -> State:
    """Fresh networks."""
    actor_key, critic_key = jax.random.split(key)
    actor = td3.init_deterministic_actor(actor_key, *problem.spec, config.hidden)
    critic = init_critic(critic_key, *problem.spec, config.hidden, layer_norm=config.critic_layer_norm)
    return State(**td3.begin(config, actor, critic))


def prepare(
    key: Key, config: Config, problem: Problem, state: State, data: OfflineData, on_progress: OnProgress
) -> State:
    """`state` as it is. UserError for data in which no row has a next action: the critic would learn nothing."""
    if data.episode is None or not bool(jnp.any(next_action(data, jnp.arange(data.episode.shape[0]))[1])):
        raise UserError(
            "rebrac: expected rows in the order of time, of which some are followed by the next row of their episode, "
            "found none: its critic needs the data's next actions; use td3bc for rows that stand alone"
        )
    return state


def next_action(data: OfflineData, index: Array) -> tuple[Array, Array]:
    """The data's action after each of the rows `index` `[B]`: `[B, action_dim]`, and whether there is one, bool `[B]`;
    where there is none, it is another row's."""
    assert data.episode is not None
    following = jnp.minimum(index + 1, data.episode.shape[0] - 1)
    known = (following > index) & (data.episode[following] == data.episode[index])
    return data.rows.action[following], known


def squared_distance(action: Array, other: Array) -> Array:
    """The sum over action dimensions, `[B]`."""
    return jnp.sum(jnp.square(action - other), axis=-1)


def td_target(config: Config, state: State, batch: Transition, after: Array, key: Key) -> Array:
    """`y` of the module's first lines, `[B]`, with the data's next action `after`; no network in it is the one that
    learns."""
    action = td3.smoothed_action(config, state.target_actor, batch.next_obs, key)
    next_value = q_min(state.target_critic, batch.next_obs, action)
    next_value = next_value - config.critic_penalty * squared_distance(action, after)
    return batch.reward + config.gamma * (1.0 - batch.terminal) * next_value


def critic_weight(terminal: Array, known: Array) -> Array:
    """Weight of each row in the critic's loss, `[B]`, of mean 1: 0 for a row that is cut, the same for all others."""
    taken = jnp.where(known | (terminal > 0.5), 1.0, 0.0)
    return taken / jnp.maximum(jnp.mean(taken), 1.0 / taken.shape[0])


def actor_loss(actor: Params, critic: Params, batch: Transition, penalty: float) -> tuple[Array, Metrics]:
    """`E[penalty ||pi(s) - a||^2] - E[min_j Q_j(s, pi(s))] / mean|min_j Q_j|`."""
    action = policy(actor, batch.obs).mode()
    q = q_min(critic, batch.obs, action)
    scale = jax.lax.stop_gradient(jnp.mean(jnp.abs(q)))
    cloning = jnp.mean(squared_distance(action, batch.action))
    loss = penalty * cloning - jnp.mean(q) / scale
    return loss, {"actor/loss": loss, "actor/cloning": cloning}


def update(config: Config, problem: Problem, state: State, data: OfflineData, key: Key) -> tuple[State, Metrics]:
    """One gradient step of the critics; on every `policy_delay`-th also of the actor and the targets."""
    batch_key, noise_key = jax.random.split(key)
    index = jax.random.randint(batch_key, (config.batch_size,), 0, data.rows.reward.shape[0])
    batch, (after, known) = take(data.rows, index), next_action(data, index)
    target = td_target(config, state, batch, after, noise_key)
    weight = critic_weight(batch.terminal, known)
    critic_loss = lambda critic: sac.td_loss(critic, batch, target, weight)
    return td3.step(
        config, state, critic_loss, lambda actor, critic: actor_loss(actor, critic, batch, config.actor_penalty)
    )


ALGORITHM = Algorithm(
    "rebrac", Config, init, prepare, no_refresh, update, lambda state: state.average_actor, traced=TRACED
)
