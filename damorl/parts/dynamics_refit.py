"""A fitted ensemble fitted on, from where it is, to data that have grown since (`parts/dynamics_fit.py` begins anew).

Loss, networks and scaling are the fit's; the optimiser is fresh, its rate follows a cosine. Every tenth row, old and
new, is held out: a member whose one-step error there has grown stays as it was.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from damorl.core import buffer as ring
from damorl.core.optim import Learner, adam, init_learner, minimise
from damorl.parts.dynamics import Dynamics, DynamicsConfig, DynamicsParams, model_arrays, nll_loss
from damorl.parts.holdout import one_step_error
from damorl.types import Array, Key, Metrics, Transition

HELD_OUT = 10  # one row of so many
NUM_JUDGED = 1024  # held-out rows that a refit is judged by


@dataclass(frozen=True)
class RefitSettings:
    """How a model is fitted on."""

    batches: int
    learning_rate: float
    """At the beginning of the cosine."""
    share: float
    """Of new rows in a batch."""


def refit(
    key: Key, config: DynamicsConfig, settings: RefitSettings, model: Dynamics, old: Transition, new: ring.RingBuffer
) -> tuple[Dynamics, Metrics]:
    """`model` after `settings.batches` steps on `old` `[N, ...]` and `new` rows, at least `HELD_OUT` of each; pure.

    Everything is in the units of the model. The metrics are the members' mean errors on held-out rows before and after.
    """
    held_key, fit_key = jax.random.split(key)
    num_members, varying = model.params.layers[0].kernel.shape[0], (model.targets.scale > 0.0).astype(jnp.float32)
    optimiser = adam(settings.learning_rate, settings.batches)

    def draw(draw_key: Key, count: int, held_out: bool) -> tuple[Array, Array]:
        rows = draw_rows(draw_key, old, new, count, settings.share, held_out)
        return standardised(model, rows)

    def step(learner: Learner, step_key: Key) -> tuple[Learner, Metrics]:
        x, y = jax.vmap(lambda k: draw(k, config.batch_size, False))(jax.random.split(step_key, num_members))
        return minimise(lambda p: nll_loss(p, x, y, varying, config), learner, optimiser)

    x, y = draw(held_key, NUM_JUDGED, True)
    judge = lambda params: one_step_error(params, x, y, varying)
    learner, _ = jax.lax.scan(step, init_learner(model.params, optimiser), jax.random.split(fit_key, settings.batches))
    before, after = judge(model.params), judge(learner.params)
    layers = jax.tree.map(
        lambda now, was: jnp.where((after <= before).reshape(-1, *[1] * (now.ndim - 1)), now, was),
        learner.params.layers,
        model.params.layers,
    )
    found = model._replace(params=DynamicsParams(layers, learner.params.log_var_max, learner.params.log_var_min))
    return found, {"dynamics/error_before": jnp.mean(before), "dynamics/error_after": jnp.mean(judge(found.params))}


def standardised(model: Dynamics, rows: Transition) -> tuple[Array, Array]:
    """Inputs and targets of rows `[B, ...]` as the networks see them; targets that never change are 0."""
    x, y = model_arrays(rows)
    scale = jnp.where(model.targets.scale > 0.0, model.targets.scale, 1.0)
    return model.inputs.apply(x), (y - model.targets.mean) / scale * (model.targets.scale > 0.0)


def draw_rows(key: Key, old: Transition, new: ring.RingBuffer, count: int, share: float, held_out: bool) -> Transition:
    """`count` uniform draws, a `share` of them from `new`, of the rows that are held out or of the others."""
    old_key, new_key = jax.random.split(key)
    num_new = round(count * share)
    first = draw_index(old_key, jnp.int32(old.reward.shape[0]), count - num_new, held_out)
    second = draw_index(new_key, new.size, num_new, held_out)
    return ring.concatenate(ring.take(old, first), ring.take(new.rows, second))


def draw_index(key: Key, size: Array, count: int, held_out: bool) -> Array:
    """`count` numbers below `size`, which is at least `HELD_OUT`: of rows 9, 19, ... or of all others."""
    if held_out:
        return HELD_OUT * jax.random.randint(key, (count,), 1, size // HELD_OUT + 1) - 1
    drawn = jax.random.randint(key, (count,), 0, size - size // HELD_OUT)
    return drawn + drawn // (HELD_OUT - 1)
