"""A SAC agent on model data: the state and the steps that the methods of the MBPO family (arXiv 1906.08253) share.

The functions are those of the record `Algorithm`: an algorithm hands over the ones in which it does nothing of its own
and writes the others. They ask a state for the three fields of `State` only, so one that learns more has a state of its
own with these among its fields. `config` is both a `ModelSettings` and a `SACSettings`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from damorl.core import buffer as ring
from damorl.core.optim import init_learner
from damorl.parts import dynamics, model_data, sac
from damorl.parts.rollout import Revise
from damorl.parts.start import start
from damorl.parts.validation import Episodes, Kept, begin_kept, init_kept, validate
from damorl.types import Key, Metrics, OfflineData, OnProgress, Params, Problem


class State(NamedTuple):
    """Everything that changes, and the fitted model."""

    agent: sac.SACState
    model: dynamics.Dynamics
    """The elites; or all members, best first, of which the elites make the rollouts."""
    buffer: ring.RingBuffer
    kept: Kept | None = None
    """Where the policy is validated in the model."""


def init(key: Key, config: Any, problem: Problem, data: OfflineData, all_members: bool = False) -> State:
    """Fresh networks, an unfitted model (the elites' shape, or all members') and an empty model buffer."""
    model_key, agent_key = jax.random.split(key)
    init_model = dynamics.init_members if all_members else dynamics.init_model
    agent = sac.init(agent_key, config, problem.spec)
    return State(
        agent,
        init_model(model_key, config.dynamics, *problem.spec),
        model_data.init_buffer(config, *problem.spec),
        init_kept(config, agent.actor.params),
    )


def prepare(
    key: Key,
    config: Any,
    problem: Problem,
    state: Any,
    data: OfflineData,
    on_progress: OnProgress,
    all_members: bool = False,
) -> Any:
    """Start the agent as configured, and fit the dynamics model, of which elites or all members are kept."""
    agent = start_agent(key, config, state.agent, data)
    model = model_data.fit_model(key, config.dynamics, problem, data, on_progress, all_members)
    elites = dynamics.first_members(model, config.dynamics.num_elites)
    kept = begin_kept(config, config.reference_share, elites, problem.termination, agent.actor.params, data)
    return state._replace(model=model, agent=agent, kept=kept)


def start_agent(key: Key, config: Any, agent: sac.SACState, data: OfflineData) -> sac.SACState:
    """The agent after its start (`parts/start.py`), its optimisers fresh. `key` is that of the whole preparation."""
    actor, critic = start(key, config, config.gamma, data, agent.actor.params, agent.critic.params)
    if actor is agent.actor.params and critic is agent.critic.params:
        return agent
    tx = sac.make_optimisers(config)
    return agent._replace(
        actor=init_learner(actor, tx.actor),
        average_actor=jax.tree.map(jnp.copy, actor),
        critic=init_learner(critic, tx.critic),
        target_critic=jax.tree.map(jnp.copy, critic),
    )


def refresh(
    config: Any, problem: Problem, state: Any, data: OfflineData, key: Key, revise: Revise | None = None
) -> tuple[Any, Metrics]:
    """Branched rollouts of the policy in the elites, into the buffer; `revise` is handed to `rollout`. The policy is
    validated as configured."""
    actor, elites = state.agent.actor.params, dynamics.first_members(state.model, config.dynamics.num_elites)
    state, episodes, found = validated(config, problem, state, elites, data)
    start_key, rollout_key = jax.random.split(key)
    starts = model_data.draw_starts(config, data.rows, episodes, start_key)
    rows, keep, metrics = model_data.imagine(config, elites, actor, problem.termination, starts, rollout_key, revise)
    return state._replace(buffer=ring.add(state.buffer, rows, keep)), metrics | found


def validated(
    config: Any, problem: Problem, state: Any, elites: dynamics.Dynamics, data: OfflineData
) -> tuple[Any, Episodes | None, Metrics]:
    """The state after its averaged actor was valued in the elites, where that is asked for, and the episodes there."""
    if state.kept is None:
        return state, None, {}
    world = elites, problem.termination, state.agent.average_actor
    kept, _, episodes, metrics = validate(config, state.kept, *world, data, config.gamma)
    return state._replace(kept=kept), episodes, metrics


def update(config: Any, problem: Problem, state: Any, data: OfflineData, key: Key) -> tuple[Any, Metrics]:
    """One gradient step of critic, actor and temperature on a mixed batch."""
    batch_key, agent_key = jax.random.split(key)
    batch = model_data.mixed_batch(data.rows, state.buffer, batch_key, config.batch_size, config.real_ratio)
    agent, metrics = sac.update(config, state.agent, batch, agent_key)
    return state._replace(agent=agent), metrics


def actor(state: Any) -> Params:
    """What is evaluated: the averaged actor, or the one that is kept."""
    return state.agent.average_actor if state.kept is None else state.kept.policy
