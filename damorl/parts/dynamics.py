"""Probabilistic ensemble dynamics (PETS/MOPO, arXiv 2005.13239, as in OfflineRL-Kit): p(s', r | s, a).

Each member is an MLP that predicts mean and log-variance of the change of state and the reward. `parts/dynamics_fit.py`
fits them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from damorl.core.nets import MLP, Dense, apply_mlp, one_draw
from damorl.core.scaler import Standardiser
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
    early_stop: Literal["one_step", "k_step"] = "one_step"
    """What snapshots, patience and the order of the members go by. `one_step`: the error on hold-out rows drawn at
    random. `k_step`: whole episodes are held out, and each member follows its own mean predictions along the recorded
    actions; the error is that of the state it ends in, as in a rollout."""
    early_stop_steps: int = 5
    """Steps of `k_step`: a rollout's length, say."""
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
        """Refuse more elites than members, a power that is none, and no steps at all."""
        if not 0.0 <= self.nll_beta <= 1.0:
            raise UserError(f"dynamics.nll_beta must lie between 0 and 1, found {self.nll_beta}: 0.5 is usual")
        if self.early_stop_steps < 1:
            raise UserError(f"dynamics.early_stop_steps must be at least 1, found {self.early_stop_steps}: 5 is usual")
        if self.num_elites > self.num_members:
            raise UserError(
                f"dynamics.num_elites must be at most dynamics.num_members, found {self.num_elites} of "
                f"{self.num_members}: raise the one or lower the other"
            )

    def check_dealt(self, name: str, count: int) -> None:
        """UserError unless `count` rows, those of the setting `name`, can be dealt evenly to the elites."""
        if count % self.num_elites:
            raise UserError(
                f"{name} must be a multiple of dynamics.num_elites, found {count} and {self.num_elites}: change one of "
                "the two"
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
