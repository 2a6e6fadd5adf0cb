"""RAMBO: Robust Adversarial Model-Based Offline reinforcement learning (arXiv 2204.12581).

    max_pi min_p V(pi, p)  over models p that stay likely on the data; the two players move in turns.

    model   min_p  adversary_weight * E[A log p(s', r | s, a)] + L_MLE(offline rows),  a ~ pi, (s', r) ~ p
            p = 1/K sum_k N(mu_k, sigma_k) over the K elites;  L_MLE: the fit's own loss, `dynamics.nll_loss`
            A = r + gamma (1 - terminal) min_j Q_j(s', mode of pi(s')) - min_j Q_j(s, a), standardised over the batch
    agent   soft actor-critic on half offline rows, half short rollouts of the policy in this model

The weight is the paper's lambda. A and (s', r) are constants of the model's gradient (REINFORCE): outcomes better than
the critic expects lose likelihood. As released: live critics, no entropy in A, the mean over the batch, and chains of
`rollout_length` model updates that run on past terminals.

Deviations. From paper and released code: only the elites go on learning, since nothing asks the other members; the
agent sees raw states (the original standardises them; the model standardises its own inputs), so weight 0 is `sac`
with a cloned start; the model moves before each block of updates, so once more than in the original, at the start,
against an untrained critic; 255 instead of 256 imagined rows, dealt evenly to five elites; cloning takes
`cloning_updates` steps at rate 1e-3 instead of 50 epochs at 1e-4; the temperature is at most 1 (OfflineRL-Kit);
initial log-variance bounds, hold-out share and target scaling are those of `parts/dynamics.py` and its fit. From
OfflineRL-Kit: rollouts every 1000 updates instead of 250, real rows drawn for each elite instead of shared.
Bugs not copied: densities exponentiated before their logarithm (log 0 for far samples), whole batches skipped in
cloning where an action touches its bound, next states that are the next episode's start, the Hopper rule's bracket.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from damorl.algos.base import Algorithm, OfflineData, Problem
from damorl.core import buffer as ring
from damorl.core.distribution import gaussian_log_prob
from damorl.core.optim import Learner, adam, minimise
from damorl.parts import dynamics, model_agent, sac
from damorl.parts.actor import policy
from damorl.parts.critic import q_min
from damorl.parts.dynamics import DynamicsConfig
from damorl.parts.model_data import ModelSettings
from damorl.parts.sac import SACSettings
from damorl.parts.validation import Kept
from damorl.types import Array, Key, Metrics, OnProgress, Params, Transition


@dataclass(frozen=True)
class Config(ModelSettings, SACSettings):
    """Settings of RAMBO: the agent's, the model's, and how the model plays against the agent."""

    real_ratio: float = 0.5
    """Share of offline rows in a batch (paper and both codes)."""
    dynamics: DynamicsConfig = field(
        default_factory=partial(DynamicsConfig, learning_rate=3e-4, log_var_coef=0.001, patience=10)
    )
    """The model's fit, with the rambo repo's rate, bound coefficient and patience; the coefficient and the weight
    decay hold for the adversarial updates too."""
    adversary_weight: float = 3e-4
    """Weight of the adversarial term, the paper's lambda (tuned per dataset: 3e-4 or 0)."""
    zero_weight: Literal["no_updates", "likelihood"] = "no_updates"
    """What adversary_weight 0 means: the model stays as fitted (rambo repo, whose tuned values are used), or the
    updates go on with the likelihood term alone (OfflineRL-Kit)."""
    adversary_updates: int = 1000
    """Model updates before each block of agent updates (both codes)."""
    adversary_batch_size: int = 255
    """Imagined rows, and real rows per elite, of a model update. A multiple of dynamics.num_elites."""
    adversary_lr: float = 3e-4
    """Rate of the model's own Adam in these updates (both codes)."""
    cloning_updates: int | None = 20_000
    """Updates of behaviour cloning that the actor starts with (ours: the likelihood is flat). None: a random start."""

    def __post_init__(self) -> None:
        """Refuse a batch that cannot be dealt evenly to the elites."""
        super().__post_init__()
        self.dynamics.check_dealt("adversary_batch_size", self.adversary_batch_size)

    @property
    def model_moves(self) -> bool:
        """Whether there are model updates at all."""
        return self.adversary_weight > 0.0 or self.zero_weight == "likelihood"


