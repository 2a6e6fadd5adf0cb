"""The search finds what trying everything finds, and its filters keep what they should."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damorl.errors import UserError
from damorl.parts import beam
from damorl.parts.transformer import Transformer, all_logits, init_transformer, transform
from damorl.types import Array

OBS_DIM, ACTION_DIM, BINS, HISTORY, HORIZON, GAMMA = 2, 1, 3, 2, 3, 0.9
TRANSITION = OBS_DIM + ACTION_DIM + 2
BLOCK = (HISTORY + 1) * TRANSITION - 1
WIDE = beam.SearchConfig(HORIZON, beam_width=4000, expansions=1, history=HISTORY, cdf_action=None)
NARROW = replace(WIDE, beam_width=2, expansions=3)


@pytest.fixture(scope="module")
def model() -> beam.Model:
    """Random weights, so large that rewards and values depend on the actions, and so small that any token is drawn."""
    blank = init_transformer(jax.random.key(0), TRANSITION, BINS, BLOCK, 1, 2, 4)
    rng = np.random.default_rng(4)
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(scale=0.5, size=leaf.shape), jnp.float32), blank)
    edges = jnp.sort(jnp.asarray(rng.normal(size=(BINS + 1, TRANSITION)), jnp.float32), axis=0)
    return beam.Model(params, edges, OBS_DIM, GAMMA)


PAST = jnp.asarray(np.random.default_rng(1).integers(0, BINS, (HISTORY, TRANSITION)), jnp.int32)
OBS = jnp.array([1, 2], jnp.int32)


@jax.jit
def logits_at(params: Transformer, tokens: Array, place: int) -> Array:
    return all_logits(params, transform(params, tokens[None])[0])[0, place]


def logits_after(params: Transformer, sequence: list[int]) -> np.ndarray:
    """Without a cache: whole transitions are cropped to the last `HISTORY` and the one under way."""
    finished = len(sequence) // TRANSITION
    sequence = sequence[max(0, finished - HISTORY) * TRANSITION :]
    padded = np.zeros(BLOCK, np.int32)
    padded[: len(sequence)] = sequence
    return np.asarray(logits_at(params, padded, len(sequence) - 1))


def probabilities(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def score_of(model: beam.Model, actions: tuple[int, ...], count: int) -> tuple[float, list[int]]:
    """The score of one plan, token by token, and its tokens."""
    sequence = [int(t) for t in PAST[:count].reshape(-1)] + OBS.tolist()
    middles = np.asarray(0.5 * (model.edges[1:] + model.edges[:-1]))
    collected, value, began = 0.0, 0.0, count * TRANSITION
    for t, action in enumerate(actions):
        sequence.append(action)
        found = []
        for column in (-2, -1):
            logits = logits_after(model.params, sequence)
            found.append(float(probabilities(logits)[:BINS] @ middles[:, column]))
            sequence.append(int(logits.argmax()))
        collected, value = collected + GAMMA**t * found[0], GAMMA ** (t + 1) * found[1]
        if t < len(actions) - 1:
            for _ in range(OBS_DIM):
                sequence.append(int(logits_after(model.params, sequence).argmax()))
    return collected + value, sequence[began:]


@partial(jax.jit, static_argnums=1)
def search(model: beam.Model, settings: beam.SearchConfig, past: Array, count: int, key: Array) -> beam.Plan:
    own = model._replace(obs_dim=OBS_DIM, gamma=GAMMA)  # under jit the fields are traced
    return beam.plan(own, settings, past, jnp.asarray(count), OBS, key)


@pytest.mark.parametrize("count", [0, 1, HISTORY])
def test_a_wide_beam_equals_exhaustive_search(model: beam.Model, count: int) -> None:
    """Every plan of three actions, each one of three bins or the stop token, from states with and without a past.

    As many beams as it takes that all plans are among them, and none is dropped on the way."""
    everything = {actions: score_of(model, actions, count) for actions in product(range(BINS + 1), repeat=HORIZON)}
    best = max(everything, key=lambda actions: everything[actions][0])
    scores = sorted((score for score, _ in everything.values()), reverse=True)
    assert scores[0] - scores[1] > 1e-4  # a clear winner
    found = search(model, WIDE, PAST, count, jax.random.key(0))
    assert float(found.score) == pytest.approx(everything[best][0], abs=1e-5)
    assert found.tokens.reshape(-1).tolist() == everything[best][1]


def test_a_narrow_beam_scores_its_own_plan_right_and_not_higher_than_a_wide_one(model: beam.Model) -> None:
    """Also where beams are dropped and their tokens, rewards and caches have to stay together."""
    wide = search(model, WIDE, PAST, 1, jax.random.key(0))
    for seed in range(5):
        found = search(model, NARROW, PAST, 1, jax.random.key(seed))
        actions = tuple(found.tokens[:, OBS_DIM].tolist())
        score, tokens = score_of(model, actions, 1)
        assert float(found.score) == pytest.approx(score, abs=1e-5)
        assert found.tokens.reshape(-1).tolist() == tokens
        assert float(found.score) <= float(wide.score) + 1e-5


def test_rows_of_the_past_that_are_not_there_mean_nothing(model: beam.Model) -> None:
    others = PAST.at[1:].set((PAST[1:] + 1) % BINS)
    first, second, third = (
        search(model, NARROW, past, 1, jax.random.key(0)) for past in (PAST, others, (PAST + 1) % BINS)
    )
    np.testing.assert_array_equal(first.tokens, second.tokens)
    assert float(first.score) == float(second.score)
    assert float(first.score) != float(third.score)


def kept(logits: Array) -> list[int]:
    return np.flatnonzero(np.isfinite(np.asarray(logits))).tolist()


@pytest.mark.parametrize(
    ("cdf", "expected"),
    [(0.0, [0, 1, 2, 3]), (0.05, [0, 1, 2, 3]), (0.15, [0, 1, 2]), (0.35, [0, 2]), (0.6, [2]), (0.999, [2])],
)
def test_the_mass_filter_by_hand(cdf: float, expected: list[int]) -> None:
    """Ascending the mass is 0.1, 0.3, 0.55, 1: what is summed before `cdf` is reached goes."""
    logits = jnp.log(jnp.array([0.25, 0.2, 0.45, 0.1]))
    assert kept(beam.cut_mass(logits, cdf)) == expected


def test_the_rank_filter_by_hand() -> None:
    logits = jnp.array([0.3, -1.0, 2.0, 0.5])
    assert kept(beam.cut_rank(logits, 1)) == [2]
    assert kept(beam.cut_rank(logits, 3)) == [0, 2, 3]
    assert kept(beam.cut_rank(logits, 9)) == [0, 1, 2, 3]


def test_filtered_sampling_draws_what_is_left_in_proportion() -> None:
    logits = jnp.log(jnp.tile(jnp.array([0.5, 0.25, 0.2, 0.05]), (20_000, 1)))
    drawn = beam.sample_token(logits, jax.random.key(0), top=None, cdf=0.2)  # 0.05 goes, 0.2 reaches it
    shares = np.bincount(np.asarray(drawn), minlength=4) / 20_000
    np.testing.assert_allclose(shares, np.array([0.5, 0.25, 0.2, 0.0]) / 0.95, atol=0.015)


def test_a_filter_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(UserError, match=r"search.cdf_action .* found 1.0"):
        beam.SearchConfig(cdf_action=1.0)
