"""EDAC: uncertainty-based offline RL with a diversified ensemble of critics (arXiv 2110.01548), model-free.

    target   y = r + gamma (1 - terminal) (min_j Q'_j(s', a') - temperature log pi(a'|s')),  a' ~ pi(.|s')
    critic   min_Q   sum_j E[(Q_j(s, a) - y)^2]
                     + diversity_weight / (N - 1) E[sum_{i != j} cos(grad_a Q_i(s, a), grad_a Q_j(s, a))]
    actor    min_pi  E[temperature log pi(a|s) - min_j Q_j(s, a)]

This is the paper's Algorithm 1: SAC whose N critics (10 or more) disagree off the data, so that their minimum is low
there. The second term, whose weight is the paper's eta, keeps their gradients with respect to the data's actions apart:
fewer critics will do. The sum is over ordered pairs, N (N - 1) of them, so the term is N times the mean cosine. With
weight 0 it is SAC-N, the paper's other algorithm.

Deviations from the released code:
- The cosines are those of all critics, as in the paper and in CORL; released: of min(N, action_dim) that are drawn for
  each update, which divides by their number less one.
- The critics move first and the actor sees the new ones (as all algorithms here on `parts.sac`); released: last.
- Networks start as everywhere here, uniform in +-1/sqrt(fan_in); released: biases of 0.1 and smaller last layers.
- `actor_averaging` is ours, off in the `paper` preset.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp

from damorl.algos.base import Algorithm, OfflineData, Problem, no_prepare, no_refresh
from damorl.core import buffer as ring
from damorl.errors import UserError
from damorl.parts import sac
from damorl.parts.critic import q_values
from damorl.parts.sac import SACSettings
from damorl.types import REWARD_UNIT, SQUARED_REWARD_UNIT, Array, Key, Metrics, Params

NO_LENGTH = 1e-20  # squared length below which a gradient has no direction


@dataclass(frozen=True)
class Config(SACSettings):
    """Settings of EDAC: those of a SAC agent, and the diversity. Defaults: the released code's."""

    hidden: tuple[int, ...] = (256, 256, 256)
    """Hidden widths of actor and critics."""
    num_critics: int = 10
    """Critics N, of which the lowest counts. Tuned per task: 50 for hopper."""
    actor_lr: float = 3e-4
    """Rate of the actor's Adam."""
    temperature_lr: float = 3e-4
    """Rate of the temperature's Adam."""
    max_temperature: float | None = field(default=None, metadata=REWARD_UNIT)
    """The learned temperature never exceeds this. None: no bound."""
    diversity_weight: float = field(default=1.0, metadata=SQUARED_REWARD_UNIT)
    """Weight of the cosines between the critics' gradients, the paper's eta. Tuned per dataset. 0 is SAC-N."""

    def __post_init__(self) -> None:
        """Refuse diversity of a single critic."""
        if self.diversity_weight and self.num_critics < 2:
            raise UserError(
                f"num_critics must be at least 2 for diversity, found {self.num_critics}: the paper has 10 or 50; for "
                "a single one, set diversity_weight to 0"
            )


class State(NamedTuple):
    """Everything that changes."""

    agent: sac.SACState


def init(key: Key, config: Config, problem: Problem, data: OfflineData) -> State:
    """Fresh networks."""
    return State(sac.init(key, config, problem.spec))


def action_gradients(critic: Params, obs: Array, action: Array) -> Array:
    """Each critic's gradient with respect to the action, `[critic, B, action_dim]`, in one batched product a layer."""

    def one(member: Params) -> Array:
        alone = jax.tree.map(lambda leaf: leaf[None], member)
        return jax.grad(lambda a: jnp.sum(q_values(alone, obs, a)))(action)

    return jax.vmap(one)(critic)


def diversity_loss(critic: Params, obs: Array, action: Array) -> tuple[Array, Metrics]:
    """`E[sum_{i != j} cos(grad_a Q_i, grad_a Q_j)] / (N - 1)` at rows `[B, ...]`; a zero gradient has cosine 0.

    The sum over pairs is the squared length of the sum of unit vectors, less that of each: N products, not N^2.
    """
    gradient = action_gradients(critic, obs, action)
    square = jnp.sum(jnp.square(gradient), axis=-1, keepdims=True)
    directed = square > NO_LENGTH
    unit = jnp.where(directed, gradient * jax.lax.rsqrt(jnp.where(directed, square, 1.0)), 0.0)
    pairs = jnp.sum(jnp.square(jnp.sum(unit, axis=0)), axis=-1) - jnp.sum(jnp.square(unit), axis=(0, 2))
    loss = jnp.mean(pairs) / (unit.shape[0] - 1)
    return loss, {"critic/cosine": loss / unit.shape[0]}


def update(config: Config, problem: Problem, state: State, data: OfflineData, key: Key) -> tuple[State, Metrics]:
    """One gradient step of critics, actor and temperature."""
    batch_key, agent_key = jax.random.split(key)
    batch = ring.sample_rows(data.rows, batch_key, config.batch_size)
    if not config.diversity_weight:
        agent, metrics = sac.update(config, state.agent, batch, agent_key)
        return State(agent), metrics
    target_key, step_key = jax.random.split(agent_key)

    def weighted(critic: Params) -> tuple[Array, Metrics]:
        loss, metrics = diversity_loss(critic, batch.obs, batch.action)
        return config.diversity_weight * loss, metrics

    target = sac.td_target(config, state.agent, batch, target_key)
    agent, metrics = sac.step(config, state.agent, batch, target, step_key, weighted)
    return State(agent), metrics


ALGORITHM = Algorithm(
    "edac", Config, init, no_prepare, no_refresh, update, lambda state: state.agent.average_actor, traced=sac.TRACED
)
