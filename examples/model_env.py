"""Fit a dynamics model to recorded data and act in it through Gymnasium: one environment, then 64 in one step."""

import numpy as np

import damorl
from damorl.parts.dynamics import DynamicsConfig

# A log of a cart that is pushed at random: position and speed, 100 episodes of 20 steps, reward for being near 0.
rng = np.random.default_rng(0)
push = rng.uniform(-1.0, 1.0, (100, 20))
speed = np.cumsum(0.2 * push, axis=1)
position = rng.normal(size=(100, 1)) + np.cumsum(0.2 * speed, axis=1)
states = np.stack([position, speed], axis=-1)
log = {
    "obs": states[:, :-1].reshape(-1, 2),
    "action": push[:, 1:].reshape(-1, 1),
    "reward": -np.abs(position[:, 1:]).ravel(),
    "next_obs": states[:, 1:].reshape(-1, 2),
    "terminals": np.zeros(1900, bool),
    "timeouts": np.tile(np.arange(19) == 18, 100),
}
dataset = damorl.load_dataset(log, task="none", name="cart")
settings = DynamicsConfig(num_members=3, num_elites=3, hidden=(32, 32), max_batches=600, epoch_batches=200)

env = damorl.model_env(dataset, dynamics=settings, disagreement=True, quiet=True)
obs, info = env.reset(seed=0)
obs, reward, terminated, truncated, info = env.step(np.array([0.5], np.float32))
print(f"one step: state {obs.round(2)}, reward {reward:.2f}, the elites lie {info['disagreement']:.3f} apart")

envs = damorl.model_env(dataset, 64, dynamics=settings, noise=False, quiet=True)  # the fit is in the cache now
for name, gain in {"no push": 0.0, "towards 0": -1.0}.items():
    obs, _ = envs.reset(seed=1)
    total = np.zeros(64)
    for _ in range(19):
        obs, reward, *_ = envs.step(np.clip(gain * obs.sum(axis=1, keepdims=True), -1.0, 1.0))
        total += reward
    print(f"{name}: mean return {total.mean():.1f}")
