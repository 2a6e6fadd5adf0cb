"""The value of a policy inside a learned model: long imagined episodes from the data's own initial states.

As in the branched rollouts, every step of every lane comes from one elite drawn uniformly. Beside them each elite
alone plays the same episodes; how far their mean values lie apart is the error bar: it tells where the elites
disagree, not where all of them are wrong.

A policy is worth what it earns where the model knows: a lane ends where the elites disagree more than they do on
nearly all of the data, and the rest of its episode then counts as the data's lowest reward, if that is negative, or
nothing (MOReL's halt). Without this a policy is praised for what it does in states that nobody has seen.

Hundreds of steps compound any error, so a lane goes on from the predicted state clipped to the range that the data
showed, and earns the predicted reward clipped likewise. Whether an episode ends is asked of the state before clipping:
data without a fall would otherwise forbid falling.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from damorl.parts.data_range import find_range
from damorl.parts.dynamics import Dynamics, disagreement, sample_step
from damorl.parts.fqe import Act, act_mode
from damorl.types import Array, Key, Params, TerminationFn, Transition

CHUNK = 50  # steps in one compiled call; between two the host looks whether anybody is still on their feet

PAIRS = 20_000  # of the data, whose disagreement tells what is known

Step = Callable[[Array, Array, Key], tuple[Array, Array]]
"""`(obs [B, obs_dim], action [B, action_dim], key) -> (next_obs [B, obs_dim], reward [B])`."""
Doubt = Callable[[Array, Array], Array]
"""`(obs [B, obs_dim], action [B, action_dim]) -> [B]`, how far the elites disagree."""


class World(NamedTuple):
    """What a lane plays in."""

    step: Step
    doubt: Doubt
    bounds: Bounds


@dataclass(frozen=True)
class Episode:
    """How imagined episodes are played. Hashable: it is static under jit."""

    termination: TerminationFn
    gamma: float
    horizon: int
    """Steps after which an episode is cut; nothing is added for what might have followed."""
    act: Act = act_mode
    noise: bool = True
    """Whether each step samples the Gaussian that the model predicts, or follows its mean."""


class Bounds(NamedTuple):
    """The range of the data: states `[obs_dim]`, the others scalars."""

    obs_low: Array
    obs_high: Array
    reward_low: Array
    reward_high: Array
    doubt: Array
    """The elites' disagreement beyond which an episode ends."""


class Lanes(NamedTuple):
    """Episodes under way: `[*B, obs_dim]`, bool `[*B]`, and the discounted sum so far `[*B]`."""

    obs: Array
    alive: Array
    total: Array


class ModelValue(NamedTuple):
    """Per policy, NumPy `[policy]`, in the rewards' units; NaN where the model gave no finite number."""

    mean: np.ndarray
    std: np.ndarray
    """Standard deviation between the elites' own mean values."""


