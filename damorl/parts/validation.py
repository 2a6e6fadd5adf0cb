"""Which policy of a run to keep: the one that the fitted model values most, if it beats the reference by enough.

Before every block of updates the policy plays whole episodes in the fitted model, from the data's own initial states;
its mean return there is V. No simulator is asked.

    kept    the policy with the highest V so far among those with V > V_ref + margin, else the reference

V_ref is the reference's own value in the model, and the margin is `validation_margin` times its distance from what the
episodes that it was cloned from earned in the data: so much the model may err where the truth is about known, and more
where it is not. A policy must gain more than that to replace the reference. Where no episode is complete, nothing
tells how far the model errs; a tenth of V_ref is then assumed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from damorl.parts.actor import policy
from damorl.parts.dynamics import Dynamics, predict
from damorl.parts.start import count_reference
from damorl.types import Array, Metrics, OfflineData, Params, Ranking, TerminationFn

ASSUMED_ERROR = 0.1
"""Of the model at the reference, as a share of its value there, where the data do not tell."""


@dataclass(frozen=True)
class ValidationSettings:
    """Settings of what is kept; a Config inherits them."""

    keep: Literal["last", "validated"] = "last"
    """The policy that is evaluated and saved: the last one, as in published methods; or the best so far in the model,
    and the cloned reference while none is better by enough."""
    validation_starts: int = 40
    """Episodes in each elite, from as many of the data's initial states."""
    validation_steps: int = 1000
    """They are cut after so many steps, or after the data's longest episode if that is shorter."""
    validation_margin: float = 1.5
    """What a policy must gain in the model to replace the reference, in errors of the model at the reference."""


class Kept(NamedTuple):
    """The best policy so far; the rest are scalars, returns in the model."""

    policy: Params
    """The policy to evaluate and save."""
    best: Array
    """The highest value so far, of any policy."""
    reference: Array
    """The reference's value."""
    margin: Array
    """What a policy must gain on it."""


def init_kept(settings: ValidationSettings, actor: Params) -> Kept | None:
    """Before the model is fitted; None where nothing is validated."""
    if settings.keep == "last":
        return None
    zero = jnp.zeros(())
    return Kept(jax.tree.map(jnp.copy, actor), zero, zero, zero)


def begin_kept(
    settings: ValidationSettings,
    share: float,
    model: Dynamics,
    termination: TerminationFn,
    actor: Params,
    data: OfflineData,
) -> Kept | None:
    """The reference `actor`, cloned from the best `share` of the data, and its value in the model."""
    if (kept := init_kept(settings, actor)) is None:
        return None
    value = value_in_model(settings, model, termination, actor, data)
    if data.ranking is None:
        error = ASSUMED_ERROR * jnp.abs(value)
    else:
        error = jnp.abs(value - reference_return(data.rows.reward, data.ranking, share))
    return kept._replace(best=value, reference=value, margin=settings.validation_margin * error)


def validate(
    settings: ValidationSettings,
    kept: Kept,
    model: Dynamics,
    termination: TerminationFn,
    actor: Params,
    data: OfflineData,
) -> tuple[Kept, Array, Metrics]:
    """What is kept after a block of updates that led to `actor`, and its value in the model (scalar)."""
    value = value_in_model(settings, model, termination, actor, data)
    needed = jnp.maximum(kept.best, kept.reference + kept.margin)
    better = value > needed
    found = kept._replace(
        policy=jax.tree.map(lambda new, old: jnp.where(better, new, old), actor, kept.policy),
        best=jnp.maximum(kept.best, value),
    )
    return found, value, {"validation/value": value, "validation/needed": needed}


def value_in_model(
    settings: ValidationSettings, model: Dynamics, termination: TerminationFn, actor: Params, data: OfflineData
) -> Array:
    """Mean undiscounted return of the policy's modes over whole episodes in each elite's mean predictions (scalar).

    States stay inside the range of the data's. The same starts every time: policies are compared on the same episodes.
    """
    low, high = jnp.min(data.rows.obs, axis=0), jnp.max(data.rows.obs, axis=0)
    index = jnp.linspace(0, data.initial_obs.shape[0] - 1, settings.validation_starts).astype(jnp.int32)
    num_elites, limit = model.params.layers[0].kernel.shape[0], longest_episode(data)
    start = jnp.broadcast_to(data.initial_obs[index], (num_elites, len(index), data.initial_obs.shape[1]))

    def step(carry: tuple[Array, Array, Array], time: Array) -> tuple[tuple[Array, Array, Array], None]:
        obs, alive, total = carry
        action = policy(actor, obs).mode()
        mean = predict(model, obs, action).mean
        next_obs = jnp.clip(mean[..., :-1], low, high)
        ended = jax.vmap(termination)(obs, action, next_obs)
        alive &= time < limit
        return (next_obs, alive & ~ended, total + jnp.where(alive, mean[..., -1], 0.0)), None

    carry = (start, jnp.ones(start.shape[:2], bool), jnp.zeros(start.shape[:2]))
    (_, _, total), _ = jax.lax.scan(step, carry, jnp.arange(settings.validation_steps))
    return jnp.mean(total)


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
