"""The losses of soft actor-critic (arXiv 1812.05905), shared by whatever builds on it."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from damorl.parts.actor import policy
from damorl.parts.critic import q_min, q_values
from damorl.types import Array, Key, Metrics, Params, Transition


def soft_next_value(actor: Params, target_critic: Params, temperature: Array, next_obs: Array, key: Key) -> Array:
    """`min Q(s', a') - temperature * log pi(a'|s')` with a' sampled, `[B]`; no gradient flows through it."""
    action, log_prob = policy(actor, next_obs).sample(key)
    return jax.lax.stop_gradient(q_min(target_critic, next_obs, action) - temperature * log_prob)


def td_loss(critic: Params, batch: Transition, target: Array) -> tuple[Array, Metrics]:
    """Squared Bellman error summed over critics (SAC Eq. 5); `target` is `[B]`."""
    q = q_values(critic, batch.obs, batch.action)
    loss = jnp.sum(jnp.mean(jnp.square(q - target[None]), axis=1))
    return loss, {
        "critic/loss": loss,
        "critic/q_mean": jnp.mean(q),
        "critic/residual": jnp.mean(jnp.abs(target[None] - q)),
    }


def actor_loss(
    actor: Params, critic: Params, temperature: Array, obs: Array, key: Key
) -> tuple[Array, tuple[Array, Metrics]]:
    """`E[temperature * log pi(a|s) - min Q(s, a)]` (SAC Eq. 7), with (log pi `[B]`, metrics)."""
    action, log_prob = policy(actor, obs).sample(key)
    loss = jnp.mean(temperature * log_prob - q_min(critic, obs, action))
    return loss, (log_prob, {"actor/loss": loss})
