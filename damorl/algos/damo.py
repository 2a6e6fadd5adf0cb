"""DAMO: Dual Alignment Maximin Optimization for offline model-based RL (arXiv 2502.00850).

    max_pi min_Q  (1 - gamma) E_{s0, a0 ~ pi}[Q(s0, a0)] + w E_{rho_M^pi}[f*(Phi / w)]                        (Eq. 2)
    Phi(s, a, s') = r - w log(rho_M^pi / rho_T^{pi_beta}) + gamma (1 - terminal) E_{a' ~ pi}[Q(s', a')] - Q(s, a)

w is the divergence weight (the paper's alpha). The critic minimises the objective, the actor maximises it with its
own weight fixed to 1 (C.2), and a classifier's logit is the log-ratio (Eq. 4). One forward pass serves both sides.

Deviations from the text, each a field of `Config`: twin critics and an entropy term (C.3) with a frozen target; the
symmetric loss 2/3 |y|^1.5 (the printed f* does not fit its f); a floor under the Bellman target, without which
falling pays as soon as the refined reward is negative.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from damorl.algos.base import Algorithm, OfflineData, OnProgress, Problem
from damorl.core import buffer as ring
from damorl.core.divergence import DIVERGENCES, DivergenceName
from damorl.core.optim import (
    Learner,
    adam,
    apply_gradients,
    init_learner,
    minimise,
    polyak,
    project_out,
    scale_gradient,
)
from damorl.core.scaler import Standardiser
from damorl.errors import UserError
from damorl.parts import classifier, dynamics, model_data, sac
from damorl.parts.actor import init_actor
from damorl.parts.critic import init_critic, q_min, q_values
from damorl.parts.model_data import ModelSettings
from damorl.parts.reference import kl_weight_loss, policy_log_ratio, sample_with_cost
from damorl.parts.start import sample_reference, start
from damorl.types import REWARD_UNIT, Array, Key, Metrics, Params, Transition

TRACED = (
    "divergence_weight",
    "actor_divergence_weight",
    "log_ratio_floor",
    "logit_clip",
    "classifier_strength",
    "initial_temperature",
    "tau",
    "actor_averaging",
    "actor_lr",
    "critic_lr",
    "classifier_lr",
    "temperature_lr",
)  # what a population may vary
LIVE_SHARE = 0.05  # of the live critic in the mixed target (AlgaeDICE, arXiv 1912.02074)


@dataclass(frozen=True)
class Config(ModelSettings):
    """Settings of DAMO. The defaults are the paper's (Tables 3 and 4 for hopper-medium-expert) and OfflineRL-Kit's."""

    divergence_weight: float = 3.0
    """Weight of both alignment terms, the paper's alpha (Table 4)."""
    divergence: DivergenceName = "cubic_symmetric"
    """Generator f of the behaviour alignment (C.1)."""
    critic_gradient: Literal["semi", "mixed", "full", "orthogonal"] = "semi"
    """How the target's Q(s', a') takes part in the critic's gradient: frozen; 5 % live; all; projected (ODICE)."""
    log_ratio: Literal["joint", "split"] = "joint"
    """`joint`: one classifier finds the whole log-ratio, as in the paper. `split`: its policy part log(pi / pi_ref) is
    written down, in the actor and in the next state's value, in the place of SAC's entropy; pi_ref is the clone that
    the actor starts from, and the classifier keeps the rest (see `parts/reference.py`)."""
    policy_weight: float | None = None
    """Weight of the policy's part where it is split off. None: `divergence_weight`."""
    kl_target: float | None = None
    """With it that weight is learned from there on (rate `temperature_lr`), so that the policy's mean divergence from
    the reference, in nats per step, is this: a trust region that does not depend on the scale of rewards."""
    classifier_sees: classifier.Sees = "transition"
    """Inputs of the classifier: (s, a, s'), (s, a) or s. Where the policy's part is split off and the classifier sees
    actions, that part is the known offset of its logit."""
    data_alignment: bool = True
    """The explicit term log(rho_M^pi / rho_T^{pi_beta}); off is the paper's "w/o er"."""
    behaviour_alignment: bool = True
    """The implicit term D_f(rho_T^pi || rho_M^pi); off is the paper's "w/o ir": SAC on the refined reward."""
    actor_objective: Literal["consistent", "sac"] = "consistent"
    """`consistent` maximises Eq. 2; `sac` is the paper's inconsistent version (Table 1)."""
    actor_divergence_weight: float | None = 1.0
    """Weight in the actor's objective (C.2 fixes it to 1). None: the same as the critic's (Fig. 5b)."""
    terminal_handling: Literal["floor", "absorbing", "none"] = "floor"
    """`floor`: the Bellman target is at least 0; `absorbing`: a terminal leads to an absorbing state with its own
    log-ratio; `none`: value 0 after a terminal, as printed, with which policies learn to fall."""
    initial_states: Literal["dataset", "episode_starts"] = "dataset"
    """Where s0 is drawn: any dataset state (the paper's section 7), or true episode starts."""

    classifier_regulariser: classifier.Regulariser = "none"
    """What keeps the classifier's logit bounded besides the clip (the paper says nothing)."""
    classifier_strength: float = 10.0
    """Weight of the gradient penalty or the weight decay, or the share of label smoothing."""
    logit_clip: float = 10.0
    """The log-ratio is clipped to +- this."""
    log_ratio_floor: float | None = None
    """The log-ratio is at least this. 0 leaves the penalty alone: rows that look like data earn no bonus, which would
    bootstrap. None: no floor, as printed."""

    gamma: float = 0.99
    """Discount (paper Table 3)."""
    tau: float = 0.005
    """Polyak rate of the target critic."""
    batch_size: int = 256
    """Rows per update (paper Table 3)."""
    initial_batch_size: int = 256
    """Initial states per update."""
    hidden: tuple[int, ...] = (256, 256)
    """Hidden widths of actor and critics."""
    critic_layer_norm: bool = False
    """Layer normalisation in the critics, which bounds what they say off the data (RLPD, arXiv 2302.02948)."""
    classifier_hidden: tuple[int, ...] = (256, 256)
    actor_lr: float = 1e-4
    """Paper Table 4, per task."""
    actor_lr_decay: int | None = None
    """Updates over which the actor's rate follows a cosine to zero. None: constant."""
    actor_averaging: float = 1.0
    """Polyak rate of the actor that is evaluated and saved: 1 is the actor itself (as in the paper); small rates
    average over the last 1 / rate updates, which calms the maximin's swings. Rollouts always use the actor itself."""
    critic_lr: float = 3e-4
    """Paper Table 3."""
    classifier_lr: float = 3e-4
    temperature_lr: float = 1e-4
    initial_temperature: float = field(default=1.0, metadata=REWARD_UNIT)
    """Entropy temperature (SAC's alpha) at the start; tuned towards the entropy -action_dim, never above 1."""

    @property
    def split_weight(self) -> float:
        """Weight of the policy's part where it is split off, at the start."""
        return self.divergence_weight if self.policy_weight is None else self.policy_weight

    def __post_init__(self) -> None:
        """Refuse combinations that cannot work, with the reason."""
        super().__post_init__()
        frozen = self.behaviour_alignment and self.critic_gradient == "semi"
        if frozen and not DIVERGENCES[self.divergence].conjugate_least_at_zero:
            raise UserError(
                f"divergence '{self.divergence}' with critic_gradient 'semi' pushes every Q up without end, since its "
                "conjugate is not least at zero residual: choose divergence cubic_symmetric, or critic_gradient full"
            )
        if self.log_ratio == "split" and self.cloning_updates is None:
            raise UserError(
                "log_ratio 'split' measures the policy against a clone of the data: give cloning_updates (5000, say)"
            )
        weights = (self.divergence_weight, self.actor_divergence_weight)
        if self.behaviour_alignment and any(weight is not None and weight <= 0.0 for weight in weights):
            raise UserError(
                "divergence_weight and actor_divergence_weight must be above 0 (residuals are divided by them): found "
                f"{weights[0]} and {weights[1]}; to drop a term, set data_alignment or behaviour_alignment to false"
            )
        if self.classifier_regulariser == "label_smoothing" and not 0.0 <= self.classifier_strength < 0.5:
            raise UserError(
                "with classifier_regulariser 'label_smoothing', classifier_strength is the share taken off each label "
                f"and must lie in [0, 0.5), found {self.classifier_strength}"
            )


