"""AlgaeDICE: policy gradient from arbitrary experience (arXiv 1912.02074), on a fixed dataset.

    max_pi min_Q  (1 - gamma) E_{s0, a0 ~ pi}[Q(s0, a0)] + w E_D[f*(y / w)]
    y(s, a, s', a') = r + gamma (1 - terminal) (Q(s', a') - temperature * log pi(a'|s')) - Q(s, a),  a' ~ pi

w is the divergence weight. The inner minimum is the return less `w D_f(d^pi || d^D)`, and `f*'(y / w)` is the ratio
d^pi / d^D. Q(s', a') is 5 % the live critic and 95 % the lower of the two target critics, so that the critic's gradient
is 5 % a residual gradient; the actor's flows through both shares.

Deviations from the released code (google-research/algae_dice), which is online:
- The rows are a dataset's: no exploration, no replay that grows. It has no settings for D4RL.
- The released objective is `E[|y|^p / p] + (1 - gamma) c Q(s0, a0)` with p = 1.5. Ours, which is the paper's form, is
  that over c with w = c^2, as f* of the record `cubic_symmetric` is 2/3 |y|^1.5 = |y|^p / p. So c = 0.01
  became `divergence_weight` 1e-4, and the orthogonal penalty, beside a loss 1 / c as large, 1e-2 for 1e-4.
  Any record of `core.divergence` may take the place of `cubic_symmetric`.
- One update is `critic_steps` critic steps (2) and one step of actor, temperature and target, each on a batch of its
  own; released: actor, temperature and target move with every second critic step, on its batch.
- The log-std is clipped and not squashed, kernels do not start orthogonal, the temperature learns in SAC's log form.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from damorl.algos.base import Algorithm, OfflineData, Problem, no_prepare, no_refresh
from damorl.core import buffer as ring
from damorl.core.divergence import DIVERGENCES, DivergenceName
from damorl.core.nets import orthogonal_penalty
from damorl.core.optim import Learner, init_learner, minimise, polyak
from damorl.errors import UserError
from damorl.parts.actor import init_actor, policy, temperature_loss
from damorl.parts.critic import init_critic, q_min, q_values
from damorl.types import REWARD_UNIT, Array, Key, Metrics, Params, Transition


@dataclass(frozen=True)
class Config:
    """Settings of AlgaeDICE. The defaults are the released code's."""

    divergence_weight: float = field(default=1e-4, metadata=REWARD_UNIT)
    """w above: the square of the released `algae_alpha`, 0.01."""
    divergence: DivergenceName = "cubic_symmetric"
    """Generator f; the released exponent 1.5 of f* is `cubic_symmetric`."""
    live_share: float = 0.05
    """Of the live critic in the next state's value (released)."""
    orthogonal_weight: float = field(default=1e-2, metadata=REWARD_UNIT)
    """Of the orthogonal penalty on the actor's kernels: the released 1e-4, at the scale of the paper's objective."""
    initial_states: Literal["episode_starts", "dataset"] = "episode_starts"
    """Where s0 is drawn: true episode starts, or any state of the dataset (released: `use_init_states` off)."""
    critic_steps: int = 2
    """Critic steps per update (released: actor and target move with every second one)."""
    batch_size: int = 256
    """Rows per step, and as many initial states."""
    hidden: tuple[int, ...] = (256, 256)
    """Hidden widths of actor and critics."""
    gamma: float = 0.99
    tau: float = 0.005
    """Polyak rate of the target critics."""
    actor_lr: float = 1e-3
    critic_lr: float = 1e-3
    temperature_lr: float = 1e-3
    initial_temperature: float = field(default=1.0, metadata=REWARD_UNIT)
    """Entropy temperature at the start; tuned towards the entropy -action_dim at next states."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot work, with the reason."""
        if self.divergence_weight <= 0.0 or self.initial_temperature <= 0.0:
            raise UserError(
                "divergence_weight and initial_temperature must be above 0, found "
                f"{self.divergence_weight} and {self.initial_temperature}: give a small positive number"
            )
        if not 0.0 <= self.live_share <= 1.0:
            raise UserError(f"live_share must be from 0 to 1, found {self.live_share}: the released value is 0.05")
        if self.live_share == 0.0 and not DIVERGENCES[self.divergence].conjugate_least_at_zero:
            raise UserError(
                f"divergence '{self.divergence}' with live_share 0 pushes every Q up without end, since its conjugate "
                "is not least at zero residual: choose cubic_symmetric, or a live_share above 0"
            )


class State(NamedTuple):
    """Everything that changes."""

    actor: Learner
    critic: Learner
    target_critic: Params
    temperature: Learner
    """Logarithm of the entropy temperature."""


class Sides(NamedTuple):
    """What the objective is made of, for each critic."""

    residual: Array
    """y above, `[critic, B]`."""
    initial: Array
    """Q(s0, a0), `[critic, B0]`."""
    log_prob: Array
    """log pi(a'|s'), `[B]`."""


def init(key: Key, config: Config, problem: Problem, data: OfflineData) -> State:
    """Fresh networks."""
    actor_key, critic_key = jax.random.split(key)
    obs_dim, action_dim = problem.spec
    critic = init_critic(critic_key, obs_dim, action_dim, config.hidden)
    return State(
        actor=init_learner(init_actor(actor_key, obs_dim, action_dim, config.hidden), optax.adam(config.actor_lr)),
        critic=init_learner(critic, optax.adam(config.critic_lr)),
        target_critic=jax.tree.map(jnp.copy, critic),
        temperature=init_learner(jnp.log(jnp.float32(config.initial_temperature)), optax.adam(config.temperature_lr)),
    )


