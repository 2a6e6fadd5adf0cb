"""Quantile bins: each dimension of a vector becomes a token by itself; each bin holds the same share of the data."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from damorl.types import Array


def fit_edges(data: Array, num_bins: int) -> Array:
    """Edges of `num_bins` bins of equal mass for each column of `[N, d]`: `[num_bins + 1, d]`, ascending.

    Edge k is the value of rank `floor(k N / num_bins)`, the last one the maximum. A value that fills more than a bin
    makes edges coincide.
    """
    num_rows = data.shape[0]
    ranks = jnp.asarray([k * num_rows // num_bins for k in range(num_bins)] + [num_rows - 1])
    return jnp.sort(data, axis=0)[ranks]


def discretise(edges: Array, x: Array) -> Array:
    """The bin of each number, `[*B, d] -> int32 [*B, d]`: the last one that starts at or below it.

    Numbers beyond the data go to the first or the last bin.
    """
    find = lambda column, values: jnp.searchsorted(column, values, side="right") - 1
    index = jax.vmap(find, in_axes=(1, -1), out_axes=-1)(edges, x)
    return jnp.clip(index, 0, edges.shape[0] - 2).astype(jnp.int32)


def reconstruct(edges: Array, tokens: Array) -> Array:
    """The middle of each bin, `[*B, d] -> [*B, d]`: at most half a bin's width from what was discretised."""
    middle = 0.5 * (edges[1:] + edges[:-1])
    bins = jnp.clip(tokens, 0, middle.shape[0] - 1)
    return middle[bins, jnp.arange(middle.shape[1])]


def expectation(edges: Array, probs: Array) -> Array:
    """The mean of the bins' middles under `probs` `[*B, num_bins]`, for one column's edges `[num_bins + 1]`.

    What the probabilities lack to 1 (that the episode has stopped) counts as 0.
    """
    return probs @ (0.5 * (edges[1:] + edges[:-1]))
