"""The gradients of DAMO's maximin objective (arXiv 2502.00850, Eq. 2) on one batch, in each of its forms.

    max_pi min_Q  (1 - gamma) E_{s0, a0 ~ pi}[Q(s0, a0)] + w E_{rho_M^pi}[f*(Phi / w)]                        (Eq. 2)
    Phi(s, a, s') = r - w log(rho_M^pi / rho_T^{pi_beta}) + gamma (1 - terminal) E_{a' ~ pi}[Q(s', a')] - Q(s, a)

w is the divergence weight (the paper's alpha). The critic minimises the objective, the actor maximises it with a weight
of its own (1 by C.2). The batch's reward is the refined one already, so Phi is its Bellman residual. Every function is
pure: it takes the networks as they are and returns directions of descent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from damorl.core.divergence import DIVERGENCES, DivergenceName
from damorl.core.optim import project_out, scale_gradient
from damorl.errors import UserError
from damorl.parts import sac
from damorl.parts.critic import q_min, q_values
from damorl.parts.reference import sample_with_cost
from damorl.parts.refined_reward import RefinedRewardSettings, bellman_target
from damorl.types import Array, Key, Metrics, Params, Transition

LIVE_SHARE = 0.05  # of the live critic in the mixed target (AlgaeDICE, arXiv 1912.02074)


@dataclass(frozen=True)
class MaximinSettings(RefinedRewardSettings):
    """Settings of the objective and of its gradients; a Config inherits them. The defaults are the paper's."""

    divergence: DivergenceName = "cubic_symmetric"
    """Generator f of the behaviour alignment (C.1)."""
    critic_gradient: Literal["semi", "mixed", "full", "orthogonal"] = "semi"
    """How the target's Q(s', a') takes part in the critic's gradient: frozen; 5 % live; all; projected (ODICE)."""
    behaviour_alignment: bool = True
    """The implicit term D_f(rho_T^pi || rho_M^pi); off is the paper's "w/o ir": SAC on the refined reward."""
    actor_objective: Literal["consistent", "sac", "imagined"] = "consistent"
    """`consistent` maximises Eq. 2; `sac` is the paper's inconsistent version (Table 1); `imagined` maximises the
    refined return of a few steps in the model, by the gradient through it (`parts/imagined.py`)."""
    actor_horizon: int = 5
    """Imagined steps of that gradient; the critic values what follows."""
    actor_starts: int = 50
    """Rows of the batch that they start from. A multiple of the number of elites."""
    actor_divergence_weight: float | None = 1.0
    """Weight in the actor's objective (C.2 fixes it to 1). None: the same as the critic's (Fig. 5b)."""

    def __post_init__(self) -> None:
        """Refuse combinations that cannot work, with the reason."""
        super().__post_init__()
        frozen = self.behaviour_alignment and self.critic_gradient == "semi"
        if frozen and not DIVERGENCES[self.divergence].conjugate_least_at_zero:
            raise UserError(
                f"divergence '{self.divergence}' with critic_gradient 'semi' pushes every Q up without end, since its "
                "conjugate is not least at zero residual: choose divergence cubic_symmetric, or critic_gradient full"
            )
        weights = (self.divergence_weight, self.actor_divergence_weight)
        if self.behaviour_alignment and any(weight is not None and weight <= 0.0 for weight in weights):
            raise UserError(
                "divergence_weight and actor_divergence_weight must be above 0 (residuals are divided by them): found "
                f"{weights[0]} and {weights[1]}; to drop a term, set data_alignment or behaviour_alignment to false"
            )


class Networks(NamedTuple):
    """What the gradients depend on besides the batch."""

    actor: Params
    critic: Params
    target_critic: Params
    temperature: Array
    """Scalar: weight of log pi in a soft value, or of the policy's divergence from the reference."""
    reference: Params | None = None
    """The clone, where the log-ratio is split."""


