"""Probabilistic ensemble dynamics (PETS/MOPO, arXiv 2005.13239, as in OfflineRL-Kit): p(s', r | s, a).

Each member is an MLP that predicts mean and log-variance of the change of state and the reward. Deviations from
OfflineRL-Kit: targets are standardised for the fit and the scale is folded back into the outputs (means and
variances keep their units); the learning rate may follow a cosine; batches are drawn from each member's bootstrap
with replacement instead of by permutation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from damorl.core.nets import MLP, Dense, apply_mlp, one_draw
from damorl.core.optim import Learner, adam, init_learner, minimise
from damorl.core.scaler import Standardiser, fit_standardiser
from damorl.errors import UserError
from damorl.types import Array, Key, Metrics, Transition

LOG_VAR_MAX_INIT, LOG_VAR_MIN_INIT = 0.5, -10.0
HIDDEN_WEIGHT_DECAY = (2.5e-5, 5e-5, 7.5e-5, 7.5e-5)
OUTPUT_WEIGHT_DECAY = 1e-4


@dataclass(frozen=True)
class DynamicsConfig:
    """Settings of the fit; defaults are the paper's (Table 3, C.3) and OfflineRL-Kit's."""

    num_members: int = 7
    """Networks in the ensemble (paper n)."""
    num_elites: int = 5
    """Members kept for prediction, lowest hold-out error first (paper n_elite)."""
    hidden: tuple[int, ...] = (200, 200, 200, 200)
    batch_size: int = 256
    learning_rate: float = 1e-3
    holdout: int = 1000
    """Hold-out rows, at most a fifth of the data."""
    patience: int = 5
    """Stop after so many epochs in which no member improved by 1 %."""
    max_batches: int | None = None
    """Total batches; with it the learning rate follows a cosine to zero. None: constant rate, early stopping only."""
    epoch_batches: int | None = None
    """Batches between two looks at the hold-out rows. None: one pass over the data."""
    nll_beta: float = 0.0
    """Each target's likelihood is weighted by its predicted variance to this power (beta-NLL, arXiv 2203.09168, which
    advises 0.5). With 0, the plain likelihood, targets that are badly predicted at first count ever less: contacts."""
    log_var_coef: float = 0.01
    """Weight of the pull on the log-variance bounds."""
    weight_decay: float = 1.0
    """Scale of the per-layer weight decays (2.5e-5 ... 1e-4)."""

    def __post_init__(self) -> None:
        """Refuse more elites than members, and a power that is none."""
        if not 0.0 <= self.nll_beta <= 1.0:
            raise UserError(f"dynamics.nll_beta must lie between 0 and 1, found {self.nll_beta}: 0.5 is usual")
        if self.num_elites > self.num_members:
            raise UserError(
                f"dynamics.num_elites must be at most dynamics.num_members, found {self.num_elites} of "
                f"{self.num_members}: raise the one or lower the other"
            )


class DynamicsParams(NamedTuple):
    """Trained parameters. `layers` have a leading member axis; the bounds `[obs_dim + 1]` are shared."""

    layers: MLP
    log_var_max: Array
    log_var_min: Array


class Dynamics(NamedTuple):
    """A fitted model. Axis 0 of the layers holds the members, best first: the elites only, or all of them."""

    params: DynamicsParams
    inputs: Standardiser
    targets: Standardiser
    """Its scale is 0 for targets that never change: they are predicted exactly."""


class FitState(NamedTuple):
    """Everything that changes during a fit."""

    learner: Learner
    best_layers: MLP
    best_error: Array
    """`[member]`, lowest hold-out error seen."""
    stale_epochs: Array


class Prediction(NamedTuple):
    """Gaussian over `[next_obs, reward]` in the data's units: `mean` and `std` are `[*B, obs_dim + 1]`."""

    mean: Array
    std: Array


def init_params(key: Key, config: DynamicsConfig, obs_dim: int, action_dim: int) -> DynamicsParams:
    """Truncated-normal weights with deviation 1 / (2 sqrt(fan_in)), zero biases (MBPO)."""
    sizes = (obs_dim + action_dim, *config.hidden, 2 * (obs_dim + 1))

    def init_member(member_key: Key) -> MLP:
        draws = one_draw(partial(jax.random.truncated_normal, member_key, -2.0, 2.0), list(pairwise(sizes)))
        return tuple(Dense(draw / (2.0 * jnp.sqrt(len(draw))), jnp.zeros(draw.shape[1])) for draw in draws)

    return DynamicsParams(
        layers=jax.vmap(init_member)(jax.random.split(key, config.num_members)),
        log_var_max=jnp.full(obs_dim + 1, LOG_VAR_MAX_INIT, jnp.float32),
        log_var_min=jnp.full(obs_dim + 1, LOG_VAR_MIN_INIT, jnp.float32),
    )


def init_members(key: Key, config: DynamicsConfig, obs_dim: int, action_dim: int) -> Dynamics:
    """An unfitted model in the shape that `fit_members` returns: `num_members` members."""
    unit = lambda dim: Standardiser(jnp.zeros(dim), jnp.ones(dim))
    return Dynamics(init_params(key, config, obs_dim, action_dim), unit(obs_dim + action_dim), unit(obs_dim + 1))


def init_model(key: Key, config: DynamicsConfig, obs_dim: int, action_dim: int) -> Dynamics:
    """An unfitted model in the shape that `fit` returns: `num_elites` members."""
    return first_members(init_members(key, config, obs_dim, action_dim), config.num_elites)


