"""Where a learned model can be believed: near the data, by the distance to the nearest recorded pair.

A state-action pair is *known* if it is no farther from its nearest neighbour among recorded pairs than nearly all
(`KNOWN_SHARE`) of the recorded pairs are from theirs, each feature in its standard deviations. An imagined episode
counts up to its first unknown pair; each of its later steps counts as the data's lowest reward, if that is negative, or
nothing. This is MOReL's pessimistic MDP (arXiv 2005.05951, Definition 2) with another test of what is known: MOReL asks
whether the members of an ensemble disagree, but members may all err alike.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from damorl.core.scaler import Standardiser, fit_standardiser
from damorl.types import Array, Transition

KNOWN_SHARE = 0.99
PAIRS, PROBES = 10_000, 2_000
"""Recorded pairs that are neighbours, and others whose distances set the radius; drawn at random."""
CHUNK = 500
"""Pairs whose distances are computed at once."""
STRIDE = 2
"""Every so many steps of an episode are looked at."""


class Support(NamedTuple):
    """What is known of the data."""

    pairs: Array
    """`[n, obs_dim + action_dim]`, standardised."""
    units: Standardiser
    radius: Array
    """Distance beyond which a pair is unknown (scalar)."""


def find_support(rows: Transition) -> Support:
    """The support of recorded `rows`, the same for the same rows."""
    pairs = jnp.concatenate([rows.obs, rows.action], axis=-1)
    units = fit_standardiser(pairs)
    count = pairs.shape[0]
    probes = min(PROBES, max(1, count // 5))
    order = jax.random.permutation(jax.random.key(0), count)[: min(count, PAIRS + probes)]
    found = Support(units.apply(pairs[order[probes:]]), units, jnp.zeros(()))
    return found._replace(radius=jnp.quantile(nearest(found, pairs[order[:probes]]), KNOWN_SHARE))


def nearest(support: Support, pairs: Array) -> Array:
    """Distance of each of `pairs` `[B, obs_dim + action_dim]` to its nearest recorded one, `[B]`."""
    asked = support.units.apply(pairs)
    padded = jnp.pad(asked, ((0, -len(asked) % CHUNK), (0, 0))).reshape(-1, CHUNK, asked.shape[1])
    lengths = jnp.sum(jnp.square(support.pairs), axis=1)

    def of_chunk(rows: Array) -> Array:
        return jnp.min(lengths - 2.0 * (rows @ support.pairs.T), axis=1) + jnp.sum(jnp.square(rows), axis=1)

    return jnp.sqrt(jnp.maximum(jax.lax.map(of_chunk, padded).reshape(-1)[: len(asked)], 0.0))


def known_reward(support: Support, obs: Array, action: Array, alive: Array, reward: Array, worst: Array) -> Array:
    """The rewards of episodes up to their first unknown pair, and `min(worst, 0)` in each step from it on.

    `obs` and `action` are `[step, *B, dim]`, `alive` and `reward` `[step, *B]`; rewards are zero where not alive.
    """
    pairs = jnp.concatenate([obs, action], axis=-1)[::STRIDE]
    distance = nearest(support, pairs.reshape(-1, pairs.shape[-1])).reshape(pairs.shape[:-1])
    unknown = (distance > support.radius) & alive[::STRIDE]
    gone = jnp.repeat(jnp.cumsum(unknown, axis=0) > 0, STRIDE, axis=0)[: len(alive)]
    return jnp.where(gone, jnp.minimum(worst, 0.0), reward)
