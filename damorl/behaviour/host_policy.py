"""A tanh-Gaussian policy in plain NumPy: what stands beside the simulator, in processes that never load JAX."""

from __future__ import annotations

from collections.abc import Mapping

import gymnasium
import numpy as np

NumpyPolicy = tuple[tuple[np.ndarray, np.ndarray], ...]
"""Layers (kernel, bias) of an actor on the host."""

LOG_STD_MIN, LOG_STD_MAX = -5.0, 2.0
"""Bounds of the actor's log standard deviation, the same as on the device (a test compares both)."""


def gaussian(layers: NumpyPolicy, obs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and log standard deviation before the tanh, `[*B, obs_dim] -> 2 x [*B, action_dim]`."""
    x = np.asarray(obs, np.float32)
    for kernel, bias in layers[:-1]:
        x = np.maximum(x @ kernel + bias, 0.0)
    kernel, bias = layers[-1]
    out = x @ kernel + bias
    action_dim = out.shape[-1] // 2
    # Two ufuncs cost a third of np.clip on arrays this small, and this runs once per simulator step.
    log_std = np.minimum(np.maximum(out[..., action_dim:], LOG_STD_MIN), LOG_STD_MAX)
    return out[..., :action_dim], log_std


def squash(layers: NumpyPolicy, obs: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """The action `tanh(mean + std * noise)`, `[*B, action_dim]`."""
    mean, log_std = gaussian(layers, obs)
    return np.tanh(mean + np.exp(log_std) * noise)


def act(layers: NumpyPolicy, obs: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:
    """The policy on the host, `[*B, obs_dim] -> [*B, action_dim]`; sampled with `rng`, or the mode without one."""
    if rng is None:
        return np.tanh(gaussian(layers, obs)[0])
    shape = (*obs.shape[:-1], layers[-1][1].size // 2)
    return squash(layers, obs, rng.standard_normal(shape, np.float32))


def log_density(layers: NumpyPolicy, obs: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """`log pi(tanh(mean + std * noise) | obs)` in nats, `[*B]`; the tanh correction in its stable form."""
    mean, log_std = gaussian(layers, obs)
    pre_tanh = mean + np.exp(log_std) * noise
    log_det = 2.0 * (np.log(2.0) - pre_tanh - np.logaddexp(0.0, -2.0 * pre_tanh))
    return np.sum(-0.5 * noise**2 - log_std - 0.5 * np.log(2.0 * np.pi) - log_det, axis=-1)


def episode_return(env: gymnasium.Env, layers: NumpyPolicy, seed: int, rng: np.random.Generator | None = None) -> float:
    """The undiscounted return of one episode."""
    obs, _ = env.reset(seed=seed)
    total, ended = 0.0, False
    while not ended:
        obs, reward, terminated, truncated, _ = env.step(act(layers, obs, rng))
        total += float(reward)
        ended = terminated or truncated
    return total


def to_arrays(layers: NumpyPolicy, prefix: str = "") -> dict[str, np.ndarray]:
    """The layers under the names `{prefix}kernel0`, `{prefix}bias0`, `{prefix}kernel1`, ..."""
    pairs = ((i, *layer) for i, layer in enumerate(layers))
    return {f"{prefix}{n}{i}": a for i, kernel, bias in pairs for n, a in (("kernel", kernel), ("bias", bias))}


def from_arrays(arrays: Mapping[str, np.ndarray], prefix: str = "") -> NumpyPolicy:
    """The inverse of `to_arrays`, in float32. Raises KeyError if there is no layer 0 under `prefix`."""
    layers = [(arrays[f"{prefix}kernel0"], arrays[f"{prefix}bias0"])]
    while f"{prefix}kernel{len(layers)}" in arrays:
        layers.append((arrays[f"{prefix}kernel{len(layers)}"], arrays[f"{prefix}bias{len(layers)}"]))
    return tuple((kernel.astype(np.float32), bias.astype(np.float32)) for kernel, bias in layers)


def rounded(layers: NumpyPolicy) -> NumpyPolicy:
    """The policy as it ships: every number through float16 and back."""
    return tuple((k.astype(np.float16).astype(np.float32), b.astype(np.float16).astype(np.float32)) for k, b in layers)
