"""How likely each recorded action was for the policy that took it: as recorded, or as a clone of it would say.

Our own data sets and D4RL's hold the log density of every action under the policy that played the episode, in
`infos/action_log_probs`. For other data a behaviour is cloned: one tanh-Gaussian network, by maximum likelihood, for
all of the data, however many policies made them. Weights that come from it are estimates themselves.
"""

from __future__ import annotations

from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from damorl.core.nets import MLP
from damorl.data.datasets import Dataset
from damorl.data.store import EXTRAS, read_array
from damorl.errors import UserError
from damorl.parts.actor import clone_actor, init_actor, policy
from damorl.types import Array, Key, Transition
from damorl.world.units import from_metadata

Densities = Literal["auto", "recorded", "cloned"]
LOG_PROBS = EXTRAS[-1]
LARGEST = 1.0 - 2.0**-24
"""The largest float32 below 1, near which tanh ends: an action at the bound is taken to be this."""
CHUNK = 20_000
CLONE_HIDDEN, CLONE_UPDATES = (64, 64), 10_000


class Behaviour(NamedTuple):
    """The densities of a data set's actions."""

    log_prob: np.ndarray
    """`[N]`, float64, of actions in [-1, 1], in nats."""
    source: Literal["recorded", "cloned"]


def behaviour_of(dataset: Dataset, rows: Transition, densities: Densities, key: Key) -> Behaviour:
    """The densities that are asked for; `auto` takes recorded ones where there are any. UserError if there are none."""
    found = None if densities == "cloned" else required(dataset, densities)
    if found is not None:
        return Behaviour(found, "recorded")
    init_key, fit_key = jax.random.split(key)
    clone = init_actor(init_key, dataset.obs_dim, dataset.action_dim, CLONE_HIDDEN)
    return Behaviour(log_density(clone_actor(clone, rows, fit_key, CLONE_UPDATES), rows), "cloned")


def required(dataset: Dataset, densities: Densities) -> np.ndarray | None:
    """The recorded log densities, as `recorded`. UserError if nothing else is wanted and there are none."""
    found = recorded(dataset)
    if found is None and densities == "recorded":
        raise UserError(
            f"{dataset.path or dataset.name}: expected the log density of every action in {LOG_PROBS}, found none that "
            "fits its rows; leave --densities out, which clones the behaviour, or give data that record them"
        )
    return found


def recorded(dataset: Dataset) -> np.ndarray | None:
    """The recorded log densities `[N]` for actions in [-1, 1]; None where there are none, one is not finite, or rows
    were dropped in reading. Where the actions had other units, the density has been stretched with them."""
    found = None if dataset.path is None else read_array(dataset.path, LOG_PROBS)
    if found is None or found.shape != (dataset.num_transitions,) or found.dtype.kind != "f":
        return None
    bounds = from_metadata(dataset.metadata)
    half = np.broadcast_to((bounds.high - bounds.low) / 2.0, dataset.action_dim)
    log_prob = found.astype(np.float64) + np.log(half).sum()
    return log_prob if np.isfinite(log_prob).all() else None


def before_tanh(action: Array) -> np.ndarray:
    """What the actions `[N, action_dim]` were before the squash, as exactly as float32 still tells; at the bound 9."""
    return np.arctanh(np.clip(np.asarray(action, np.float64), -LARGEST, LARGEST))


def saturated(action: Array) -> float:
    """The share of rows with an action at its bound, whose value before the squash is lost."""
    return float(np.mean(np.any(np.abs(np.asarray(action)) >= 1.0, axis=-1)))


def log_density(actor: MLP, rows: Transition) -> np.ndarray:
    """`log pi(a | s)` of every row's action, `[N]` in float64."""
    pre_tanh = before_tanh(rows.action)
    pieces = [slice(first, first + CHUNK) for first in range(0, len(pre_tanh), CHUNK)]
    each = [_log_density(actor, rows.obs[piece], jnp.asarray(pre_tanh[piece], jnp.float32)) for piece in pieces]
    return np.concatenate([np.asarray(own, np.float64) for own in each])


@jax.jit
def _log_density(actor: MLP, obs: Array, pre_tanh: Array) -> Array:
    return policy(actor, obs).log_prob_pre_tanh(pre_tanh)


@partial(jax.jit, static_argnames="count")
def sample_actions(actor: MLP, obs: Array, key: Key, count: int = 1) -> Array:
    """`count` actions in each state, `[N, obs_dim] -> [count, N, action_dim]`."""
    law = policy(actor, obs)
    return jax.vmap(lambda own: law.sample(own)[0])(jax.random.split(key, count))


def with_std(actor: MLP, std: float) -> MLP:
    """The same policy with the standard deviation `std` before the tanh in every state."""
    *hidden, last = actor
    action_dim = last.bias.shape[-1] // 2
    kernel = last.kernel.at[..., action_dim:].set(0.0)
    return (*hidden, last._replace(kernel=kernel, bias=last.bias.at[..., action_dim:].set(float(np.log(std)))))
