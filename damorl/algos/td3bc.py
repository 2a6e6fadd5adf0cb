"""TD3+BC: a minimalist approach to offline RL (arXiv 2106.06860), model-free.

    target   y = r + gamma (1 - terminal) min_j Q'_j(s', a~'),
             a~' = clip(pi'(s') + clip(noise, -noise_clip, noise_clip), -1, 1),  noise ~ N(0, target_noise^2)
    critic   min_Q   sum_j E[(Q_j(s, a) - y)^2]
    actor    max_pi  E[weight / mean|Q_1| * Q_1(s, pi(s)) - ||pi(s) - a||^2 / action_dim]

weight is the paper's alpha: it multiplies the value, so 0 is behaviour cloning. The mean of |Q_1| is over the batch at
(s, pi(s)) and carries no gradient. The actor and all three targets move on every `policy_delay`-th update only.

The delay needs a count, which the state holds; what one update means stays what it is everywhere. Several seeds at once
compute the actor's step on every update and drop it on the others (`lax.cond` under `vmap` is a select).

States are standardised over the dataset, as in the released code; that is folded into the first layer of the actor
that is evaluated and saved, which so takes states in their own units like every other.

Deviations, from the released code: a constant feature is left as it is, where that code divides it by 0.001 (it adds
0.001 to every deviation); `actor_averaging` is ours, off in the `paper` preset. The paper's squared error is
written without dividing by the number of action dimensions; the released code, like this one, takes the mean.
The actor has the format of all others here (mean and log deviation); its deviation is fixed at the least there is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from damorl.algos.base import Algorithm, OfflineData, Problem, no_prepare, no_refresh
from damorl.core import buffer as ring
from damorl.core.nets import MLP, Dense
from damorl.core.optim import Learner
from damorl.core.scaler import Standardiser, fit_standardiser
from damorl.parts import sac, td3
from damorl.parts.actor import policy
from damorl.parts.critic import init_critic, q_min, q_values
from damorl.parts.td3 import init_deterministic_actor, smoothed_action
from damorl.types import Array, Key, Metrics, Params, Transition

TRACED = ("value_weight", "target_noise", "noise_clip", "tau", "actor_averaging", "actor_lr", "critic_lr")


@dataclass(frozen=True)
class Config:
    """Settings of TD3+BC. The defaults are the paper's and its released code's, the same for every dataset."""

    value_weight: float = 2.5
    """Weight of the value against the squared distance to the data's action, the paper's alpha. 0 clones."""
    policy_delay: int = 2
    """Critic updates per update of actor and targets."""
    target_noise: float = 0.2
    """Deviation of the noise on the target's action."""
    noise_clip: float = 0.5
    """Bound of that noise."""
    standardise_obs: bool = True
    """Whether the networks see states of zero mean and unit deviation over the dataset."""
    gamma: float = 0.99
    """Discount."""
    tau: float = 0.005
    """Polyak rate of the target networks."""
    batch_size: int = 256
    """Rows per update."""
    hidden: tuple[int, ...] = (256, 256)
    """Hidden widths of actor and critics."""
    actor_lr: float = 3e-4
    """Rate of the actor's Adam."""
    actor_averaging: float = 1.0
    """Polyak rate, per update, of the actor that is evaluated and saved: 1 is the actor itself. Ours, as in DAMO."""
    critic_lr: float = 3e-4
    """Rate of the critics' Adam."""


class State(NamedTuple):
    """Everything that changes, and the scaling of the states."""

    actor: Learner
    average_actor: Params
    """What is evaluated: see `Config.actor_averaging`."""
    target_actor: Params
    critic: Learner
    target_critic: Params
    inputs: Standardiser
    step: Array
    """Updates made, int32 scalar."""


def init(key: Key, config: Config, problem: Problem, data: OfflineData) -> State:
    """Fresh networks, and the states' mean and deviation."""
    actor_key, critic_key = jax.random.split(key)
    actor = init_deterministic_actor(actor_key, *problem.spec, config.hidden)
    critic = init_critic(critic_key, *problem.spec, config.hidden)
    obs_dim = problem.spec.obs_dim
    inputs = (
        fit_standardiser(data.rows.obs)
        if config.standardise_obs
        else Standardiser(jnp.zeros(obs_dim), jnp.ones(obs_dim))
    )
    return State(**td3.begin(config, actor, critic), inputs=inputs)


def td_target(config: Config, state: State, batch: Transition, key: Key) -> Array:
    """`y` of the module's first line, `[B]`; no network in it is the one that learns."""
    action = smoothed_action(config, state.target_actor, batch.next_obs, key)
    next_value = q_min(state.target_critic, batch.next_obs, action)
    return batch.reward + config.gamma * (1.0 - batch.terminal) * next_value


def actor_loss(actor: Params, critic: Params, batch: Transition, value_weight: float) -> tuple[Array, Metrics]:
    """`E ||pi(s) - a||^2 / action_dim - weight E[Q_1(s, pi(s))] / mean|Q_1|`, the paper's objective as a loss."""
    action = policy(actor, batch.obs).mode()
    q = q_values(jax.tree.map(lambda leaf: leaf[:1], critic), batch.obs, action)[0]
    scale = jax.lax.stop_gradient(jnp.mean(jnp.abs(q)))
    cloning = jnp.mean(jnp.square(action - batch.action))
    loss = cloning - value_weight * jnp.mean(q) / scale
    return loss, {"actor/loss": loss, "actor/cloning": cloning}


def update(config: Config, problem: Problem, state: State, data: OfflineData, key: Key) -> tuple[State, Metrics]:
    """One gradient step of the critics; on every `policy_delay`-th also of the actor and the targets."""
    batch_key, noise_key = jax.random.split(key)
    batch = ring.sample_rows(data.rows, batch_key, config.batch_size)
    batch = batch._replace(obs=state.inputs.apply(batch.obs), next_obs=state.inputs.apply(batch.next_obs))
    target = td_target(config, state, batch, noise_key)
    critic_loss = lambda critic: sac.td_loss(critic, batch, target)
    return td3.step(
        config, state, critic_loss, lambda actor, critic: actor_loss(actor, critic, batch, config.value_weight)
    )


def actor_in_own_units(state: State) -> MLP:
    """The evaluated actor for states in their own units: the scaling is folded into its first layer.

    Leaves may have leading axes, such as one for seeds.
    """
    (kernel, bias), *layers = state.average_actor
    kernel = kernel / state.inputs.scale[..., :, None]
    return (Dense(kernel, bias - jnp.einsum("...i,...io->...o", state.inputs.mean, kernel)), *layers)


ALGORITHM = Algorithm("td3bc", Config, init, no_prepare, no_refresh, update, actor_in_own_units, traced=TRACED)
