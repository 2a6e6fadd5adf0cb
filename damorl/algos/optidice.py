"""OptiDICE: offline policy optimisation via stationary distribution correction (arXiv 2106.10783).

    max_{d >= 0}  E_d[r] - w D_f(d || d^D)   over the occupancies d of all policies
      = min_nu  (1 - gamma) E_{s0}[nu(s0)] + w E_D[f*((e_nu - l) / w)] + l
    e_nu(s, a, s') = r + gamma nu(s') - nu(s),   ratio d / d^D = (f')^-1((e_nu - l) / w)_+

w is the divergence weight; the multiplier l keeps the mean ratio at 1. A network e(s, a) learns e_nu without s', and
the policy is taken from the ratios of e: information projection (reverse KL to ratio times behaviour), or cloning
weighted with the ratios. All is minimised on data: no target network, no maximin. The gradient goes through both nu(s')
and nu(s), which is right only where dynamics are nearly deterministic (docs/theory.md computes by how much).

Deviations from the released code (secury/optidice) and bugs of it that are not copied:
- The losses use one record's f*, weight and log-weight. Released losses are written with f at the ratio, the same by
  Fenchel's equality; its chi-square log-ratio is that of 1e-10 for every negative residual, though the ratio is 1 + y.
- `absorbing="connected"`: a terminal leads to an absorbing state that leads to itself and pays raw reward 0. Released:
  the same rows, but each masked as terminal, so that nu never sees the state behind a fall, and reward 0 in
  standardised units, that is, the mean reward. The `paper` preset keeps that (`absorbing="released"`).
- The multiplier of e descends on its own normalised dual, with the released gradient where e has reached e_nu; a
  self-loop row takes any row's action, and comes as often as in the released data on average.
- Standard deviations get no 1e-10. Means are not clipped at 7.24, actions are moved 1e-4 (released: 1e-6) inside of
  the bounds, and layers start as everywhere in the library.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from damorl.algos.base import Algorithm, OfflineData, OnProgress, Problem, no_refresh
from damorl.core import buffer as ring
from damorl.core.divergence import DIVERGENCES, DivergenceName
from damorl.core.nets import MLP, apply_mlp, init_mlp
from damorl.core.optim import Learner, init_learner, minimise
from damorl.core.scaler import Standardiser, fit_standardiser
from damorl.errors import UserError
from damorl.parts.actor import cloning_loss, init_actor, on_raw_observations, policy, temperature_loss
from damorl.parts.behaviour_model import behaviour_loss, behaviour_policy, init_behaviour
from damorl.types import Array, Key, Metrics, Params

WARMUP_BLOCK = 1000  # updates in one compiled call of the warm-up


@dataclass(frozen=True)
class Config:
    """Settings of OptiDICE. The defaults are the released code's, but for `absorbing` and `warmup_updates`."""

    divergence_weight: float = 1.0
    """w above, the paper's alpha (released default; the paper tunes it per task)."""
    divergence: DivergenceName = "soft_chi_square"
    """Generator f, with ratios >= 0 (released default, there called elu)."""
    policy_extraction: Literal["information_projection", "weighted_cloning"] = "information_projection"
    """How the policy follows from the ratios: reverse KL to ratio times behaviour model, or weighted likelihood."""
    e_loss: Literal["minimax", "mse"] = "minimax"
    """How e(s, a) follows e_nu: Bregman distance of f* (released default), or squared error."""
    normalise_ratios: bool = True
    """Whether the multiplier l learns (released: on); else it stays 0."""
    absorbing: Literal["connected", "released", "none"] = "connected"
    """What is behind a terminal: an absorbing state that is reached; one that is masked, as released; value 0."""
    reward_scale: float = 0.1
    """Factor of the standardised rewards (released)."""
    entropy_tuning: bool = True
    """An entropy bonus tuned towards the entropy -action_dim (released: on)."""
    num_components: int = 5
    """Gaussians in the behaviour model (released)."""
    warmup_updates: int | None = None
    """Updates of all but the policy before the first that counts (released: 500 000). A multiple of 1000."""
    batch_size: int = 512
    """Rows per update, and as many initial states."""
    hidden: tuple[int, ...] = (256, 256)
    """Hidden widths of every network."""
    gamma: float = 0.99
    learning_rate: float = 3e-4
    """Of everything."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot work, with the reason."""
        if DIVERGENCES[self.divergence].whole_line:
            raise UserError(
                f"divergence '{self.divergence}' allows negative ratios, which are no occupancies: choose "
                "soft_chi_square, chi_square, half_chi_square, cubic or kl"
            )
        if self.divergence_weight <= 0.0:
            raise UserError(
                f"divergence_weight must be above 0, found {self.divergence_weight}: residuals are divided by it"
            )
        if (self.warmup_updates or 0) % WARMUP_BLOCK:
            raise UserError(
                f"warmup_updates must be a multiple of {WARMUP_BLOCK}, found {self.warmup_updates}: round it"
            )


