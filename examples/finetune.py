"""Train a policy on a log, then let it go on learning in the environment that the log is of."""

import gymnasium
import numpy as np

import damorl
from damorl.world.terminations import never_ended


class Cart(gymnasium.Env):
    """A cart that is pushed along a line, for 25 steps; the nearer it is to 0, the more it earns."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,))
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = np.array([self.np_random.uniform(-1.0, 1.0), 0.0], np.float32)
        return self.state, {}

    def step(self, action):
        speed = self.state[1] + 0.2 * float(action[0])
        self.state = np.array([self.state[0] + 0.2 * speed, speed], np.float32)
        return self.state, -abs(float(self.state[0])), False, False, {}


gymnasium.register("Cart-v0", Cart)
damorl.register_task(damorl.Task("cart", "Cart-v0", 2, 1, never_ended, max_episode_steps=25))


def make_log(episodes, seed=0):
    """Episodes of random pushes, as arrays."""
    env, rng, rows = gymnasium.make("Cart-v0", max_episode_steps=25), np.random.default_rng(seed), []
    for episode in range(episodes):
        obs, _ = env.reset(seed=seed + episode)
        ended = False
        while not ended:
            action = rng.uniform(-1.0, 1.0, 1)
            reached, reward, _, ended, _ = env.step(action)
            rows.append((obs, action, reward, reached, False, ended))
            obs = reached
    names = ("observations", "actions", "rewards", "next_observations", "terminals", "timeouts")
    return {name: np.array(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}


log = damorl.load_dataset(make_log(40), task="cart")
settings = {"total_updates": 300, "eval_interval": 300, "checkpoint_interval": 300, "refresh_interval": 100}
offline = damorl.train("td3bc", log, preset="smoke", **settings, quiet=True)
online = damorl.finetune(
    offline.run_dir, "cart", data=log, steps=1_000, interval=125, eval_interval=250, value_weight=10.0, quiet=True
)
print(f"offline   return {damorl.evaluate(offline.run_dir)[0]['return_mean']:.2f}")
print(f"online    return {damorl.evaluate(online.run_dir)[0]['return_mean']:.2f}")
policy = damorl.load_policy(online.run_dir)  # NumPy in, NumPy out, as from any run
print(f"pushes    {policy(np.array([[0.5, 0.0], [-0.5, 0.0]], np.float32)).ravel().round(2).tolist()}")
