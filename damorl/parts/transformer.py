"""A causal transformer over transitions as tokens (GPT with layer norms in front, as Trajectory Transformer has it).

A sequence is flat: token p belongs to dimension `p mod transition_dim` of its transition. Each (dimension, bin) pair
has an embedding, and each dimension its own output layer. The last dimension is the value: no one attends to it,
since it tells of the future. One function serves training, reading a prefix and generating: it takes tokens, where
they start, and a cache of what stands before them. The shapes of the parameters tell every size.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from damorl.core.nets import Dense, one_draw
from damorl.types import Array, Key

INITIAL_STD = 0.02  # GPT-2's


class Norm(NamedTuple):
    """Layer normalisation, `[width]` each."""

    scale: Array
    bias: Array


class Block(NamedTuple):
    """One layer: attention and a perceptron, each behind a norm and added to the stream."""

    attention_norm: Norm
    attention: Dense
    """To queries, keys and values: kernel `[width, 3, heads, head_dim]`."""
    projection: Dense
    mlp_norm: Norm
    expand: Dense
    contract: Dense


class Transformer(NamedTuple):
    """All parameters."""

    token: Array
    """`[transition_dim * num_bins + 1, width]`; the last one says that the episode is over (token `num_bins`)."""
    position: Array
    """`[block_size, width]`"""
    blocks: tuple[Block, ...]
    norm: Norm
    head: Array
    """`[transition_dim, width, num_bins + 1]`: from the dimension just read to logits of the next one."""


class Cache(NamedTuple):
    """Keys and values of one layer, `[B, room, heads, head_dim]` each."""

    key: Array
    value: Array


Caches = tuple[Cache, ...]
"""One per layer."""


class Dropout(NamedTuple):
    """Share of the numbers set to 0 in embeddings, attention and both branches; the key is used up."""

    key: Key
    rate: float

    def at(self, place: int, x: Array) -> Array:
        """`x` with dropout. Each `place` draws for itself."""
        keep = jax.random.bernoulli(jax.random.fold_in(self.key, place), 1.0 - self.rate, x.shape)
        return jnp.where(keep, x / (1.0 - self.rate), 0.0)


def init_transformer(
    key: Key, transition_dim: int, num_bins: int, block_size: int, layers: int, heads: int, head_dim: int
) -> Transformer:
    """Kernels and embeddings N(0, 0.02), output layers uniform in +-1/sqrt(width), positions and biases 0."""
    width = heads * head_dim
    shapes = [(width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)] * layers
    main_key, head_key = jax.random.split(key)
    token, *kernels = one_draw(partial(jax.random.normal, main_key), [(transition_dim * num_bins + 1, width), *shapes])
    norm = lambda: Norm(jnp.ones(width), jnp.zeros(width))
    dense = lambda kernel: Dense(INITIAL_STD * kernel, jnp.zeros(kernel.shape[1:]))
    blocks = tuple(
        Block(norm(), dense(attention.reshape(width, 3, heads, head_dim)), dense(out), norm(), dense(up), dense(down))
        for attention, out, up, down in zip(*(kernels[i::4] for i in range(4)), strict=True)
    )
    bound = width**-0.5
    head = jax.random.uniform(head_key, (transition_dim, width, num_bins + 1), minval=-bound, maxval=bound)
    return Transformer(INITIAL_STD * token, jnp.zeros((block_size, width)), blocks, norm(), head)


def empty_caches(params: Transformer, batch_size: int, room: int) -> Caches:
    """Caches for `room` tokens of `batch_size` sequences."""
    _, _, heads, head_dim = params.blocks[0].attention.kernel.shape
    blank = jnp.zeros((batch_size, room, heads, head_dim))
    return tuple(Cache(blank, blank) for _ in params.blocks)


def transform(
    params: Transformer,
    tokens: Array,
    start: int | Array = 0,
    caches: Caches | None = None,
    dropout: Dropout | None = None,
) -> tuple[Array, Caches]:
    """Read `tokens` `[B, n]` at the positions from `start` on; `([B, n, width], caches with them written in)`.

    Without caches the tokens see each other only, and `start` must be 0. What caches hold at later positions is never
    looked at: it may be left over from before.
    """
    transition_dim, num_bins = params.head.shape[0], params.head.shape[2] - 1
    position = start + jnp.arange(tokens.shape[1])
    stopped, offset = tokens == num_bins, (position % transition_dim) * num_bins
    x = params.token[jnp.where(stopped, transition_dim * num_bins, tokens + offset)] + params.position[position]
    x = x if dropout is None else dropout.at(0, x)
    key_position = jnp.arange(tokens.shape[1] if caches is None else caches[0].key.shape[1])
    visible = (key_position <= position[:, None]) & (key_position % transition_dim != transition_dim - 1)
    written = []
    for layer, block in enumerate(params.blocks):
        own = None if dropout is None else dropout._replace(key=jax.random.fold_in(dropout.key, 1 + layer))
        cache = None if caches is None else caches[layer]
        mixed, cache = attend(block, normalise(block.attention_norm, x), visible, start, cache, own)
        x = x + mixed
        inner = jax.nn.gelu(apply_dense(block.expand, normalise(block.mlp_norm, x)), approximate=False)
        out = apply_dense(block.contract, inner)
        x = x + (out if own is None else own.at(2, out))
        written.append(cache)
    return normalise(params.norm, x), tuple(written)


def attend(
    block: Block, x: Array, visible: Array, start: int | Array, cache: Cache | None, dropout: Dropout | None
) -> tuple[Array, Cache]:
    """Attention of `x` `[B, n, width]` to the cache, or to itself, where `visible` `[n, keys]`."""
    projected = jnp.einsum("bnc,cthd->tbnhd", x, block.attention.kernel) + block.attention.bias[:, None, None]
    query, key, value = projected
    if cache is not None:
        write = lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new, start, axis=1)
        key, value = write(cache.key, key), write(cache.value, value)
    scores = jnp.einsum("bnhd,bmhd->bhnm", query, key) * query.shape[-1] ** -0.5
    weights = jax.nn.softmax(jnp.where(visible, scores, -jnp.inf), axis=-1)
    weights = weights if dropout is None else dropout.at(0, weights)
    out = apply_dense(block.projection, jnp.einsum("bhnm,bmhd->bnhd", weights, value).reshape(x.shape))
    return out if dropout is None else dropout.at(1, out), Cache(key, value)


def apply_dense(layer: Dense, x: Array) -> Array:
    """`[*B, in] -> [*B, out]`."""
    return x @ layer.kernel + layer.bias


def normalise(norm: Norm, x: Array) -> Array:
    """Layer normalisation over the last axis."""
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    return (
        centred * jax.lax.rsqrt(jnp.mean(jnp.square(centred), axis=-1, keepdims=True) + 1e-5) * norm.scale + norm.bias
    )


def all_logits(params: Transformer, hidden: Array) -> Array:
    """Logits of the token after each of `[B, n, width]`, read from position 0 on: `[B, n, num_bins + 1]`."""
    transition_dim, (batch_size, length, width) = params.head.shape[0], hidden.shape
    padded = jnp.pad(hidden, ((0, 0), (0, -length % transition_dim), (0, 0)))
    grouped = padded.reshape(batch_size, -1, transition_dim, width)
    logits = jnp.einsum("blkc,kcv->blkv", grouped, params.head)
    return logits.reshape(batch_size, -1, logits.shape[-1])[:, :length]


def next_logits(params: Transformer, hidden: Array, position: int | Array) -> Array:
    """Logits of the token after `position`, from its `hidden` `[B, width]`: `[B, num_bins + 1]`."""
    return hidden @ params.head[position % params.head.shape[0]]


def weight_decay_mask(params: Transformer) -> Transformer:
    """True for the weights of matrix products, False for embeddings, biases and norms."""
    decays = lambda path, _: path[-1].name in ("kernel", "head")
    return jax.tree_util.tree_map_with_path(decays, params)
