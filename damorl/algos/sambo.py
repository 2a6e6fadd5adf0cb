"""SAMBO: Shifts-aware Model-based Offline RL (arXiv 2408.12830). **The form of its reward is our reading.**

    r~ = r + model_weight log[p(s'|s,a) / p^(s'|s,a)] + policy_weight log[pi_b(a|s) / pi(a|s)]

p is the world, p^ the learned model, pi_b the behaviour that made the data. Then soft actor-critic on r~ and short
rollouts in the model. The first term pays for model bias, the second for policy shift; both are negative on average
under the model and the policy (they are minus Kullback-Leibler divergences there).

What is known of the paper: its abstract, which says that a *shifts-aware reward* is derived by probabilistic inference,
that it has one term for model bias and one for policy shift, and that classifiers approximate it. We could read neither
its equations, nor its settings, nor code. The two terms, their estimate and every number here are ours; a result of
this file is not a result of the paper.

The log-ratios come from three classifiers of synthetic (label 1) against offline rows, as in DARC (arXiv 2006.13916);
their logits g are log-ratios of what they see:

    g(s)        -> log rho_M(s) / rho_T(s)
    g(s, a)     -> g(s) + log pi(a|s) / pi_b(a|s)
    g(s, a, s') -> g(s, a) + log p^(s'|s,a) / p(s'|s,a)
    model shift  = g(s, a) - g(s, a, s')       policy shift = g(s) - g(s, a)

so neither a density of the behaviour nor of the model is needed, and differences of state visits cancel.

Choices of ours: each shift is clipped to +- `logit_clip`; rewards change on synthetic rows only, since an offline row's
s' is the world's and its a the behaviour's; DARC's noise on the classifiers' inputs is replaced by the regularisers of
`parts/classifier.py`; where r~ is negative, falling pays, so `target_floor` can keep Bellman targets at 0 or above.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from damorl.algos.base import Algorithm, OfflineData, Problem
from damorl.core import buffer as ring
from damorl.core.nets import MLP, init_mlp
from damorl.core.optim import Learner, init_learner, minimise
from damorl.core.scaler import Standardiser
from damorl.errors import UserError
from damorl.parts import classifier, dynamics, model_agent, model_data, sac
from damorl.parts.model_data import ModelSettings
from damorl.parts.sac import SACSettings
from damorl.parts.validation import Kept, init_kept
from damorl.types import REWARD_UNIT, Array, Key, Metrics, Params, Transition


@dataclass(frozen=True)
class Config(ModelSettings, SACSettings):
    """Settings of SAMBO: the agent's, the model's, the two weights, the classifiers'. What is not inherited is ours."""

    model_weight: float = field(default=1.0, metadata=REWARD_UNIT)
    """Weight of the model shift log(p / p^)."""
    policy_weight: float = field(default=0.1, metadata=REWARD_UNIT)
    """Weight of the policy shift log(pi_b / pi)."""
    logit_clip: float = 10.0
    """Each shift is clipped to +- this."""
    target_floor: bool = False
    """The Bellman target is at least 0, as in MOBILE's released code and in DAMO here."""
    classifier_regulariser: classifier.Regulariser = "none"
    """What keeps the classifiers' logits bounded besides the clip."""
    classifier_strength: float = 1.0
    """Weight of the gradient penalty or the weight decay, or the share of label smoothing."""
    classifier_hidden: tuple[int, ...] = (256, 256)
    """Hidden widths of each classifier."""
    classifier_lr: float = 3e-4
    """Rate of the classifiers' Adam."""

    def __post_init__(self) -> None:
        """Refuse labels smoothed past each other."""
        super().__post_init__()
        if self.classifier_regulariser == "label_smoothing" and not 0.0 <= self.classifier_strength < 0.5:
            raise UserError(
                "with classifier_regulariser 'label_smoothing', classifier_strength is the share taken off each label "
                f"and must lie in [0, 0.5), found {self.classifier_strength}"
            )


class Classifiers(NamedTuple):
    """Networks to one logit each. A network sees the first columns of `classifier.features`, as many as it has
    weights for: state, then action, then change of state."""

    state: MLP
    pair: MLP
    transition: MLP


class State(NamedTuple):
    """Everything that changes, and the fitted model."""

    agent: sac.SACState
    classifiers: Learner
    """Its parameters are `Classifiers`."""
    classifier_inputs: Standardiser
    model: dynamics.Dynamics
    """The elites."""
    buffer: ring.RingBuffer
    kept: Kept | None
    """Where the policy is validated in the model."""


def seen(net: MLP, x: Array) -> Array:
    """The columns of the features `[*B, features]` that a network sees."""
    return x[..., : net[0].kernel.shape[0]]


def init_classifiers(key: Key, obs_dim: int, action_dim: int, hidden: tuple[int, ...]) -> Classifiers:
    """Fresh networks on (s), (s, a) and (s, a, s' - s)."""
    widths = (obs_dim, obs_dim + action_dim, 2 * obs_dim + action_dim)
    keys = jax.random.split(key, len(widths))
    return Classifiers(*(init_mlp(k, (width, *hidden, 1)) for k, width in zip(keys, widths, strict=True)))


