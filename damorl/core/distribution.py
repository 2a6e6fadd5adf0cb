"""The distributions of the library: a Gaussian squashed by tanh, a mixture of them, and a diagonal Gaussian."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from damorl.types import Array, Key

LOG_SQRT_TWO_PI = 0.5 * math.log(2.0 * math.pi)


def gaussian_log_prob(x: Array, mean: Array, log_std: Array) -> Array:
    """Log density of independent normals, summed over the last axis: `[*B, d] -> [*B]`."""
    z = (x - mean) * jnp.exp(-log_std)
    return jnp.sum(-0.5 * jnp.square(z) - log_std - LOG_SQRT_TWO_PI, axis=-1)


class TanhGaussian(NamedTuple):
    """The law of `tanh(mean + exp(log_std) * noise)`, noise standard normal; fields `[*B, action_dim]`."""

    mean: Array
    log_std: Array

    def mode(self) -> Array:
        """The deterministic action of the literature, `tanh(mean)` (the median, not the density's mode)."""
        return jnp.tanh(self.mean)

    def sample(self, key: Key) -> tuple[Array, Array]:
        """A reparameterised action in (-1, 1) and its log density, `([*B, action_dim], [*B])`."""
        pre_tanh = self.mean + jnp.exp(self.log_std) * jax.random.normal(key, self.mean.shape)
        return jnp.tanh(pre_tanh), self.log_prob_pre_tanh(pre_tanh)

    def log_prob_pre_tanh(self, pre_tanh: Array) -> Array:
        """Log density of `tanh(pre_tanh)`, from the value before the squash: inverting tanh is where NaNs come from."""
        return gaussian_log_prob(pre_tanh, self.mean, self.log_std) - tanh_log_det(pre_tanh)


class TanhMixture(NamedTuple):
    """A mixture of tanh-Gaussians; `logits` `[*B, component]`, the others `[*B, component, action_dim]`."""

    logits: Array
    mean: Array
    log_std: Array

    def log_prob_pre_tanh(self, pre_tanh: Array) -> Array:
        """Log density of `tanh(pre_tanh)`, `[*B, action_dim] -> [*B]`."""
        each = gaussian_log_prob(pre_tanh[..., None, :], self.mean, self.log_std)
        mixed = jax.nn.logsumexp(jax.nn.log_softmax(self.logits) + each, axis=-1)
        return mixed - tanh_log_det(pre_tanh)


def inverse_tanh(action: Array) -> Array:
    """The value before the squash. Actions at the bound have none, and are moved inside by 1e-4."""
    return jnp.arctanh(jnp.clip(action, -1.0 + 1e-4, 1.0 - 1e-4))


def tanh_log_det(pre_tanh: Array) -> Array:
    """`sum log(1 - tanh(u)^2)` over the last axis, written so that it does not lose digits for large |u|."""
    return jnp.sum(2.0 * (math.log(2.0) - pre_tanh - jax.nn.softplus(-2.0 * pre_tanh)), axis=-1)
