"""One policy's estimates by weights on recorded data: importance weights, doubly robust, the ratio of occupancies."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from damorl.core.nets import MLP
from damorl.data.datasets import Dataset
from damorl.errors import UserError
from damorl.experiment import densities as density
from damorl.experiment.ope_settings import OPEConfig
from damorl.experiment.select import Evidence
from damorl.parts import importance, occupancy_ratio
from damorl.parts.fqe import FQEResult, Units, q_value
from damorl.types import Array, Key, Transition

DENSITY_STREAM, ACTION_STREAM, FEATURE_STREAM = 10**9 + 3, 10**9 + 4, 10**9 + 5  # beside those of `select`


class Recorded(NamedTuple):
    """The data as the weights need them, for all policies."""

    rows: Transition
    terminal: np.ndarray
    begins: np.ndarray
    """`[N]`, bool: first rows of episodes."""
    starts: np.ndarray
    """First row of each complete episode, `[E]`."""
    lengths: np.ndarray
    group: np.ndarray
    """`[N]`: each row's group of episodes."""
    behaviour: density.Behaviour
    features: occupancy_ratio.Fourier


def check(dataset: Dataset, densities: density.Densities) -> None:
    """UserError for data without a complete episode, or without the densities that are asked for."""
    if not len(dataset.episode_lengths()):
        raise UserError(
            f"{dataset.path or dataset.name}: expected at least one complete episode to weigh, found none; give data "
            "that mark where episodes end"
        )
    density.required(dataset, densities)


def gather(evidence: Evidence, settings: OPEConfig) -> Recorded:
    """Episodes, densities and features of data that `check` has passed."""
    dataset, rows = evidence.dataset, evidence.data.rows
    lengths = dataset.episode_lengths()
    seed = jax.random.key(settings.select.seed)
    behaviour = density.behaviour_of(dataset, rows, settings.densities, jax.random.fold_in(seed, DENSITY_STREAM))
    episodes = int(dataset.episode[-1]) + 1
    group = dataset.episode * min(settings.groups, episodes) // episodes
    pairs = jnp.concatenate([rows.obs, rows.action], axis=1)
    key = jax.random.fold_in(seed, FEATURE_STREAM)
    features = occupancy_ratio.fit_fourier(key, pairs, settings.features)
    starts = np.append(0, np.cumsum(lengths))[:-1]
    terminal = np.asarray(rows.terminal)
    return Recorded(rows, terminal, dataset.episode_start, starts, lengths, group, behaviour, features)


def weighed(
    actor: MLP, fqe: FQEResult, index: int, recorded: Recorded, settings: OPEConfig, gamma: float
) -> dict[str, dict[str, Any]]:
    """The estimates of one policy that weigh the data: value, interval and effective episodes of each."""
    key = jax.random.fold_in(jax.random.key(settings.select.seed), ACTION_STREAM)
    critic = jax.tree.map(lambda leaf: leaf[index], fqe.critics)
    episodes = episodes_of(actor, critic, fqe.units, recorded, key, settings.v_actions)
    size = len(recorded.lengths)
    once, drawn = np.ones((1, size)), importance.resamples(settings.resamples, size, settings.select.seed)
    values, spread = (importance.estimates(episodes, gamma, counts) for counts in (once, drawn))
    effective = importance.effective_episodes(episodes, gamma)
    found = {
        name: {
            "value": values[name][0],
            "interval": importance.interval(spread[name]),
            "effective_episodes": effective["trajectory" if name == "wis" else "per_decision"],
        }
        for name in ("wis", "pdis", "wpdis", "dr", "wdr")
    }
    if not np.isfinite(fqe.value[index]):  # its Q diverged
        found |= {name: {"value": None, "interval": None} for name in ("dr", "wdr")}
    return found | {"dice": by_ratio(actor, recorded, key, settings, gamma)}


def episodes_of(
    actor: MLP, critic: MLP, units: Units | None, recorded: Recorded, key: Key, v_actions: int
) -> importance.Episodes:
    """The complete episodes with the policy's weights and the critic's values."""
    rows, starts, lengths = recorded.rows, recorded.starts, recorded.lengths
    assert units is not None  # they come with the critics
    q, v, v_next = values(actor, critic, units, rows, key, v_actions)
    width = int(lengths.max())
    log_ratio = density.log_density(actor, rows) - recorded.behaviour.log_prob
    laid_out = lambda column, pad=0: importance.side_by_side(column, starts, lengths, width + pad)
    states = laid_out(v, 1)
    last = starts + lengths - 1
    states[np.arange(len(starts)), lengths] = np.where(recorded.terminal[last] > 0, 0.0, v_next[last])
    return importance.Episodes(laid_out(log_ratio), laid_out(np.asarray(rows.reward)), laid_out(q), states)


