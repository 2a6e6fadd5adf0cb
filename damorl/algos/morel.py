"""MOReL: Model-Based Offline Reinforcement Learning (arXiv 2005.05951).

    disc(s, a)  = max_{k, l} ||mu_k(s, a) - mu_l(s, a)||_2, the elites' predicted next states              (section 4.1)
    known       iff disc(s, a) <= threshold,   threshold = threshold_coefficient * quantile_D(disc, known_share)
    pessimistic MDP: in a known (s, a) the model's reward and next state; an unknown one leads to HALT,
                which ends the episode:   r = min_D r - halt_penalty,  terminal = 1

Then soft actor-critic on rollouts in this pessimistic MDP. With `known_share` 1 the threshold is a multiple of the
largest disagreement on the data, as in the released code (mjrl).

Deviations. From the paper and mjrl:
- the planner is soft actor-critic on model data (`sac`'s), not natural policy gradient on whole imagined episodes
  from start states: the same planner as every method of this family here, so that what is compared is the pessimism,
  and a method whose updates cost the same. (The public JAX code, unifloral, has SAC too.) So rollouts are short and
  branch from any dataset state, the discount is 0.99 instead of 0.999, and a batch has 5 % offline rows;
- HALT is absorbing in the paper and pays its low reward for ever. Here the row that reaches it ends the episode with
  one reward, which stands for that sum: `halt_penalty` is of the size of a return, not of a step's reward;
- the dynamics are the family's probabilistic ensemble with a learned reward, its elites instead of four deterministic
  networks, and rewards are the model's own (mjrl is handed the true reward function).
From `parts/dynamics.disagreement`, which judges policies in `damorl select`: that one is the largest distance from the
mean, in deviations of each feature; this one is the largest distance between two elites, in the data's own units, or
in those deviations with `discrepancy = "standardised"`.
Bugs not copied: truncated paths that bootstrap past HALT (mjrl); a reference disagreement taken between members at
different data points (unifloral); the best policy picked by its score in the real environment (mjrl's example).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from damorl.algos.base import Algorithm, OfflineData, Problem
from damorl.core import buffer as ring
from damorl.errors import UserError
from damorl.parts import dynamics, model_agent, model_data, sac
from damorl.parts.model_data import ModelSettings
from damorl.parts.model_units import to_own_units
from damorl.parts.sac import SACSettings
from damorl.parts.validation import Kept
from damorl.types import REWARD_UNIT, Array, Key, Metrics, OnProgress, Transition, Units

CHUNK = 10_000  # rows of the data whose disagreement is computed at once

Discrepancy = Literal["raw", "standardised"]


@dataclass(frozen=True)
class Config(ModelSettings, SACSettings):
    """Settings of MOReL: the agent's, the model's, and the pessimistic MDP's."""

    threshold_coefficient: float = 3.0
    """What is known, as a multiple of the data's own disagreement (mjrl's example for hopper-medium)."""
    known_share: float = 1.0
    """Share of the data whose disagreement is multiplied: 1 is the largest (mjrl). Ours below 1: one strange row
    does not move a quantile."""
    discrepancy: Discrepancy = "raw"
    """Units of the disagreement: the states' own (paper, mjrl), or deviations of each feature's change (ours)."""
    halt_penalty: float = field(default=200.0, metadata=REWARD_UNIT)
    """The halt's reward is the data's lowest reward less this (unifloral's default; the paper's is -kappa)."""

    def __post_init__(self) -> None:
        """Refuse a share that is none, and an ensemble that cannot disagree."""
        super().__post_init__()
        if not 0.0 < self.known_share <= 1.0:
            raise UserError(f"known_share must be above 0 and at most 1, found {self.known_share}: 1 is the whole data")
        if self.dynamics.num_elites < 2:
            raise UserError(
                f"dynamics.num_elites must be at least 2 for a distance between elites, found "
                f"{self.dynamics.num_elites}: give more elites, or train sac"
            )


