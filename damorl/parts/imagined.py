"""The actor's gradient through the model: the refined return of a few imagined steps (SVG, arXiv 1510.09142).

    max_pi  1/H E[sum_{t<H} gamma^t (r~(s_t, a_t, s_t+1) - v c(s_t)) + gamma^H (min_j Q_j(s_H, a_H) - v c(s_H))]

a_t ~ pi(.|s_t) and s_t+1 ~ M(.|s_t, a_t), both reparameterised; r~ is the refined reward (Eq. 4); v c is the soft
value's charge for the policy: the temperature times log pi, or the weight of the policy's part times KL(pi || pi_ref).

Why: near the data a critic's slope in the action is mostly noise, for the effect of one action on a return of
hundreds is far smaller than the error of a fitted return. The model knows that effect from every row of the data.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from damorl.core.frozen import freeze
from damorl.parts.critic import q_min
from damorl.parts.dynamics import Dynamics, predict
from damorl.parts.maximin import Gradients, MaximinSettings, Networks
from damorl.parts.reference import sample_with_cost
from damorl.types import Array, Key, Params, TerminationFn, Transition

UNROLLED = 5
"""Steps of a chain that are compiled one after the other: a loop's own work is a tenth of an update of small nets."""


class World(NamedTuple):
    """Where steps are imagined."""

    elites: Dynamics
    termination: TerminationFn
    reward: Callable[[Transition], Array]
    """The refined reward of rows `[B, ...]`, differentiable in them."""
    noise: bool
    """Whether the model's Gaussian is sampled; otherwise states follow its mean."""


class Chain(NamedTuple):
    """Imagined episodes on their way, `[elite, n, ...]`."""

    obs: Array
    alive: Array
    value: Array
    """What they earned so far, discounted, less the charge for the policy."""


def imagined_gradients(
    settings: MaximinSettings, nets: Networks, world: World, others: Gradients, obs: Array, key: Key
) -> Gradients:
    """The critic's of `others`, with the actor's from chains that begin at `actor_starts` of the rows `obs` `[B,
    obs_dim]`; its cost is that of their first step, `[actor_starts]`."""
    start = spread(obs, settings.actor_starts, world.elites.params.layers[0].kernel.shape[0])
    params = world.elites.params
    world = world._replace(elites=world.elites._replace(params=params._replace(layers=freeze(params.layers))))

    def loss(actor: Params) -> tuple[Array, Array]:
        value, cost = imagined_value(settings, nets._replace(actor=actor), world, start, key)
        return -jnp.mean(value) / settings.actor_horizon, cost.reshape(-1)

    (found, cost), grads = jax.value_and_grad(loss, has_aux=True)(nets.actor)
    return others._replace(actor=grads, cost=cost, metrics=others.metrics | {"actor/loss": found})


def spread(obs: Array, count: int, num_elites: int) -> Array:
    """`count` rows of a batch, evenly spread over it, dealt to the elites: `[elite, count / elite, obs_dim]`."""
    rows = jnp.linspace(0, obs.shape[0] - 1, count).astype(jnp.int32)
    return obs[rows].reshape(count // num_elites, num_elites, -1).swapaxes(0, 1)


def imagined_value(
    settings: MaximinSettings, nets: Networks, world: World, start: Array, key: Key
) -> tuple[Array, Array]:
    """The refined return of each chain from `start` `[elite, n, obs_dim]` and the charge at its first step, `[elite,
    n]` each. A chain stays with its elite; after a termination nothing more is earned."""
    step_keys, last_key = jax.random.split(key, settings.actor_horizon), jax.random.fold_in(key, 1)

    def step(chain: Chain, xs: tuple[Array, Key]) -> tuple[Chain, Array]:
        weight, step_key = xs
        act_key, model_key = jax.random.split(step_key)
        action, cost = sample_with_cost(nets.actor, chain.obs, act_key, nets.reference)
        rows = imagine(world, chain.obs, action, model_key)
        ended = jax.vmap(world.termination)(rows.obs, rows.action, rows.next_obs)
        value = chain.value + weight * chain.alive * (jax.vmap(world.reward)(rows) - nets.temperature * cost)
        return Chain(rows.next_obs, chain.alive * ~ended, value), cost

    alive = jnp.ones(start.shape[:2])
    weights = settings.gamma ** jnp.arange(settings.actor_horizon)
    begin = Chain(start, alive, jnp.zeros_like(alive))
    chain, costs = jax.lax.scan(step, begin, (weights, step_keys), unroll=UNROLLED)
    action, cost = sample_with_cost(nets.actor, chain.obs, last_key, nets.reference)
    rest = q_min(nets.critic, chain.obs, action) - nets.temperature * cost
    return chain.value + settings.gamma**settings.actor_horizon * chain.alive * rest, costs[0]


def imagine(world: World, obs: Array, action: Array, key: Key) -> Transition:
    """One step of every chain in its own elite, `[elite, n, ...]`; whether it ends is not known yet."""
    found, std = predict(world.elites, obs, action)
    if world.noise:
        found += std * jax.random.normal(key, found.shape)
    return Transition(obs, action, found[..., -1], found[..., :-1], jnp.zeros(found.shape[:-1]))
