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
from damorl.core.scaler import Standardiser, fit_standardiser
from damorl.parts.dynamics import (
    Dynamics,
    DynamicsConfig,
    DynamicsParams,
    init_params,
    model_arrays,
    nll_loss,
)
from damorl.parts.holdout import Split, Stretches, hold_out, k_step_error, one_step_error
from damorl.types import Array, Key, Metrics, Transition

OnEpoch = Callable[[int, dict[str, float]], None]
"""`(batches so far, metrics)`."""
MEASURED = ("nll", "holdout_error", "k_step_error")


class FitState(NamedTuple):
    """Everything that changes during a fit."""

    learner: Learner
    best_layers: MLP
    best_error: Array
    """`[member]`, lowest error seen, of the kind that the fit goes by."""
    stale_epochs: Array


class FitRows(NamedTuple):
    """What a fit goes over: inputs `x` `[N, in]` and targets `y` `[N, obs_dim + 1]`, standardised."""

    bootstrap: Array
    """Numbers of training rows, with repetitions, `[member, N]`."""
    x: Array
    y: Array
    x_holdout: Array
    y_holdout: Array
    varying: Array
    """`[obs_dim + 1]`, 0 for targets that never change."""
    inputs: Standardiser
    targets: Standardiser
    stretches: Stretches | None = None
    """Held-out stretches in the data's units; None: the fit goes by the one-step error."""


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
    state: FitState, rows: FitRows, key: Key, *, config: DynamicsConfig, num_batches: int
) -> tuple[FitState, Metrics]:
    """`num_batches` gradient steps, then one look at what is held out, with per-member snapshots."""
    optimiser = make_optimiser(config)
    members = jnp.arange(config.num_members)[:, None]

    def step(learner: Learner, step_key: Key) -> tuple[Learner, Metrics]:
        draw = jax.random.randint(step_key, (config.num_members, config.batch_size), 0, rows.bootstrap.shape[1])
        batch = rows.bootstrap[members, draw]
        return minimise(lambda p: nll_loss(p, rows.x[batch], rows.y[batch], rows.varying, config), learner, optimiser)

    learner, metrics = jax.lax.scan(step, state.learner, jax.random.split(key, num_batches))
    error, judged = judge(learner.params, rows)
    improved = (state.best_error - error) / state.best_error > 0.01
    keep = lambda new, old: jnp.where(improved.reshape(-1, *[1] * (new.ndim - 1)), new, old)
    state = FitState(
        learner=learner,
        best_layers=jax.tree.map(keep, learner.params.layers, state.best_layers),
        best_error=jnp.where(improved, error, state.best_error),
        stale_epochs=jnp.where(jnp.any(improved), 0, state.stale_epochs + 1),
    )
    return state, {"dynamics/nll": jnp.mean(metrics["dynamics/nll"])} | judged


def judge(params: DynamicsParams, rows: FitRows) -> tuple[Array, Metrics]:
    """The error of each member that the fit goes by, `[member]`, and all that were measured, averaged over members."""
    one_step = one_step_error(params, rows.x_holdout, rows.y_holdout, rows.varying)
    metrics = {"dynamics/holdout_error": jnp.mean(one_step)}
    if rows.stretches is None:
        return one_step, metrics
    k_step = k_step_error(as_model(params, rows), rows.stretches)
    return k_step, metrics | {"dynamics/k_step_error": jnp.mean(k_step)}


def as_model(params: DynamicsParams, rows: FitRows) -> Dynamics:
    """The model that parameters of the fit are, in the data's units."""
    return Dynamics(params, rows.inputs, rows.targets._replace(scale=rows.targets.scale * rows.varying))


def fit_members(
    key: Key,
    config: DynamicsConfig,
    data: Transition,
    on_epoch: OnEpoch = lambda batches, metrics: None,
    episode: Array | None = None,
) -> tuple[Dynamics, dict[str, Any]]:
    """Fit the ensemble to `data` on the host's clock; all members, lowest error first (`config.early_stop`).

    Each member restores its own best snapshot. `on_epoch(batches so far, metrics)` is called after every epoch.
    `episode` `[N]` numbers the rows' episodes; without it only `one_step` can be asked for. Returns the model and
    figures that JSON can hold:

        epochs          per look at the hold-out rows `batches` so far and, averaged over members, `nll`,
                        `holdout_error` and `k_step_error`, which is None where no k steps were followed
        chosen          the final error of each member that the fit went by, in the model's order
        elites          how many of these are the elites
        holdout_error   the elites' one-step error as a share of the targets' variance
        batches         how many were made
        stopped         what ended the fit: "patience" or "max_batches"
    """
    init_key, split_key, bootstrap_key, fit_key = jax.random.split(key, 4)
    rows = make_rows(hold_out(split_key, config, data, episode), bootstrap_key, config, data)
    state = init_fit(init_key, config, data.obs.shape[1], data.action.shape[1])
    epoch_batches = config.epoch_batches or -(-rows.bootstrap.shape[1] // config.batch_size)
    epochs: list[dict[str, Any]] = []
    done = 0
    while int(state.stale_epochs) < config.patience and (config.max_batches is None or done < config.max_batches):
        state, metrics = fit_epoch(
            state, rows, jax.random.fold_in(fit_key, done), config=config, num_batches=epoch_batches
        )
        done += epoch_batches
        found = {name: float(value) for name, value in metrics.items()}
        epochs.append({"batches": done} | {name: found.get(f"dynamics/{name}") for name in MEASURED})
        on_epoch(done, found)

    stopped = "patience" if int(state.stale_epochs) >= config.patience else "max_batches"
    model, errors = best_members(state, rows, config)
    return model, {"epochs": epochs} | errors | {"batches": done, "stopped": stopped}


def best_members(state: FitState, rows: FitRows, config: DynamicsConfig) -> tuple[Dynamics, dict[str, Any]]:
    """All members as they were at their best, lowest error first, and their errors."""
    best_first = jnp.argsort(state.best_error)
    params = state.learner.params._replace(layers=jax.tree.map(lambda leaf: leaf[best_first], state.best_layers))
    chosen = one_step = state.best_error[best_first]
    if rows.stretches is not None:
        one_step = one_step_error(params, rows.x_holdout, rows.y_holdout, rows.varying)
    return as_model(params, rows), {
        "chosen": [float(error) for error in chosen],
        "elites": config.num_elites,
        "holdout_error": float(jnp.mean(one_step[: config.num_elites])),
    }


def make_rows(held_out: Split, key: Key, config: DynamicsConfig, data: Transition) -> FitRows:
    """The data of a fit; `key` draws every member's bootstrap."""
    x, y = model_arrays(data)
    holdout, train, stretches = held_out
    inputs, targets = fit_standardiser(x[train]), fit_standardiser(y[train])
    bootstrap = jax.random.randint(key, (config.num_members, train.size), 0, train.size)
    varying = (jnp.ptp(y[train], axis=0) > 0.0).astype(jnp.float32)
    x, y = inputs.apply(x), targets.apply(y)
    return FitRows(bootstrap, x[train], y[train], x[holdout], y[holdout], varying, inputs, targets, stretches)
