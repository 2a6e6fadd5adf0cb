"""The transformer cannot see the future, and reading piece by piece through a cache changes nothing."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damorl.parts import transformer as tf
from damorl.types import Array

TRANSITION, BINS, LENGTH = 4, 5, 3
TOKENS = LENGTH * TRANSITION - 1
READ = jax.jit(tf.transform)


@pytest.fixture(scope="module")
def params() -> tf.Transformer:
    """Filled with numbers of order 1, biases and positions too, so that everything takes part."""
    blank = tf.init_transformer(jax.random.key(0), TRANSITION, BINS, TOKENS, layers=2, heads=2, head_dim=4)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(scale=0.5, size=leaf.shape), jnp.float32), blank)


@pytest.fixture(scope="module")
def tokens() -> Array:
    """Two sequences, one with stop tokens at its end."""
    drawn = jax.random.randint(jax.random.key(1), (2, TOKENS), 0, BINS)
    return drawn.at[1, 2 * TRANSITION :].set(BINS)


def test_shapes_and_initial_values() -> None:
    params = tf.init_transformer(jax.random.key(0), TRANSITION, 50, TOKENS, layers=2, heads=2, head_dim=4)
    assert params.token.shape == (TRANSITION * 50 + 1, 8)
    assert params.head.shape == (TRANSITION, 8, 51)
    assert params.blocks[0].attention.kernel.shape == (8, 3, 2, 4)
    assert float(jnp.std(params.token)) == pytest.approx(0.02, rel=0.05)
    assert float(jnp.max(jnp.abs(params.head))) <= 8**-0.5
    assert not jnp.any(params.position)


@jax.jit
def gradient_of_output(params: tf.Transformer, tokens: Array, position: int) -> Array:
    """How the hidden vector at `position` depends on the embedding of each token of the first sequence, `[n, width]`.

    The position table is read once per position, so its gradient is that of the inputs."""
    weights = jnp.arange(1.0, params.position.shape[1] + 1)
    hidden = lambda table: tf.transform(params._replace(position=table), tokens[:1])[0]
    return jax.grad(lambda table: jnp.sum(hidden(table)[0, position] * weights))(params.position)


def test_no_position_sees_the_future_or_another_value(params: tf.Transformer, tokens: Array) -> None:
    places = np.arange(TOKENS)
    values = places % TRANSITION == TRANSITION - 1
    for position in range(TOKENS):
        gradient = np.abs(np.asarray(gradient_of_output(params, tokens, position))).sum(axis=1)
        unseen = (places > position) | (values & (places != position))
        assert not gradient[unseen].any()  # exactly
        assert (gradient[~unseen] > 1e-6).all()


def test_a_value_token_changes_only_what_is_read_from_its_own_place(params: tf.Transformer, tokens: Array) -> None:
    place = TRANSITION - 1
    other = tokens.at[:, place].set((tokens[:, place] + 1) % BINS)
    first, second = (np.asarray(READ(params, t)[0]) for t in (tokens, other))
    changed = np.abs(first - second).max(axis=(0, 2)) > 0
    assert changed.tolist() == [p == place for p in range(TOKENS)]


@pytest.mark.parametrize("pieces", [[1] * TOKENS, [4, 4, 3]])
def test_a_cache_equals_no_cache(params: tf.Transformer, tokens: Array, pieces: list[int]) -> None:
    expected, _ = READ(params, tokens)
    caches, found, start = tf.empty_caches(params, 2, TOKENS), [], 0
    for piece in pieces:
        hidden, caches = READ(params, tokens[:, start : start + piece], start, caches)
        found.append(hidden)
        start += piece
    np.testing.assert_allclose(np.concatenate(found, axis=1), expected, atol=1e-5)


def test_what_a_cache_holds_at_later_places_is_never_looked_at(params: tf.Transformer, tokens: Array) -> None:
    empty = tf.empty_caches(params, 2, TOKENS)
    dirty = jax.tree.map(lambda leaf: leaf + 3.0, empty)
    read = [READ(params, tokens[:, :4], 0, caches)[1] for caches in (empty, dirty)]
    first, second = (READ(params, tokens[:, 4:8], 4, caches)[0] for caches in read)
    np.testing.assert_array_equal(first, second)


def test_the_logits_of_one_place_are_those_of_the_whole_sequence(params: tf.Transformer, tokens: Array) -> None:
    hidden, _ = READ(params, tokens)
    logits = tf.all_logits(params, hidden)
    assert logits.shape == (2, TOKENS, BINS + 1)
    for place in range(TOKENS):
        np.testing.assert_allclose(logits[:, place], tf.next_logits(params, hidden[:, place], place), atol=1e-5)


def test_the_same_token_means_something_else_in_each_dimension(params: tf.Transformer) -> None:
    """Without positions, equal tokens in other dimensions differ, and stop tokens are all the same."""
    flat = params._replace(position=jnp.zeros_like(params.position))
    embedded = lambda token: tf.transform(flat._replace(blocks=()), jnp.full((1, 3), token))[0][0]
    assert float(jnp.max(jnp.abs(embedded(0)[0] - embedded(0)[1]))) > 1e-3
    np.testing.assert_array_equal(embedded(BINS)[0], embedded(BINS)[2])
    np.testing.assert_array_equal(embedded(BINS)[0], tf.normalise(params.norm, params.token[-1]))


def test_dropout_keeps_the_mean_and_is_different_everywhere() -> None:
    dropout = tf.Dropout(jax.random.key(0), 0.25)
    x = jnp.ones(40_000)
    found = dropout.at(0, x)
    assert set(np.unique(found)) == {np.float32(0.0), np.float32(1.0 / 0.75)}
    assert float(jnp.mean(found)) == pytest.approx(1.0, abs=0.02)
    assert float(jnp.mean((found > 0) == (dropout.at(1, x) > 0))) < 0.7


def test_only_weights_of_products_decay(params: tf.Transformer) -> None:
    mask = tf.weight_decay_mask(params)
    assert mask.head
    assert not mask.token
    assert not mask.position
    assert not mask.norm.scale
    block = mask.blocks[0]
    assert all(layer.kernel for layer in (block.attention, block.projection, block.expand, block.contract))
    assert not any(layer.bias for layer in (block.attention, block.projection, block.expand, block.contract))