class State(NamedTuple):
    """Everything that changes, and the data's units. `nu` and `e` are pairs (network, multiplier l)."""

    nu: Learner
    e: Learner
    behaviour: Learner
    actor: Learner
    """Of standardised observations and the absorbing flag."""
    temperature: Learner
    """Logarithm of the entropy temperature."""
    inputs: Standardiser
    rewards: Standardiser
    absorbing_share: Array
    """Of self-loop rows among all rows, scalar."""


class Rows(NamedTuple):
    """A batch in the networks' units; observations `[B, obs_dim + 1]`, standardised, the absorbing flag at the end."""

    obs: Array
    action: Array
    reward: Array
    next_obs: Array
    alive: Array
    """0 where nothing is bootstrapped."""
    initial_obs: Array


def init(key: Key, config: Config, problem: Problem, data: OfflineData) -> State:
    """Fresh networks, and the units of the data."""
    nu_key, e_key, behaviour_key, actor_key = jax.random.split(key, 4)
    (obs_dim, action_dim), tx = problem.spec, optax.adam(config.learning_rate)
    inputs = obs_dim + 1
    behaviour = init_behaviour(behaviour_key, inputs, action_dim, config.hidden, config.num_components)
    terminals = jnp.mean(data.rows.terminal)
    return State(
        nu=init_learner((init_mlp(nu_key, (inputs, *config.hidden, 1)), jnp.zeros(())), tx),
        e=init_learner((init_mlp(e_key, (inputs + action_dim, *config.hidden, 1)), jnp.zeros(())), tx),
        behaviour=init_learner(behaviour, tx),
        actor=init_learner(init_actor(actor_key, inputs, action_dim, config.hidden), tx),
        temperature=init_learner(jnp.zeros(()), tx),
        inputs=fit_standardiser(data.rows.obs),
        rewards=Standardiser(*(leaf[0] for leaf in fit_standardiser(data.rows.reward[:, None]))),
        absorbing_share=terminals / (1.0 + terminals),
    )


def sample(config: Config, state: State, data: OfflineData, key: Key) -> Rows:
    """Rows of the dataset, with absorbing rows among them as often as there are terminals, and initial states."""
    row_key, loop_key, initial_key = jax.random.split(key, 3)
    rows = ring.sample_rows(data.rows, row_key, config.batch_size)
    index = jax.random.randint(initial_key, (config.batch_size,), 0, data.initial_obs.shape[0])
    loop = jax.random.uniform(loop_key, (config.batch_size,)) < state.absorbing_share
    if config.absorbing == "none":
        loop = jnp.zeros_like(loop)
    absorbed = loop | ((rows.terminal > 0.5) & (config.absorbing != "none"))
    alive = jnp.ones_like(rows.reward) if config.absorbing == "connected" else 1.0 - jnp.maximum(rows.terminal, loop)
    loop_reward = state.rewards.apply(jnp.zeros(())) if config.absorbing == "connected" else jnp.zeros(())
    return Rows(
        obs=flagged(state.inputs, rows.obs, loop),
        action=rows.action,
        reward=config.reward_scale * jnp.where(loop, loop_reward, state.rewards.apply(rows.reward)),
        next_obs=flagged(state.inputs, rows.next_obs, absorbed),
        alive=alive,
        initial_obs=flagged(state.inputs, data.initial_obs[index], jnp.zeros_like(loop)),
    )