def fit_bounds(rows: Transition, model: Dynamics, known_share: float) -> Bounds:
    """Least and greatest of every state feature, before or after a step, and of the reward; and the disagreement that
    `known_share` of the data's pairs do not exceed (of at most `PAIRS`, evenly spread). 1.0: no episode is ended."""
    every = -(-len(rows.reward) // PAIRS)
    doubts = jax.jit(disagreement)(model, rows.obs[::every], rows.action[::every])
    doubt = jnp.quantile(doubts, known_share) if known_share < 1.0 else jnp.array(jnp.inf)
    return Bounds(*find_range(rows.obs, rows.next_obs), jnp.min(rows.reward), jnp.max(rows.reward), doubt)


def start(obs: Array) -> Lanes:
    """Lanes about to begin in `obs` `[*B, obs_dim]`."""
    return Lanes(obs, jnp.ones(obs.shape[:-1], bool), jnp.zeros(obs.shape[:-1]))


def play(lanes: Lanes, world: World, actor: Params, first: Array, key: Key, episode: Episode) -> Lanes:
    """`CHUNK` steps of `[B]` lanes of one policy, the `first`-th one onward. A prediction that is not finite makes
    the lane's total NaN: it must not pass for an early end."""
    step, doubt, bounds = world
    worst = jnp.minimum(bounds.reward_low, 0.0)

    def one_step(lanes: Lanes, xs: tuple[Array, Key]) -> tuple[Lanes, None]:
        index, step_key = xs
        act_key, model_key = jax.random.split(step_key)
        action = episode.act(actor, lanes.obs, act_key)
        next_obs, reward = step(lanes.obs, action, model_key)
        going = lanes.alive & (index < episode.horizon)
        alive = going & (doubt(lanes.obs, action) <= bounds.doubt)
        finite = jnp.all(jnp.isfinite(next_obs), axis=-1)
        earned = jnp.where(finite, jnp.clip(reward, bounds.reward_low, bounds.reward_high), jnp.nan)
        going_on = alive & ~episode.termination(lanes.obs, action, next_obs)
        obs = jnp.where(going_on[:, None], jnp.clip(next_obs, bounds.obs_low, bounds.obs_high), lanes.obs)
        gain = jnp.where(alive, earned, jnp.where(going, worst * weight_of_rest(episode, index), 0.0))
        return Lanes(obs, going_on, lanes.total + episode.gamma**index * gain), None

    return jax.lax.scan(one_step, lanes, (first + jnp.arange(CHUNK), jax.random.split(key, CHUNK)))[0]


def weight_of_rest(episode: Episode, index: Array) -> Array:
    """The discounted number of steps from the `index`-th to the horizon."""
    left = episode.horizon - index
    return left * 1.0 if episode.gamma == 1.0 else (1.0 - episode.gamma**left) / (1.0 - episode.gamma)


@partial(jax.jit, static_argnames="episode", donate_argnames="lanes")
def play_all(
    lanes: tuple[Lanes, Lanes],
    model: Dynamics,
    actors: Params,
    bounds: Bounds,
    first: Array,
    key: Key,
    *,
    episode: Episode,
) -> tuple[tuple[Lanes, Lanes], Array]:
    """`CHUNK` steps of (mixed lanes `[policy, B]`, each elite's own `[elite, policy, B]`); also whether any goes on.

    The same key for all policies: common random numbers.
    """

    def of_model(elites: Dynamics, lanes: Lanes) -> Lanes:
        world = World(partial(sample_step, elites, noise=episode.noise), partial(disagreement, model), bounds)
        one = lambda own, actor: play(own, world, actor, first, key, episode)
        return jax.vmap(one)(lanes, actors)

    def of_elite(layers: Params, lanes: Lanes) -> Lanes:
        alone = model.params._replace(layers=jax.tree.map(lambda leaf: leaf[None], layers))
        return of_model(model._replace(params=alone), lanes)

    mixed, single = of_model(model, lanes[0]), jax.vmap(of_elite)(model.params.layers, lanes[1])
    return (mixed, single), jnp.any(mixed.alive) | jnp.any(single.alive)


def model_values(
    key: Key,
    model: Dynamics,
    actors: Params,
    starts: Array,
    bounds: Bounds,
    episode: Episode,
    on_steps: Callable[[int], None] = lambda steps: None,
) -> ModelValue:
    """The mean discounted return of each of `actors` (stacked on axis 0) over episodes from `starts` `[B, obs_dim]`.

    B must be a multiple of the number of elites. `on_steps(steps so far)` is called as the episodes go on, and with
    the horizon once all have ended.
    """
    num_policies, num_elites = jax.tree.leaves(actors)[0].shape[0], model.params.layers[0].kernel.shape[0]
    mixed = start(jnp.broadcast_to(starts, (num_policies, *starts.shape)))
    single = start(jnp.broadcast_to(starts, (num_elites, num_policies, *starts.shape)))
    lanes, done, alive = (mixed, single), 0, True
    while alive and done < episode.horizon:
        chunk_key = jax.random.fold_in(key, done)
        lanes, more = play_all(lanes, model, actors, bounds, jnp.int32(done), chunk_key, episode=episode)
        done, alive = done + CHUNK, bool(more)
        on_steps(min(done, episode.horizon) if alive else episode.horizon)
    totals = [np.asarray(own.total, np.float64).mean(axis=-1) for own in lanes]
    return ModelValue(totals[0], totals[1].std(axis=0))