class State(NamedTuple):
    """Everything that changes, the fitted model, and what it knows."""

    agent: sac.SACState
    model: dynamics.Dynamics
    """The elites."""
    buffer: ring.RingBuffer
    kept: Kept | None
    """Where the policy is validated in the model."""
    threshold: Array
    """Largest disagreement of a known pair, scalar; infinite before the fit."""


def discrepancy(
    model: dynamics.Dynamics, obs: Array, action: Array, kind: Discrepancy, units: Units | None = None
) -> Array:
    """disc(s, a): the largest distance between two elites' mean next states, `[B, d] -> [B]`. `standardised` leaves
    features that never change out; `units` are those of the model."""
    prediction = dynamics.predict_all(model, obs, action)
    if kind == "standardised":
        scale = model.targets.scale[:-1]
        mean = prediction.mean[..., :-1] / jnp.where(scale > 0.0, scale, jnp.inf)
    else:
        mean = to_own_units(prediction, units).mean[..., :-1]
    apart = jnp.linalg.norm(mean[:, None] - mean[None], axis=-1)
    return jnp.max(apart, axis=(0, 1))


def fit_threshold(config: Config, model: dynamics.Dynamics, data: OfflineData) -> Array:
    """The disagreement up to which a pair is known, from all of the data's pairs: scalar."""
    one = lambda pair: discrepancy(model, pair[0][None], pair[1][None], config.discrepancy, data.units)[0]
    every = jax.jit(lambda obs, action: jax.lax.map(one, (obs, action), batch_size=CHUNK))
    found = every(data.rows.obs, data.rows.action)
    return config.threshold_coefficient * jnp.quantile(found, config.known_share)


def halt(config: Config, state: State, halt_reward: Array, rows: Transition, units: Units | None = None) -> Transition:
    """Rows of the model as the pessimistic MDP has them: unknown pairs earn the halt's reward and end the episode."""
    found = discrepancy(state.model, rows.obs, rows.action, config.discrepancy, units)
    known = found <= state.threshold
    return rows._replace(
        reward=jnp.where(known, rows.reward, halt_reward), terminal=jnp.where(known, rows.terminal, 1.0)
    )


def init(key: Key, config: Config, problem: Problem, data: OfflineData) -> State:
    """Fresh networks, an unfitted model, an empty model buffer."""
    return State(*model_agent.init(key, config, problem, data), threshold=jnp.full((), jnp.inf, jnp.float32))


def prepare(
    key: Key, config: Config, problem: Problem, state: State, data: OfflineData, on_progress: OnProgress
) -> State:
    """Fit the dynamics model and, on the data, what it knows; start the agent as configured."""
    state = model_agent.prepare(key, config, problem, state, data, on_progress)
    return state._replace(threshold=fit_threshold(config, state.model, data))


def refresh(config: Config, problem: Problem, state: State, data: OfflineData, key: Key) -> tuple[State, Metrics]:
    """Branched rollouts of the policy in the pessimistic MDP, into the buffer."""
    halt_reward = jnp.min(data.rows.reward) - config.halt_penalty
    actor, revise = state.agent.actor.params, lambda rows: halt(config, state, halt_reward, rows, data.units)
    state, episodes, found = model_agent.validated(config, problem, state, state.model, data)
    start_key, rollout_key = jax.random.split(key)
    starts = model_data.draw_starts(config, data.rows, episodes, start_key)
    rows, keep, metrics = model_data.imagine(
        config, state.model, actor, problem.termination, starts, rollout_key, revise
    )
    halts = jnp.sum(keep & (rows.reward == halt_reward))
    metrics["rollout/halt_share"] = halts / jnp.maximum(jnp.sum(keep), 1)
    return state._replace(buffer=ring.add(state.buffer, rows, keep)), metrics | found


ALGORITHM = Algorithm(
    "morel",
    Config,
    init=init,
    prepare=prepare,
    refresh=refresh,
    update=model_agent.update,
    actor=model_agent.actor,
)
