"""What every algorithm is: a record of pure functions, and the table of them.

The loop in `experiment.train` owns jit, vmap and time. No algorithm counts steps or knows its schedule.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from damorl.types import Array, Key, Metrics, OfflineData, OnProgress, Params, Problem, Spec


class Planner(NamedTuple):
    """A policy with a memory, for algorithms that act by planning. Pure functions; `experiment.planning` compiles `act`
    and calls it once per step for all episodes, which all begin together."""

    begin: Callable[[Any, Spec, int], Any]
    """`(config, spec, num_episodes) -> memory` before the first action."""
    act: Callable[[Any, Any, Any, Array, Array, Key], tuple[Array, Any]]
    """`(config, actor, memory, obs [N, obs_dim], reward [N], keys [N]) -> (action [N, action_dim], memory)`; the reward
    is that of the last action (anything before the first), the keys are the episodes' own and always the same."""


@dataclass(frozen=True)
class Algorithm:
    """One algorithm. `State` is a pytree that lists everything that changes during training."""

    name: str
    config_type: type
    init: Callable[[Key, Any, Problem, OfflineData], Any]
    """`(key, config, problem, data) -> state`; pure: fresh networks, empty buffers, the final shape of the state."""
    prepare: Callable[[Key, Any, Problem, Any, OfflineData, OnProgress], Any]
    """`(key, config, problem, state, data, on_progress) -> state`; on the host, fits a model, may take minutes."""
    refresh: Callable[[Any, Problem, Any, OfflineData, Key], tuple[Any, Metrics]]
    """`(config, problem, state, data, key) -> (state, metrics)`; pure, model rollouts before every block of updates."""
    update: Callable[[Any, Problem, Any, OfflineData, Key], tuple[Any, Metrics]]
    """`(config, problem, state, data, key) -> (state, metrics)`; pure, one gradient update of each part."""
    actor: Callable[[Any], Params]
    """The actor network inside a state; with a planner, whatever that acts with."""
    planner: Planner | None = None
    """How it acts, if not by its actor network alone."""
    traced: tuple[str, ...] = ()
    """Settings that a population may vary: floats that `init`, `refresh` and `update` take as traced scalars, too, so
    that they shape no array and decide no branch."""


def no_prepare(key: Key, config: Any, problem: Problem, state: Any, data: OfflineData, on_progress: OnProgress) -> Any:
    """For algorithms that need nothing before their first update."""
    return state


def no_refresh(config: Any, problem: Problem, state: Any, data: OfflineData, key: Key) -> tuple[Any, Metrics]:
    """For algorithms without a model."""
    return state, {}
