"""O-DICE: distribution correction with an orthogonal gradient (arXiv 2402.00348).

    min_V  (1 - k) E_D[V(s)] + k E_D[f*(y)],   y(s, a, s') = r + gamma (1 - terminal) V(s') - V(s)

k is the share of the conjugate (the paper's lambda). The gradient through V(s) (forward) and the one through V(s')
(backward) work against each other, so the backward one is projected on the normal plane of the forward one, before
Adam sees it:

    g = grad (1 - k) E[V(s)] + g_f + (g_b - (g_f . g_b / |g_f|^2) g_f)
    g_f = grad k E[f*(r + gamma Vbar(s') - V(s))],   g_b = grad k eta E[f*(r + gamma V(s') - Vbar(s))]

Vbar is the lower of two target networks, V are two networks with layer normalisation, the projection is of whole
parameter vectors (both networks together). The policy is cloned with weights from y of the forward gradient.

Deviations from the released code (ODICE-Pytorch):
- The released policy weight is min(max(y, 0), 100), though its f* means the ratio max(y / 2 + 1, 0). The ratio of the
  record is our default; the other is `policy_weight="residual"`, which the `paper` preset takes.
- The policy is the library's tanh-Gaussian with its likelihood; released: a Gaussian with one log-std for all states,
  actions clipped, the mean not squashed.
- Released rewards are scaled by 1000 over the range of returns of pieces that its loader cuts at 1000 steps or a
  terminal, with rows missing; ours by the range over the dataset's complete episodes. The loader's following row as
  next state is not copied.
- Divergences are those of `core.divergence`: the released "Reverse KL" has f* = exp(y - 1), ours exp(y) - 1.
- `gradient="full"` has no target, as released, but the same two networks; the policy's weight then uses its residual.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from damorl.algos.base import Algorithm, OfflineData, Problem, no_prepare, no_refresh
from damorl.core import buffer as ring
from damorl.core.divergence import DIVERGENCES, DivergenceName
from damorl.core.optim import Learner, apply_gradients, init_learner, minimise, polyak, project_out
from damorl.errors import UserError
from damorl.parts.actor import cloning_loss, init_actor
from damorl.parts.reward_scale import reward_scale
from damorl.parts.value import init_value, v_min, v_values
from damorl.types import Array, Key, Metrics, Params, Transition


@dataclass(frozen=True)
class Config:
    """Settings of O-DICE. The defaults are the released code's, but for `policy_weight`."""

    conjugate_share: float = 0.6
    """k above, the paper's lambda: the nearer to 1, the nearer V is to the best in-sample value."""
    backward_weight: float = 1.0
    """The paper's eta, of the backward gradient; 0 is the semi-gradient."""
    gradient: Literal["orthogonal", "full", "semi"] = "orthogonal"
    """`full`: V-DICE's own gradient, without targets; `semi`: the forward one alone."""
    divergence: DivergenceName = "chi_square"
    """Generator f (released: Pearson's chi-square)."""
    policy_weight: Literal["ratio", "residual"] = "ratio"
    """`ratio`: (f')^-1(y), what f* says; `residual`: max(y, 0), what the released code takes for it."""
    max_weight: float = 100.0
    """Highest weight of a row in the cloning."""
    reward_scale: float | None = None
    """Factor of the rewards. None: 1000 over the range of episode returns."""
    layer_norm: bool = True
    """Layer normalisation in V (released: on, off for antmaze)."""
    batch_size: int = 256
    hidden: tuple[int, ...] = (256, 256)
    """Hidden widths of V."""
    actor_hidden: tuple[int, ...] = (1024, 1024)
    """Hidden widths of the actor (released: hard-coded)."""
    gamma: float = 0.99
    tau: float = 0.005
    """Polyak rate of the targets."""
    value_lr: float = 2e-4
    actor_lr: float = 2e-4
    actor_weight_decay: float = 1e-4
    """Added to the actor's gradient before Adam, as the released optimiser does."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot work, with the reason."""
        if not 0.0 < self.conjugate_share < 1.0:
            raise UserError(
                f"conjugate_share must be above 0 and below 1, found {self.conjugate_share}: at 0 V falls and at 1 it "
                "rises without end; the released value is 0.6"
            )
        if self.max_weight <= 0.0:
            raise UserError(f"max_weight must be above 0, found {self.max_weight}: the released value is 100")


