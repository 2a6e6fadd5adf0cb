"""The fit of the ensemble dynamics (`parts/dynamics.py`), as in OfflineRL-Kit.

Deviations from it: targets are standardised for the fit and the scale is folded back into the outputs (means and
variances keep their units); the learning rate may follow a cosine; batches are drawn from each member's bootstrap
with replacement instead of by permutation.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from damorl.core.nets import MLP
from damorl.core.optim import Learner, adam, init_learner, minimise
from damorl.core.scaler import fit_standardiser
from damorl.parts.dynamics import (
    Dynamics,
    DynamicsConfig,
    first_members,
    forward,
    init_params,
    model_arrays,
    nll_loss,
)
from damorl.types import Array, Key, Metrics, Transition


class FitState(NamedTuple):
    """Everything that changes during a fit."""

    learner: Learner
    best_layers: MLP
    best_error: Array
    """`[member]`, lowest hold-out error seen."""
    stale_epochs: Array


def make_optimiser(config: DynamicsConfig) -> optax.GradientTransformation:
    """Adam, with a cosine to zero where the number of batches is known."""
    return adam(config.learning_rate, config.max_batches)


def init_fit(key: Key, config: DynamicsConfig, obs_dim: int, action_dim: int) -> FitState:
    """Fresh members, before their first epoch."""
    params = init_params(key, config, obs_dim, action_dim)
    return FitState(
        learner=init_learner(params, make_optimiser(config)),
        best_layers=jax.tree.map(jnp.copy, params.layers),
        best_error=jnp.full(config.num_members, 1e10, jnp.float32),  # a weak type would compile the epoch again
        stale_epochs=jnp.zeros((), jnp.int32),
    )


@partial(jax.jit, static_argnames=("config", "num_batches"), donate_argnames="state")
def fit_epoch(
    state: FitState, arrays: Any, key: Key, *, config: DynamicsConfig, num_batches: int
) -> tuple[FitState, Metrics]:
    """`num_batches` gradient steps, then one look at the hold-out rows with per-member snapshots.

    `arrays` is (bootstrap `[member, N]`, x, y, x_holdout, y_holdout, varying), standardised.
    """
    bootstrap, x, y, x_holdout, y_holdout, varying = arrays
    optimiser = make_optimiser(config)
    members = jnp.arange(config.num_members)[:, None]

    def step(learner: Learner, step_key: Key) -> tuple[Learner, Metrics]:
        draw = jax.random.randint(step_key, (config.num_members, config.batch_size), 0, bootstrap.shape[1])
        rows = bootstrap[members, draw]
        return minimise(lambda p: nll_loss(p, x[rows], y[rows], varying, config), learner, optimiser)

    learner, metrics = jax.lax.scan(step, state.learner, jax.random.split(key, num_batches))
    mean, _ = forward(learner.params, jnp.broadcast_to(x_holdout, (config.num_members, *x_holdout.shape)))
    squared = jnp.mean(jnp.square(mean - y_holdout[None]), axis=1)
    error = jnp.sum(squared * varying, axis=1) / jnp.sum(varying)
    improved = (state.best_error - error) / state.best_error > 0.01
    keep = lambda new, old: jnp.where(improved.reshape(-1, *[1] * (new.ndim - 1)), new, old)
    state = FitState(
        learner=learner,
        best_layers=jax.tree.map(keep, learner.params.layers, state.best_layers),
        best_error=jnp.where(improved, error, state.best_error),
        stale_epochs=jnp.where(jnp.any(improved), 0, state.stale_epochs + 1),
    )
    return state, {"dynamics/nll": jnp.mean(metrics["dynamics/nll"]), "dynamics/holdout_error": jnp.mean(error)}


def fit(
    key: Key,
    config: DynamicsConfig,
    data: Transition,
    on_epoch: Callable[[int, dict[str, float]], None] = lambda batches, metrics: None,
) -> tuple[Dynamics, dict[str, float]]:
    """`fit_members`, of which only the elites are kept."""
    model, figures = fit_members(key, config, data, on_epoch)
    return first_members(model, config.num_elites), figures


def fit_members(
    key: Key,
    config: DynamicsConfig,
    data: Transition,
    on_epoch: Callable[[int, dict[str, float]], None] = lambda batches, metrics: None,
) -> tuple[Dynamics, dict[str, float]]:
    """Fit the ensemble to `data` on the host's clock; all members, lowest hold-out error first.

    Each member restores its own best snapshot. `on_epoch(batches so far, metrics)` is called after every epoch.
    Returns the model and final figures: per-elite hold-out error as a share of the targets' variance, and batches.
    """
    init_key, split_key, bootstrap_key, fit_key = jax.random.split(key, 4)
    x, y = model_arrays(data)
    order = jax.random.permutation(split_key, x.shape[0])
    num_holdout = max(1, min(x.shape[0] // 5, config.holdout))
    holdout, train = order[:num_holdout], order[num_holdout:]
    inputs, targets = fit_standardiser(x[train]), fit_standardiser(y[train])
    bootstrap = jax.random.randint(bootstrap_key, (config.num_members, train.size), 0, train.size)
    varying = (jnp.ptp(y[train], axis=0) > 0.0).astype(jnp.float32)
    x, y = inputs.apply(x), targets.apply(y)
    arrays = (bootstrap, x[train], y[train], x[holdout], y[holdout], varying)

    state = init_fit(init_key, config, data.obs.shape[1], data.action.shape[1])
    epoch_batches = config.epoch_batches or -(-train.size // config.batch_size)
    done = 0
    while int(state.stale_epochs) < config.patience and (config.max_batches is None or done < config.max_batches):
        state, metrics = fit_epoch(
            state, arrays, jax.random.fold_in(fit_key, done), config=config, num_batches=epoch_batches
        )
        done += epoch_batches
        on_epoch(done, {name: float(value) for name, value in metrics.items()})

    best_first = jnp.argsort(state.best_error)
    params = state.learner.params._replace(layers=jax.tree.map(lambda leaf: leaf[best_first], state.best_layers))
    elite_error = jnp.mean(state.best_error[best_first[: config.num_elites]])
    figures = {"holdout_error": float(elite_error), "batches": float(done)}
    return Dynamics(params, inputs, targets._replace(scale=targets.scale * varying)), figures