def flagged(inputs: Standardiser, obs: Array, absorbed: Array) -> Array:
    """Standardised observations with a 0 at the end; where `absorbed`, the absorbing state: zeros with a 1."""
    flag = absorbed.astype(jnp.float32)[:, None]
    return jnp.concatenate([inputs.apply(obs) * (1.0 - flag), flag], axis=-1)


def scalar(params: MLP, *inputs: Array) -> Array:
    """A network's one output on joined inputs, `[B]`."""
    return apply_mlp(params, jnp.concatenate(inputs, axis=-1))[..., 0]


def advantage(config: Config, nu: MLP, rows: Rows) -> Array:
    """e_nu above, `[B]`, with gradient through all three values."""
    return rows.reward + config.gamma * rows.alive * scalar(nu, rows.next_obs) - scalar(nu, rows.obs)


def dual(config: Config, e: Array, multiplier: Array) -> Array:
    """`w E[f*((e - l) / w)] + l`, the part of the nu loss that the ratios are the slope of; l = 0 if not normalised."""
    multiplier = multiplier if config.normalise_ratios else jnp.zeros(())
    weight = config.divergence_weight
    return weight * jnp.mean(DIVERGENCES[config.divergence].f_star((e - multiplier) / weight)) + multiplier


def scaled(config: Config, e: Array, multiplier: Array) -> Array:
    """`(e - l) / w`, what the record's functions take, `[B]`."""
    return (e - (multiplier if config.normalise_ratios else 0.0)) / config.divergence_weight


def nu_loss(params: tuple[MLP, Array], config: Config, rows: Rows) -> tuple[Array, tuple[Array, Metrics]]:
    """The nu loss in nu and l, with (e_nu `[B]`, metrics)."""
    nu, multiplier = params
    e = advantage(config, nu, rows)
    loss = (1.0 - config.gamma) * jnp.mean(scalar(nu, rows.initial_obs)) + dual(config, e, multiplier)
    ratio = DIVERGENCES[config.divergence].weight(scaled(config, e, multiplier))
    return loss, (e, {"nu/loss": loss, "nu/ratio": jnp.mean(ratio), "nu/ratio_max": jnp.max(ratio)})


def e_loss(params: tuple[MLP, Array], config: Config, rows: Rows, e_nu: Array) -> tuple[Array, tuple[Array, Metrics]]:
    """The e loss, and the dual for its own l; with (ratio of e `[B]`, metrics). No gradient reaches `e_nu`.

    `minimax` is `E[ratio * (e - e_nu) - w f*]`, by Fenchel's equality the released `E[w f(ratio) - ratio (e_nu - l)]`.
    """
    network, multiplier = params
    divergence, stop = DIVERGENCES[config.divergence], jax.lax.stop_gradient
    e, e_nu = scalar(network, rows.obs, rows.action), stop(e_nu)
    y = scaled(config, e, stop(multiplier))
    if config.e_loss == "mse":
        loss = jnp.mean(jnp.square(e_nu - e))
    else:
        loss = jnp.mean(divergence.weight(y) * (e - e_nu) - config.divergence_weight * divergence.f_star(y))
    metrics = {"e/loss": loss, "e/error": jnp.mean(jnp.abs(e - e_nu))}
    return loss + dual(config, stop(e), multiplier), (stop(divergence.weight(y)), metrics)


