"""A trust region that widens only as far as the model vouches for the policy, and which policy to keep.

Before every block of updates the policy plays whole episodes in the fitted model, from the data's own initial states;
its mean return there is V. Two things follow from it, both without a simulator:

    kept        the policy with the highest V so far among those with V > V_ref + margin, else the reference
    kl_target   grows by `kl_growth` where V is within `kl_tolerance` of the best so far, else shrinks by `kl_shrinkage`

V_ref is the reference's own value in the model, and the margin is `validation_margin` times its distance from what the
episodes that it was cloned from earned in the data: so much the model may err where the truth is about known, and more
where it is not. A policy must gain more than that to replace the reference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from damorl.errors import UserError
from damorl.parts.actor import policy
from damorl.parts.dynamics import Dynamics, predict
from damorl.parts.start import count_reference, ranking_of
from damorl.types import Array, Metrics, OfflineData, Params, TerminationFn


@dataclass(frozen=True)
class TrustSettings:
    """Settings of the trust region; a Config inherits them."""

    kl_target: float | None = None
    """Mean divergence from the reference, in nats per step, that the weight of the policy's part is learned for: a
    trust region that does not depend on the scale of rewards. None: that weight stays as it is."""
    trust: Literal["fixed", "validated"] = "fixed"
    """`fixed`: `kl_target` stays, and the last policy is the result. `validated`: it begins there, moves with the
    policy's value in the model, and the best policy so far is kept; the reference, if none is better."""
    kl_growth: float = 1.15
    """Factor of the target after a block of updates that did well."""
    kl_shrinkage: float = 0.8
    """Factor of the target after one that did not."""
    kl_tolerance: float = 0.05
    """Share of the best value that a policy may lie below it and still do well."""
    kl_bounds: tuple[float, float] = (0.05, 10.0)
    """The target stays between these, in nats per step."""
    validation_starts: int = 40
    """Episodes in each elite, from as many of the data's initial states."""
    validation_steps: int = 1000
    """They are cut after so many steps, or after the data's longest episode if that is shorter."""
    validation_margin: float = 1.5
    """What a policy must gain in the model to replace the reference, in errors of the model at the reference."""

    def check_trust(self) -> None:
        """Refuse a trust region without a target, and one that cannot move."""
        if self.trust == "validated" and self.kl_target is None:
            raise UserError("trust 'validated' moves kl_target, found none: give a value to begin with (0.3, say)")
        if not (self.kl_growth >= 1.0 >= self.kl_shrinkage > 0.0 and 0.0 < self.kl_bounds[0] <= self.kl_bounds[1]):
            raise UserError(
                "expected kl_growth >= 1 >= kl_shrinkage > 0 and kl_bounds in order above 0, found "
                f"{self.kl_growth}, {self.kl_shrinkage} and {self.kl_bounds}"
            )


class Trust(NamedTuple):
    """What is known of the policies so far; scalars but for `kept`."""

    kept: Params
    """The policy to evaluate and save."""
    best: Array
    """The highest value in the model so far."""
    reference: Array
    """The reference's value in the model."""
    margin: Array
    """What a policy must gain on it."""
    kl_target: Array


def init_trust(settings: TrustSettings, actor: Params) -> Trust | None:
    """Before the model is fitted; None where nothing is validated."""
    if settings.trust == "fixed" or settings.kl_target is None:
        return None
    zero = jnp.zeros(())
    return Trust(jax.tree.map(jnp.copy, actor), zero, zero, zero, jnp.float32(settings.kl_target))


def check_returns(settings: TrustSettings, data: OfflineData) -> None:
    """UserError where the policy is validated and the data's returns are not known."""
    if settings.trust == "validated" and data.ranking is None:
        raise UserError(
            "trust 'validated' compares the model with the returns in the data: expected complete episodes, found none "
            "(no row is terminal or timed out); mark where episodes end, or set trust to fixed"
        )


def begin_trust(
    settings: TrustSettings, share: float, model: Dynamics, termination: TerminationFn, actor: Params, data: OfflineData
) -> Trust | None:
    """The reference `actor`, cloned from the best `share` of the data, and its value in the model."""
    if (trust := init_trust(settings, actor)) is None:
        return None
    value = value_in_model(settings, model, termination, actor, data)
    error = jnp.abs(value - reference_return(data, share))
    return trust._replace(best=value, reference=value, margin=settings.validation_margin * error)


def judge(
    settings: TrustSettings, trust: Trust, model: Dynamics, termination: TerminationFn, actor: Params, data: OfflineData
) -> tuple[Trust, Metrics]:
    """The trust region after a block of updates that led to `actor`."""
    value = value_in_model(settings, model, termination, actor, data)
    better = (value > trust.best) & (value > trust.reference + trust.margin)
    well = value >= trust.best - settings.kl_tolerance * jnp.abs(trust.best)
    moved = trust.kl_target * jnp.where(well, settings.kl_growth, settings.kl_shrinkage)
    found = trust._replace(
        kept=jax.tree.map(lambda new, old: jnp.where(better, new, old), actor, trust.kept),
        best=jnp.maximum(trust.best, value),
        kl_target=jnp.clip(moved, *settings.kl_bounds),
    )
    return found, {
        "trust/value": value,
        "trust/needed": jnp.maximum(trust.best, trust.reference + trust.margin),
        "trust/kl_target": found.kl_target,
    }


def value_in_model(
    settings: TrustSettings, model: Dynamics, termination: TerminationFn, actor: Params, data: OfflineData
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
    """Steps of the data's longest episode (scalar)."""
    episode = episodes_of(data)
    return jnp.max(jnp.bincount(episode, length=episode.shape[0]))


def reference_return(data: OfflineData, share: float) -> Array:
    """Mean undiscounted return of the episodes that the reference is cloned from (scalar)."""
    ranking = ranking_of(data)
    inside = jnp.arange(ranking.before.shape[0]) < count_reference(ranking, share)
    rewards = jnp.sum(jnp.where(inside, data.rows.reward[ranking.best_first], 0.0))
    changes = inside[1:] & (ranking.before[1:] != ranking.before[:-1])
    return rewards / (1 + jnp.sum(changes))


def episodes_of(data: OfflineData) -> Array:
    """The number of each row's episode, `[N]`. UserError where nobody said."""
    if data.episode is None:
        raise UserError("trust 'validated' needs to know the data's episodes, found none: set trust to fixed")
    return data.episode
