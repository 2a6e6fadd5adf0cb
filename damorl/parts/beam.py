"""Beam search for actions in a transformer of transitions (Trajectory Transformer, arXiv 2106.02039, Algorithm 1).

    score(a_0 .. a_t) = sum_{i <= t} gamma^i E[r_i] + gamma^{t+1} E[V_t]

A beam is a sequence of whole transitions. In each round every beam is copied, samples an action, reads off reward and
value, the best are kept, and their next states are predicted. The model always sees whole transitions: at most
`history` finished ones and the one under way. That window moves with each round, and positions are counted from its
start, so keys and values are cached within a round only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from damorl.errors import UserError
from damorl.parts.discretiser import expectation
from damorl.parts.transformer import Caches, Transformer, empty_caches, next_logits, transform
from damorl.types import Array, Key

Choose = Callable[[Array, Key], Array]
"""Logits `[B, num_bins + 1]` to tokens `[B]`."""


@dataclass(frozen=True)
class SearchConfig:
    """Settings of the search. The defaults are the released ones (config/offline.py, `plan`)."""

    horizon: int = 15
    """Transitions that are planned ahead."""
    beam_width: int = 128
    """Beams that are kept in each round."""
    expansions: int = 2
    """Actions that are sampled for each beam (released `n_expand`)."""
    history: int = 4
    """Finished transitions that the model sees before the one under way. (Released `max_context_transitions` is 5; its
    cropping to 5 transitions less one token leaves 4 finished ones.)"""
    top_obs: int | None = 1
    """Only that many likeliest tokens of each state dimension are sampled from (released `k_obs`). None: all."""
    top_action: int | None = None
    """The same for actions (released `k_act`)."""
    cdf_obs: float | None = None
    """Share of unlikely mass that is cut off before a state's token is sampled. None: nothing."""
    cdf_action: float | None = 0.6
    """The same for actions (released `cdf_act`): 0.6 keeps the likeliest tokens with about 40 % of the mass."""

    def __post_init__(self) -> None:
        """Refuse filters that leave nothing, with the reason."""
        for name in ("cdf_obs", "cdf_action"):
            share = getattr(self, name)
            if share is not None and not 0.0 <= share < 1.0:
                raise UserError(f"search.{name} is a share of the mass and must lie in [0, 1), found {share}: give 0.6")


class Plan(NamedTuple):
    """The best beam."""

    tokens: Array
    """`[horizon, transition_dim]`"""
    score: Array


class Beams(NamedTuple):
    """Sequences, and what each has collected."""

    tokens: Array
    """`[W, history + horizon, transition_dim]`"""
    collected: Array
    """Discounted expected rewards so far, `[W]`."""
    score: Array
    """`collected` and the discounted value of what follows, `[W]`."""


class Model(NamedTuple):
    """What the search asks."""

    params: Transformer
    edges: Array
    """Of the bins, `[num_bins + 1, transition_dim]`."""
    obs_dim: int
    gamma: float


def plan(model: Model, search: SearchConfig, past: Array, count: Array, obs: Array, key: Key) -> Plan:
    """The best plan found from the state `obs` (tokens `[obs_dim]`), after the first `count` transitions of `past`.

    `past` is `[history, transition_dim]`, oldest first; rows from `count` on mean nothing.
    """
    horizon, width = search.horizon, search.beam_width
    tokens = jnp.zeros((search.history + horizon, past.shape[1]), jnp.int32).at[: search.history].set(past)
    tokens = tokens.at[count, : model.obs_dim].set(obs)
    caches = read_window(model.params, search, tokens[None], count)
    _, caches = transform(model.params, obs[None], window_length(search, count) * past.shape[1], caches)
    spread = lambda leaf: jnp.repeat(leaf, width, axis=0)
    beams = Beams(spread(tokens[None]), jnp.zeros(width), jnp.zeros(width))
    caches = jax.tree.map(spread, caches)

    def one_round(carry: tuple[Beams, Caches], step: tuple[Array, Key]) -> tuple[tuple[Beams, Caches], None]:
        (beams, caches), (t, round_key) = carry, step
        act_key, observe_key = jax.random.split(round_key)
        beams = act(model, search, beams, caches, count, t, act_key)
        return observe(model, search, beams, count + t + 1, observe_key), None

    keys = jax.random.split(key, horizon)
    (beams, caches), _ = jax.lax.scan(one_round, (beams, caches), (jnp.arange(horizon - 1), keys[1:]))
    beams = act(model, search, beams, caches, count, jnp.asarray(horizon - 1), keys[0])
    best = jnp.argmax(beams.score)
    return Plan(jax.lax.dynamic_slice_in_dim(beams.tokens[best], count, horizon), beams.score[best])


