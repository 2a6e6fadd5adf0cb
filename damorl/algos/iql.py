"""IQL: offline RL with implicit Q-learning (arXiv 2110.06169), model-free.

    value    min_V   E[|expectile - 1(u < 0)| u^2],  u = min_j Q'_j(s, a) - V(s)                           (Eq. 5)
    critic   min_Q   sum_j E[(r + gamma (1 - terminal) V(s') - Q_j(s, a))^2]                               (Eq. 6)
    actor    max_pi  E[min(exp(inverse_temperature (min_j Q'_j(s, a) - V(s))), 100) log pi(a|s)]           (Eq. 7)

Every state and action is the data's: the networks are never asked about an action outside them. Q' is the target
critic. As in the released code V moves first, actor and critic see the new V, the target moves last.

Rewards are multiplied by 1000 over the range of the episodes' returns, as the released code does for locomotion; the
inverse temperature is meant in these units. The metrics are in the rewards that the run works in.

Deviations from the released code:
- The policy is the library's tanh-Gaussian with its likelihood; released: a Gaussian whose mean is squashed, with one
  deviation for all states, and clipped actions.
- Networks start as everywhere here, uniform in +-1/sqrt(fan_in); released: orthogonal.
- The range of returns is that of the complete episodes; released: of pieces that its loader cuts where the states do
  not continue.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from damorl.algos.base import Algorithm, OfflineData, Problem, no_prepare, no_refresh
from damorl.core import buffer as ring
from damorl.core.optim import Learner, adam, init_learner, minimise, polyak
from damorl.errors import UserError
from damorl.parts import sac
from damorl.parts.actor import cloning_loss, init_actor
from damorl.parts.critic import init_critic, q_min
from damorl.parts.reward_scale import reward_scale
from damorl.parts.value import init_value, v_min
from damorl.types import Array, Key, Metrics, Params

TRACED = ("expectile", "inverse_temperature", "tau", "actor_lr", "value_lr", "critic_lr")
IN_REWARDS = ("critic/q_mean", "critic/residual", "value/mean")


@dataclass(frozen=True)
class Config:
    """Settings of IQL. The defaults are the paper's for locomotion, the same in its released code."""

    expectile: float = 0.7
    """The paper's tau: the nearer to 1, the nearer V is to the best value among the data's actions; 0.5 is the mean."""
    inverse_temperature: float = 3.0
    """The paper's beta: how much more the better actions are cloned; 0 clones all alike."""
    max_weight: float = 100.0
    """Highest weight of a row in the cloning (released code)."""
    reward_scale: float | None = None
    """Factor of the rewards. None: 1000 over the range of episode returns."""
    gamma: float = 0.99
    """Discount."""
    tau: float = 0.005
    """Polyak rate of the target critic."""
    batch_size: int = 256
    """Rows per update."""
    hidden: tuple[int, ...] = (256, 256)
    """Hidden widths of all networks."""
    actor_lr: float = 3e-4
    """Rate of the actor's Adam."""
    actor_lr_decay: int | None = None
    """Updates over which the actor's rate follows a cosine to zero. None: constant."""
    value_lr: float = 3e-4
    """Rate of V's Adam."""
    critic_lr: float = 3e-4
    """Rate of the critics' Adam."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot work, with the reason."""
        if not 0.0 < self.expectile < 1.0:
            raise UserError(
                f"expectile must be above 0 and below 1, found {self.expectile}: at 0 V falls and at 1 it rises "
                "without end; the paper has 0.7 for locomotion"
            )
        if self.max_weight <= 0.0:
            raise UserError(f"max_weight must be above 0, found {self.max_weight}: the released value is 100")


class State(NamedTuple):
    """Everything that changes."""

    actor: Learner
    value: Learner
    critic: Learner
    target_critic: Params
    reward_scale: Array
    """Scalar, set once."""


def init(key: Key, config: Config, problem: Problem, data: OfflineData) -> State:
    """Fresh networks. UserError where the rewards' scale depends on episodes and there is no complete one."""
    actor_key, value_key, critic_key = jax.random.split(key, 3)
    obs_dim, action_dim = problem.spec
    actor = init_actor(actor_key, obs_dim, action_dim, config.hidden)
    value = init_value(value_key, obs_dim, config.hidden, num_values=1, layer_norm=False)
    critic = init_critic(critic_key, obs_dim, action_dim, config.hidden)
    return State(
        actor=init_learner(actor, adam(config.actor_lr, config.actor_lr_decay)),
        value=init_learner(value, adam(config.value_lr)),
        critic=init_learner(critic, adam(config.critic_lr)),
        target_critic=jax.tree.map(jnp.copy, critic),
        reward_scale=reward_scale(config.reward_scale, data),
    )


def expectile_loss(difference: Array, expectile: float) -> Array:
    """`|expectile - 1(u < 0)| u^2` of each difference u: its minimum over V is that expectile of Q."""
    return jnp.where(difference < 0.0, 1.0 - expectile, expectile) * jnp.square(difference)


def value_loss(value: Params, obs: Array, q: Array, expectile: float) -> tuple[Array, Metrics]:
    """Eq. 5, with the targets' values `q` of the data's actions, `[B]`."""
    v = v_min(value, obs)
    loss = jnp.mean(expectile_loss(q - v, expectile))
    return loss, {"value/loss": loss, "value/mean": jnp.mean(v)}


def cloning_weight(config: Config, advantage: Array) -> Array:
    """Weight of each row in Eq. 7, `[B]`."""
    return jnp.minimum(jnp.exp(config.inverse_temperature * advantage), config.max_weight)


def update(config: Config, problem: Problem, state: State, data: OfflineData, key: Key) -> tuple[State, Metrics]:
    """One gradient step of V, of the actor and of the critics, and of the target."""
    batch = ring.sample_rows(data.rows, key, config.batch_size)
    batch = batch._replace(reward=batch.reward * state.reward_scale)
    q = q_min(state.target_critic, batch.obs, batch.action)
    value, metrics = minimise(
        lambda p: value_loss(p, batch.obs, q, config.expectile), state.value, adam(config.value_lr)
    )
    v, next_v = jnp.split(v_min(value.params, jnp.concatenate([batch.obs, batch.next_obs])), 2)
    weight = cloning_weight(config, q - v)
    actor, actor_metrics = minimise(
        lambda p: cloning_loss(p, batch.obs, batch.action, weight),
        state.actor,
        adam(config.actor_lr, config.actor_lr_decay),
    )
    target = batch.reward + config.gamma * (1.0 - batch.terminal) * next_v
    critic, critic_metrics = minimise(lambda p: sac.td_loss(p, batch, target), state.critic, adam(config.critic_lr))
    metrics |= actor_metrics | critic_metrics
    metrics |= {name: metrics[name] / state.reward_scale for name in IN_REWARDS}
    target_critic = polyak(state.target_critic, critic.params, config.tau)
    state = State(actor, value, critic, target_critic, state.reward_scale)
    return state, metrics | {"actor/weight": jnp.mean(weight)}


ALGORITHM = Algorithm(
    "iql", Config, init, no_prepare, no_refresh, update, lambda state: state.actor.params, traced=TRACED
)