class State(NamedTuple):
    """Everything that changes."""

    actor: Learner
    value: Learner
    target_value: Params
    reward_scale: Array
    """Scalar, set once."""


def actor_optimiser(config: Config) -> optax.GradientTransformation:
    """Adam with weight decay inside the gradient."""
    return optax.chain(optax.add_decayed_weights(config.actor_weight_decay), optax.adam(config.actor_lr))


def init(key: Key, config: Config, problem: Problem, data: OfflineData) -> State:
    """Fresh networks."""
    actor_key, value_key = jax.random.split(key)
    obs_dim, action_dim = problem.spec
    value = init_value(value_key, obs_dim, config.hidden, layer_norm=config.layer_norm)
    return State(
        actor=init_learner(init_actor(actor_key, obs_dim, action_dim, config.actor_hidden), actor_optimiser(config)),
        value=init_learner(value, optax.adam(config.value_lr)),
        target_value=jax.tree.map(jnp.copy, value),
        reward_scale=reward_scale(config.reward_scale, data),
    )


def residual(config: Config, batch: Transition, value: Array, next_value: Array) -> Array:
    """y above, `[network, B]` of values that broadcast to it."""
    return batch.reward + config.gamma * (1.0 - batch.terminal) * next_value - value


def conjugate_term(config: Config, y: Array) -> Array:
    """`k E[f*(y)]`, a mean over networks too."""
    return config.conjugate_share * jnp.mean(DIVERGENCES[config.divergence].f_star(y))


def value_gradients(config: Config, value: Params, target: Params, batch: Transition) -> tuple[Params, Array, Metrics]:
    """The direction of descent for V, the forward residual `[network, B]`, metrics."""
    target_now, target_next = (v_min(target, obs)[None] for obs in (batch.obs, batch.next_obs))

    def linear(params: Params) -> Array:
        return (1.0 - config.conjugate_share) * jnp.mean(v_values(params, batch.obs))

    def forward(params: Params) -> tuple[Array, tuple[Array, Array]]:
        v = v_values(params, batch.obs)
        next_value = v_values(params, batch.next_obs) if config.gradient == "full" else target_next
        y = residual(config, batch, v, next_value)
        return conjugate_term(config, y), (y, v)

    def backward(params: Params) -> Array:
        y = residual(config, batch, target_now, v_values(params, batch.next_obs))
        return config.backward_weight * conjugate_term(config, y)

    forward_grads, (y, v) = jax.grad(forward, has_aux=True)(value)
    grads = jax.tree.map(jnp.add, jax.grad(linear)(value), forward_grads)
    if config.gradient == "orthogonal":
        grads = jax.tree.map(jnp.add, grads, project_out(jax.grad(backward)(value), forward_grads))
    loss = (1.0 - config.conjugate_share) * jnp.mean(v) + conjugate_term(config, y)
    return grads, y, {"value/loss": loss, "value/mean": jnp.mean(v), "value/residual": jnp.mean(jnp.abs(y))}


def cloning_weight(config: Config, y: Array) -> Array:
    """Weight of each row in the cloning, `[network, B] -> [B]`, without gradient."""
    weight = DIVERGENCES[config.divergence].weight(y) if config.policy_weight == "ratio" else jnp.maximum(y, 0.0)
    return jax.lax.stop_gradient(jnp.mean(jnp.minimum(weight, config.max_weight), axis=0))


def update(config: Config, problem: Problem, state: State, data: OfflineData, key: Key) -> tuple[State, Metrics]:
    """One gradient step of V and actor, and of the target."""
    batch = ring.sample_rows(data.rows, key, config.batch_size)
    batch = batch._replace(reward=batch.reward * state.reward_scale)
    grads, y, metrics = value_gradients(config, state.value.params, state.target_value, batch)
    value = apply_gradients(state.value, grads, optax.adam(config.value_lr))
    weight = cloning_weight(config, y)
    actor, actor_metrics = minimise(
        lambda p: cloning_loss(p, batch.obs, batch.action, weight), state.actor, actor_optimiser(config)
    )
    metrics |= actor_metrics | {"actor/weight": jnp.mean(weight)}
    target_value = polyak(state.target_value, value.params, config.tau)
    return State(actor, value, target_value, state.reward_scale), metrics


ALGORITHM = Algorithm("odice", Config, init, no_prepare, no_refresh, update, lambda state: state.actor.params)