class State(NamedTuple):
    """Everything that changes, and the fitted model."""

    actor: Learner
    average_actor: Params
    """What is evaluated: see `Config.actor_averaging`."""
    critic: Learner
    target_critic: Params
    temperature: Learner
    classifier: Learner
    classifier_inputs: Standardiser
    model: dynamics.Dynamics
    buffer: ring.RingBuffer
    terminal_rate: Array
    """`[2]`: share of terminal rows in the offline data and in the model buffer."""
    reference: Params | None = None
    """The clone, where the log-ratio is split."""


class Optimisers(NamedTuple):
    """One Adam per learner."""

    actor: optax.GradientTransformation
    critic: optax.GradientTransformation
    temperature: optax.GradientTransformation
    classifier: optax.GradientTransformation


def make_optimisers(config: Config) -> Optimisers:
    """Adam at each part's rate."""
    return Optimisers(
        adam(config.actor_lr, config.actor_lr_decay),
        adam(config.critic_lr),
        adam(config.temperature_lr),
        adam(config.classifier_lr),
    )


def init(key: Key, config: Config, problem: Problem, data: OfflineData) -> State:
    """Fresh networks, an unfitted model and an empty model buffer (Algorithm 1, line 2)."""
    model_key, actor_key, critic_key, classifier_key = jax.random.split(key, 4)
    obs_dim, action_dim = problem.spec
    tx = make_optimisers(config)
    actor = init_actor(actor_key, obs_dim, action_dim, config.hidden)
    critic = init_critic(critic_key, obs_dim, action_dim, config.hidden, layer_norm=config.critic_layer_norm)
    sizes = config.classifier_hidden, config.classifier_sees
    net = classifier.init_classifier(classifier_key, obs_dim, action_dim, *sizes)
    weight = config.initial_temperature if config.log_ratio == "joint" else config.split_weight
    return State(
        actor=init_learner(actor, tx.actor),
        average_actor=jax.tree.map(jnp.copy, actor),
        critic=init_learner(critic, tx.critic),
        target_critic=jax.tree.map(jnp.copy, critic),
        temperature=init_learner(jnp.log(jnp.float32(weight)), tx.temperature),
        classifier=init_learner(net, tx.classifier),
        classifier_inputs=classifier.fit_inputs(data.rows),
        model=dynamics.init_model(model_key, config.dynamics, obs_dim, action_dim),
        buffer=model_data.init_buffer(config, obs_dim, action_dim),
        terminal_rate=jnp.full(2, jnp.mean(data.rows.terminal)),
        reference=None if config.log_ratio == "joint" else jax.tree.map(jnp.copy, actor),
    )


