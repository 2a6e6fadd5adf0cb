"""What a policy is worth by importance weights: episodes of other policies, each step weighed by how much more likely
the policy's own choice of that action was.

With `ratio_t = pi(a_t | s_t) / b(a_t | s_t)`, `w_t = ratio_0 ... ratio_t`, `w_-1 = 1` and the mean over episodes:

    wis      sum_i w_T G / sum_i w_T          by whole episodes, weighted; G is an episode's discounted return
    pdis     E[sum_t gamma^t w_t r_t]         per decision (Precup, Sutton & Singh, ICML 2000); unbiased
    wpdis    the same with w_t / sum_i w_t    per decision, weighted; consistent, not unbiased
    dr       E[sum_t gamma^t (w_t (r_t - Q_t) + w_{t-1} V_t)]
    wdr      the same with w_t / sum_i w_t and w_{t-1} / sum_i w_{t-1}

`dr` is the doubly robust estimator of Jiang & Li (ICML 2016, arXiv 1511.03722) with its recursion
`V_t + ratio_t (r_t + gamma DR_{t+1} - Q_t)` written out; `wdr` is that of Thomas & Brunskill (ICML 2016, arXiv
1604.00923). Q is an estimate of the policy's value and V its mean over the policy's actions. With a Q that has not
seen these episodes `dr` is unbiased, however wrong Q is; one that was fitted to them leaves a small bias.

Each episode is weighed by the density of the policy that played it. So data of several behaviours need no mixture:
every episode's weighted return has the same mean.

An episode that has ended stays where it is, earns nothing and keeps its last weight: weights are shared out among all
episodes at every step. After the last row of an episode that was cut, not ended, `dr` adds V of the state reached, as
fitted Q does; the estimators without a Q count nothing there.

Weights are kept as logarithms, in float64. Where few episodes have nearly all of the weight, no estimator of this kind
says anything, and neither do its intervals: see `effective_episodes`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

Floats = np.ndarray
"""float64."""

FLOOR = -700.0
"""Log of the least share of the largest weight that counts: a resample without that one still has a mean."""


class Episodes(NamedTuple):
    """Complete episodes side by side, `[E, T]` in float64, with zeros after each one's end."""

    log_ratio: Floats
    """`log pi(a_t | s_t) - log b(a_t | s_t)`."""
    reward: Floats
    q: Floats
    """Estimated value of each pair; zeros where there is no estimate."""
    v: Floats
    """`[E, T + 1]`: estimated value of each state and, of an episode that was cut, of the state it ended in."""


def side_by_side(column: Floats, starts: Floats, lengths: Floats, width: int) -> Floats:
    """Rows `[N]` of episodes, given by their first rows and lengths `[E]`, as `[E, width]` with zeros at the end."""
    own = np.arange(width)
    inside = own < lengths[:, None]
    index = np.where(inside, starts[:, None] + own, 0)
    return np.where(inside, np.asarray(column, np.float64)[index], 0.0)


def log_weights(episodes: Episodes) -> Floats:
    """`log w_{t-1}` for t = 0 .. T, `[E, T + 1]`: the first column is 0, the last the weight of the whole episode."""
    sums = np.cumsum(episodes.log_ratio, axis=1)
    return np.concatenate([np.zeros((len(sums), 1)), sums], axis=1)


def estimates(episodes: Episodes, gamma: float, counts: Floats) -> dict[str, Floats]:
    """Every estimate for every resample, `[B]` each; `counts` `[B, E]` says how often an episode is in it.

    Weights that overflow make an estimate infinite or NaN: it is then not known.
    """
    logs = log_weights(episodes)
    discount = gamma ** np.arange(logs.shape[1])
    shares = counts / counts.sum(axis=1, keepdims=True)
    now, surprise = logs[:, 1:], episodes.reward - episodes.q
    returns = episodes.reward @ discount[:-1]
    with np.errstate(over="ignore", invalid="ignore"):
        weight = np.exp(logs)
        per_decision = (weight[:, 1:] * episodes.reward) @ discount[:-1]
        corrected = (weight[:, 1:] * surprise) @ discount[:-1] + (weight * episodes.v) @ discount
        unweighted = {"pdis": shares @ per_decision, "dr": shares @ corrected}
    corrections = weighted_mean(now, surprise, counts) @ discount[:-1]
    return {
        "wis": weighted_mean(logs[:, -1:], returns[:, None], counts)[:, 0],
        "wpdis": weighted_mean(now, episodes.reward, counts) @ discount[:-1],
        "wdr": corrections + weighted_mean(logs, episodes.v, counts) @ discount,
        **unweighted,
    }


def weighted_mean(log_weight: Floats, values: Floats, counts: Floats) -> Floats:
    """`sum_i c_i w_i x_i / sum_i c_i w_i` in each column: `[E, K]`, `[E, K]` and counts `[B, E]` to `[B, K]`."""
    weight = np.exp(np.maximum(log_weight - log_weight.max(axis=0), FLOOR))
    return (counts @ (weight * values)) / (counts @ weight)


def effective(log_weight: Floats) -> Floats:
    """Effective sample size `(sum w)^2 / sum w^2` of each column of `[E, K]`: between 1 and E (Kong 1992)."""
    weight = np.exp(log_weight - log_weight.max(axis=0))
    return np.square(weight.sum(axis=0)) / np.square(weight).sum(axis=0)


def effective_episodes(episodes: Episodes, gamma: float) -> dict[str, float]:
    """How many episodes the weights amount to: of whole episodes, and per decision.

    The latter is the harmonic mean over steps, each counted with its discount: the variance of a discounted sum goes
    with the inverse of each step's size, so steps where the weights have collapsed must not be hidden by the first.
    """
    sizes = effective(log_weights(episodes)[:, 1:])
    discount = gamma ** np.arange(len(sizes))
    return {"trajectory": float(sizes[-1]), "per_decision": float(discount.sum() / (discount / sizes).sum())}


def resamples(count: int, size: int, seed: int) -> Floats:
    """How often each of `size` episodes is drawn in each of `count` bootstrap resamples, `[count, size]`."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(size, np.full(size, 1.0 / size), size=count).astype(np.float64)


def interval(values: Floats, level: float = 0.95) -> tuple[float, float] | None:
    """Percentiles of the bootstrap's values `[B]`; None if one of them is not finite."""
    if not np.isfinite(values).all():
        return None
    low, high = np.quantile(values, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return float(low), float(high)
