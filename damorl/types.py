"""The records that travel between the rooms of the house. No logic lives here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

Array = jax.Array
Key = jax.Array
"""A typed JAX PRNG key (`jax.random.key`). A function that takes a key consumes it."""

Params = Any
"""A pytree of float arrays."""

Metrics = dict[str, jax.Array]
"""Flat `part/quantity` names to scalars."""

OnProgress = Callable[[str, int, int | None, dict[str, float]], None]
"""`(stage, done, total or None, figures)`, called while a long host-side stage works."""


class Transition(NamedTuple):
    """One or many environment steps; every field shares the leading axes `[*B]`.

    `terminal` is 1.0 only where the task itself ended (a fall), never at a time limit: values are not
    bootstrapped past it.
    """

    obs: Array
    """`[*B, obs_dim]`, in the environment's own units."""
    action: Array
    """`[*B, action_dim]`, each entry in [-1, 1]."""
    reward: Array
    """`[*B]`, in the environment's own units."""
    next_obs: Array
    """`[*B, obs_dim]`, the state reached, also where the episode ended (never the next episode's start)."""
    terminal: Array
    """`[*B]`, 0.0 or 1.0."""


class Spec(NamedTuple):
    """What an algorithm must know of a task before it sees data."""

    obs_dim: int
    action_dim: int
