"""TD3 (arXiv 1802.09477): target policy smoothing, and the whole delayed step of a deterministic actor and its critics.

An algorithm brings its critic's and its actor's loss. The critics move on every update, the actor and all targets on
every `policy_delay`-th.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from damorl.core.nets import MLP, Dense
from damorl.core.optim import Learner, adam, init_learner, minimise, polyak
from damorl.parts.actor import LOG_STD_MIN, init_actor, policy
from damorl.types import Array, Key, Metrics, Params


def init_deterministic_actor(key: Key, obs_dim: int, action_dim: int, hidden: tuple[int, ...]) -> MLP:
    """An actor whose log deviation is `LOG_STD_MIN` everywhere; nothing of TD3's losses reaches it, so it stays."""
    *layers, (kernel, bias) = init_actor(key, obs_dim, action_dim, hidden)
    last = Dense(kernel.at[:, action_dim:].set(0.0), bias.at[action_dim:].set(LOG_STD_MIN))
    return (*layers, last)


def begin(settings: Any, actor: MLP, critic: Params) -> dict[str, Any]:
    """The fields that `step` moves, for fresh networks: their learners, their targets, the average and no update."""
    copy = lambda params: jax.tree.map(jnp.copy, params)
    return {
        "actor": init_learner(actor, adam(settings.actor_lr)),
        "average_actor": copy(actor),
        "target_actor": copy(actor),
        "critic": init_learner(critic, adam(settings.critic_lr)),
        "target_critic": copy(critic),
        "step": jnp.zeros((), jnp.int32),
    }


def smoothed_action(settings: Any, target_actor: Params, next_obs: Array, key: Key) -> Array:
    """The target's action at `[B, obs_dim]` with noise of deviation `target_noise`, clipped at `noise_clip`:
    `[B, action_dim]` (target policy smoothing)."""
    action = policy(target_actor, next_obs).mode()
    noise = settings.target_noise * jax.random.normal(key, action.shape)
    return jnp.clip(action + jnp.clip(noise, -settings.noise_clip, settings.noise_clip), -1.0, 1.0)


def step(
    settings: Any,
    state: Any,
    critic_loss: Callable[[Params], tuple[Array, Metrics]],
    actor_loss: Callable[[Params, Params], tuple[Array, Metrics]],
) -> tuple[Any, Metrics]:
    """One gradient step on `critic_loss(critic)`; on every `policy_delay`-th update also one on `actor_loss(actor,
    new critic)`, and one of the targets.

    `state` is a NamedTuple with the learners `actor` and `critic`, `average_actor`, `target_actor`, `target_critic` and
    the number of updates `step`; what else it has stays. `settings` has `policy_delay`, `tau`, `actor_averaging` and
    the two rates. Several seeds at once make the actor's step always and drop it on the other updates (`lax.cond` under
    `vmap` is a select).
    """
    critic, metrics = minimise(critic_loss, state.critic, adam(settings.critic_lr))
    objective = lambda p: actor_loss(p, critic.params)

    def move() -> tuple[tuple[Learner, Params, Params], Metrics]:
        actor, metrics = minimise(objective, state.actor, adam(settings.actor_lr))
        target_actor = polyak(state.target_actor, actor.params, settings.tau)
        return (actor, target_actor, polyak(state.target_critic, critic.params, settings.tau)), metrics

    def stay() -> tuple[tuple[Learner, Params, Params], Metrics]:
        return (state.actor, state.target_actor, state.target_critic), objective(state.actor.params)[1]

    count = state.step + 1
    moved, actor_metrics = jax.lax.cond(count % settings.policy_delay == 0, move, stay)
    actor, target_actor, target_critic = moved
    state = state._replace(
        actor=actor,
        average_actor=polyak(state.average_actor, actor.params, settings.actor_averaging),
        target_actor=target_actor,
        critic=critic,
        target_critic=target_critic,
        step=count,
    )
    return state, metrics | actor_metrics