class Gradients(NamedTuple):
    """What one update needs from its losses."""

    critic: Params
    actor: Params
    cost: Array
    """log pi of the sampled actions, or the policy's divergence from the reference, `[B]`: for their weight."""
    metrics: Metrics


def gradients(
    settings: MaximinSettings, nets: Networks, batch: Transition, initial_obs: Array, absorbing: Array, key: Key
) -> Gradients:
    """Gradients of Eq. 2; without behaviour alignment, those of SAC on the refined reward ("w/o ir").

    `batch` carries the refined reward, `absorbing` is the value behind a terminal (scalar), `initial_obs` is s0
    `[initial, obs_dim]`.
    """
    if settings.behaviour_alignment:
        return maximin_gradients(settings, nets, batch, initial_obs, absorbing, key)
    return sac_gradients(settings, nets, batch, absorbing, key)


def maximin_gradients(
    settings: MaximinSettings, nets: Networks, batch: Transition, initial_obs: Array, absorbing: Array, key: Key
) -> Gradients:
    """Gradients of Eq. 2 from one forward pass: descent for the critic, ascent for the actor."""
    fixed_weight, num_rows, stop = settings.actor_divergence_weight, batch.reward.shape[0], jax.lax.stop_gradient
    actor_weight = settings.divergence_weight if fixed_weight is None else fixed_weight
    consistent = settings.actor_objective == "consistent"

    def maximin(critic: Params, actor: Params) -> tuple[Array, tuple[Array, Array, Metrics]]:
        obs = jnp.concatenate([batch.next_obs, initial_obs])
        action, cost = sample_with_cost(actor, obs, key, nets.reference)
        action, cost = (action, cost) if consistent else (stop(action), stop(cost))
        next_action, initial_action = action[:num_rows], action[num_rows:]
        entropy_bonus = -nets.temperature * cost[:num_rows]
        # The critic descends on Q(s0, a0) summed over critics, the actor ascends on its mean: one evaluation serves
        # both, with the gradient into the action scaled by -1/2.
        initial = (initial_obs, scale_gradient(initial_action, -0.5))
        q, q_initial, q_next = evaluate_critic(settings, critic, batch, initial, stop(next_action))
        next_value = q_min(nets.target_critic, batch.next_obs, next_action) + entropy_bonus
        bootstrap = bootstrap_value(settings, stop(next_value), q_next + stop(entropy_bonus))
        residual = bellman_target(settings, batch, bootstrap, absorbing) - q
        critic_loss = conjugate_term(settings, residual)
        initial_value = (1.0 - settings.gamma) * jnp.sum(jnp.mean(q_initial, axis=1))
        ratio = stop(DIVERGENCES[settings.divergence].weight(residual / actor_weight))
        alive = settings.gamma * (1.0 - batch.terminal)
        actor_loss = -jnp.mean(jnp.mean(ratio, axis=0) * alive * next_value)
        metrics = {
            "critic/loss": critic_loss,
            "critic/q_mean": jnp.mean(q),
            "critic/residual": jnp.mean(jnp.abs(residual)),
            "actor/weight": jnp.mean(ratio),
            "actor/loss": actor_loss,
        }
        return critic_loss + initial_value + actor_loss, (cost[:num_rows], next_action, metrics)

    slopes = jax.grad(maximin, argnums=(0, 1), has_aux=True)(nets.critic, nets.actor)
    (critic_grads, actor_grads), (cost, next_action, metrics) = slopes
    if settings.critic_gradient == "orthogonal":
        backward = orthogonal_backward(settings, nets, batch, absorbing, next_action, -nets.temperature * cost)
        critic_grads = jax.tree.map(jnp.add, critic_grads, backward)
    if settings.actor_objective == "sac":
        actor_grads, cost, sac_metrics = sac_actor_gradients(nets, batch.obs, jax.random.fold_in(key, 1))
        metrics |= sac_metrics
    return Gradients(critic_grads, actor_grads, cost, metrics)


