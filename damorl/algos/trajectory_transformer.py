"""Trajectory Transformer: offline RL as one sequence model and beam search (arXiv 2106.02039).

    tokens of a transition:  s (obs_dim), a (action_dim), r, V;   V_t = sum_{k >= 0} gamma^k r_{t+1+k}
    loss(theta) = -mean over positions of weight * log P_theta(token | tokens before it)                  (section 3)
    action = first of the a_0 .. a_H that beam search finds for the highest
             sum_{i <= H} gamma^i E[r_i] + gamma^{H+1} E[V_H]                                           (Algorithm 1)

Every number becomes a token by quantile bins of its dimension. Positions after a terminal hold a stop token, which
counts 0 in the expectations. No token attends to the value tokens before it. It acts by planning at every step, with
the last transitions in view.

The settings are those of the released code, whose README says that they are not the paper's. Deviations from it:

- the last edge of N bins is always the N-th, also where N does not divide the number of rows (released, bins are lost);
- a sequence that runs over a time limit, or over the end of the data, is masked from there on; released, that is so at
  1000 steps only, the mask is one position late, and shorter cut episodes count as stopped;
- sequences start at any row, also the last of an episode; the schedule counts updates (released: tokens that are no
  stop tokens);
- `lr_schedule` "published" is the released cosine, which is not stopped at its end: from 20 epochs on the rate rises
  again, to its maximum at 39. "monotone" stays at the floor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from damorl.algos.base import Algorithm, OfflineData, Planner, Problem, no_prepare, no_refresh
from damorl.core.buffer import take
from damorl.core.optim import Learner, init_learner, minimise
from damorl.errors import UserError
from damorl.parts import beam
from damorl.parts.discretiser import discretise, fit_edges, reconstruct
from damorl.parts.transformer import Dropout, Transformer, all_logits, init_transformer, transform, weight_decay_mask
from damorl.types import Array, Key, Metrics, Spec, Transition

LR_FLOOR = 0.1  # of the rate, at the end of the cosine


@dataclass(frozen=True)
class Config:
    """Settings of Trajectory Transformer. The defaults are the released code's (config/offline.py, `base`)."""

    bins: int = 100
    """Bins per dimension (released `N`)."""
    sequence_length: int = 10
    """Transitions of a training sequence (released `subsampled_sequence_length`)."""
    layers: int = 4
    """Blocks of the transformer."""
    heads: int = 4
    """Attention heads."""
    head_dim: int = 32
    """Width per head (released `n_embd`): the transformer is heads * head_dim wide."""
    dropout: float = 0.1
    """Share of embeddings, attention weights and branches set to 0 in training."""
    batch_size: int = 256
    """Sequences per update."""
    learning_rate: float = 6e-4
    """Of AdamW with betas 0.9 and 0.95."""
    lr_schedule: Literal["published", "monotone"] = "published"
    """Both rise linearly, then follow a cosine to a tenth. `published` rises again after that, as the released code
    does; `monotone` stays there."""
    warmup_epochs: float = 1.0
    """Passes over the data until the rate is full (released: one epoch of tokens)."""
    decay_epochs: float = 20.0
    """Passes over the data, warm-up included, until the cosine is at its floor (released `final_tokens`)."""
    weight_decay: float = 0.1
    """On the weights of matrix products only."""
    gradient_clip: float = 1.0
    """Largest norm of the whole gradient."""
    action_weight: float = 5.0
    """Weight of the action tokens in the loss; states weigh 1."""
    reward_weight: float = 1.0
    value_weight: float = 1.0
    termination_penalty: float | None = 100.0
    """A terminal's reward is replaced by minus this (released: -100). None: it stays."""
    gamma: float = 0.99
    """Discount of the values and of the search."""
    search: beam.SearchConfig = field(default_factory=beam.SearchConfig)

    def __post_init__(self) -> None:
        """Refuse settings that cannot work, with the reason."""
        if self.search.history >= self.sequence_length:
            raise UserError(
                f"search.history must be below sequence_length ({self.sequence_length}), found {self.search.history}: "
                "the transformer knows no positions beyond it; lower the one or raise the other"
            )
        if not self.warmup_epochs < self.decay_epochs:
            raise UserError(
                f"warmup_epochs must be below decay_epochs ({self.decay_epochs}), found {self.warmup_epochs}: lower it"
            )
        if not 0.0 <= self.dropout < 1.0:
            raise UserError(f"dropout must lie in [0, 1), found {self.dropout}: give for example 0.1")


