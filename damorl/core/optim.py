"""A learner is parameters plus their optimiser's state; a step is one pure function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax

from damorl.types import Array, Params

Aux = TypeVar("Aux")


class Learner(NamedTuple):
    """Parameters and the optimiser state that belongs to them."""

    params: Params
    opt_state: Any


def adam(learning_rate: float, cosine_updates: int | None = None) -> optax.GradientTransformation:
    """Adam; with `cosine_updates` its rate follows a cosine to zero over so many updates."""
    if cosine_updates is None:
        return optax.adam(learning_rate)
    return optax.adam(optax.cosine_decay_schedule(learning_rate, cosine_updates))


def init_learner(params: Params, optimiser: optax.GradientTransformation) -> Learner:
    """Pair `params` with a fresh optimiser state."""
    return Learner(params, optimiser.init(params))


def apply_gradients(learner: Learner, grads: Params, optimiser: optax.GradientTransformation) -> Learner:
    """One optimiser step along `-grads`."""
    updates, opt_state = optimiser.update(grads, learner.opt_state, learner.params)
    return Learner(optax.apply_updates(learner.params, updates), opt_state)


def minimise(
    loss_fn: Callable[[Params], tuple[Array, Aux]],
    learner: Learner,
    optimiser: optax.GradientTransformation,
) -> tuple[Learner, Aux]:
    """One gradient step on `loss_fn(params) -> (loss, anything, usually metrics)`."""
    grads, aux = jax.grad(loss_fn, has_aux=True)(learner.params)
    return apply_gradients(learner, grads, optimiser), aux


def polyak(target: Params, online: Params, rate: float) -> Params:
    """`(1 - rate) * target + rate * online`, leaf by leaf (rate is SAC's tau)."""
    return jax.tree.map(lambda t, o: t + rate * (o - t), target, online)


def project_out(gradient: Params, direction: Params) -> Params:
    """`gradient` less its component along `direction`, as whole parameter vectors (ODICE, arXiv 2402.00348)."""
    dot = lambda a, b: sum(jnp.vdot(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
    share = dot(gradient, direction) / jnp.maximum(dot(direction, direction), 1e-10)
    return jax.tree.map(lambda g, d: g - share * d, gradient, direction)


def scale_gradient(x: Array, factor: float) -> Array:
    """`x` itself, with the gradient that flows back through it multiplied by `factor`."""
    frozen = jax.lax.stop_gradient(x)
    return frozen + factor * (x - frozen)
