"""Networks in NumPy and gradients by central differences, in float64: what an update is compared with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike

from damorl.core.nets import MLP


def in_doubles(params: Any) -> Any:
    """The same pytree of NumPy arrays that may be written to."""
    return jax.tree.map(lambda leaf: np.array(leaf, np.float64), params)


def mlp(params: MLP, x: ArrayLike) -> np.ndarray:
    """`[B, in] -> [B, out]`, with ReLU."""
    x = np.asarray(x)
    for kernel, bias in params[:-1]:
        x = np.maximum(x @ kernel + bias, 0.0)
    return np.asarray(x @ params[-1].kernel + params[-1].bias)


def members(params: MLP) -> list[MLP]:
    """The networks of an ensemble, one after the other; changes of theirs are changes of its."""
    return [jax.tree.map(lambda leaf, m=m: leaf[m], params) for m in range(len(params[0].bias))]


def values(critic: MLP, obs: ArrayLike, action: ArrayLike) -> np.ndarray:
    """Every critic's value, `[critic, B]`."""
    inputs = np.concatenate([np.asarray(obs), np.asarray(action)], axis=1)
    return np.stack([mlp(member, inputs)[:, 0] for member in members(critic)])


def gradient(loss: Callable[[Any], float], params: Any, width: float = 1e-6) -> Any:
    """The gradient of `loss(params)`, entry by entry."""
    params = in_doubles(params)

    def slopes(leaf: np.ndarray) -> np.ndarray:
        found, entries = np.zeros(leaf.size), leaf.reshape(-1)
        for index, value in enumerate(entries.copy()):
            sides = []
            for moved in (value + width, value - width):
                entries[index] = moved
                sides.append(loss(params))
            entries[index] = value
            found[index] = (sides[0] - sides[1]) / (2.0 * width)
        return found.reshape(leaf.shape)

    return jax.tree.map(slopes, params)


def first_gradient(learner: Any) -> Any:
    """The gradient of the first step that a fresh learner has made: Adam's mean of gradients is a tenth of it."""
    return jax.tree.map(lambda leaf: 10.0 * np.asarray(leaf, np.float64), learner.opt_state[0].mu)


def assert_close(found: Any, expected: Any, tolerance: float = 1e-3) -> None:
    """Leaf by leaf, up to what float32 loses, relative to the largest entry of all."""
    size = max(np.abs(np.asarray(leaf)).max() for leaf in jax.tree.leaves(expected))
    assert size > 1e-3  # there is something to compare
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, atol=tolerance * size, rtol=tolerance)
