"""How well a fitted model predicts recorded rows: after k steps of its own, in the spread that it predicts, and where
its elites agree.

The error after k steps is that of `parts/holdout.py`, which a fit can go by, for every k up to a horizon and for each
feature: every elite follows its own mean predictions along the recorded actions. Calibration (arXiv 1807.00263) and the
elites' disagreement are of one step.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import ndtr
from scipy.stats import spearmanr

from damorl.core.scaler import fit_standardiser
from damorl.errors import UserError
from damorl.parts.dynamics import Dynamics, disagreement, predict, predict_all
from damorl.parts.holdout import MAX_ERROR, find_stretches
from damorl.types import Array, Key, Transition


class Paths(NamedTuple):
    """Recorded rows that follow each other, k of them from each of B starts."""

    obs: Array
    """Where they start, `[B, obs_dim]`."""
    action: Array
    """What was done, `[k, B, action_dim]`."""
    reached: Array
    """The state after each step and the reward of it, `[k, B, obs_dim + 1]`."""


class Errors(NamedTuple):
    """Squared errors after k steps as shares of the variance in the data; NaN for features that never vary."""

    each: np.ndarray
    """`[k, elite, B, obs_dim + 1]`, the reward last."""
    no_change: np.ndarray
    """Of the guess that the state stays where the path starts, `[k, B, obs_dim]`."""


class Judged(NamedTuple):
    """One-step predictions of N rows beside what was recorded."""

    deviations: np.ndarray
    """(recorded - predicted mean) / predicted deviation, `[elite, N, obs_dim + 1]`; NaN for what never changes."""
    error: np.ndarray
    """Distance of the elites' common mean from what was recorded, in deviations of the change, `[N, obs_dim + 1]`."""
    spread: np.ndarray
    """Standard deviation of the elites' means in the same unit, `[N, obs_dim + 1]`."""
    disagreement: np.ndarray
    """`dynamics.disagreement`, `[N]`."""


def find_paths(key: Key, steps: int, rows: Transition, episode: np.ndarray, chosen: Array) -> Paths:
    """Paths of `steps` rows that start in the rows numbered `chosen` and stay in one episode, at most as many as
    `holdout.find_stretches` draws.

    UserError if no episode goes on for so long there.
    """
    left = np.searchsorted(episode, episode, side="right") - np.arange(len(episode))
    longest = int(left[np.asarray(chosen)].max())
    if longest < steps:
        raise UserError(
            f"horizon is {steps}: expected an episode with so many rows from a held-out one on, found at most "
            f"{longest}; lower the horizon"
        )
    numbers = jnp.arange(len(episode))[:, None]
    starts = find_stretches(key, steps, rows._replace(obs=numbers, next_obs=numbers), episode, chosen).obs[:, 0]
    index = starts + jnp.arange(steps)[:, None]
    reached = jnp.concatenate([rows.next_obs[index], rows.reward[index][..., None]], axis=-1)
    return Paths(rows.obs[starts], rows.action[index], reached)


def data_scale(rows: Transition) -> Array:
    """Standard deviation of every feature of the states, and of the reward, in the data, `[obs_dim + 1]`; NaN for
    those that never vary."""
    columns = jnp.concatenate([rows.obs, rows.reward[:, None]], axis=1)
    return jnp.where(jnp.ptp(columns, axis=0) > 0.0, fit_standardiser(columns).scale, jnp.nan)


@jax.jit
def follow(elites: Dynamics, paths: Paths) -> Array:
    """Where each elite is after each step, and what it paid: `[k, elite, B, obs_dim + 1]`."""
    num_elites = elites.params.layers[0].kernel.shape[0]
    everyone = lambda rows: jnp.broadcast_to(rows, (num_elites, *rows.shape))

    def step(obs: Array, action: Array) -> tuple[Array, Array]:
        mean = predict(elites, obs, everyone(action)).mean
        return mean[..., :-1], mean

    return jax.lax.scan(step, everyone(paths.obs), paths.action)[1]


def path_errors(elites: Dynamics, paths: Paths, scale: Array) -> Errors:
    """The errors along `paths`; `scale` as `data_scale` gives it. What is not finite counts as infinite."""
    apart = np.asarray((follow(elites, paths) - paths.reached[:, None]) / scale)
    stays = np.asarray((paths.obs - paths.reached[..., :-1]) / scale[:-1])
    known = np.isfinite(np.asarray(scale))
    each = np.where(np.isfinite(apart) | ~known, np.square(apart), np.inf)
    return Errors(each, np.square(stays))


def capped(each: np.ndarray) -> np.ndarray:
    """Mean over elites and starts of squared errors `[k, elite, B, ...]`, each at most `holdout.MAX_ERROR`."""
    return np.minimum(each, MAX_ERROR).mean(axis=(1, 2))


def judge_rows(elites: Dynamics, rows: Transition) -> Judged:
    """One-step predictions of all `rows` `[N]`."""
    prediction = jax.jit(predict_all)(elites, rows.obs, rows.action)
    mean, std = (np.asarray(array, np.float64) for array in prediction)
    recorded = np.column_stack([rows.next_obs, rows.reward]).astype(np.float64)
    scale = np.asarray(elites.targets.scale, np.float64)
    scale = np.where(scale > 0.0, scale, np.nan)
    deviations = (recorded - mean) / np.where(std > 0.0, std, np.nan)
    error, spread = np.abs(recorded - mean.mean(axis=0)) / scale, mean.std(axis=0) / scale
    return Judged(deviations, error, spread, np.asarray(jax.jit(disagreement)(elites, rows.obs, rows.action)))


def share_within(deviations: np.ndarray, times: float) -> np.ndarray:
    """The share of `[elite, N, feature]` within so many predicted deviations, `[feature]`; NaN where none is known."""
    inside = np.where(np.isnan(deviations), np.nan, np.abs(deviations) <= times)
    return inside.mean(axis=(0, 1))


def probability_transform(deviations: np.ndarray) -> np.ndarray:
    """The predicted probability of less than what was recorded, `[N, feature]`, where an elite is drawn uniformly and
    then its Gaussian: uniform on [0, 1] if the predictions are calibrated."""
    return ndtr(deviations).mean(axis=0)


def reliability(transform: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """For each level in `levels` the share of finite values whose central interval of that probability holds what was
    recorded: the level itself if calibrated."""
    central = np.abs(2.0 * transform[np.isfinite(transform)] - 1.0)
    return np.array([np.mean(central <= level) for level in levels])


def rank_agreement(error: np.ndarray, doubt: np.ndarray) -> float | None:
    """Spearman's rank correlation of `[N]` errors and doubts; None where either is constant or not known."""
    known = np.isfinite(error) & np.isfinite(doubt)
    error, doubt = error[known], doubt[known]
    if known.sum() < 3 or np.ptp(error) == 0.0 or np.ptp(doubt) == 0.0:
        return None
    return float(spearmanr(error, doubt).statistic)  # pyright: ignore[reportAttributeAccessIssue]


def binned(error: np.ndarray, doubt: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean doubt and mean error of `[N]` rows in at most `count` bins of equally many, the least doubt first."""
    bins = np.array_split(np.argsort(doubt, kind="stable"), min(count, len(doubt)))
    return np.array([doubt[own].mean() for own in bins]), np.array([error[own].mean() for own in bins])
