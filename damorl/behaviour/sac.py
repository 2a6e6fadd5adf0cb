"""Online soft actor-critic (arXiv 1812.05905): it trains the behaviour policies that our datasets are made from.

The simulator runs on the host, the updates on the device: `steps_per_chunk` environment steps are taken with a NumPy
copy of the actor, then as many gradient updates run as one compiled scan. The lag of one chunk is harmless, and it
keeps dispatch out of the way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import optax

from damorl.behaviour.host_policy import NumpyPolicy, act, episode_return
from damorl.core import buffer as ring
from damorl.core.optim import Learner, init_learner, minimise, polyak
from damorl.parts.actor import init_actor, temperature_loss
from damorl.parts.critic import init_critic
from damorl.parts.sac import actor_loss, soft_next_value, td_loss
from damorl.types import Key, Metrics, Params, Spec, Transition


@dataclass(frozen=True)
class SACConfig:
    """Settings of the behaviour trainer. Defaults: SAC's own, with smaller nets and batches for a CPU."""

    total_steps: int = 600_000
    """Environment steps, and, after the warm-up, gradient updates."""
    warmup_steps: int = 5_000
    """Steps of uniform actions before the first update."""
    steps_per_chunk: int = 50
    """Environment steps between two visits to the device."""
    snapshot_interval: int = 10_000
    """Steps between two stored and evaluated snapshots."""
    eval_episodes: int = 5
    hidden: tuple[int, ...] = (128, 128)
    batch_size: int = 128
    learning_rate: float = 3e-4
    gamma: float = 0.99
    tau: float = 0.005
    """Polyak rate of the target critic."""


class SACState(NamedTuple):
    """Everything that changes during training."""

    actor: Learner
    critic: Learner
    target_critic: Params
    temperature: Learner
    buffer: ring.RingBuffer


def init_state(key: Key, config: SACConfig, spec: Spec) -> SACState:
    """Fresh networks and an empty replay buffer that will hold the whole run."""
    actor_key, critic_key = jax.random.split(key)
    tx = optax.adam(config.learning_rate)
    critic = init_critic(critic_key, spec.obs_dim, spec.action_dim, config.hidden)
    return SACState(
        actor=init_learner(init_actor(actor_key, spec.obs_dim, spec.action_dim, config.hidden), tx),
        critic=init_learner(critic, tx),
        target_critic=jax.tree.map(jnp.copy, critic),
        temperature=init_learner(jnp.zeros(()), tx),
        buffer=ring.init_buffer(config.total_steps, spec.obs_dim, spec.action_dim),
    )


def update(config: SACConfig, state: SACState, key: Key, target_entropy: float) -> tuple[SACState, Metrics]:
    """One gradient step of critic, actor, temperature and target."""
    batch_key, critic_key, actor_key = jax.random.split(key, 3)
    batch = ring.sample(state.buffer, batch_key, config.batch_size)
    tx, temperature = optax.adam(config.learning_rate), jnp.exp(state.temperature.params)
    next_value = soft_next_value(state.actor.params, state.target_critic, temperature, batch.next_obs, critic_key)
    target = batch.reward + config.gamma * (1.0 - batch.terminal) * next_value
    critic, critic_metrics = minimise(lambda p: td_loss(p, batch, target), state.critic, tx)
    actor, (log_prob, _) = minimise(
        lambda p: actor_loss(p, critic.params, temperature, batch.obs, actor_key), state.actor, tx
    )
    learner, metrics = minimise(lambda p: temperature_loss(p, log_prob, target_entropy), state.temperature, tx)
    target_critic = polyak(state.target_critic, critic.params, config.tau)
    return SACState(actor, critic, target_critic, learner, state.buffer), critic_metrics | metrics


@partial(jax.jit, static_argnames=("config", "target_entropy", "num_updates"), donate_argnames="state")
def learn_chunk(
    state: SACState, rows: Transition, key: Key, *, config: SACConfig, target_entropy: float, num_updates: int
) -> tuple[SACState, Metrics]:
    """Store `rows`, then run `num_updates` updates; metrics are means over them."""
    state = state._replace(buffer=ring.add(state.buffer, rows, jnp.ones(rows.reward.shape, bool)))
    if num_updates == 0:
        return state, {}
    state, metrics = jax.lax.scan(
        lambda s, k: update(config, s, k, target_entropy), state, jax.random.split(key, num_updates)
    )
    return state, jax.tree.map(jnp.mean, metrics)


def to_numpy_policy(actor: Any) -> NumpyPolicy:
    """Copy an actor's layers to the host."""
    return tuple((np.asarray(layer.kernel), np.asarray(layer.bias)) for layer in actor)


class Collector:
    """Steps one environment and hands out fixed-size blocks of transitions."""

    def __init__(self, env: gymnasium.Env, seed: int) -> None:
        self.env, self.rng = env, np.random.default_rng(seed)
        self.obs, _ = env.reset(seed=seed)

    def collect(self, num_steps: int, layers: NumpyPolicy | None) -> Transition:
        """`num_steps` sampled-action steps; uniform actions where `layers` is None. A time limit is not terminal."""
        steps = []
        for _ in range(num_steps):
            shape = self.env.action_space.shape or ()
            action = (
                self.rng.uniform(-1.0, 1.0, shape).astype(np.float32)
                if layers is None
                else act(layers, self.obs, self.rng)
            )
            next_obs, reward, terminated, truncated, _ = self.env.step(action)
            steps.append((self.obs, action, reward, next_obs, terminated))
            self.obs = self.env.reset()[0] if terminated or truncated else next_obs
        columns = (np.asarray(column, np.float32) for column in zip(*steps, strict=True))
        return Transition(*columns)  # type: ignore[arg-type]


def train(
    make_env: Callable[[], gymnasium.Env],
    config: SACConfig,
    seed: int,
    on_snapshot: Callable[[int, NumpyPolicy, list[float], dict[str, float]], None],
    on_progress: Callable[[int], None] = lambda step: None,
) -> None:
    """Train from scratch; `on_snapshot(step, policy, deterministic returns, metrics)` is called as often as configured.

    The first snapshot (step 0) is the untrained policy. The same seed gives the same run on the same machine.
    """
    env, eval_env = make_env(), make_env()
    obs_shape, action_shape = env.observation_space.shape, env.action_space.shape
    assert obs_shape is not None
    assert action_shape is not None
    spec = Spec(obs_shape[0], action_shape[0])
    run_key = jax.random.key(seed)
    state = init_state(jax.random.fold_in(run_key, 0), config, spec)
    collector = Collector(env, seed)
    layers = to_numpy_policy(state.actor.params)
    metrics: Metrics = {}
    for step in range(0, config.total_steps + 1, config.steps_per_chunk):
        if step % config.snapshot_interval == 0:
            returns = [episode_return(eval_env, layers, 10_000 + i) for i in range(config.eval_episodes)]
            on_snapshot(step, layers, returns, {name: float(value) for name, value in metrics.items()})
        warm = step < config.warmup_steps
        rows = collector.collect(config.steps_per_chunk, None if warm else layers)
        state, metrics = learn_chunk(
            state,
            rows,
            jax.random.fold_in(run_key, step + 1),
            config=config,
            target_entropy=-float(spec.action_dim),
            num_updates=0 if warm else config.steps_per_chunk,
        )
        layers = to_numpy_policy(state.actor.params)
        on_progress(step)
