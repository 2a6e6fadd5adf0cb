"""DAMO: Dual Alignment Maximin Optimization for offline model-based RL (arXiv 2502.00850).

    max_pi min_Q  (1 - gamma) E_{s0, a0 ~ pi}[Q(s0, a0)] + w E_{rho_M^pi}[f*(Phi / w)]                        (Eq. 2)
    Phi(s, a, s') = r - w log(rho_M^pi / rho_T^{pi_beta}) + gamma (1 - terminal) E_{a' ~ pi}[Q(s', a')] - Q(s, a)

w is the divergence weight (the paper's alpha). Algorithm 1 is `prepare`, `init`, `refresh` and `update` below, line by
line. Its equations are parts: `parts/classifier.py` has Eq. 3, `parts/refined_reward.py` Eq. 4 and the Bellman target,
`parts/maximin.py` both gradients of Eq. 2.

Deviations from the text, each a field of `Config`: twin critics and an entropy term (C.3) with a frozen target; the
symmetric loss 2/3 |y|^1.5 (the printed f* does not fit its f); a floor under the Bellman target, without which
falling pays as soon as the refined reward is negative.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from damorl.algos.base import Algorithm, OfflineData, OnProgress, Problem
from damorl.core import buffer as ring
from damorl.core.optim import Learner, adam, apply_gradients, init_learner, minimise, polyak
from damorl.core.scaler import Standardiser
from damorl.errors import UserError
from damorl.parts import classifier, dynamics, maximin, model_data, sac
from damorl.parts.actor import init_actor
from damorl.parts.batches import sample
from damorl.parts.critic import init_critic
from damorl.parts.imagined import World, imagined_gradients
from damorl.parts.maximin import MaximinSettings
from damorl.parts.model_data import ModelSettings
from damorl.parts.policy_weight import tune_weight
from damorl.parts.reference import policy_log_ratio
from damorl.parts.refined_reward import refined_reward
from damorl.parts.start import start
from damorl.parts.trust import TrustSettings, init_target, move_target
from damorl.parts.validation import Kept, begin_kept, init_kept, validate
from damorl.types import REWARD_UNIT, Array, Key, Metrics, Params, Transition

ALIGNMENT_WEIGHTS = ("divergence_weight", "actor_divergence_weight", "log_ratio_floor", "logit_clip")
TRACED = (*ALIGNMENT_WEIGHTS, "classifier_strength", "classifier_lr", *sac.TRACED)  # what a population may vary


@dataclass(frozen=True)
class Config(MaximinSettings, TrustSettings, ModelSettings):
    """Settings of DAMO: of Eq. 2 to 4, of the model, and these. The defaults are the paper's (Tables 3 and 4 for
    hopper-medium-expert) and OfflineRL-Kit's."""

    log_ratio: Literal["joint", "split"] = "joint"
    """`joint`: one classifier finds the whole log-ratio, as in the paper. `split`: its policy part log(pi / pi_ref) is
    written down, in the actor and in the next state's value, in the place of SAC's entropy; pi_ref is the clone that
    the actor starts from, and the classifier keeps the rest (see `parts/reference.py`)."""
    policy_weight: float | None = None
    """Weight of the policy's part where it is split off. None: `divergence_weight`."""
    initial_states: Literal["dataset", "episode_starts"] = "dataset"
    """Where s0 is drawn: any dataset state (the paper's section 7), or true episode starts."""

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
    actor_lr: float = 1e-4
    """Paper Table 4, per task."""
    actor_lr_decay: int | None = None
    """Updates over which the actor's rate follows a cosine to zero. None: constant."""
    actor_averaging: float = 1.0
    """Polyak rate of the actor that is evaluated and saved: 1 is the actor itself (as in the paper); small rates
    average over the last 1 / rate updates, which calms the maximin's swings. Rollouts always use the actor itself."""
    critic_lr: float = 3e-4
    """Paper Table 3."""
    temperature_lr: float = 1e-4
    initial_temperature: float = field(default=1.0, metadata=REWARD_UNIT)
    """Entropy temperature (SAC's alpha) at the start; tuned towards the entropy -action_dim, never above 1."""

    @property
    def split_weight(self) -> float:
        """Weight of the policy's part where it is split off, at the start."""
        return self.divergence_weight if self.policy_weight is None else self.policy_weight

    def __post_init__(self) -> None:
        """Refuse combinations that cannot work, with the reason."""
        ModelSettings.__post_init__(self)
        MaximinSettings.__post_init__(self)
        self.check_trust()
        if self.actor_objective == "imagined":
            self.dynamics.check_dealt("actor_starts", self.actor_starts)
        if self.trust != "fixed" and self.log_ratio == "joint":
            raise UserError(f"trust '{self.trust}' holds the policy near the cloned reference: set log_ratio to split")
        if self.log_ratio == "split" and self.cloning_updates is None:
            raise UserError(
                "log_ratio 'split' measures the policy against a clone of the data: give cloning_updates (5000, say)"
            )


