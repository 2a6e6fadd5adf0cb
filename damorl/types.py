"""The records that travel between the packages. No logic lives here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
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

TerminationFn = Callable[[Array, Array, Array], Array]
"""`(obs, action, next_obs) -> bool [B]`, whether the task ends there."""


REWARD_UNIT = {"unit": "reward"}
"""Metadata of a setting in units of reward: where a run scales its rewards, that setting is scaled with them."""

SQUARED_REWARD_UNIT = {"unit": "squared reward"}
"""The same for a weight that stands beside a squared error of values: scaled with the square of the rewards' factor."""


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


Fit = Callable[[], tuple[Any, Any]]
"""Makes a model and the figures of its fit, which JSON can hold."""

Recall = Callable[[Key, Any, Any, Fit], tuple[Any, Any]]
"""`(key, settings, template, fit) -> fit()`, or what it gave before: a pytree shaped as `template`, to the bit, and its
figures, None where they were not kept."""


class Units(NamedTuple):
    """What a run works in, where that is not the data's own: `(obs - obs_mean) / obs_scale` and `factor * reward`."""

    obs_mean: Array
    """`[obs_dim]`."""
    obs_scale: Array
    """`[obs_dim]`, above 0."""
    reward_factor: Array
    """Scalar, above 0."""


class Ranking(NamedTuple):
    """The rows of the data by the return of their episode, the best first; rows of incomplete episodes come last."""

    best_first: Array
    """Numbers of rows, int32 `[N]`."""
    before: Array
    """For each of these, the share of all rows that stands before its episode, `[N]`, from 0 on."""


class OfflineData(NamedTuple):
    """The dataset on the device, shared by all seeds."""

    rows: Transition
    initial_obs: Array
    """True episode starts, `[E, obs_dim]`."""
    episode: Array | None = None
    """The number of each row's episode, int32 `[N]`; its rows stand together, in the order of time. None: not known."""
    episode_returns: Array | None = None
    """Undiscounted return of each complete episode, `[E]`; None where nobody said."""
    ranking: Ranking | None = None
    """None where no return is known."""
    units: Units | None = None
    """Of everything above. None: the data's own."""


@dataclass(frozen=True)
class Problem:
    """What an algorithm may know of the task besides the data. Hashable: it is static under jit."""

    spec: Spec
    termination: TerminationFn
    recall: Recall | None = field(default=None, compare=False)
    """Finds an earlier fit of the dynamics to the same data again. None: every fit is made."""
    own_data: OfflineData | None = field(default=None, compare=False)
    """The data in their own units, where the run works in others."""
