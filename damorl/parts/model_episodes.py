"""Episodes in a learned model, one step at a time, for whoever acts from outside.

A *lane* is one sequence of episodes. All that is random in it follows from its key, the number of the episode and the
time in it, so a lane is the same whatever other lanes run beside it. States and rewards are in the model's units.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from damorl.parts.data_range import Range
from damorl.parts.dynamics import Dynamics, disagreement, predict_all
from damorl.types import Array, Key, TerminationFn


@dataclass(frozen=True)
class Rules:
    """How episodes go. Hashable: it is static under jit."""

    termination: TerminationFn
    elite: Literal["step", "episode"] = "step"
    """When an elite is drawn, uniformly: for every step, as in a rollout, or once for the whole episode."""
    noise: bool = True
    """Whether each step samples the Gaussian that the elite predicts, or follows its mean."""
    keep_in_range: bool = True
    """Whether the next state is brought into the range of the data's. Its end is asked of the state before: data
    without a fall would otherwise forbid falling."""
    disagreement: bool = False
    """Whether each step tells how far the elites' predictions lie apart."""


class World(NamedTuple):
    """What lanes play in."""

    elites: Dynamics
    starts: Array
    """States that episodes begin in, each as likely, `[S, obs_dim]`."""
    seen: Range
    """The range of the data's states."""
    max_episode_steps: Array
    """Steps after which an episode is cut, int32 (scalar)."""


class Lane(NamedTuple):
    """Where one lane stands. Scalars but for `obs`; stacked lanes have a leading axis."""

    key: Key
    """Never used up: streams are folded out of it."""
    episode: Array
    """Number of the episode, int32 from 0 on."""
    time: Array
    """Steps made in it, int32."""
    elite: Array
    """The elite of the episode or, once a step is made, of that step; int32."""
    obs: Array
    """`[obs_dim]`."""


class Outcome(NamedTuple):
    """What a step gave, scalars."""

    reward: Array
    terminated: Array
    """The task ended there, or the prediction was not finite: then the state stays and the reward is 0."""
    truncated: Array
    """The time limit was reached; both may be true."""
    disagreement: Array
    """As `dynamics.disagreement`; 0 unless it was asked for."""


def reset(world: World, key: Key, episode: Array) -> Lane:
    """The beginning of the `episode`-th episode of the lane with this key."""
    counts = jnp.array([world.starts.shape[0], num_elites(world)])
    start, elite = jax.random.randint(episode_keys(key, episode)[0], (2,), 0, counts)
    return Lane(key, episode, jnp.zeros((), jnp.int32), elite, world.starts[start])


def step(rules: Rules, world: World, lane: Lane, action: Array) -> tuple[Lane, Outcome]:
    """One step with `action` `[action_dim]`, in [-1, 1]; what is beyond counts as at the bound.

    Given the elite it is `sample_step` of that elite alone, with the key that is split here. Every elite is asked and
    one answer is taken: for any number of lanes that is a product of full matrices, where each lane would otherwise
    need a copy of its elite's weights.
    """
    _, steps_key = episode_keys(lane.key, lane.episode)
    elite_key, noise_key = jax.random.split(jax.random.fold_in(steps_key, lane.time))
    elite = jax.random.randint(elite_key, (), 0, num_elites(world)) if rules.elite == "step" else lane.elite
    obs, action = lane.obs[None], jnp.clip(action, -1.0, 1.0)[None]
    mean, std = (each[elite] for each in predict_all(world.elites, obs, action))
    drawn = mean + std * jax.random.normal(noise_key, mean.shape) if rules.noise else mean
    predicted, reward = drawn[:, :-1], drawn[0, -1]
    finite = jnp.all(jnp.isfinite(drawn))
    ended = rules.termination(obs, action, predicted)[0]
    reached = world.seen.clip(predicted) if rules.keep_in_range else predicted
    time = lane.time + 1
    apart = disagreement(world.elites, obs, action)[0] if rules.disagreement else jnp.zeros(())
    outcome = Outcome(jnp.where(finite, reward, 0.0), ended | ~finite, time >= world.max_episode_steps, apart)
    return lane._replace(time=time, elite=elite, obs=jnp.where(finite, reached[0], lane.obs)), outcome


def episode_keys(key: Key, episode: Array) -> Key:
    """Two keys of an episode: of its beginning, and of its steps."""
    return jax.random.split(jax.random.fold_in(key, episode))


def num_elites(world: World) -> int:
    """How many there are to draw from."""
    return world.elites.params.layers[0].kernel.shape[0]


@jax.jit
def reset_lanes(world: World, keys: Key, episode: Array) -> Lane:
    """Stacked lanes, `[B]` keys and numbers of episodes."""
    return jax.vmap(partial(reset, world))(keys, episode)


@partial(jax.jit, static_argnames="rules")
def step_lanes(rules: Rules, world: World, lanes: Lane, over: Array, actions: Array) -> tuple[Lane, Outcome]:
    """A step of stacked lanes with `actions` `[B, action_dim]`.

    A lane that is `over`, bool `[B]`, begins its next episode instead: its outcome is all zeros.
    """

    def one(lane: Lane, over: Array, action: Array) -> tuple[Lane, Outcome]:
        fresh = reset(world, lane.key, lane.episode + 1)
        lane, outcome = step(rules, world, lane, action)
        choose = lambda new, old: jnp.where(over, new, old)
        moved = [choose(*pair) for pair in zip(fresh[1:], lane[1:], strict=True)]
        return Lane(lane.key, *moved), jax.tree.map(lambda leaf: choose(jnp.zeros_like(leaf), leaf), outcome)

    return jax.vmap(one)(lanes, over, actions)


def lane_keys(seed: int, count: int) -> Key:
    """The keys of `count` lanes, the i-th one's seed being `seed + i` (modulo 2^32)."""
    return jax.vmap(jax.random.key)(((seed + np.arange(count)) % 2**32).astype(np.uint32))
