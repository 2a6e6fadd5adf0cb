"""Which policy of a run to keep: the one with the highest lower bound of its return, by a model that is known to err.

Before every block of updates the policy plays whole episodes in the fitted model, from the data's own initial states;
no simulator is asked. With V its mean return there and D its divergence from the cloned reference,

    L(pi) = V(pi) - validation_margin * err * sqrt(D),      D = E_{d_M^pi}[KL(pi(.|s) || pi_ref(.|s))]

    err     mean over the elites of |V_elite(pi_ref) - J|, J being what the episodes that pi_ref was cloned from earned
    kept    the policy with the highest L so far; the reference is the first, with L = V

A policy near the reference shares the model's error there, and the comparison of the two is safe; one that is far
away does not. In between, the difference of two policies' returns in one world grows with the total variation between
them, which is at most sqrt(D / 2) (Pinsker). d_M^pi is the discounted occupancy in the model, as in the paper, so the
first steps of an episode count for more. Where no episode is complete, a tenth of V(pi_ref) is assumed for err.

With `keep` supported the bound is another one: the return among the pairs that the data know (`parts/support.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from damorl.parts.actor import policy
from damorl.parts.data_range import find_range
from damorl.parts.dynamics import Dynamics, predict
from damorl.parts.reference import kl
from damorl.parts.start import count_reference
from damorl.parts.support import find_support, known_reward
from damorl.types import Array, Key, Metrics, OfflineData, Params, Ranking, TerminationFn

ASSUMED_ERROR = 0.1
"""Of the model at the reference, as a share of its value there, where the data do not tell."""


@dataclass(frozen=True)
class ValidationSettings:
    """Settings of what is kept; a Config inherits them."""

    keep: Literal["last", "validated", "supported"] = "last"
    """The policy that is evaluated and saved: the last one, as in published methods; or the one with the highest lower
    bound so far, and the cloned reference while none is better. `supported`: the bound is its return where the data
    know the model (`parts/support.py`)."""
    validation_starts: int = 40
    """Episodes in each elite, from as many of the data's initial states."""
    validation_steps: int = 1000
    """They are cut after so many steps, or after the data's longest episode if that is shorter."""
    validation_margin: float = 1.0
    """What a policy one nat from the reference must gain in the model, in errors of the model at the reference."""


class Kept(NamedTuple):
    """The best policy so far, and what policies are compared with; returns in the model, scalars."""

    policy: Params
    """The policy to evaluate and save."""
    best: Array
    """The highest lower bound so far."""
    reference: Params
    """The clone."""
    error: Array
    """Of the model at the reference."""


class Episodes(NamedTuple):
    """Whole episodes in the model, `[step, elite, start, ...]`."""

    obs: Array
    alive: Array
    """Whether the episode has not ended before this step."""
    reward: Array
    """Zero after its end."""


def init_kept(settings: ValidationSettings, actor: Params) -> Kept | None:
    """Before the model is fitted; None where nothing is validated."""
    if settings.keep == "last":
        return None
    copy = lambda: jax.tree.map(jnp.copy, actor)
    return Kept(copy(), jnp.zeros(()), copy(), jnp.zeros(()))


def begin_kept(
    settings: ValidationSettings,
    share: float,
    model: Dynamics,
    termination: TerminationFn,
    actor: Params,
    data: OfflineData,
) -> Kept | None:
    """The reference `actor`, cloned from the best `share` of the data, its value and the model's error there."""
    if (kept := init_kept(settings, actor)) is None:
        return None
    episodes = play(settings, model, termination, actor, data)
    each = values(episodes)
    if data.ranking is None:
        error = ASSUMED_ERROR * jnp.abs(jnp.mean(each))
    else:
        error = jnp.mean(jnp.abs(each - reference_return(data.rows.reward, data.ranking, share)))
    return kept._replace(best=bound_of_reference(settings, actor, data, episodes), error=error)


def validate(
    settings: ValidationSettings,
    kept: Kept,
    model: Dynamics,
    termination: TerminationFn,
    actor: Params,
    data: OfflineData,
    gamma: float,
) -> tuple[Kept, Array, Episodes, Metrics]:
    """What is kept after a block of updates that led to `actor`, the lower bound of its return (scalar), and its
    episodes."""
    episodes = play(settings, model, termination, actor, data)
    value, divergence, bound = lower_bound(settings, kept, actor, data, episodes, gamma)
    better = bound > kept.best
    found = kept._replace(
        policy=jax.tree.map(lambda new, old: jnp.where(better, new, old), actor, kept.policy),
        best=jnp.maximum(kept.best, bound),
    )
    metrics = {"value": value, "bound": bound, "best": kept.best, "divergence": divergence}
    return found, bound, episodes, {f"validation/{name}": number for name, number in metrics.items()}


def lower_bound(
    settings: ValidationSettings, kept: Kept, actor: Params, data: OfflineData, episodes: Episodes, gamma: float
) -> tuple[Array, Array, Array]:
    """V(pi), D and L(pi) of the module's first lines, scalars, from the `episodes` that `actor` played."""
    value = jnp.mean(values(episodes))
    distance = kl(policy(actor, episodes.obs), policy(kept.reference, episodes.obs))
    weight = occupancy(episodes, gamma)
    divergence = jnp.sum(weight * distance) / jnp.sum(weight)
    if settings.keep == "supported":
        return value, divergence, known_value(settings, episodes, actor, data)
    return value, divergence, value - settings.validation_margin * kept.error * jnp.sqrt(divergence)