def prepare(
    key: Key, config: Config, problem: Problem, state: State, data: OfflineData, on_progress: OnProgress
) -> State:
    """Fit the dynamics model (Algorithm 1, line 1) and start the networks as configured."""
    tx = make_optimisers(config)
    model = model_data.fit_model(key, config.dynamics, problem, data, on_progress)
    actor, critic = start(key, config, config.gamma, data, state.actor.params, state.critic.params)
    return state._replace(
        model=model,
        actor=init_learner(actor, tx.actor),
        average_actor=jax.tree.map(jnp.copy, actor),
        critic=init_learner(critic, tx.critic),
        target_critic=jax.tree.map(jnp.copy, critic),
        reference=None if config.log_ratio == "joint" else jax.tree.map(jnp.copy, actor),
    )


def refresh(config: Config, problem: Problem, state: State, data: OfflineData, key: Key) -> tuple[State, Metrics]:
    """Branched rollouts of the policy in the model, into the buffer (Algorithm 1, lines 4-5)."""
    rows, keep, metrics = model_data.imagine(
        config, state.model, state.actor.params, problem.termination, data.rows, key
    )
    buffer = ring.add(state.buffer, rows, keep)
    written = jnp.arange(buffer.capacity) < buffer.size
    synthetic_rate = jnp.sum(buffer.rows.terminal * written) / jnp.maximum(buffer.size, 1)
    return state._replace(buffer=buffer, terminal_rate=state.terminal_rate.at[1].set(synthetic_rate)), metrics


