"""The transition classifier h(s, a, s') = P(model-generated | s, a, s'); its logit is the data alignment term.

Trained by binary cross-entropy with label 1 = model-generated (what the paper's Eq. 3 must mean: as printed it is
unbounded below), its optimum satisfies Eq. 4: `log rho_M^pi / rho_T^{pi_beta} = log h / (1 - h)`, which is the logit
itself. The logit is used as it is: going through h loses digits from about 15 on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp

from damorl.core.nets import MLP, apply_mlp, init_mlp
from damorl.core.scaler import Standardiser, fit_standardiser
from damorl.types import Array, Key, Metrics, Transition

Regulariser = Literal["none", "gradient_penalty", "one_sided", "label_smoothing", "weight_decay"]
Sees = Literal["transition", "pair", "state"]
"""(s, a, s'), (s, a) or s."""
NUM_CALIBRATION_BINS = 10


def features(rows: Transition) -> Array:
    """`[B, 2 * obs_dim + action_dim]`: state, action, change of state."""
    return jnp.concatenate([rows.obs, rows.action, rows.next_obs - rows.obs], axis=-1)


def fit_inputs(data: Transition) -> Standardiser:
    """Standardiser of the features, fitted on the offline data."""
    return fit_standardiser(features(data))


def init_classifier(key: Key, obs_dim: int, action_dim: int, hidden: Sequence[int], sees: Sees = "transition") -> MLP:
    """A network from the features that it sees to one logit."""
    width = {"transition": 2 * obs_dim + action_dim, "pair": obs_dim + action_dim, "state": obs_dim}[sees]
    return init_mlp(key, (width, *hidden, 1))


def logit(params: MLP, x: Array) -> Array:
    """`[*B, features] -> [*B]`, standardised features, of which the network sees as many as it has weights for."""
    return apply_mlp(params, x[..., : params[0].kernel.shape[0]])[..., 0]


def log_ratio(params: MLP, inputs: Standardiser, rows: Transition, clip: float) -> Array:
    """The estimate of `log rho_M^pi / rho_T^{pi_beta}` (Eq. 4), `[B]`, clipped to `+-clip`; flat beyond."""
    return jnp.clip(logit(params, inputs.apply(features(rows))), -clip, clip)


def gradient_penalty(params: MLP, real: Array, synthetic: Array, key: Key, one_sided: bool) -> Array:
    """`E[(||grad_x logit|| - 1)^2]` on random mixtures of real and synthetic rows; `one_sided` spares norms below 1.

    (WGAN-GP, arXiv 1704.00028, as the closest published code applies it to its discriminator.)
    """
    mix = jax.random.uniform(key, (real.shape[0], 1))
    grads = jax.vmap(jax.grad(lambda x: logit(params, x)))(mix * synthetic + (1.0 - mix) * real)
    excess = jnp.sqrt(jnp.sum(jnp.square(grads), axis=-1) + 1e-12) - 1.0
    return jnp.mean(jnp.square(jnp.maximum(excess, 0.0) if one_sided else excess))


def classifier_loss(
    params: MLP,
    real: Array,
    synthetic: Array,
    key: Key,
    regulariser: Regulariser,
    strength: float,
    offset: Array | None = None,
) -> tuple[Array, Metrics]:
    """Binary cross-entropy, label 1 = model-generated (Eq. 3), plus the named regulariser.

    `real` and `synthetic` are standardised features `[B, features]`. `strength` is the penalty's weight, the share
    smoothed off each label, or the decay's weight. `offset`, `[2 B]` for real and synthetic rows, is the known part of
    the log-ratio: it is added to the logit, whose optimum is then the rest.
    """
    x = jnp.concatenate([real, synthetic])
    labels = jnp.concatenate([jnp.zeros(real.shape[0]), jnp.ones(synthetic.shape[0])])
    targets = labels * (1.0 - 2.0 * strength) + strength if regulariser == "label_smoothing" else labels
    logits = logit(params, x)
    known = logits if offset is None else logits + offset
    loss = jnp.mean(jax.nn.softplus(known) - targets * known)
    metrics = {"classifier/loss": loss} | calibration(known, labels)
    if regulariser in ("gradient_penalty", "one_sided"):
        loss = loss + strength * gradient_penalty(params, real, synthetic, key, regulariser == "one_sided")
    if regulariser == "weight_decay":
        loss = loss + strength * sum(jnp.sum(jnp.square(layer.kernel)) for layer in params)
    return loss, metrics


def calibration(logits: Array, labels: Array) -> Metrics:
    """Accuracy, mean logit of each class, and expected calibration error over ten equal bins of probability."""
    probability = jax.nn.sigmoid(logits)
    bins = jnp.minimum((probability * NUM_CALIBRATION_BINS).astype(jnp.int32), NUM_CALIBRATION_BINS - 1)
    in_bin = jax.nn.one_hot(bins, NUM_CALIBRATION_BINS)
    gap = jnp.abs((probability - labels) @ in_bin)
    return {
        "classifier/accuracy": jnp.mean((logits > 0.0) == (labels > 0.5), dtype=jnp.float32),
        "classifier/log_ratio_real": jnp.sum(logits * (1.0 - labels)) / jnp.sum(1.0 - labels),
        "classifier/log_ratio_synthetic": jnp.sum(logits * labels) / jnp.sum(labels),
        "classifier/calibration_error": jnp.sum(gap) / logits.shape[0],
    }