class State(NamedTuple):
    """Everything that changes, and the fitted model."""

    actor: Learner
    average_actor: Params
    """What is evaluated: see `Config.actor_averaging`."""
    critic: Learner
    target_critic: Params
    temperature: Learner
    """Its parameter is the logarithm of the entropy temperature, or of the weight of the policy's part."""
    classifier: Learner
    classifier_inputs: Standardiser
    model: dynamics.Dynamics
    buffer: ring.RingBuffer
    terminal_rate: Array
    """`[2]`: share of terminal rows in the offline data and in the model buffer."""
    reference: Params | None = None
    """The clone, where the log-ratio is split."""
    kept: Kept | None = None
    """Where the policy is validated in the model."""
    kl_target: Array | None = None
    """Where the trust region moves."""


class Optimisers(NamedTuple):
    """One Adam per learner."""

    actor: optax.GradientTransformation
    critic: optax.GradientTransformation
    temperature: optax.GradientTransformation
    classifier: optax.GradientTransformation


# --- Algorithm 1 ------------------------------------------------------------------------------------------------


def prepare(
    key: Key, config: Config, problem: Problem, state: State, data: OfflineData, on_progress: OnProgress
) -> State:
    """Line 1: start the networks as configured; fit the dynamics model M on the offline data."""
    actor, critic = start(key, config, config.gamma, data, state.actor.params, state.critic.params)
    model = model_data.fit_model(key, config.dynamics, problem, data, on_progress)
    kept = begin_kept(config, config.reference_share, model, problem.termination, actor, data)
    return state._replace(model=model, kept=kept, **begin(config, actor, critic))


def init(key: Key, config: Config, problem: Problem, data: OfflineData) -> State:
    """Line 2: an empty model buffer D_M; besides, fresh networks, and the shape of the model."""
    model_key, *network_keys = jax.random.split(key, 4)
    obs_dim, action_dim = problem.spec
    return State(
        **fresh_networks(network_keys, config, problem),
        classifier_inputs=classifier.fit_inputs(data.rows),
        model=dynamics.init_model(model_key, config.dynamics, obs_dim, action_dim),
        buffer=model_data.init_buffer(config, obs_dim, action_dim),
        terminal_rate=jnp.full(2, jnp.mean(data.rows.terminal)),
    )


def refresh(config: Config, problem: Problem, state: State, data: OfflineData, key: Key) -> tuple[State, Metrics]:
    """Lines 4 and 5: branched rollouts of the policy in the model, into the buffer; the trust region is moved."""
    episodes, found = None, {}
    if state.kept is not None:
        judge = state.model, problem.termination, state.average_actor
        kept, bound, episodes, found = validate(config, state.kept, *judge, data, config.gamma)
        if state.kl_target is not None:
            found["trust/kl_target"] = move_target(config, state.kl_target, state.kept, bound)
            state = state._replace(kl_target=found["trust/kl_target"])
        state = state._replace(kept=kept)
    start_key, rollout_key = jax.random.split(key)
    starts = model_data.draw_starts(config, data.rows, episodes, start_key)
    world = state.model, state.actor.params, problem.termination
    rows, keep, metrics = model_data.imagine(config, *world, starts, rollout_key)
    buffer = ring.add(state.buffer, rows, keep)
    written = jnp.arange(buffer.capacity) < buffer.size
    synthetic_rate = jnp.sum(buffer.rows.terminal * written) / jnp.maximum(buffer.size, 1)
    return state._replace(buffer=buffer, terminal_rate=state.terminal_rate.at[1].set(synthetic_rate)), metrics | found


