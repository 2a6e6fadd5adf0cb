"""Fitted Q evaluation (Le et al. 2019, arXiv 1903.08738): what a policy is worth, told from recorded data alone.

    Q(s, a) <- r + gamma (1 - terminal) Q_target(s', a'),  a' ~ pi(s')        value = E_{s0, a0 ~ pi}[Q(s0, a0)]

One network per policy (a minimum over several would be pessimism, not evaluation), regressed on targets from its own
Polyak average, as is common; the paper fits to convergence between copies. Only true terminals end the sum: after a
time limit the value is bootstrapped.

Hidden layers are normalised (arXiv 2302.02948): off the data Q then levels out, where it would run away with its own
bootstrapped targets as soon as a policy leaves the data.

All policies are fitted in one program, on the same batches and from the same first weights: values then differ because
policies differ, and no policy's value depends on its company.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from damorl.core.buffer import sample_rows
from damorl.core.nets import MLP, apply_mlp, init_mlp
from damorl.core.optim import Learner, init_learner, minimise, polyak
from damorl.core.scaler import Standardiser, fit_standardiser
from damorl.errors import UserError
from damorl.parts.actor import policy
from damorl.types import Array, Key, Params, Transition

BELIEVABLE = 2.0  # times the largest possible discounted sum of the data's rewards; beyond it an estimate has diverged

Act = Callable[[Any, Array, Key], Array]
"""`(actor, obs [B, obs_dim], key) -> action [B, action_dim]`. Static under jit: pass the same function every time."""


def act_mode(actor: MLP, obs: Array, key: Key) -> Array:
    """The deterministic action, which is what the simulator scores."""
    return policy(actor, obs).mode()


def act_sampled(actor: MLP, obs: Array, key: Key) -> Array:
    """An action drawn from the policy."""
    return policy(actor, obs).sample(key)[0]


@dataclass(frozen=True)
class FQEConfig:
    """Settings of the fit."""

    num_updates: int = 20_000
    """Gradient updates; a multiple of `block_updates`."""
    block_updates: int = 1000
    """Updates between two points of the learning curve, in one compiled call."""
    gamma: float = 0.99
    """Discount of the value that is estimated."""
    hidden: tuple[int, ...] = (64, 64)
    batch_size: int = 256
    learning_rate: float = 1e-3
    tau: float = 0.02
    """Polyak rate of the target network. News takes about `1 / (tau * (1 - gamma))` updates to travel all the way."""

    def __post_init__(self) -> None:
        """Refuse a clock that cannot tick and a sum without end."""
        if self.num_updates < 1 or self.num_updates % self.block_updates:
            raise UserError(
                f"FQE updates must be a multiple of {self.block_updates}, at least one, found {self.num_updates}"
            )
        if not 0.0 <= self.gamma < 1.0:
            raise UserError(f"gamma must lie in [0, 1), found {self.gamma}: an undiscounted value need not be finite")


class Units(NamedTuple):
    """What turns the data's units into the network's."""

    obs: Standardiser
    value: Standardiser
    """Scalars."""


class FQEState(NamedTuple):
    """Everything that changes; with a leading policy axis during a fit."""

    learner: Learner
    target: Params


class FQEResult(NamedTuple):
    """Estimates, in the rewards' units, as NumPy arrays."""

    value: np.ndarray
    """`[policy]`, discounted, over the initial states; NaN where the fit diverged."""
    curve: np.ndarray
    """`[block, policy]`: the estimate after every block."""
    td_error: np.ndarray
    """`[block, policy]`: root mean squared Bellman error over a block's batches."""
    critics: Params = None
    """The networks that the values are of, with a leading policy axis; see `q_value`."""
    units: Units | None = None
    """Of the critics."""


def fit_units(rows: Transition, gamma: float) -> Units:
    """Units in which observations and values are about 1.

    The value's mean is what the mean reward is worth if episodes end as often as the data's: `mean(r) * horizon` with
    `horizon = 1 / (1 - gamma * share of rows that are not terminal)`; its scale is `mean |r| * horizon`.
    """
    horizon = 1.0 / (1.0 - gamma * (1.0 - jnp.mean(rows.terminal)))
    size = jnp.mean(jnp.abs(rows.reward))
    value = Standardiser(horizon * jnp.mean(rows.reward), horizon * jnp.where(size > 0.0, size, 1.0))
    return Units(fit_standardiser(rows.obs), value)


def normalised_relu(x: Array) -> Array:
    """Each row of `[*B, width]` brought to mean 0 and deviation 1, without learned scales, then cut at 0."""
    x = x - jnp.mean(x, axis=-1, keepdims=True)
    return jax.nn.relu(x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + 1e-5))