def act(model: Model, search: SearchConfig, beams: Beams, caches: Caches, count: Array, t: Array, key: Key) -> Beams:
    """Round t: several actions for each beam with their rewards and values; the best beams stay."""
    beams, caches = jax.tree.map(lambda leaf: jnp.repeat(leaf, search.expansions, axis=0), (beams, caches))
    current, transition_dim = count + t, beams.tokens.shape[2]
    start, last_obs = window_length(search, current) * transition_dim, model.obs_dim - 1
    action_key, reward_key = jax.random.split(key)
    choose = partial(sample_token, top=search.top_action, cdf=search.cdf_action)
    num_actions = transition_dim - model.obs_dim - 2
    actions, _, caches = generate(
        model.params, caches, beams.tokens[:, current, last_obs], start + last_obs, num_actions, choose, action_key
    )
    pair, probs, _ = generate(
        model.params, caches, actions[:, -1], start + transition_dim - 3, 2, likeliest_token, reward_key
    )
    reward = expectation(model.edges[:, -2], probs[0, :, :-1])
    value = expectation(model.edges[:, -1], probs[1, :, :-1])
    collected = beams.collected + model.gamma**t * reward
    score, best = jax.lax.top_k(collected + model.gamma ** (t + 1) * value, search.beam_width)
    tokens = beams.tokens.at[:, current, model.obs_dim :].set(jnp.concatenate([actions, pair], axis=1))
    return Beams(tokens[best], collected[best], score)


def observe(model: Model, search: SearchConfig, beams: Beams, count: Array, key: Key) -> tuple[Beams, Caches]:
    """The next state of every beam after `count` finished transitions, and the caches that its action needs."""
    caches = read_window(model.params, search, beams.tokens, count)
    last = window_length(search, count) * beams.tokens.shape[2] - 1
    choose = partial(sample_token, top=search.top_obs, cdf=search.cdf_obs)
    obs, _, caches = generate(model.params, caches, beams.tokens[:, count - 1, -1], last, model.obs_dim, choose, key)
    return beams._replace(tokens=beams.tokens.at[:, count, : model.obs_dim].set(obs)), caches


def window_length(search: SearchConfig, count: Array) -> Array:
    """How many of `count` finished transitions the model sees."""
    return jnp.minimum(count, search.history)


def read_window(params: Transformer, search: SearchConfig, tokens: Array, count: Array) -> Caches:
    """Caches `[B, ...]` with the last finished transitions of `tokens` `[B, steps, transition_dim]` written in.

    Always `history` of them, so that shapes are fixed: where fewer are finished, what follows is overwritten later.
    """
    batch_size, _, transition_dim = tokens.shape
    first = count - window_length(search, count)
    window = jax.lax.dynamic_slice_in_dim(tokens, first, search.history, axis=1).reshape(batch_size, -1)
    room = (search.history + 1) * transition_dim - 1
    return transform(params, window, 0, empty_caches(params, batch_size, room))[1]


def generate(
    params: Transformer, caches: Caches, token: Array, position: Array, num: int, choose: Choose, key: Key
) -> tuple[Array, Array, Caches]:
    """`num` tokens after `token` `[B]`, which stands at `position`: `[B, num]`, the probabilities that they were
    chosen from, `[num, B, num_bins + 1]`, and the caches."""

    def one(carry: Any, step_key: Key) -> tuple[Any, tuple[Array, Array]]:
        token, position, caches = carry
        hidden, caches = transform(params, token[:, None], position, caches)
        logits = next_logits(params, hidden[:, 0], position)
        token = choose(logits, step_key)
        return (token, position + 1, caches), (token, jax.nn.softmax(logits))

    (_, _, caches), (tokens, probs) = jax.lax.scan(one, (token, position, caches), jax.random.split(key, num))
    return tokens.T, probs, caches


def likeliest_token(logits: Array, key: Key) -> Array:
    """The token of the highest logit; the key is not needed."""
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)


def sample_token(logits: Array, key: Key, top: int | None, cdf: float | None) -> Array:
    """A token drawn from what both filters leave."""
    if top == 1:
        return likeliest_token(logits, key)
    logits = logits if cdf is None else cut_mass(logits, cdf)
    logits = logits if top is None else cut_rank(logits, top)
    return jax.random.categorical(key, logits).astype(jnp.int32)


def cut_mass(logits: Array, cdf: float) -> Array:
    """`-inf` for the unlikely tokens: those below the one at which the mass, summed from the unlikeliest on, reaches
    `cdf`."""
    probs = jax.nn.softmax(logits)
    ascending = jnp.sort(probs, axis=-1)
    reached = jnp.cumsum(ascending, axis=-1) >= min(cdf, 1.0 - 1e-6)
    least = jnp.take_along_axis(ascending, jnp.argmax(reached, axis=-1)[..., None], axis=-1)
    return jnp.where(probs >= least, logits, -jnp.inf)


def cut_rank(logits: Array, top: int) -> Array:
    """`-inf` for all but the `top` highest."""
    least = jax.lax.top_k(logits, min(top, logits.shape[-1]))[0][..., -1:]
    return jnp.where(logits >= least, logits, -jnp.inf)