class State(NamedTuple):
    """Everything that changes, and what was fitted to the data."""

    model: Learner
    edges: Array
    """Of the bins, `[bins + 1, transition_dim]`."""
    values: Array
    """Discounted return after each row, `[N]`."""


class Actor(NamedTuple):
    """What planning needs."""

    params: Transformer
    edges: Array


class Memory(NamedTuple):
    """What N episodes, all equally old, remember."""

    past: Array
    """Their last finished transitions as tokens, `[N, history, transition_dim]`, oldest first, from the front on."""
    current: Array
    """State and action of the transition under way, `[N, transition_dim]`; reward and value are not known yet."""
    age: Array
    """Actions taken so far, int32 scalar."""


def lr_multiplier(config: Config, epoch: Array | float) -> Array:
    """What the learning rate is multiplied with after so many passes over the data."""
    progress = (epoch - config.warmup_epochs) / (config.decay_epochs - config.warmup_epochs)
    progress = jnp.minimum(progress, 1.0) if config.lr_schedule == "monotone" else progress
    cosine = jnp.maximum(LR_FLOOR, 0.5 * (1.0 + jnp.cos(math.pi * progress)))
    return jnp.where(epoch < config.warmup_epochs, epoch / max(config.warmup_epochs, 1e-9), cosine)


def make_optimiser(config: Config, num_rows: int) -> optax.GradientTransformation:
    """AdamW behind a clip of the whole gradient; the rate follows the share of `num_rows` that was seen."""
    rate = lambda count: config.learning_rate * lr_multiplier(config, (count + 1) * config.batch_size / num_rows)
    adamw = optax.adamw(rate, b1=0.9, b2=0.95, weight_decay=config.weight_decay, mask=weight_decay_mask)
    return optax.chain(optax.clip_by_global_norm(config.gradient_clip), adamw)


def init(key: Key, config: Config, problem: Problem, data: OfflineData) -> State:
    """A fresh transformer, bins fitted to the data, and the values of its rows."""
    values = values_after(penalised_reward(config, data.rows), episodes(data), config.gamma)
    edges = fit_edges(joined(config, data.rows, values), config.bins)
    transition_dim = sum(problem.spec) + 2
    sizes = (config.bins, config.sequence_length * transition_dim - 1, config.layers, config.heads, config.head_dim)
    params = init_transformer(key, transition_dim, *sizes)
    return State(init_learner(params, make_optimiser(config, data.rows.reward.shape[0])), edges, values)


def episodes(data: OfflineData) -> Array:
    """The episode of each row; UserError where the data do not tell."""
    if data.episode is None:
        raise UserError("trajectory-transformer needs rows in the order of their episodes, found none: set `episode`")
    return data.episode


def penalised_reward(config: Config, rows: Transition) -> Array:
    """`[*B]`, with the penalty in the place of a terminal's reward."""
    if config.termination_penalty is None:
        return rows.reward
    return jnp.where(rows.terminal > 0.5, -config.termination_penalty, rows.reward)


def values_after(reward: Array, episode: Array, gamma: float) -> Array:
    """`V_t = sum_{k >= 0} gamma^k r_{t+1+k}` to the end of the row's episode, `[N]`; 0 in its last row."""
    goes_on = jnp.append(episode[1:] == episode[:-1], False)

    def later_first(later: tuple[Array, Array], now: tuple[Array, Array]) -> tuple[Array, Array]:
        (later_sum, later_share), (own_sum, own_share) = later, now
        return own_sum + own_share * later_sum, own_share * later_share

    returns, _ = jax.lax.associative_scan(later_first, (reward, gamma * goes_on), reverse=True)
    return jnp.where(goes_on, jnp.roll(returns, -1), 0.0)


def joined(config: Config, rows: Transition, values: Array) -> Array:
    """What is discretised of each row: state, action, reward, value, `[*B, transition_dim]`."""
    pair = jnp.stack([penalised_reward(config, rows), values], axis=-1)
    return jnp.concatenate([rows.obs, rows.action, pair], axis=-1)