def actor_loss(
    actor: MLP, config: Config, state: State, rows: Rows, ratio: Array, key: Key
) -> tuple[Array, tuple[Array, Metrics]]:
    """The chosen extraction and the entropy bonus, with (log pi of a sampled action `[B]`, metrics)."""
    law = policy(actor, rows.obs)
    pre_tanh = law.mean + jnp.exp(law.log_std) * jax.random.normal(key, law.mean.shape)
    log_prob = law.log_prob_pre_tanh(pre_tanh)
    if config.policy_extraction == "information_projection":
        network, multiplier = state.e.params
        y = scaled(config, scalar(network, rows.obs, jnp.tanh(pre_tanh)), multiplier)
        behaviour = behaviour_policy(state.behaviour.params, rows.obs, config.num_components)
        kl = log_prob - behaviour.log_prob_pre_tanh(pre_tanh)
        loss = jnp.mean(kl - DIVERGENCES[config.divergence].log_weight(y))
        metrics = {"actor/loss": loss, "actor/kl": jnp.mean(kl)}
    else:
        loss, metrics = cloning_loss(actor, rows.obs, rows.action, ratio)
    bonus = jnp.exp(state.temperature.params) * jnp.mean(log_prob) if config.entropy_tuning else 0.0
    return loss + bonus, (log_prob, metrics)


def update_duals(config: Config, state: State, rows: Rows) -> tuple[State, Array, Metrics]:
    """One step of nu, e, their multipliers and the behaviour model, with the ratios of e before it, `[B]`."""
    tx = optax.adam(config.learning_rate)
    nu, (e_nu, metrics) = minimise(lambda p: nu_loss(p, config, rows), state.nu, tx)
    e, (ratio, e_metrics) = minimise(lambda p: e_loss(p, config, rows, e_nu), state.e, tx)
    metrics |= e_metrics
    behaviour = state.behaviour
    if config.policy_extraction == "information_projection":
        behaviour, behaviour_metrics = minimise(
            lambda p: behaviour_loss(p, rows.obs, rows.action, config.num_components), behaviour, tx
        )
        metrics |= behaviour_metrics
    return state._replace(nu=nu, e=e, behaviour=behaviour), ratio, metrics


def update(config: Config, problem: Problem, state: State, data: OfflineData, key: Key) -> tuple[State, Metrics]:
    """One gradient step of everything, all from the parameters before it."""
    batch_key, policy_key = jax.random.split(key)
    rows, tx = sample(config, state, data, batch_key), optax.adam(config.learning_rate)
    new, ratio, metrics = update_duals(config, state, rows)
    actor, (log_prob, actor_metrics) = minimise(
        lambda p: actor_loss(p, config, state, rows, ratio, policy_key), state.actor, tx
    )
    temperature, temperature_metrics = state.temperature, {}
    if config.entropy_tuning:
        temperature, temperature_metrics = minimise(
            lambda p: temperature_loss(p, log_prob, -float(rows.action.shape[1])), temperature, tx
        )
    return new._replace(actor=actor, temperature=temperature), metrics | actor_metrics | temperature_metrics


def prepare(
    key: Key, config: Config, problem: Problem, state: State, data: OfflineData, on_progress: OnProgress
) -> State:
    """The warm-up: blocks of updates of everything but the policy."""

    @jax.jit
    def block(state: State, data: OfflineData, key: Key) -> tuple[State, Metrics]:
        def step(state: State, key: Key) -> tuple[State, Metrics]:
            state, _, metrics = update_duals(config, state, sample(config, state, data, key))
            return state, metrics

        return jax.lax.scan(step, state, jax.random.split(key, WARMUP_BLOCK))

    total = config.warmup_updates or 0
    for done in range(0, total, WARMUP_BLOCK):
        state, metrics = block(state, data, jax.random.fold_in(key, done))
        figures = {name: float(jnp.mean(values)) for name, values in metrics.items()}
        on_progress("warm-up", done + WARMUP_BLOCK, total, figures)
    return state


def raw_actor(state: State) -> Params:
    """The actor for observations in the data's units."""
    return on_raw_observations(state.actor.params, state.inputs)


ALGORITHM = Algorithm("optidice", Config, init, prepare, no_refresh, update, raw_actor)