def update(config: Config, state: State, data: OfflineData, key: Key) -> tuple[State, Metrics]:
    """One gradient step of classifier, critic, actor, temperature and target (Algorithm 1, lines 6-9)."""
    real_key, synthetic_key, initial_key, classifier_key, policy_key = jax.random.split(key, 5)
    tx = make_optimisers(config)
    half, num_real = config.batch_size // 2, model_data.count_real(config.batch_size, config.real_ratio)
    real = ring.sample_rows(data.rows, real_key, max(num_real, half))
    synthetic = ring.sample(state.buffer, synthetic_key, max(config.batch_size - num_real, half))
    metrics: Metrics = {}

    if config.data_alignment:
        judged = real
        if config.reference_share < 1.0:
            judged = sample_reference(data, jax.random.fold_in(real_key, 1), half, config.reference_share)
        state, metrics = update_classifier(config, state, judged, synthetic, classifier_key, tx)
    batch = model_data.mix(real, synthetic, config.batch_size, config.real_ratio)
    initial_obs = sample_initial(config, data, initial_key)
    reward, absorbing = refined_reward(config, state, batch)
    batch = batch._replace(reward=reward)

    gradients = maximin_gradients if config.behaviour_alignment else penalised_sac_gradients
    grads = gradients(config, state, batch, initial_obs, absorbing, policy_key)
    critic = apply_gradients(state.critic, grads.critic, tx.critic)
    actor = apply_gradients(state.actor, grads.actor, tx.actor)
    temperature, temperature_metrics = tune_weight(config, state.temperature, grads.cost, batch.action.shape[1])
    state = state._replace(
        critic=critic,
        actor=actor,
        average_actor=polyak(state.average_actor, actor.params, config.actor_averaging),
        temperature=temperature,
        target_critic=polyak(state.target_critic, critic.params, config.tau),
    )
    return state, metrics | grads.metrics | temperature_metrics


def update_classifier(
    config: Config, state: State, real: Transition, synthetic: Transition, key: Key, tx: Optimisers
) -> tuple[State, Metrics]:
    """One step on half real, half synthetic rows (paper d = 0.5)."""
    half = config.batch_size // 2
    real, synthetic = (jax.tree.map(lambda leaf: leaf[:half], rows) for rows in (real, synthetic))
    x_real, x_synthetic = (state.classifier_inputs.apply(classifier.features(rows)) for rows in (real, synthetic))
    offset = None
    if state.reference is not None and config.classifier_sees != "state":
        both = ring.concatenate(real, synthetic)
        offset = policy_log_ratio(state.actor.params, state.reference, both.obs, both.action)
        offset = jnp.clip(offset, -config.logit_clip, config.logit_clip)
    learner, metrics = minimise(
        lambda p: classifier.classifier_loss(
            p, x_real, x_synthetic, key, config.classifier_regulariser, config.classifier_strength, offset
        ),
        state.classifier,
        tx.classifier,
    )
    return state._replace(classifier=learner), metrics


def tune_weight(config: Config, weight: Learner, cost: Array, action_dim: int) -> tuple[Learner, Metrics]:
    """One step of the entropy temperature, or of the weight of the policy's divergence from the reference, whose
    logarithms the state has in the same place. `cost` is log pi or that divergence, `[B]`."""
    optimiser = make_optimisers(config).temperature
    if config.log_ratio == "joint":
        return sac.tune_temperature(weight, cost, action_dim, optimiser)
    if config.kl_target is None:
        return weight, kl_weight_loss(weight.params, cost, 0.0)[1]
    target = config.kl_target
    return minimise(lambda p: kl_weight_loss(p, cost, target), weight, optimiser)


def sample_initial(config: Config, data: OfflineData, key: Key) -> Array:
    """s0 `[initial_batch_size, obs_dim]`."""
    source = data.rows.obs if config.initial_states == "dataset" else data.initial_obs
    return source[jax.random.randint(key, (config.initial_batch_size,), 0, source.shape[0])]