def q_value(critic: MLP, units: Units, obs: Array, action: Array) -> Array:
    """`[B]` in the rewards' units."""
    x = jnp.concatenate([units.obs.apply(obs), action], axis=-1)
    return units.value.invert(apply_mlp(critic, x, normalised_relu)[..., 0])


def update(
    config: FQEConfig, act: Act, units: Units, actor: Params, state: FQEState, batch: Transition, key: Key
) -> tuple[FQEState, Array]:
    """One gradient step for one policy; also the mean squared Bellman error in units of the value's scale."""
    next_q = q_value(state.target, units, batch.next_obs, act(actor, batch.next_obs, key))
    goal = batch.reward + config.gamma * (1.0 - batch.terminal) * next_q

    def loss_fn(critic: MLP) -> tuple[Array, Array]:
        loss = jnp.mean(jnp.square((goal - q_value(critic, units, batch.obs, batch.action)) / units.value.scale))
        return loss, loss

    learner, loss = minimise(loss_fn, state.learner, optax.adam(config.learning_rate))
    return FQEState(learner, polyak(state.target, learner.params, config.tau)), loss


def init_states(key: Key, config: FQEConfig, num_inputs: int, num_policies: int) -> FQEState:
    """The same fresh network for every policy, `[policy, ...]`. It starts at 0, the mean that `fit_units` gives."""
    *hidden, last = init_mlp(key, (num_inputs, *config.hidden, 1))
    critic = (*hidden, jax.tree.map(jnp.zeros_like, last))
    state = FQEState(init_learner(critic, optax.adam(config.learning_rate)), jax.tree.map(jnp.copy, critic))
    return jax.tree.map(lambda leaf: jnp.repeat(leaf[None], num_policies, axis=0), state)


@partial(jax.jit, static_argnames=("config", "act"), donate_argnames="states")
def run_block(
    states: FQEState, actors: Params, data: tuple[Transition, Array, Units], key: Key, *, config: FQEConfig, act: Act
) -> tuple[FQEState, Array, Array]:
    """`block_updates` updates of every policy; then the estimates and the Bellman errors of the block, `[policy]`.

    `data` is (rows, initial states `[E, obs_dim]`, units), shared by all policies.
    """
    rows, initial_obs, units = data

    def step(states: FQEState, step_key: Key) -> tuple[FQEState, Array]:
        batch_key, act_key = jax.random.split(step_key)
        batch = sample_rows(rows, batch_key, config.batch_size)
        fit = lambda state, actor: update(config, act, units, actor, state, batch, act_key)
        return jax.vmap(fit)(states, actors)

    step_key, value_key = jax.random.split(key)
    states, losses = jax.lax.scan(step, states, jax.random.split(step_key, config.block_updates))
    value = lambda state, actor: jnp.mean(q_value(state.target, units, initial_obs, act(actor, initial_obs, value_key)))
    return states, jax.vmap(value)(states, actors), jnp.sqrt(jnp.mean(losses, axis=0)) * units.value.scale


def evaluate_policies(
    key: Key,
    config: FQEConfig,
    actors: Params,
    rows: Transition,
    initial_obs: Array,
    act: Act = act_mode,
    on_block: Callable[[int], None] = lambda updates: None,
) -> FQEResult:
    """Fitted Q evaluation of all `actors` (a pytree stacked on axis 0) on the data `rows` `[N, ...]`.

    `initial_obs` `[E, obs_dim]` are the states whose mean value is returned; `on_block(updates so far)` is called
    after every block. An estimate that is not finite, or beyond what rewards as large as the data's could ever add up
    to (twice that, to leave room for honest error), has diverged and comes back as NaN.
    """
    init_key, fit_key = jax.random.split(key)
    num_policies = jax.tree.leaves(actors)[0].shape[0]
    data = (rows, initial_obs, fit_units(rows, config.gamma))
    states = init_states(init_key, config, rows.obs.shape[1] + rows.action.shape[1], num_policies)
    curve, errors = [], []
    one_block = dataclasses.replace(config, num_updates=config.block_updates)  # compiled once for any length
    for block in range(config.num_updates // config.block_updates):
        block_key = jax.random.fold_in(fit_key, block)
        states, values, td_error = run_block(states, actors, data, block_key, config=one_block, act=act)
        curve.append(np.asarray(values, np.float64))
        errors.append(np.asarray(td_error, np.float64))
        on_block((block + 1) * config.block_updates)
    possible = float(jnp.max(jnp.abs(rows.reward))) / (1.0 - config.gamma)
    believable = np.abs(curve[-1]) <= BELIEVABLE * possible  # False for NaN
    values = np.where(believable, curve[-1], np.nan)
    return FQEResult(values, np.stack(curve), np.stack(errors), states.target, data[2])