class State(NamedTuple):
    """Everything that changes."""

    agent: sac.SACState
    model: dynamics.Dynamics
    """The elites. Their parameters move; their scaling is the fit's."""
    model_optimiser: Any
    """State of the Adam of `model.params`."""
    buffer: ring.RingBuffer
    kept: Kept | None
    """Where the policy is validated, in the model as it stands."""


def log_density(params: dynamics.DynamicsParams, x: Array, y: Array, varying: Array) -> Array:
    """log p(y | x) of the elites' mixture, `[B, in], [B, obs_dim + 1] -> [B]`, all in standardised units.

    A fixed change of units, and targets that never change (`varying` 0), only add constants.
    """
    num_elites = params.layers[0].kernel.shape[0]
    mean, log_var = dynamics.forward(params, jnp.broadcast_to(x, (num_elites, *x.shape)))
    each = gaussian_log_prob(y * varying, mean * varying, 0.5 * log_var * varying)
    return jax.nn.logsumexp(each, axis=0) - math.log(num_elites)


def advantage(config: Config, agent: sac.SACState, rows: Transition) -> Array:
    """A of the module's first lines before it is standardised, `[B]`."""
    next_action = policy(agent.actor.params, rows.next_obs).mode()
    next_value = q_min(agent.critic.params, rows.next_obs, next_action)
    target = rows.reward + config.gamma * (1.0 - rows.terminal) * next_value
    return target - q_min(agent.critic.params, rows.obs, rows.action)


def standardise(values: Array) -> Array:
    """Zero mean, unit deviation over the batch `[B]`; equal values become 0."""
    return (values - jnp.mean(values)) / (jnp.std(values) + 1e-6)


def fit_units(model: dynamics.Dynamics, rows: Transition) -> tuple[Array, Array, Array]:
    """Inputs and targets of `rows` as the fit saw them, and the mask `[obs_dim + 1]` of targets that ever change."""
    x, y = dynamics.model_arrays(rows)
    varying = model.targets.scale > 0.0
    targets = model.targets._replace(scale=jnp.where(varying, model.targets.scale, 1.0))
    return model.inputs.apply(x), targets.apply(y), varying.astype(jnp.float32)


def adversarial_loss(
    params: dynamics.DynamicsParams, model: dynamics.Dynamics, rows: Transition, weights: Array
) -> tuple[Array, Metrics]:
    """`E[A log p(s', r | s, a)]` over imagined rows with their standardised advantages `weights`, `[B]`."""
    log_prob = log_density(params, *fit_units(model, rows))
    loss = jnp.mean(weights * log_prob)
    return loss, {"adversary/loss": loss, "adversary/log_density": jnp.mean(log_prob)}


def likelihood_loss(
    config: Config, params: dynamics.DynamicsParams, model: dynamics.Dynamics, rows: Transition
) -> tuple[Array, Metrics]:
    """L_MLE on real rows `[elite * B, ...]`, each elite on its own B."""
    x, y, varying = fit_units(model, rows)
    own = lambda leaf: leaf.reshape(config.dynamics.num_elites, -1, leaf.shape[-1])
    return dynamics.nll_loss(params, own(x), own(y), varying, config.dynamics)


