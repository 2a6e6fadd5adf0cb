"""Soft actor-critic (arXiv 1812.05905): its losses, and the whole step that the offline algorithms build on.

    target   y = r + gamma (1 - terminal) (min_j Q'_j(s', a') - temperature log pi(a'|s')),  a' ~ pi(.|s')
    critic   min_Q   sum_j E[(Q_j(s, a) - y)^2]  (+ what an algorithm adds)                                (Eq. 5)
    actor    min_pi  E[temperature log pi(a|s) - min_j Q_j(s, a)]                                          (Eq. 7)

An algorithm changes rewards before `td_target`, replaces the target, or adds a critic loss; the rest is `step`. As in
OfflineRL-Kit the critic moves first, the actor sees the new critic, and the temperature never exceeds 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from damorl.core.optim import Learner, adam, init_learner, minimise, polyak
from damorl.parts.actor import init_actor, temperature_loss
from damorl.parts.critic import init_critic, q_min, q_values
from damorl.parts.reference import sample_with_cost
from damorl.types import REWARD_UNIT, Array, Key, Metrics, Params, Spec, Transition

CriticLoss = Callable[[Params], tuple[Array, Metrics]]
"""`critic -> (loss, metrics)`, added to the Bellman error; a closure over whatever else it needs."""

TRACED = ("tau", "actor_averaging", "actor_lr", "critic_lr", "temperature_lr", "initial_temperature")
"""Settings of every algorithm on this step that a population may vary, see `Algorithm.traced`."""


@dataclass(frozen=True)
class SACSettings:
    """Settings that every algorithm on this step has; its Config inherits them. Defaults: OfflineRL-Kit's."""

    gamma: float = 0.99
    """Discount."""
    tau: float = 0.005
    """Polyak rate of the target critic."""
    batch_size: int = 256
    """Rows per update."""
    hidden: tuple[int, ...] = (256, 256)
    """Hidden widths of actor and critics."""
    num_critics: int = 2
    """Critics, of which the lowest counts (clipped double Q-learning)."""
    critic_layer_norm: bool = False
    """Layer normalisation in the critics, which bounds what they say off the data (RLPD, arXiv 2302.02948)."""
    entropy_backup: bool = True
    """Whether the target has the entropy term. Off is what public codes call a deterministic backup."""
    actor_lr: float = 1e-4
    """Rate of the actor's Adam."""
    actor_lr_decay: int | None = None
    """Updates over which the actor's rate follows a cosine to zero. None: constant."""
    actor_averaging: float = 1.0
    """Polyak rate of the actor that is evaluated and saved: 1 is the actor itself; small rates average over the last
    1 / rate updates. Ours, as in DAMO; rollouts always use the actor itself."""
    critic_lr: float = 3e-4
    """Rate of the critics' Adam."""
    temperature_lr: float = 1e-4
    """Rate of the temperature's Adam."""
    learn_temperature: bool = True
    """Tune the temperature towards the entropy -action_dim; off keeps the initial one."""
    initial_temperature: float = field(default=1.0, metadata=REWARD_UNIT)
    """Entropy temperature (SAC's alpha) at the start."""
    max_temperature: float | None = field(default=1.0, metadata=REWARD_UNIT)
    """The learned temperature never exceeds this (OfflineRL-Kit's clamp). None: no bound, as in COMBO."""


class SACState(NamedTuple):
    """Everything of an agent that changes."""

    actor: Learner
    average_actor: Params
    """What is evaluated: see `SACSettings.actor_averaging`."""
    critic: Learner
    target_critic: Params
    temperature: Learner
    """Its parameter is the logarithm of the temperature."""


class Optimisers(NamedTuple):
    """One Adam per learner."""

    actor: optax.GradientTransformation
    critic: optax.GradientTransformation
    temperature: optax.GradientTransformation


def make_optimisers(settings: SACSettings) -> Optimisers:
    """Adam at each part's rate."""
    return Optimisers(
        adam(settings.actor_lr, settings.actor_lr_decay), adam(settings.critic_lr), adam(settings.temperature_lr)
    )


def init(key: Key, settings: SACSettings, spec: Spec) -> SACState:
    """Fresh networks."""
    actor_key, critic_key = jax.random.split(key)
    tx = make_optimisers(settings)
    actor = init_actor(actor_key, spec.obs_dim, spec.action_dim, settings.hidden)
    critic = init_critic(
        critic_key, *spec, settings.hidden, settings.num_critics, layer_norm=settings.critic_layer_norm
    )
    return SACState(
        actor=init_learner(actor, tx.actor),
        average_actor=jax.tree.map(jnp.copy, actor),
        critic=init_learner(critic, tx.critic),
        target_critic=jax.tree.map(jnp.copy, critic),
        temperature=init_learner(jnp.log(jnp.float32(settings.initial_temperature)), tx.temperature),
    )


