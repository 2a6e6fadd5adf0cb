"""SAC on model data, without a penalty (MBPO, arXiv 1906.08253, made offline): the reference point of every table.

    target   y = r + gamma (1 - terminal) (min_j Q'_j(s', a') - temperature log pi(a'|s')),  a' ~ pi(.|s')
    critic   min_Q   sum_j E_mix[(Q_j(s, a) - y)^2]
    actor    min_pi  E_mix[temperature log pi(a|s) - min_j Q_j(s, a)]

The mixture is `real_ratio` offline rows and the rest short rollouts of the policy in the learned model. Nothing keeps
the policy where the model is right: what a method of this family adds is measured against this one.

Deviations: MBPO is online, with a fresh model as data arrive; here the model is fitted once to the offline data. The
agent's settings are OfflineRL-Kit's for MOPO (its coefficient at zero gives this algorithm bit for bit), among them
the bound 1 on the temperature and a cosine on the actor's rate. `actor_averaging` is ours, off in the `paper` preset.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax

from damorl.algos.base import Algorithm, OfflineData, Problem
from damorl.core import buffer as ring
from damorl.parts import dynamics, model_data, sac
from damorl.parts.model_data import ModelSettings
from damorl.parts.sac import SACSettings
from damorl.types import Key, Metrics, OnProgress


@dataclass(frozen=True)
class Config(ModelSettings, SACSettings):
    """Settings of SAC on model data: the agent's and the model's, nothing of its own."""


class State(NamedTuple):
    """Everything that changes, and the fitted model."""

    agent: sac.SACState
    model: dynamics.Dynamics
    """The elites."""
    buffer: ring.RingBuffer


def init(key: Key, config: Config, problem: Problem, data: OfflineData) -> State:
    """Fresh networks, an unfitted model and an empty model buffer."""
    model_key, agent_key = jax.random.split(key)
    return State(
        sac.init(agent_key, config, problem.spec),
        dynamics.init_model(model_key, config.dynamics, *problem.spec),
        model_data.init_buffer(config, *problem.spec),
    )


def prepare(
    key: Key, config: Config, problem: Problem, state: State, data: OfflineData, on_progress: OnProgress
) -> State:
    """Fit the dynamics model."""
    return state._replace(model=model_data.fit_model(key, config.dynamics, data.rows, on_progress))


def refresh(config: Config, problem: Problem, state: State, data: OfflineData, key: Key) -> tuple[State, Metrics]:
    """Branched rollouts of the policy in the model, into the buffer."""
    rows, keep, metrics = model_data.imagine(
        config, state.model, state.agent.actor.params, problem.termination, data.rows, key
    )
    return state._replace(buffer=ring.add(state.buffer, rows, keep)), metrics


def update(config: Config, state: State, data: OfflineData, key: Key) -> tuple[State, Metrics]:
    """One gradient step of critic, actor and temperature on a mixed batch."""
    batch_key, agent_key = jax.random.split(key)
    batch = model_data.mixed_batch(data.rows, state.buffer, batch_key, config.batch_size, config.real_ratio)
    agent, metrics = sac.update(config, state.agent, batch, agent_key)
    return state._replace(agent=agent), metrics


ALGORITHM = Algorithm("sac", Config, init, prepare, refresh, update, lambda state: state.agent.average_actor)