def refined_reward(config: Config, state: State, batch: Transition) -> tuple[Array, Array]:
    """`r - w log(rho_M^pi / rho_T^{pi_beta})` `[B]`, and the value of the absorbing state behind a terminal (scalar).

    With `absorbing`, occupancy continues after a terminal: a row that terminates sends gamma / (1 - gamma) of its own
    mass to the absorbing state, so that state's log-ratio follows from the two terminal rates, and alive rows share
    what is left of the mass.
    """
    if not config.data_alignment:
        return batch.reward, jnp.zeros(())
    weight = config.divergence_weight
    ratio = classifier.log_ratio(state.classifier.params, state.classifier_inputs, batch, config.logit_clip)
    floor = -jnp.inf if config.log_ratio_floor is None else config.log_ratio_floor
    if config.terminal_handling != "absorbing":
        return batch.reward - weight * jnp.maximum(ratio, floor), jnp.zeros(())
    horizon = config.gamma / (1.0 - config.gamma)
    mass_real, mass_synthetic = state.terminal_rate * horizon + 1e-3
    alive = jnp.log1p(mass_real) - jnp.log1p(mass_synthetic)
    absorbed = jnp.log(mass_synthetic) - jnp.log(mass_real) + alive
    absorbed = jnp.maximum(jnp.clip(absorbed, -config.logit_clip, config.logit_clip), floor)
    return batch.reward - weight * jnp.maximum(ratio + alive, floor), -weight * absorbed / (1.0 - config.gamma)


def bellman_target(config: Config, batch: Transition, next_value: Array, absorbing: Array) -> Array:
    """`r + gamma Q(s', a')`, with the absorbing value behind a terminal, and floored at 0 if so configured."""
    target = batch.reward + config.gamma * jnp.where(batch.terminal > 0.5, absorbing, next_value)
    return jnp.maximum(target, 0.0) if config.terminal_handling == "floor" else target


class Gradients(NamedTuple):
    """What one update needs from its losses."""

    critic: Params
    actor: Params
    cost: Array
    """log pi of the sampled actions, or the policy's divergence from the reference, `[B]`: for their weight."""
    metrics: Metrics


def maximin_gradients(
    config: Config, state: State, batch: Transition, initial_obs: Array, absorbing: Array, key: Key
) -> Gradients:
    """Gradients of Eq. 2 from one forward pass: descent for the critic, ascent for the actor."""
    divergence, num_rows, weight = DIVERGENCES[config.divergence], batch.reward.shape[0], config.divergence_weight
    actor_weight = weight if config.actor_divergence_weight is None else config.actor_divergence_weight
    temperature, stop = jnp.exp(state.temperature.params), jax.lax.stop_gradient
    consistent = config.actor_objective == "consistent"

    def maximin(critic: Params, actor: Params) -> tuple[Array, tuple[Array, Array, Metrics]]:
        obs = jnp.concatenate([batch.next_obs, initial_obs])
        action, cost = sample_with_cost(actor, obs, key, state.reference)
        action, cost = (action, cost) if consistent else (stop(action), stop(cost))
        next_action, initial_action = action[:num_rows], action[num_rows:]
        entropy_bonus = -temperature * cost[:num_rows]
        # The critic descends on Q(s0, a0) summed over critics, the actor ascends on its mean: one evaluation serves
        # both, with the gradient into the action scaled by -1/2.
        q, q_initial, q_next = evaluate_critic(
            critic, config, batch, (initial_obs, scale_gradient(initial_action, -0.5)), stop(next_action)
        )
        next_value = q_min(state.target_critic, batch.next_obs, next_action) + entropy_bonus
        bootstrap = bootstrap_value(config, stop(next_value), q_next + stop(entropy_bonus))
        residual = bellman_target(config, batch, bootstrap, absorbing) - q
        critic_loss = weight * jnp.sum(jnp.mean(divergence.f_star(residual / weight), axis=1))
        initial_value = (1.0 - config.gamma) * jnp.sum(jnp.mean(q_initial, axis=1))
        ratio = stop(divergence.weight(residual / actor_weight))
        alive = config.gamma * (1.0 - batch.terminal)
        actor_loss = -jnp.mean(jnp.mean(ratio, axis=0) * alive * next_value)
        metrics = {
            "critic/loss": critic_loss,
            "critic/q_mean": jnp.mean(q),
            "critic/residual": jnp.mean(jnp.abs(residual)),
            "actor/weight": jnp.mean(ratio),
            "actor/loss": actor_loss,
        }
        return critic_loss + initial_value + actor_loss, (cost[:num_rows], next_action, metrics)

    grads, (cost, next_action, metrics) = jax.grad(maximin, argnums=(0, 1), has_aux=True)(
        state.critic.params, state.actor.params
    )
    critic_grads, actor_grads = grads
    if config.critic_gradient == "orthogonal":
        backward = orthogonal_backward(config, state, batch, absorbing, next_action, -temperature * cost)
        critic_grads = jax.tree.map(jnp.add, critic_grads, backward)
    if not consistent:
        actor_grads, cost, sac_metrics = sac_actor_gradients(state, batch, jax.random.fold_in(key, 1))
        metrics |= sac_metrics
    return Gradients(critic_grads, actor_grads, cost, metrics)