def update(config: Config, problem: Problem, state: State, data: OfflineData, key: Key) -> tuple[State, Metrics]:
    """Lines 6 to 9: one gradient step of classifier, critic and actor, then of their temperature and averages."""
    *sample_keys, classifier_key, policy_key = jax.random.split(key, 5)
    tx, metrics = make_optimisers(config), {}
    rows = sample(config, state.buffer, data, sample_keys)
    # line 6, Eq. 3: the classifier tells model-generated rows from offline ones
    if config.data_alignment:
        state, metrics = update_classifier(config, state, rows.real, rows.synthetic, classifier_key, tx)
    # line 7, Eq. 4: the reward less the weighted log-ratio, which is the classifier's logit
    judges = state.classifier.params, state.classifier_inputs, state.terminal_rate
    reward, absorbing = refined_reward(config, *judges, rows.batch)
    # lines 8 and 9, Eq. 2: the critic descends, the actor ascends, both from where they are
    batch = rows.batch._replace(reward=reward)
    grads = maximin.gradients(config, networks(state), batch, rows.initial_obs, absorbing, policy_key)
    if config.actor_objective == "imagined":
        refine = lambda rows: refined_reward(config, *judges, rows)[0]
        world = World(state.model, problem.termination, refine, config.rollout_noise)
        grads = imagined_gradients(config, networks(state), world, grads, batch.obs, policy_key)
    critic = apply_gradients(state.critic, grads.critic, tx.critic)
    actor = apply_gradients(state.actor, grads.actor, tx.actor)
    target = config.kl_target if state.kl_target is None else state.kl_target
    temperature, temperature_metrics = tune_weight(
        config.log_ratio, target, state.temperature, grads.cost, batch.action.shape[1], tx.temperature
    )
    state = state._replace(
        critic=critic,
        actor=actor,
        temperature=temperature,
        target_critic=polyak(state.target_critic, critic.params, config.tau),
        average_actor=polyak(state.average_actor, actor.params, config.actor_averaging),
    )
    return state, metrics | grads.metrics | temperature_metrics


# --- what it stands on ------------------------------------------------------------------------------------------


def make_optimisers(config: Config) -> Optimisers:
    """Adam at each part's rate."""
    constant = (config.critic_lr, config.temperature_lr, config.classifier_lr)
    return Optimisers(adam(config.actor_lr, config.actor_lr_decay), *map(adam, constant))


def fresh_networks(keys: list[Key], config: Config, problem: Problem) -> dict[str, Any]:
    """The fields of a `State` that learn; `keys` are those of actor, critic and classifier."""
    (actor_key, critic_key, classifier_key), spec, tx = keys, problem.spec, make_optimisers(config)
    actor = init_actor(actor_key, *spec, config.hidden)
    critic = init_critic(critic_key, *spec, config.hidden, layer_norm=config.critic_layer_norm)
    net = classifier.init_classifier(classifier_key, *spec, config.classifier_hidden, config.classifier_sees)
    weight = config.initial_temperature if config.log_ratio == "joint" else config.split_weight
    return begin(config, actor, critic) | {
        "kept": init_kept(config, actor),
        "kl_target": init_target(config),
        "temperature": init_learner(jnp.log(jnp.float32(weight)), tx.temperature),
        "classifier": init_learner(net, tx.classifier),
    }


def begin(config: Config, actor: Params, critic: Params) -> dict[str, Any]:
    """The fields of a `State` that begin as copies of these: their learners, their averages and the reference."""
    tx, copy = make_optimisers(config), lambda params: jax.tree.map(jnp.copy, params)
    return {
        "actor": init_learner(actor, tx.actor),
        "average_actor": copy(actor),
        "critic": init_learner(critic, tx.critic),
        "target_critic": copy(critic),
        "reference": None if config.log_ratio == "joint" else copy(actor),
    }


def networks(state: State) -> maximin.Networks:
    """What Eq. 2 is asked of."""
    temperature = jnp.exp(state.temperature.params)
    return maximin.Networks(state.actor.params, state.critic.params, state.target_critic, temperature, state.reference)


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


def result(state: State) -> Params:
    """The actor that is evaluated and saved."""
    return state.average_actor if state.kept is None else state.kept.policy


ALGORITHM = Algorithm("damo", Config, init, prepare, refresh, update, result, traced=TRACED)
