"""How an agent starts: the actor as a clone of the data's best share, the critics at the returns of the data.

The *reference* is the policy behind the best share of the data: its episodes in the order of their returns, the best
first, until they hold `reference_share` of the rows (the share of percentage cloning, arXiv 2106.01345). With 1 it is
the policy behind all of the data, and so it is where no episode is complete: then no return is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from damorl.core.buffer import sample_rows, take
from damorl.core.nets import MLP, Net
from damorl.core.optim import Learner, adam, init_learner, minimise
from damorl.core.returns import discounted_returns
from damorl.errors import UserError
from damorl.parts.actor import clone_actor
from damorl.parts.critic import q_values
from damorl.types import Array, Key, Metrics, OfflineData, Ranking, Transition

CLONING_STREAM, CRITIC_STREAM = 0, 1
CRITIC_RATE, CRITIC_BATCH = 1e-3, 256
NEGLIGIBLE = 0.01
"""A return is known if the episode then ended by itself, or ran until so little of the weight was left."""


@dataclass(frozen=True)
class StartSettings:
    """Settings of the start; a Config inherits them. By default networks start at random, as published methods do."""

    reference_share: float = 1.0
    """Best share of the data that the actor clones: whole episodes by their return, up to this share of the rows."""
    cloning_updates: int | None = None
    """Updates of behaviour cloning on that share that the actor starts with. None: it starts at random."""
    critic_start: Literal["none", "returns"] = "none"
    """What the critics start at: nothing, or the discounted returns that the data collected from each row on, where the
    data know any (see `known_rows`)."""
    critic_start_updates: int = 5_000
    """Updates of that regression."""

    def __post_init__(self) -> None:
        """Refuse a share that is none."""
        check_share(self.reference_share)


def check_share(reference_share: float) -> None:
    """UserError for a share that is none."""
    if not 0.0 < reference_share <= 1.0:
        raise UserError(f"reference_share must be above 0 and at most 1, found {reference_share}: 1 is the whole data")


class Started(NamedTuple):
    """Parameters to begin with."""

    actor: MLP
    critic: Net


def start(key: Key, settings: StartSettings, gamma: float, data: OfflineData, actor: MLP, critic: Net) -> Started:
    """`actor` and `critic` after their start, on the host.

    `key` is that of the whole preparation; with nothing asked for, both are returned as they are.
    """
    if settings.cloning_updates is not None:
        rows = reference_rows(data, settings.reference_share)
        actor = clone_actor(actor, rows, jax.random.fold_in(key, CLONING_STREAM), settings.cloning_updates)
    if settings.critic_start == "returns" and (known := known_returns(data, gamma)) is not None:
        rows, returns = known
        key = jax.random.fold_in(key, CRITIC_STREAM)
        critic = fit_critic(critic, rows, returns, key, settings.critic_start_updates)
    return Started(actor, critic)


def rank_episodes(episode: np.ndarray, returns: np.ndarray) -> Ranking | None:
    """The rows by the return of their episode, the best first; None where no episode is complete.

    `episode` `[N]` numbers the rows' episodes, `returns` `[E]` are those of the first E, which are complete. What an
    incomplete episode would have earned is not known: its rows come last.
    """
    if not len(returns):
        return None
    lengths = np.bincount(episode, minlength=len(returns))
    order = np.concatenate([np.argsort(-np.asarray(returns), kind="stable"), np.arange(len(returns), len(lengths))])
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    before = np.cumsum(lengths[order]) - lengths[order]
    rows = np.argsort(place[episode], kind="stable")
    share = np.repeat(before, lengths[order]) / len(episode)
    return Ranking(jnp.asarray(rows, jnp.int32), jnp.asarray(share, jnp.float32))


def count_reference(ranking: Ranking, share: float) -> Array:
    """How many of the ranked rows are the reference's: those of every episode that begins before the share is full."""
    return jnp.sum(ranking.before < share)


def reference_rows(data: OfflineData, share: float) -> Transition:
    """The reference's rows `[n, ...]`, on the host: all of the data's where no return is known."""
    if share == 1.0 or data.ranking is None:
        return data.rows
    return take(data.rows, data.ranking.best_first[: int(count_reference(data.ranking, share))])


def sample_reference(data: OfflineData, key: Key, batch_size: int, share: float) -> Transition:
    """`batch_size` rows drawn uniformly from the reference's, or from all where no return is known. Pure."""
    if share == 1.0 or data.ranking is None:
        return sample_rows(data.rows, key, batch_size)
    draw = jax.random.randint(key, (batch_size,), 0, count_reference(data.ranking, share))
    return take(data.rows, data.ranking.best_first[draw])


def last_rows(episode: np.ndarray) -> np.ndarray:
    """The number of the last row of each row's episode, `[N]`; `episode` `[N]` numbers the rows' episodes in order."""
    ends = np.append(np.flatnonzero(np.diff(episode)), len(episode) - 1)
    return ends[np.searchsorted(ends, np.arange(len(episode)))]


def known_rows(episode: np.ndarray, terminal: np.ndarray, gamma: float) -> np.ndarray:
    """Whether each row's discounted return is known to 1 % of its weight, bool `[N]`.

    Where an episode was cut, what follows is not known: rows that stand too near to such an end are not.
    """
    last = last_rows(episode)
    return (terminal[last] > 0.5) | (gamma ** (last + 1.0 - np.arange(len(episode))) <= NEGLIGIBLE)


def known_returns(data: OfflineData, gamma: float) -> tuple[Transition, Array] | None:
    """The rows whose discounted return is known, and those returns, `[n, ...]` and `[n]`; None without such a row. On
    the host."""
    if data.episode is None:
        return None
    episode, reward, terminal = (np.asarray(x) for x in (data.episode, data.rows.reward, data.rows.terminal))
    if not (known := known_rows(episode, terminal, gamma)).any():
        return None
    returns = discounted_returns(reward, last_rows(episode) == np.arange(len(episode)), gamma)
    chosen = jnp.asarray(np.flatnonzero(known), jnp.int32)
    return take(data.rows, chosen), jnp.asarray(returns[known], jnp.float32)


@partial(jax.jit, static_argnames="num_updates")
def fit_critic(critic: Net, rows: Transition, returns: Array, key: Key, num_updates: int) -> Net:
    """`num_updates` Adam steps on the squared distance of every critic to `returns` `[N]`, at a cosine rate."""
    optimiser = adam(CRITIC_RATE, num_updates)

    def step(learner: Learner, step_key: Key) -> tuple[Learner, Metrics]:
        index = jax.random.randint(step_key, (CRITIC_BATCH,), 0, returns.shape[0])
        batch, target = take(rows, index), returns[index]

        def loss(params: Net) -> tuple[Array, Metrics]:
            return jnp.mean(jnp.square(q_values(params, batch.obs, batch.action) - target)), {}

        return minimise(loss, learner, optimiser)

    learner, _ = jax.lax.scan(step, init_learner(critic, optimiser), jax.random.split(key, num_updates))
    return learner.params
