"""Branched rollouts (MBPO, arXiv 1906.08253): short imagined episodes that start from dataset states."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from damorl.core.chunks import in_chunks
from damorl.types import Array, Key, Metrics, TerminationFn, Transition

WorldStep = Callable[[Array, Array, Key], tuple[Array, Array]]
"""`(obs, action, key) -> (next_obs, reward)`: `dynamics.sample_step` of some elites."""
Revise = Callable[[Transition], Transition]
"""What a step's rows `[B, ...]` become before they are followed and kept, each by itself: a penalised reward (MOPO), a
halt (MOReL)."""


def rollout(
    world: WorldStep,
    act: Callable[[Array, Key], Array],
    termination: TerminationFn,
    start_obs: Array,
    key: Key,
    rollout_length: int,
    revise: Revise | None = None,
) -> tuple[Transition, Array, Metrics]:
    """`rollout_length` steps in `world` from each row of `start_obs` `[B, obs_dim]`.

    Returns the rows `[rollout_length * B, ...]`, a mask of those to keep, and metrics. The row on which an episode
    terminates is kept; what follows it is computed (shapes are fixed) but masked out, as is any row with a
    non-finite entry and everything after it. What `revise` takes off the reward is the metric `rollout/penalty_mean`.
    """

    def step(carry: tuple[Array, Array], step_key: Key) -> tuple[tuple[Array, Array], tuple[Transition, Array, Array]]:
        obs, alive = carry
        act_key, model_key = jax.random.split(step_key)
        action = act(obs, act_key)
        next_obs, reward = world(obs, action, model_key)
        terminal = termination(obs, action, next_obs)
        rows = Transition(obs, action, reward, next_obs, terminal.astype(jnp.float32))
        rows = rows if revise is None else in_chunks(revise, rows)
        keep = alive & jnp.all(jnp.isfinite(rows.next_obs), axis=-1) & jnp.isfinite(rows.reward)
        going_on = keep & (rows.terminal < 0.5)
        return (jnp.where(keep[:, None], rows.next_obs, obs), going_on), (rows, keep, reward - rows.reward)

    alive = jnp.ones(start_obs.shape[0], bool)
    _, steps = jax.lax.scan(step, (start_obs, alive), jax.random.split(key, rollout_length))
    rows, keep, penalty = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), steps)
    count = jnp.maximum(jnp.sum(keep), 1)
    metrics = {
        "rollout/length_mean": jnp.sum(keep) / start_obs.shape[0],
        "rollout/terminal_share": jnp.sum(jnp.where(keep, rows.terminal, 0.0)) / count,
        "rollout/reward_mean": jnp.sum(jnp.where(keep, rows.reward, 0.0)) / count,
    }
    if revise is not None:
        metrics["rollout/penalty_mean"] = jnp.sum(jnp.where(keep, penalty, 0.0)) / count
    return rows, keep, metrics
