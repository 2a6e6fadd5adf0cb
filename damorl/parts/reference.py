"""The policy's part of the log-ratio: how far the policy is from a cloned reference, written down instead of learned.

    log rho_M^pi / rho_T^ref (s, a, s') = log d_M^pi / d_T^ref (s)  +  log pi / pi_ref (a|s)  +  log M / T (s'|s, a)

Both policies are Gaussians squashed by tanh, so the squash cancels: the middle term is a difference of two Gaussian log
densities before it, and its mean over the policy's actions is a divergence in closed form.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from damorl.core.distribution import TanhGaussian, gaussian_log_prob, inverse_tanh
from damorl.parts.actor import policy
from damorl.types import Array, Key, Metrics, Params


def kl(law: TanhGaussian, reference: TanhGaussian) -> Array:
    """KL(law || reference), `[*B]`."""
    gap = jnp.square((law.mean - reference.mean) * jnp.exp(-reference.log_std))
    spread = law.log_std - reference.log_std
    return 0.5 * jnp.sum(gap + jnp.exp(2.0 * spread) - 1.0 - 2.0 * spread, axis=-1)


def policy_log_ratio(actor: Params, reference: Params, obs: Array, action: Array) -> Array:
    """log pi(a|s) - log pi_ref(a|s) at given pairs, `[*B]`; actions at the bound are moved inside by 1e-4."""
    pre_tanh = inverse_tanh(action)
    ours, theirs = policy(actor, obs), policy(reference, obs)
    return gaussian_log_prob(pre_tanh, *ours) - gaussian_log_prob(pre_tanh, *theirs)


def sample_with_cost(actor: Params, obs: Array, key: Key, reference: Params | None = None) -> tuple[Array, Array]:
    """A reparameterised action `[*B, action_dim]` and what a soft value charges for the policy, `[*B]`.

    That is log pi(a|s), as in SAC; with a reference it is KL(pi(.|s) || pi_ref(.|s)).
    """
    law = policy(actor, obs)
    action, log_prob = law.sample(key)
    return action, log_prob if reference is None else kl(law, policy(reference, obs))


def kl_weight_loss(log_weight: Array, cost: Array, target: Array | float) -> tuple[Array, Metrics]:
    """`-log(weight) * E[KL - target]`: the dual ascent of the constraint E[KL] <= target. `cost` is KL, `[B]`.

    Its gradient raises the weight where the policy is farther from the reference than the target allows.
    """
    excess = jax.lax.stop_gradient(jnp.mean(cost) - target)
    return -log_weight * excess, {"actor/kl": jnp.mean(cost), "actor/kl_weight": jnp.exp(log_weight)}