def sample_sequences(config: Config, state: State, data: OfflineData, key: Key) -> tuple[Array, Array]:
    """Tokens `[B, L, transition_dim]`, and whether a transition counts `[B, L]`: the episode's own rows, and the stop
    tokens after a terminal, but not what follows a cut."""
    episode, num_rows = episodes(data), data.rows.reward.shape[0]
    start = jax.random.randint(key, (config.batch_size, 1), 0, num_rows)
    index = jnp.minimum(start + jnp.arange(config.sequence_length), num_rows - 1)
    own = (start + jnp.arange(config.sequence_length) < num_rows) & (episode[index] == episode[start])
    rows = take(data.rows, index)
    numbers = joined(config, rows, state.values[index])
    tokens = jnp.where(own[..., None], discretise(state.edges, numbers), config.bins)
    ended = jnp.any(own & (rows.terminal > 0.5), axis=1, keepdims=True)
    return tokens, own | ended


def sequence_loss(
    config: Config, spec: Spec, params: Transformer, tokens: Array, counts: Array, dropout: Dropout | None
) -> tuple[Array, Metrics]:
    """Weighted cross-entropy of every token but the first, mean over all positions, also those that do not
    count."""
    batch_size, length, transition_dim = tokens.shape
    flat = tokens.reshape(batch_size, -1)
    hidden, _ = transform(params, flat[:, :-1], dropout=dropout)
    log_probs = jax.nn.log_softmax(all_logits(params, hidden))
    errors = -jnp.take_along_axis(log_probs, flat[:, 1:, None], axis=-1)[..., 0]
    counts = jnp.repeat(counts, transition_dim, axis=1)[:, 1:]
    kinds = jnp.tile(jnp.repeat(jnp.arange(4), jnp.asarray((*spec, 1, 1)), total_repeat_length=transition_dim), length)
    weights = jnp.asarray([1.0, config.action_weight, config.reward_weight, config.value_weight])[kinds[1:]]
    loss = jnp.mean(errors * counts * weights)
    share = lambda kind: counts * (kinds[1:] == kind)
    mean = lambda where: jnp.sum(errors * where) / jnp.maximum(jnp.sum(where), 1.0)
    parts = {f"model/{name}_nll": mean(share(kind)) for kind, name in enumerate(("obs", "action", "reward", "value"))}
    return loss, {"model/loss": loss} | parts


def update(config: Config, problem: Problem, state: State, data: OfflineData, key: Key) -> tuple[State, Metrics]:
    """One AdamW step on a batch of sequences."""
    batch_key, dropout_key = jax.random.split(key)
    tokens, counts = sample_sequences(config, state, data, batch_key)
    dropout = Dropout(dropout_key, config.dropout) if config.dropout else None
    spec = Spec(data.rows.obs.shape[1], data.rows.action.shape[1])
    optimiser = make_optimiser(config, data.rows.reward.shape[0])
    loss_fn = lambda params: sequence_loss(config, spec, params, tokens, counts, dropout)
    model, metrics = minimise(loss_fn, state.model, optimiser)
    return state._replace(model=model), metrics


def begin(config: Config, spec: Spec, num_episodes: int) -> Memory:
    """The memory before the first action."""
    transition_dim = sum(spec) + 2
    past = jnp.zeros((num_episodes, config.search.history, transition_dim), jnp.int32)
    return Memory(past, past[:, 0], jnp.zeros((), jnp.int32))


def act(config: Config, actor: Actor, memory: Memory, obs: Array, reward: Array, keys: Key) -> tuple[Array, Memory]:
    """Plan for all episodes at once: the first action of each best beam, `[N, action_dim]`."""
    obs_dim, history = obs.shape[1], config.search.history
    finished = memory.current.at[:, -2].set(discretise(actor.edges[:, -2:-1], reward[:, None])[:, 0])
    past = jnp.where(memory.age > history, jnp.roll(memory.past, -1, axis=1), memory.past)
    past = past.at[:, jnp.clip(memory.age - 1, 0, history - 1)].set(finished)
    tokens = discretise(actor.edges[:, :obs_dim], obs)
    model = beam.Model(actor.params, actor.edges, obs_dim, config.gamma)
    search = partial(beam.plan, model, config.search)
    keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, memory.age)
    plans = jax.vmap(search, in_axes=(0, None, 0, 0))(past, jnp.minimum(memory.age, history), tokens, keys)
    actions = jnp.minimum(plans.tokens[:, 0, obs_dim:-2], config.bins - 1)
    current = jnp.pad(jnp.concatenate([tokens, actions], axis=1), ((0, 0), (0, 2)))
    return reconstruct(actor.edges[:, obs_dim:-2], actions), Memory(past, current, memory.age + 1)


ALGORITHM = Algorithm(
    "trajectory-transformer",
    Config,
    init,
    no_prepare,
    no_refresh,
    update,
    lambda state: Actor(state.model.params, state.edges),
    Planner(begin, act),
)