def first_members(model: Dynamics, count: int) -> Dynamics:
    """The best `count` members of a model; with `num_elites`, what `sample_step` should draw from."""
    layers = jax.tree.map(lambda leaf: leaf[:count], model.params.layers)
    return model._replace(params=model.params._replace(layers=layers))


def forward(params: DynamicsParams, x: Array) -> tuple[Array, Array]:
    """Mean and soft-clamped log-variance in standardised units. `x` is `[member, B, in]`."""
    mean, log_var = jnp.split(jax.vmap(partial(apply_mlp, activation=jax.nn.silu))(params.layers, x), 2, axis=-1)
    log_var = params.log_var_max - jax.nn.softplus(params.log_var_max - log_var)
    return mean, params.log_var_min + jax.nn.softplus(log_var - params.log_var_min)


def nll_loss(
    params: DynamicsParams, x: Array, y: Array, varying: Array, config: DynamicsConfig
) -> tuple[Array, Metrics]:
    """Gaussian negative log-likelihood (without its constants), summed over members, with decay and bound terms.

    `x` is `[member, B, in]`, `y` is `[member, B, obs_dim + 1]`, both standardised. `varying` `[obs_dim + 1]` is 0 for
    targets that never change: their precision would grow without bound and drown the others' gradients.
    """
    mean, log_var = forward(params, x)
    nll = jnp.square(mean - y) * jnp.exp(-log_var) + log_var
    if config.nll_beta > 0.0:
        nll *= jax.lax.stop_gradient(jnp.exp(config.nll_beta * log_var))
    nll = jnp.sum(nll * varying, axis=(1, 2)) / (x.shape[1] * jnp.sum(varying))
    decays = [HIDDEN_WEIGHT_DECAY[min(i, 3)] for i in range(len(params.layers) - 1)] + [OUTPUT_WEIGHT_DECAY]
    decay = sum(0.5 * wd * jnp.sum(jnp.square(layer.kernel)) for wd, layer in zip(decays, params.layers, strict=True))
    bounds = jnp.sum(params.log_var_max) - jnp.sum(params.log_var_min)
    loss = jnp.sum(nll) + config.weight_decay * decay + config.log_var_coef * bounds
    return loss, {"dynamics/nll": jnp.mean(nll)}


def model_arrays(data: Transition) -> tuple[Array, Array]:
    """Inputs `[N, obs_dim + action_dim]` and targets `[N, obs_dim + 1]` (change of state, then reward)."""
    x = jnp.concatenate([data.obs, data.action], axis=-1)
    return x, jnp.concatenate([data.next_obs - data.obs, data.reward[:, None]], axis=-1)


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


def predict(model: Dynamics, obs: Array, action: Array) -> Prediction:
    """One Gaussian per member and row, in the data's units. `obs` is `[member, B, obs_dim]`."""
    x = model.inputs.apply(jnp.concatenate([obs, action], axis=-1))
    mean, log_var = forward(model.params, x)
    mean = model.targets.invert(mean)
    mean = jnp.concatenate([mean[..., :-1] + obs, mean[..., -1:]], axis=-1)
    return Prediction(mean, jnp.exp(0.5 * log_var) * model.targets.scale)


def predict_all(model: Dynamics, obs: Array, action: Array) -> Prediction:
    """Every member's Gaussian for every row, `[B, d] -> [member, B, obs_dim + 1]`, in the data's units."""
    num_members = model.params.layers[0].kernel.shape[0]
    everyone = lambda rows: jnp.broadcast_to(rows, (num_members, *rows.shape))
    return predict(model, everyone(obs), everyone(action))


def disagreement(model: Dynamics, obs: Array, action: Array) -> Array:
    """How far the elites' predicted changes of state lie apart, `[B, d] -> [B]`: the largest distance of one from
    their mean, each feature in standard deviations of its change in the data (MOReL, arXiv 2005.05951, section 4.1,
    takes the largest distance between two). Features that never change are left out."""
    scale, mean = model.targets.scale[:-1], predict_all(model, obs, action).mean[..., :-1]
    apart = (mean - jnp.mean(mean, axis=0)) / jnp.where(scale > 0.0, scale, jnp.inf)
    return jnp.max(jnp.linalg.norm(apart, axis=-1), axis=0)


def sample_step(model: Dynamics, obs: Array, action: Array, key: Key, noise: bool = True) -> tuple[Array, Array]:
    """Next state and reward, each row from one elite drawn uniformly: `[B, d] -> ([B, d], [B])`. Without `noise` it is
    that elite's mean.

    The draw comes before the forward pass: rows are shuffled and dealt to the elites in equal shares, so each row is
    evaluated once instead of once per elite. A row's elite is uniform and independent of its past, as when every
    elite is evaluated and one is picked. B must be a multiple of the number of elites.
    """
    order_key, noise_key = jax.random.split(key)
    num_elites, num_rows = model.params.layers[0].kernel.shape[0], obs.shape[0]
    order = jax.random.permutation(order_key, num_rows)
    deal = lambda rows: rows[order].reshape(num_elites, num_rows // num_elites, -1)
    prediction = predict(model, deal(obs), deal(action))
    dealt = prediction.mean
    if noise:
        dealt += prediction.std * jax.random.normal(noise_key, prediction.mean.shape)
    drawn = jnp.zeros((num_rows, dealt.shape[-1])).at[order].set(dealt.reshape(num_rows, -1), unique_indices=True)
    return drawn[:, :-1], drawn[:, -1]
