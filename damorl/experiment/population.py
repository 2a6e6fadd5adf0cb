"""A population: several values of plain numbers, each combination with each seed a member of one compiled program.

A setting can vary so if it is a number inside the update (a weight, a rate, a coefficient), which shapes no array and
decides no branch: `Algorithm.traced` says which. Every member is the run that its values alone would be, to float
tolerance: it has the seed's own keys, and the dynamics fitted for that seed.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from damorl.errors import UserError
from damorl.experiment.command import parse_values
from damorl.experiment.config import RunConfig, replace
from damorl.record.members import Member
from damorl.types import Array, Fit, Key, Problem


def over_members(function: Callable[..., Any], count: int, in_axes: tuple[int | None, ...]) -> Callable[..., Any]:
    """`function` for `count` members side by side, as `jax.vmap` with these axes (0 or None) would map it.

    A single member is not mapped but given its own rows: on a CPU, products and gathers with a leading axis of 1 make
    an update up to 1.6 times as slow.
    """
    if count > 1:
        return jax.vmap(function, in_axes)

    def alone(*arguments: Any) -> Any:
        first = lambda argument: jax.tree.map(lambda leaf: leaf[0], argument)
        own = [x if axis is None else first(x) for x, axis in zip(arguments, in_axes, strict=True)]
        return jax.tree.map(lambda leaf: leaf[None], function(*own))

    return alone


def with_population(config: RunConfig, varied: Mapping[str, Sequence[float]]) -> RunConfig:
    """`config` as a population over `varied`, field name to values. Its own values of those fields become the first.

    UserError for a setting that cannot vary, values that are not different numbers, and any combination that the
    algorithm's own checks refuse.
    """
    if not varied:
        return config
    varied = {name.replace("-", "_"): values for name, values in varied.items()}
    for name in varied:
        check_name(config, name)
    population = {name: checked_values(config, name, values) for name, values in varied.items()}
    own = replace(config.algo_config, {name: values[0] for name, values in population.items()})
    found = dataclasses.replace(config, algo_config=own, population=population)
    for member in found.members:
        dataclasses.replace(found, algo_config=member_settings(found, member))  # its checks
    return found


def check_name(config: RunConfig, name: str) -> None:
    """UserError unless the setting can vary."""
    traced = config.algorithm.traced
    if name not in traced:
        raise UserError(
            f"population: expected a setting of {config.algo} that is a plain number inside its update, found "
            f"'{name}': choose among {', '.join(traced) or 'none, for it has none'}, or use `damorl sweep`"
        )


def checked_values(config: RunConfig, name: str, values: Sequence[float]) -> tuple[float, ...]:
    """The values as floats; UserError unless they are different numbers."""
    found = []
    for value in [values] if isinstance(values, str | int | float) else values:
        number = getattr(replace(config.algo_config, {name: value}), name)
        if not isinstance(number, float):
            raise UserError(f"population: {name} must be numbers, found {value!r}: correct the value")
        found.append(number)
    if not found or len(set(found)) < len(found):
        raise UserError(f"population: expected different values of {name}, found {list(found)}: give each once")
    return tuple(found)


def parse_population(words: Sequence[str]) -> dict[str, list[float]]:
    """`["divergence_weight=0.3,1"]` as `{"divergence_weight": [0.3, 1.0]}`. UserError for anything else."""
    return parse_values("--population", "a setting", "divergence_weight=0.3,1,3", words)


def member_settings(config: RunConfig, member: Member) -> Any:
    """The algorithm's settings of one member, checked."""
    return replace(config.algo_config, dict(member.values)) if member.values else config.algo_config


def stacked_values(members: Sequence[Member]) -> dict[str, Array]:
    """The values of all members, `[num_members]` each; nothing where the run is no population."""
    return {name: jnp.asarray([dict(m.values)[name] for m in members], jnp.float32) for name, _ in members[0].values}


def with_traced(settings: Any, values: Mapping[str, Array]) -> Any:
    """`settings` with traced scalars in place of some numbers; no check runs again, for it could not read them."""
    if not values:
        return settings
    found = copy.copy(settings)
    for name, value in values.items():
        object.__setattr__(found, name, value)
    return found


def sharing_fits(problem: Problem) -> Problem:
    """`problem` with a memory of the fits that this process has made or read: members of one seed share theirs."""
    made: dict[tuple[bytes, Any], tuple[Any, Any]] = {}

    def recall(key: Key, settings: Any, template: Any, fit: Fit) -> tuple[Any, Any]:
        name = np.asarray(jax.random.key_data(key)).tobytes(), settings
        if name not in made:
            made[name] = fit() if problem.recall is None else problem.recall(key, settings, template, fit)
        return made[name]

    return dataclasses.replace(problem, recall=recall)