def imagine(model: dynamics.Dynamics, actor: Params, problem: Problem, obs: Array, key: Key) -> Transition:
    """One step of the policy in the model from `obs` `[B, obs_dim]`."""
    action_key, model_key = jax.random.split(key)
    action, _ = policy(actor, obs).sample(action_key)
    next_obs, reward = dynamics.sample_step(model, obs, action, model_key)
    terminal = problem.termination(obs, action, next_obs).astype(jnp.float32)
    return Transition(obs, action, reward, next_obs, terminal)


def update_model(
    config: Config, problem: Problem, state: State, data: OfflineData, obs: Array, key: Key
) -> tuple[State, Array, Metrics]:
    """One gradient step of the model on both terms, from imagined steps at `obs`; also where those steps lead."""
    step_key, real_key = jax.random.split(key)
    model = state.model
    rows = imagine(model, state.agent.actor.params, problem, obs, step_key)
    values = advantage(config, state.agent, rows)
    real = ring.sample_rows(data.rows, real_key, config.dynamics.num_elites * config.adversary_batch_size)

    def loss(params: dynamics.DynamicsParams) -> tuple[Array, Metrics]:
        adversarial, metrics = adversarial_loss(params, model, rows, standardise(values))
        likelihood, likelihood_metrics = likelihood_loss(config, params, model, real)
        return config.adversary_weight * adversarial + likelihood, metrics | likelihood_metrics

    learner, metrics = minimise(loss, Learner(model.params, state.model_optimiser), adam(config.adversary_lr))
    metrics |= {"adversary/advantage": jnp.mean(values)}
    state = state._replace(model=model._replace(params=learner.params), model_optimiser=learner.opt_state)
    return state, rows.next_obs, metrics


def play(config: Config, problem: Problem, state: State, data: OfflineData, key: Key) -> tuple[State, Metrics]:
    """`adversary_updates` model updates, on chains of `rollout_length` imagined steps from dataset states."""

    def step(carry: tuple[State, Array], inputs: tuple[Array, Key]) -> tuple[tuple[State, Array], Metrics]:
        (state, obs), (starts, step_key) = carry, inputs
        start_key, update_key = jax.random.split(step_key)
        fresh = ring.sample_rows(data.rows, start_key, config.adversary_batch_size).obs
        state, obs, metrics = update_model(config, problem, state, data, jnp.where(starts, fresh, obs), update_key)
        return (state, obs), metrics

    starts = jnp.arange(config.adversary_updates) % config.rollout_length == 0
    obs = jnp.zeros((config.adversary_batch_size, problem.spec.obs_dim))
    (state, _), metrics = jax.lax.scan(step, (state, obs), (starts, jax.random.split(key, starts.size)))
    return state, jax.tree.map(jnp.mean, metrics)


def init(key: Key, config: Config, problem: Problem, data: OfflineData) -> State:
    """Fresh networks, an unfitted model and an empty model buffer."""
    agent, model, buffer, kept = model_agent.init(key, config, problem, data)
    return State(agent, model, adam(config.adversary_lr).init(model.params), buffer, kept)


def prepare(
    key: Key, config: Config, problem: Problem, state: State, data: OfflineData, on_progress: OnProgress
) -> State:
    """Fit the dynamics model, give it a fresh Adam, and start from a cloned actor."""
    state = model_agent.prepare(key, config, problem, state, data, on_progress)
    return state._replace(model_optimiser=adam(config.adversary_lr).init(state.model.params))


def refresh(config: Config, problem: Problem, state: State, data: OfflineData, key: Key) -> tuple[State, Metrics]:
    """The model's turn; then branched rollouts of the policy in it, into the buffer."""
    metrics: Metrics = {}
    if config.model_moves:
        adversary_key, key = jax.random.split(key)
        state, metrics = play(config, problem, state, data, adversary_key)
    state, rollout_metrics = model_agent.refresh(config, problem, state, data, key)
    return state, metrics | rollout_metrics


ALGORITHM = Algorithm(
    "rambo",
    Config,
    init=init,
    prepare=prepare,
    refresh=refresh,
    update=model_agent.update,
    actor=model_agent.actor,
)