def td_target(settings: SACSettings, state: SACState, batch: Transition, key: Key) -> Array:
    """`y` of the module's first line, `[B]`, with one sampled a' per row; no gradient flows through it."""
    temperature = jnp.exp(state.temperature.params) if settings.entropy_backup else jnp.zeros(())
    next_value = soft_next_value(state.actor.params, state.target_critic, temperature, batch.next_obs, key)
    return batch.reward + settings.gamma * (1.0 - batch.terminal) * next_value


def step(
    settings: SACSettings,
    state: SACState,
    batch: Transition,
    target: Array,
    key: Key,
    extra_critic_loss: CriticLoss | None = None,
) -> tuple[SACState, Metrics]:
    """One gradient step of critic, actor, temperature, and the two averages, towards `target` `[B]`."""
    tx, temperature = make_optimisers(settings), jnp.exp(state.temperature.params)

    def critic_loss(params: Params) -> tuple[Array, Metrics]:
        loss, metrics = td_loss(params, batch, target)
        if extra_critic_loss is None:
            return loss, metrics
        extra, extra_metrics = extra_critic_loss(params)
        return loss + extra, metrics | extra_metrics

    critic, critic_metrics = minimise(critic_loss, state.critic, tx.critic)
    actor, (log_prob, actor_metrics) = minimise(
        lambda p: actor_loss(p, critic.params, temperature, batch.obs, key), state.actor, tx.actor
    )
    learner, temperature_metrics = state.temperature, {"actor/entropy": -jnp.mean(log_prob)}
    if settings.learn_temperature:
        learner, temperature_metrics = tune_temperature(
            learner, log_prob, batch.action.shape[1], tx.temperature, settings.max_temperature
        )
    state = SACState(
        actor=actor,
        average_actor=polyak(state.average_actor, actor.params, settings.actor_averaging),
        critic=critic,
        target_critic=polyak(state.target_critic, critic.params, settings.tau),
        temperature=learner,
    )
    return state, critic_metrics | actor_metrics | temperature_metrics


def update(settings: SACSettings, state: SACState, batch: Transition, key: Key) -> tuple[SACState, Metrics]:
    """Plain SAC on a batch: `step` towards `td_target`."""
    target_key, step_key = jax.random.split(key)
    return step(settings, state, batch, td_target(settings, state, batch, target_key), step_key)


def tune_temperature(
    temperature: Learner,
    log_prob: Array,
    action_dim: int,
    optimiser: optax.GradientTransformation,
    maximum: float | None = 1.0,
) -> tuple[Learner, Metrics]:
    """One step of the log-temperature towards the entropy -action_dim, then the bound. `log_prob` is `[B]`."""
    learner, metrics = minimise(lambda p: temperature_loss(p, log_prob, -float(action_dim)), temperature, optimiser)
    if maximum is not None:
        learner = learner._replace(params=jnp.minimum(learner.params, math.log(maximum)))
    return learner, metrics


def soft_next_value(
    actor: Params,
    target_critic: Params,
    temperature: Array,
    next_obs: Array,
    key: Key,
    reference: Params | None = None,
) -> Array:
    """`min Q(s', a') - temperature * log pi(a'|s')` with a' sampled, `[B]`; no gradient flows through it. With a
    `reference`, KL(pi || pi_ref) stands in the place of log pi."""
    action, cost = sample_with_cost(actor, next_obs, key, reference)
    return jax.lax.stop_gradient(q_min(target_critic, next_obs, action) - temperature * cost)


def td_loss(critic: Params, batch: Transition, target: Array, weight: Array | float = 1.0) -> tuple[Array, Metrics]:
    """Squared Bellman error summed over critics (SAC Eq. 5); `target` is `[B]`, and so is `weight`."""
    q = q_values(critic, batch.obs, batch.action)
    loss = jnp.sum(jnp.mean(weight * jnp.square(q - target[None]), axis=1))
    return loss, {
        "critic/loss": loss,
        "critic/q_mean": jnp.mean(q),
        "critic/residual": jnp.mean(jnp.abs(target[None] - q)),
    }


def actor_loss(
    actor: Params, critic: Params, temperature: Array, obs: Array, key: Key, reference: Params | None = None
) -> tuple[Array, tuple[Array, Metrics]]:
    """`E[temperature * log pi(a|s) - min Q(s, a)]` (SAC Eq. 7), with (log pi `[B]`, metrics). With a `reference`,
    KL(pi || pi_ref) stands in the place of log pi."""
    action, cost = sample_with_cost(actor, obs, key, reference)
    loss = jnp.mean(temperature * cost - q_min(critic, obs, action))
    return loss, (cost, {"actor/loss": loss})