def classifiers_loss(
    params: Classifiers, config: Config, real: Array, synthetic: Array, key: Key
) -> tuple[Array, Metrics]:
    """The three cross-entropies, summed; `[B, features]` each. The metrics `classifier/*` are the transition's."""
    keys = jax.random.split(key, len(params))
    found = {
        name: classifier.classifier_loss(
            net, seen(net, real), seen(net, synthetic), k, config.classifier_regulariser, config.classifier_strength
        )
        for name, net, k in zip(params._fields, params, keys, strict=True)
    }
    accuracy = {f"classifier/accuracy_{name}": found[name][1]["classifier/accuracy"] for name in ("state", "pair")}
    return sum((loss for loss, _ in found.values()), jnp.zeros(())), found["transition"][1] | accuracy


def shifts(params: Classifiers, inputs: Standardiser, rows: Transition, clip: float) -> tuple[Array, Array]:
    """(log p/p^, log pi_b/pi) of rows `[B, ...]`, `[B]` each, clipped. No gradient flows through them."""
    x = inputs.apply(classifier.features(rows))
    state, pair, transition = (classifier.logit(net, seen(net, x)) for net in params)
    bounded = lambda shift: jax.lax.stop_gradient(jnp.clip(shift, -clip, clip))
    return bounded(pair - transition), bounded(state - pair)


def shifts_aware(config: Config, state: State, batch: Transition) -> tuple[Transition, Metrics]:
    """A mixed batch whose synthetic rows, the last ones, have r~ for their reward."""
    num_real = model_data.count_real(config.batch_size, config.real_ratio)
    synthetic = jax.tree.map(lambda leaf: leaf[num_real:], batch)
    model_shift, policy_shift = shifts(state.classifiers.params, state.classifier_inputs, synthetic, config.logit_clip)
    bonus = config.model_weight * model_shift + config.policy_weight * policy_shift
    reward = jnp.concatenate([batch.reward[:num_real], synthetic.reward + bonus])
    metrics = {"reward/model_shift": jnp.mean(model_shift), "reward/policy_shift": jnp.mean(policy_shift)}
    return batch._replace(reward=reward), metrics


def update_classifiers(
    config: Config, state: State, real: Transition, synthetic: Transition, key: Key
) -> tuple[State, Metrics]:
    """One step of the three classifiers on as many real as synthetic rows."""
    x_real, x_synthetic = (state.classifier_inputs.apply(classifier.features(rows)) for rows in (real, synthetic))
    loss = lambda params: classifiers_loss(params, config, x_real, x_synthetic, key)
    learner, metrics = minimise(loss, state.classifiers, optax.adam(config.classifier_lr))
    return state._replace(classifiers=learner), metrics


def init(key: Key, config: Config, problem: Problem, data: OfflineData) -> State:
    """Fresh networks, an unfitted model and an empty model buffer."""
    model_key, agent_key, classifier_key = jax.random.split(key, 3)
    nets: Params = init_classifiers(classifier_key, *problem.spec, config.classifier_hidden)
    agent = sac.init(agent_key, config, problem.spec)
    return State(
        agent,
        init_learner(nets, optax.adam(config.classifier_lr)),
        classifier.fit_inputs(data.rows),
        dynamics.init_model(model_key, config.dynamics, *problem.spec),
        model_data.init_buffer(config, *problem.spec),
        init_kept(config, agent.actor.params),
    )


def update(config: Config, problem: Problem, state: State, data: OfflineData, key: Key) -> tuple[State, Metrics]:
    """One gradient step of the classifiers, then of critic, actor and temperature on the adjusted reward."""
    batch_key, agent_key, classifier_key = jax.random.split(key, 3)
    real_key, synthetic_key, penalty_key = jax.random.split(classifier_key, 3)
    half = max(config.batch_size // 2, 1)
    real = ring.sample_rows(data.rows, real_key, half)
    synthetic = ring.sample(state.buffer, synthetic_key, half)
    state, metrics = update_classifiers(config, state, real, synthetic, penalty_key)

    batch = model_data.mixed_batch(data.rows, state.buffer, batch_key, config.batch_size, config.real_ratio)
    batch, shift_metrics = shifts_aware(config, state, batch)
    target_key, step_key = jax.random.split(agent_key)
    target = sac.td_target(config, state.agent, batch, target_key)
    target = jnp.maximum(target, 0.0) if config.target_floor else target
    agent, agent_metrics = sac.step(config, state.agent, batch, target, step_key)
    return state._replace(agent=agent), metrics | shift_metrics | agent_metrics


ALGORITHM = Algorithm(
    "sambo",
    Config,
    init=init,
    prepare=model_agent.prepare,
    refresh=model_agent.refresh,
    update=update,
    actor=model_agent.actor,
)
