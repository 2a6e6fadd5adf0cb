"""What a fit of the dynamics is judged by: rows it never sees, and its errors there.

Two ways. *One step*: rows drawn at random, and the error of their predictions. It misleads where a rollout is meant:
what a row's neighbours in time have shown is no test, and small errors that point the same way add up. *k steps*: whole
episodes, along which a member is fed its own mean predictions under the recorded actions; the error is that of the
state after k steps.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from damorl.core.scaler import fit_standardiser
from damorl.errors import UserError
from damorl.parts.dynamics import Dynamics, DynamicsConfig, DynamicsParams, forward, predict
from damorl.types import Array, Key, Transition

START_STREAM = 1
"""What the key of the split is folded with for the starts of the stretches."""
MAX_STARTS = 1000
MAX_ERROR = 1.0
"""Of one start: a few that diverge, as falls do, must not decide. So much is a state no better than a random one."""


class Stretches(NamedTuple):
    """Rows of held-out episodes that follow each other, k of them from each of B starts."""

    obs: Array
    """Where they start, `[B, obs_dim]`."""
    action: Array
    """What was done, `[k, B, action_dim]`."""
    reached: Array
    """The recorded state after k steps, `[B, obs_dim]`."""
    scale: Array
    """Standard deviation of each feature of the states in the data, `[obs_dim]`; 0 for those that never vary."""


class Split(NamedTuple):
    """Numbers of rows, and the stretches that lie in the hold-out rows, where the fit goes by them."""

    holdout: Array
    train: Array
    stretches: Stretches | None = None


def hold_out(key: Key, config: DynamicsConfig, data: Transition, episode: Array | None) -> Split:
    """Hold out what `config.early_stop` goes by. `episode` `[N]` numbers the rows' episodes, as in `OfflineData`.

    UserError where k steps are to be followed and the data do not tell how.
    """
    if config.early_stop == "one_step":
        return hold_out_rows(key, len(data.reward), config.holdout)
    numbers = check_episodes(episode)
    found = hold_out_episodes(key, numbers, config.holdout)
    start_key = jax.random.fold_in(key, START_STREAM)
    return found._replace(stretches=find_stretches(start_key, config.early_stop_steps, data, numbers, found.holdout))


def check_episodes(episode: Array | None) -> np.ndarray:
    """The rows' episodes `[N]` on the host. UserError unless there are at least two."""
    found = 0 if episode is None else len(np.unique(np.asarray(episode)))
    if episode is None or found < 2:
        raise UserError(
            "dynamics.early_stop k_step holds out whole episodes: expected data with at least two episodes, found "
            f"{found or 'none that are marked'}; mark where episodes end, or set dynamics.early_stop to one_step"
        )
    return np.asarray(episode)


def count_holdout(num_rows: int, holdout: int) -> int:
    """How many rows are held out: `holdout`, at most a fifth of the data, at least one."""
    return max(1, min(num_rows // 5, holdout))


def hold_out_rows(key: Key, num_rows: int, holdout: int) -> Split:
    """Rows drawn at random."""
    order, count = jax.random.permutation(key, num_rows), count_holdout(num_rows, holdout)
    return Split(order[:count], order[count:])


def hold_out_episodes(key: Key, episode: np.ndarray, holdout: int) -> Split:
    """Whole episodes drawn at random, until they have `holdout` rows or a fifth of the data; one stays for training.

    `episode` is `[N]`, of at least two numbers.
    """
    numbers, lengths = np.unique(episode, return_counts=True)
    order = np.asarray(jax.random.permutation(key, len(numbers)))
    rows_out = np.cumsum(lengths[order])
    count = 1 + int(np.searchsorted(rows_out, count_holdout(len(episode), holdout)))
    out = np.isin(episode, numbers[order[: min(count, len(numbers) - 1)]])
    return Split(jnp.asarray(np.flatnonzero(out), jnp.int32), jnp.asarray(np.flatnonzero(~out), jnp.int32))


def find_stretches(key: Key, steps: int, data: Transition, episode: np.ndarray, holdout: Array) -> Stretches:
    """Up to `MAX_STARTS` stretches of `steps` rows in the episodes of the rows `holdout`, drawn at random.

    UserError if none of these episodes has so many rows.
    """
    out = np.zeros(len(episode), bool)
    out[np.asarray(holdout)] = True
    starts = np.arange(max(0, len(episode) - steps + 1))
    starts = starts[out[starts] & (episode[starts] == episode[starts + steps - 1])]  # an episode's rows stand together
    if not starts.size:
        longest = np.unique(episode[out], return_counts=True)[1].max()
        raise UserError(
            f"dynamics.early_stop_steps is {steps}: expected an episode of so many rows among those that are held out, "
            f"found {longest} in the longest; lower dynamics.early_stop_steps, raise dynamics.holdout, or set "
            "dynamics.early_stop to one_step"
        )
    if starts.size > MAX_STARTS:
        starts = np.asarray(jax.random.choice(key, jnp.asarray(starts), (MAX_STARTS,), replace=False))
    rows = starts + np.arange(steps)[:, None]
    varying = jnp.ptp(data.obs, axis=0) > 0.0
    scale = fit_standardiser(data.obs).scale * varying
    return Stretches(data.obs[starts], data.action[rows], data.next_obs[rows[-1]], scale)


def one_step_error(params: DynamicsParams, x: Array, y: Array, varying: Array) -> Array:
    """Mean squared error of every member `[member]`, as a share of the targets' variance.

    `x` `[B, in]` and `y` `[B, obs_dim + 1]` are standardised; `varying` `[obs_dim + 1]` is 0 for targets left out.
    """
    num_members = params.layers[0].kernel.shape[0]
    mean, _ = forward(params, jnp.broadcast_to(x, (num_members, *x.shape)))
    squared = jnp.mean(jnp.square(mean - y[None]), axis=1)
    return jnp.sum(squared * varying, axis=1) / jnp.sum(varying)


def k_step_error(model: Dynamics, stretches: Stretches) -> Array:
    """How far from the recorded state every member is after k steps of its own, `[member]`.

    A member's mean prediction is what it is fed next, with the recorded action. The error of a start is the mean over
    features of the squared distance, in the data's variance, at most `MAX_ERROR`; a member's is the mean over starts.
    """
    num_members = model.params.layers[0].kernel.shape[0]
    everyone = lambda rows: jnp.broadcast_to(rows, (num_members, *rows.shape))

    def step(obs: Array, action: Array) -> tuple[Array, None]:
        return predict(model, obs, everyone(action)).mean[..., :-1], None

    obs, _ = jax.lax.scan(step, everyone(stretches.obs), stretches.action)
    varying = stretches.scale > 0.0
    apart = jnp.where(varying, (obs - stretches.reached) / jnp.where(varying, stretches.scale, 1.0), 0.0)
    error = jnp.mean(jnp.square(apart), axis=-1, where=varying)
    return jnp.mean(jnp.where(error < MAX_ERROR, error, MAX_ERROR), axis=1)  # so that NaN counts as diverged
