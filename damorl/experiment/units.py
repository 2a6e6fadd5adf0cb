"""The units a run works in: observations standardised, rewards scaled, once for every algorithm.

The algorithm sees data, termination rule and weights in these units and knows of none of it. What leaves the state is
brought back: actors take raw observations, written metrics are in the data's own rewards. A weight in units of reward
(`types.REWARD_UNIT`) is multiplied by the rewards' factor, one in squared rewards by its square, so that a published
value keeps its meaning.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from damorl.algos.base import OfflineData, Problem
from damorl.core.scaler import Standardiser, fit_standardiser
from damorl.experiment.config import LoopConfig, RunConfig
from damorl.parts.actor import on_raw_observations
from damorl.types import REWARD_UNIT, SQUARED_REWARD_UNIT, Array, Metrics, Params, TerminationFn, Transition, Units

MEAN_REWARD = 0.3
"""The data's mean absolute reward after `reward_factor` auto."""

# Metrics in units of reward; losses stay as they were minimised.
REWARD_METRICS = {
    "actor/temperature",
    "adversary/advantage",
    "critic/inconsistency",
    "critic/initial_value",
    "critic/q_mean",
    "critic/residual",
    "rollout/penalty_mean",
    "rollout/reward_mean",
    "validation/best",
    "validation/bound",
    "validation/value",
    "value/mean",
    "value/residual",
}


class Work(NamedTuple):
    """A run as its algorithm gets it."""

    config: RunConfig
    """With the algorithm's weights in these units: what a run is known by is the config as it was given."""
    problem: Problem
    data: OfflineData


def in_units(config: RunConfig, problem: Problem, data: OfflineData) -> Work:
    """Everything in the units that `config.loop` asks for; as it is if those are the data's own, or for a planner."""
    units = None if config.algorithm.planner is not None else find_units(config.loop, data)
    return in_given_units(config, problem, data, units)


def in_given_units(config: RunConfig, problem: Problem, data: OfflineData, units: Units | None) -> Work:
    """Everything in `units`; as it is without any."""
    if units is None:
        return Work(config, problem, data)
    factor = float(units.reward_factor)
    inner = dataclasses.replace(
        config, algo_config=scale_weights(config.algo_config, factor), population=scale_population(config, factor)
    )
    termination = in_own_units(problem.termination, units)
    return Work(inner, dataclasses.replace(problem, termination=termination, own_data=data), convert_data(data, units))


def find_units(loop: LoopConfig, data: OfflineData) -> Units | None:
    """The units of a run on `data`; None where they are the data's own."""
    factor = auto_factor(data.rows.reward) if loop.reward_factor == "auto" else float(loop.reward_factor)
    if not loop.standardise_observations and factor == 1.0:
        return None
    obs_dim = data.rows.obs.shape[1]
    inputs = Standardiser(jnp.zeros(obs_dim), jnp.ones(obs_dim))
    if loop.standardise_observations:
        inputs = fit_standardiser(data.rows.obs)
    return Units(inputs.mean, inputs.scale, jnp.float32(factor))


def auto_factor(reward: Array) -> float:
    """What brings the mean absolute reward to `MEAN_REWARD`, to three digits; 1 where all rewards are 0."""
    return factor_of(float(np.mean(np.abs(np.asarray(reward, np.float64)))))


def factor_of(mean: float) -> float:
    """`auto_factor` of rewards with this mean absolute value."""
    return float(f"{MEAN_REWARD / mean:.3g}") if mean > 0.0 else 1.0


def scale_weights(settings: Any, factor: float) -> Any:
    """The algorithm's settings with those in units of reward multiplied by `factor`, or by its square."""
    powers = reward_powers(settings)
    given = {name: getattr(settings, name) for name in powers}
    scaled = {name: factor ** powers[name] * value for name, value in given.items() if value is not None}
    return dataclasses.replace(settings, **scaled)


def scale_population(config: RunConfig, factor: float) -> dict[str, tuple[float, ...]]:
    """A population's values, as `scale_weights` does the settings that they stand for."""
    powers = reward_powers(config.algo_config)
    units = lambda name: factor ** powers.get(name, 0)
    return {name: tuple(units(name) * value for value in values) for name, values in config.population.items()}


def reward_powers(settings: Any) -> dict[str, int]:
    """The settings in units of reward, each with the power of reward that its unit is."""
    fields = dataclasses.fields(settings)
    powers = {field.name: 1 for field in fields if field.metadata == REWARD_UNIT}
    return powers | {field.name: 2 for field in fields if field.metadata == SQUARED_REWARD_UNIT}


def convert_data(data: OfflineData, units: Units) -> OfflineData:
    """Rows, starts and returns in `units`."""
    returns = None if data.episode_returns is None else data.episode_returns * units.reward_factor
    starts = observer(units).apply(data.initial_obs)
    rows = convert_rows(data.rows, units)
    return data._replace(rows=rows, initial_obs=starts, episode_returns=returns, units=units)


def convert_rows(rows: Transition, units: Units | None) -> Transition:
    """Rows `[B, ...]` of the data's own units in `units`."""
    if units is None:
        return rows
    observe = observer(units).apply
    return rows._replace(
        obs=observe(rows.obs), next_obs=observe(rows.next_obs), reward=rows.reward * units.reward_factor
    )


def in_own_units(termination: TerminationFn, units: Units) -> TerminationFn:
    """`termination`, asked in `units`."""
    own = observer(units).invert
    return lambda obs, action, next_obs: termination(own(obs), action, own(next_obs))


def observer(units: Units) -> Standardiser:
    """What standardises observations."""
    return Standardiser(units.obs_mean, units.obs_scale)


def own_rows(rows: Transition, units: Units | None) -> Transition:
    """Rows `[B, ...]` back in the data's units."""
    if units is None:
        return rows
    own = observer(units).invert
    return rows._replace(obs=own(rows.obs), next_obs=own(rows.next_obs), reward=rows.reward / units.reward_factor)


def own_actor(actor: Params, units: Units | None) -> Params:
    """An actor for observations in the data's units. Leaves may have a leading seed axis."""
    return actor if units is None else on_raw_observations(actor, observer(units))


def own_metrics(metrics: Metrics, units: Units | None) -> Metrics:
    """Metrics in the data's own rewards, on the host."""
    if units is None:
        return metrics
    factor = jax.device_get(units.reward_factor)
    return {name: value / factor if name in REWARD_METRICS else value for name, value in metrics.items()}