def conjugate_term(settings: MaximinSettings, residual: Array) -> Array:
    """`w E[f*(Phi / w)]` of Phi `[critic, B]`, summed over critics."""
    weight = settings.divergence_weight
    return weight * jnp.sum(jnp.mean(DIVERGENCES[settings.divergence].f_star(residual / weight), axis=1))


def evaluate_critic(
    settings: MaximinSettings, critic: Params, batch: Transition, initial: tuple[Array, Array], next_action: Array
) -> tuple[Array, Array, Array]:
    """Live Q at (s, a), (s0, a0) and, where the gradient needs it, (s', a'), in one product: `[critic, *]` each."""
    live = settings.critic_gradient in ("mixed", "full")
    obs, action = [batch.obs, initial[0]], [batch.action, initial[1]]
    if live:
        obs, action = [*obs, batch.next_obs], [*action, next_action]
    q = q_values(critic, jnp.concatenate(obs), jnp.concatenate(action))
    first, second = batch.reward.shape[0], batch.reward.shape[0] + initial[0].shape[0]
    return q[:, :first], q[:, first:second], q[:, second:] if live else jnp.zeros((q.shape[0], first))


def bootstrap_value(settings: MaximinSettings, frozen: Array, live: Array) -> Array:
    """Value of the next state `[critic or 1, B]`: the frozen one, AlgaeDICE's 5 % live mixture, or the live one."""
    if settings.critic_gradient == "full":
        return live
    if settings.critic_gradient == "mixed":
        return LIVE_SHARE * live + (1.0 - LIVE_SHARE) * frozen[None]
    return frozen[None]


def orthogonal_backward(
    settings: MaximinSettings,
    nets: Networks,
    batch: Transition,
    absorbing: Array,
    next_action: Array,
    entropy_bonus: Array,
) -> Params:
    """ODICE's backward gradient (arXiv 2402.00348), projected on the normal plane of the forward one."""
    q_frozen = q_min(nets.target_critic, batch.obs, batch.action)
    next_frozen = q_min(nets.target_critic, batch.next_obs, next_action) + entropy_bonus

    def loss(q: Array, next_value: Array) -> Array:
        return conjugate_term(settings, bellman_target(settings, batch, next_value, absorbing) - q)

    forward = jax.grad(lambda p: loss(q_values(p, batch.obs, batch.action), next_frozen[None]))
    backward = jax.grad(lambda p: loss(q_frozen[None], q_values(p, batch.next_obs, next_action) + entropy_bonus))
    return project_out(backward(nets.critic), forward(nets.critic))


def sac_gradients(
    settings: MaximinSettings, nets: Networks, batch: Transition, absorbing: Array, key: Key
) -> Gradients:
    """Of soft actor-critic's two losses (arXiv 1812.05905) on the refined reward and the same target."""
    critic_key, actor_key = jax.random.split(key)
    next_value = sac.soft_next_value(
        nets.actor, nets.target_critic, nets.temperature, batch.next_obs, critic_key, nets.reference
    )
    target = bellman_target(settings, batch, next_value, absorbing)
    critic_grads, metrics = jax.grad(sac.td_loss, has_aux=True)(nets.critic, batch, target)
    actor_grads, cost, actor_metrics = sac_actor_gradients(nets, batch.obs, actor_key)
    return Gradients(critic_grads, actor_grads, cost, metrics | actor_metrics)


def sac_actor_gradients(nets: Networks, obs: Array, key: Key) -> tuple[Params, Array, Metrics]:
    """Gradient of SAC's actor loss on this critic, log pi or the divergence from the reference `[B]`, metrics."""
    grads, (cost, metrics) = jax.grad(sac.actor_loss, has_aux=True)(
        nets.actor, nets.critic, nets.temperature, obs, key, nets.reference
    )
    return grads, cost, metrics