def evaluate_critic(
    critic: Params, config: Config, batch: Transition, initial: tuple[Array, Array], next_action: Array
) -> tuple[Array, Array, Array]:
    """Live Q at (s, a), (s0, a0) and, where the gradient needs it, (s', a'), in one product: `[critic, *]` each."""
    live = config.critic_gradient in ("mixed", "full")
    obs, action = [batch.obs, initial[0]], [batch.action, initial[1]]
    if live:
        obs, action = [*obs, batch.next_obs], [*action, next_action]
    q = q_values(critic, jnp.concatenate(obs), jnp.concatenate(action))
    first, second = batch.reward.shape[0], batch.reward.shape[0] + initial[0].shape[0]
    return q[:, :first], q[:, first:second], q[:, second:] if live else jnp.zeros((q.shape[0], first))


def bootstrap_value(config: Config, frozen: Array, live: Array) -> Array:
    """Value of the next state `[critic or 1, B]`: the frozen one, AlgaeDICE's 5 % live mixture, or the live one."""
    if config.critic_gradient == "full":
        return live
    if config.critic_gradient == "mixed":
        return LIVE_SHARE * live + (1.0 - LIVE_SHARE) * frozen[None]
    return frozen[None]


def orthogonal_backward(
    config: Config, state: State, batch: Transition, absorbing: Array, next_action: Array, entropy_bonus: Array
) -> Params:
    """ODICE's backward gradient (arXiv 2402.00348), projected on the normal plane of the forward one."""
    divergence, weight = DIVERGENCES[config.divergence], config.divergence_weight
    q_frozen = q_min(state.target_critic, batch.obs, batch.action)
    next_frozen = q_min(state.target_critic, batch.next_obs, next_action) + entropy_bonus

    def loss(q: Array, next_value: Array) -> Array:
        residual = bellman_target(config, batch, next_value, absorbing) - q
        return weight * jnp.sum(jnp.mean(divergence.f_star(residual / weight), axis=1))

    forward = jax.grad(lambda p: loss(q_values(p, batch.obs, batch.action), next_frozen[None]))
    backward = jax.grad(lambda p: loss(q_frozen[None], q_values(p, batch.next_obs, next_action) + entropy_bonus))
    return project_out(backward(state.critic.params), forward(state.critic.params))


def penalised_sac_gradients(
    config: Config, state: State, batch: Transition, initial_obs: Array, absorbing: Array, key: Key
) -> Gradients:
    """ "w/o ir": no behaviour alignment, that is soft actor-critic on the refined reward; `initial_obs` is not used."""
    critic_key, actor_key = jax.random.split(key)
    temperature = jnp.exp(state.temperature.params)
    next_value = sac.soft_next_value(
        state.actor.params, state.target_critic, temperature, batch.next_obs, critic_key, state.reference
    )
    target = bellman_target(config, batch, next_value, absorbing)
    critic_grads, metrics = jax.grad(sac.td_loss, has_aux=True)(state.critic.params, batch, target)
    actor_grads, cost, actor_metrics = sac_actor_gradients(state, batch, actor_key)
    return Gradients(critic_grads, actor_grads, cost, metrics | actor_metrics)


def sac_actor_gradients(state: State, batch: Transition, key: Key) -> tuple[Params, Array, Metrics]:
    """Gradient of SAC's actor loss on this critic, log pi or the divergence from the reference `[B]`, metrics."""
    temperature = jnp.exp(state.temperature.params)
    grads, (cost, metrics) = jax.grad(sac.actor_loss, has_aux=True)(
        state.actor.params, state.critic.params, temperature, batch.obs, key, state.reference
    )
    return grads, cost, metrics


ALGORITHM = Algorithm("damo", Config, init, prepare, refresh, update, lambda state: state.average_actor, traced=TRACED)