def sides(
    config: Config, state: State, critic: Params, actor: Params, batch: Transition, initial_obs: Array, key: Key
) -> Sides:
    """Residuals and initial values with `critic` and `actor` in the place of the state's own."""
    obs = jnp.concatenate([batch.next_obs, initial_obs])
    action, log_prob = policy(actor, obs).sample(key)
    num_rows = batch.reward.shape[0]
    next_action, log_prob = action[:num_rows], log_prob[:num_rows]
    live = q_values(critic, batch.next_obs, next_action)
    frozen = q_min(state.target_critic, batch.next_obs, next_action)
    mixed = config.live_share * live + (1.0 - config.live_share) * frozen[None]
    next_value = mixed - jnp.exp(state.temperature.params) * log_prob
    target = batch.reward + config.gamma * (1.0 - batch.terminal) * next_value
    return Sides(
        residual=target - q_values(critic, batch.obs, batch.action),
        initial=q_values(critic, initial_obs, action[num_rows:]),
        log_prob=log_prob,
    )


def critic_objective(config: Config, residual: Array, initial: Array) -> Array:
    """Summed over critics: `(1 - gamma) E[Q(s0, a0)] + w E[f*(y / w)]`, of `[critic, B0]` and `[critic, B]`."""
    divergence, weight = DIVERGENCES[config.divergence], config.divergence_weight
    conjugate = weight * jnp.mean(divergence.f_star(residual / weight), axis=1)
    return jnp.sum(conjugate + (1.0 - config.gamma) * jnp.mean(initial, axis=1))


def actor_objective(config: Config, residual: Array, initial: Array) -> Array:
    """What the actor climbs, a mean over critics: the objective with its ratios held, none below 0."""
    divergence, weight = DIVERGENCES[config.divergence], config.divergence_weight
    ratio = jax.lax.stop_gradient(divergence.weight(residual / weight))
    return jnp.mean(jnp.mean(ratio * residual, axis=1) + (1.0 - config.gamma) * jnp.mean(initial, axis=1))


def sample(config: Config, data: OfflineData, key: Key) -> tuple[Transition, Array]:
    """Rows and initial states."""
    row_key, initial_key = jax.random.split(key)
    source = data.initial_obs if config.initial_states == "episode_starts" else data.rows.obs
    index = jax.random.randint(initial_key, (config.batch_size,), 0, source.shape[0])
    return ring.sample_rows(data.rows, row_key, config.batch_size), source[index]


def critic_step(config: Config, state: State, data: OfflineData, key: Key) -> tuple[State, Metrics]:
    """One descent step of the critics."""
    batch_key, policy_key = jax.random.split(key)
    batch, initial_obs = sample(config, data, batch_key)

    def loss_fn(critic: Params) -> tuple[Array, Metrics]:
        found = sides(config, state, critic, state.actor.params, batch, initial_obs, policy_key)
        loss = critic_objective(config, found.residual, found.initial)
        ratio = DIVERGENCES[config.divergence].weight(found.residual / config.divergence_weight)
        return loss, {
            "critic/loss": loss,
            "critic/residual": jnp.mean(jnp.abs(found.residual)),
            "critic/initial_value": jnp.mean(found.initial),
            "critic/ratio": jnp.mean(ratio),
        }

    critic, metrics = minimise(loss_fn, state.critic, optax.adam(config.critic_lr))
    return state._replace(critic=critic), metrics


def update(config: Config, problem: Problem, state: State, data: OfflineData, key: Key) -> tuple[State, Metrics]:
    """`critic_steps` steps of the critics, then one of actor, temperature and target."""
    *critic_keys, batch_key, policy_key = jax.random.split(key, config.critic_steps + 2)
    state, metrics = jax.lax.scan(lambda s, k: critic_step(config, s, data, k), state, jnp.stack(critic_keys))
    batch, initial_obs = sample(config, data, batch_key)

    def loss_fn(actor: Params) -> tuple[Array, tuple[Array, Metrics]]:
        found = sides(config, state, state.critic.params, actor, batch, initial_obs, policy_key)
        objective = actor_objective(config, found.residual, found.initial)
        penalty = orthogonal_penalty(actor)
        figures = {"actor/objective": objective, "actor/orthogonal": penalty}
        return config.orthogonal_weight * penalty - objective, (found.log_prob, figures)

    actor, (log_prob, actor_metrics) = minimise(loss_fn, state.actor, optax.adam(config.actor_lr))
    temperature, temperature_metrics = minimise(
        lambda p: temperature_loss(p, log_prob, -float(batch.action.shape[1])),
        state.temperature,
        optax.adam(config.temperature_lr),
    )
    target_critic = polyak(state.target_critic, state.critic.params, config.tau)
    metrics = jax.tree.map(jnp.mean, metrics) | actor_metrics | temperature_metrics
    return State(actor, state.critic, target_critic, temperature), metrics


ALGORITHM = Algorithm("algaedice", Config, init, no_prepare, no_refresh, update, lambda state: state.actor.params)