def bound_of_reference(settings: ValidationSettings, actor: Params, data: OfflineData, episodes: Episodes) -> Array:
    """L of the reference, which is at no distance from itself (scalar)."""
    if settings.keep == "supported":
        return known_value(settings, episodes, actor, data)
    return jnp.mean(values(episodes))


def judge_again(
    settings: ValidationSettings,
    kept: Kept,
    model: Dynamics,
    termination: TerminationFn,
    actor: Params,
    data: OfflineData,
    gamma: float,
) -> Kept:
    """`kept` with `actor` as the policy to beat, by its bound in a `model` that may have changed."""
    episodes = play(settings, model, termination, actor, data)
    return kept._replace(policy=actor, best=lower_bound(settings, kept, actor, data, episodes, gamma)[2])


def refer_to(
    settings: ValidationSettings,
    model: Dynamics,
    termination: TerminationFn,
    actor: Params,
    earned: Array,
    data: OfflineData,
) -> Kept:
    """`actor` as the reference and the policy to beat. It `earned` so much on average in the real environment (scalar,
    undiscounted): that tells the model's error there."""
    episodes = play(settings, model, termination, actor, data)
    best, error = bound_of_reference(settings, actor, data, episodes), jnp.mean(jnp.abs(values(episodes) - earned))
    return Kept(actor, best, jax.tree.map(jnp.copy, actor), error)


def play(
    settings: ValidationSettings, model: Dynamics, termination: TerminationFn, actor: Params, data: OfflineData
) -> Episodes:
    """Whole episodes of the policy's modes in each elite's mean predictions, from the data's initial states.

    States stay inside the range of the data's. The same starts every time: policies are compared on the same episodes.
    """
    seen = find_range(data.rows.obs)
    index = jnp.linspace(0, data.initial_obs.shape[0] - 1, settings.validation_starts).astype(jnp.int32)
    num_elites, limit = model.params.layers[0].kernel.shape[0], longest_episode(data)
    start = jnp.broadcast_to(data.initial_obs[index], (num_elites, len(index), data.initial_obs.shape[1]))

    def step(carry: tuple[Array, Array], time: Array) -> tuple[tuple[Array, Array], Episodes]:
        obs, alive = carry
        action = policy(actor, obs).mode()
        mean = predict(model, obs, action).mean
        next_obs = seen.clip(mean[..., :-1])
        ended = jax.vmap(termination)(obs, action, next_obs)
        alive &= time < limit
        return (next_obs, alive & ~ended), Episodes(obs, alive, jnp.where(alive, mean[..., -1], 0.0))

    alive = jnp.ones(start.shape[:2], bool)
    return jax.lax.scan(step, (start, alive), jnp.arange(settings.validation_steps))[1]


def values(episodes: Episodes) -> Array:
    """Mean undiscounted return in each elite, `[elite]`."""
    return jnp.mean(jnp.sum(episodes.reward, axis=0), axis=1)


def known_value(settings: ValidationSettings, episodes: Episodes, actor: Params, data: OfflineData) -> Array:
    """Mean undiscounted return where the data know the model (scalar)."""
    action = policy(actor, episodes.obs).mode()
    worst = jnp.min(data.rows.reward)
    reward = known_reward(find_support(data.rows), episodes.obs, action, episodes.alive, episodes.reward, worst)
    counted = jnp.arange(settings.validation_steps) < longest_episode(data)
    return jnp.mean(jnp.sum(reward * counted[:, None, None], axis=0))


def occupancy(episodes: Episodes, gamma: float) -> Array:
    """The weight of each state in the discounted occupancy, `[step, elite, start]`: gamma^t until the end."""
    return episodes.alive * (gamma ** jnp.arange(episodes.alive.shape[0]))[:, None, None]


def sample_occupancy(episodes: Episodes, gamma: float, key: Key, count: int) -> Array:
    """Draws from the discounted occupancy, `[count, obs_dim]`."""
    cumulative = jnp.cumsum(occupancy(episodes, gamma).reshape(-1))
    found = jnp.searchsorted(cumulative, cumulative[-1] * jax.random.uniform(key, (count,)), side="right")
    return episodes.obs.reshape(-1, episodes.obs.shape[-1])[jnp.minimum(found, cumulative.size - 1)]


def longest_episode(data: OfflineData) -> Array:
    """Steps of the data's longest episode (scalar); all rows are one where nobody said."""
    episode = jnp.zeros(data.rows.reward.shape[0], jnp.int32) if data.episode is None else data.episode
    return jnp.max(jnp.bincount(episode, length=episode.shape[0]))


def reference_return(reward: Array, ranking: Ranking, share: float) -> Array:
    """Mean undiscounted return of the episodes that the reference is cloned from (scalar); `reward` is `[N]`."""
    inside = jnp.arange(ranking.before.shape[0]) < count_reference(ranking, share)
    rewards = jnp.sum(jnp.where(inside, reward[ranking.best_first], 0.0))
    changes = inside[1:] & (ranking.before[1:] != ranking.before[:-1])
    return rewards / (1 + jnp.sum(changes))