def values(
    actor: MLP, critic: MLP, units: Units, rows: Transition, key: Key, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Q of each row's pair, and V of its state and of its next one, `[N]` each in float64."""
    found = []
    for number, first in enumerate(range(0, len(rows.reward), density.CHUNK)):
        own = jax.tree.map(lambda leaf, first=first: leaf[first : first + density.CHUNK], rows)
        found.append(_values(actor, critic, units, own, jax.random.fold_in(key, number), count=count))
    q, v, v_next = (
        np.concatenate([np.asarray(part, np.float64) for part in parts]) for parts in zip(*found, strict=True)
    )
    return q, v, v_next


@partial(jax.jit, static_argnames="count")
def _values(
    actor: MLP, critic: MLP, units: Units, rows: Transition, key: Key, *, count: int
) -> tuple[Array, Array, Array]:
    def mean_over_actions(obs: Array, own_key: Key) -> Array:
        actions = density.sample_actions(actor, obs, own_key, count)
        return jnp.mean(jax.vmap(lambda action: q_value(critic, units, obs, action))(actions), axis=0)

    here_key, next_key = jax.random.split(key)
    v, v_next = mean_over_actions(rows.obs, here_key), mean_over_actions(rows.next_obs, next_key)
    return q_value(critic, units, rows.obs, rows.action), v, v_next


def by_ratio(actor: MLP, recorded: Recorded, key: Key, settings: OPEConfig, gamma: float) -> dict[str, Any]:
    """The estimate by the ratio of occupancies, with its interval over groups of episodes."""
    moments = moments_of(actor, recorded, key)
    groups = len(moments.rows)
    solved = lambda counts: occupancy_ratio.solve(occupancy_ratio.added(moments, counts), gamma, settings.strength)
    value, coefficients = solved(np.ones(groups))
    drawn = importance.resamples(settings.resamples, groups, settings.select.seed)
    spread = np.array([solved(counts)[0] for counts in drawn])
    share = occupancy_ratio.effective_share(occupancy_ratio.added(moments, np.ones(groups)), coefficients)
    episodes = share * len(recorded.rows.reward) / recorded.lengths.mean()
    return {"value": value, "interval": importance.interval(spread), "effective_episodes": episodes}


def moments_of(actor: MLP, recorded: Recorded, key: Key) -> occupancy_ratio.Moments:
    """The moments of each group of episodes, padded to one size so that it is compiled once."""
    firsts = np.searchsorted(recorded.group, np.arange(recorded.group[-1] + 2))
    width = int(np.diff(firsts).max())
    found = []
    for number, (first, end) in enumerate(pairwise(firsts)):
        index = np.minimum(first + np.arange(width), end - 1)
        rows = jax.tree.map(lambda leaf, index=index: leaf[index], recorded.rows)
        inside = first + np.arange(width) < end
        masks = jnp.asarray(inside, jnp.float32), jnp.asarray(inside & recorded.begins[index], jnp.float32)
        found.append(_moments(actor, recorded.features, rows, masks, jax.random.fold_in(key, number)))
    stacked = (np.stack([np.asarray(leaf, np.float64) for leaf in leaves]) for leaves in zip(*found, strict=True))
    return occupancy_ratio.Moments(*stacked)


@jax.jit
def _moments(
    actor: MLP, features: occupancy_ratio.Fourier, rows: Transition, masks: tuple[Array, Array], key: Key
) -> tuple[Array, ...]:
    """The fields of `Moments` of one group."""
    inside, begins = masks
    first_key, next_key = jax.random.split(key)
    phi = lambda obs, action: occupancy_ratio.fourier(features, jnp.concatenate([obs, action], axis=1))
    here = phi(rows.obs, rows.action) * inside[:, None]
    onward = phi(rows.next_obs, density.sample_actions(actor, rows.next_obs, next_key)[0])
    first = phi(rows.obs, density.sample_actions(actor, rows.obs, first_key)[0])
    return (
        jnp.sum(inside),
        jnp.sum(begins),
        begins @ first,
        jnp.sum(here, axis=0),
        here.T @ here,
        (onward * (1.0 - rows.terminal)[:, None]).T @ here,
        rows.reward @ here,
    )
