"""Score the policies of a run in environments of your own, and by a function of your own.

python evaluate.py runs/bc-hopper-medium-quick-1a2b3c4d
"""

import sys

import gymnasium
import numpy as np

import damorl


class Windy(gymnasium.Wrapper):
    """Pushes the hopper's torso backwards with a constant force in newtons."""

    def __init__(self, env, newtons):
        super().__init__(env)
        self.newtons = newtons

    def step(self, action):
        self.unwrapped.data.xfrc_applied[1, 0] = -self.newtons
        return self.env.step(action)


def smoothness(policy):
    """How much actions move when the observation moves by a hundredth of its spread in the data."""
    rng = np.random.default_rng(0)
    centre, spread = (np.array(policy.metadata["observations"][name]) for name in ("obs_mean", "obs_std"))
    obs = centre + spread * rng.standard_normal((256, policy.obs_dim))
    moved, _ = policy.predict(obs + 0.01 * spread * rng.standard_normal(obs.shape))
    action, _ = policy.predict(obs)
    return {"action_change": np.abs(moved - action).mean(), "largest_action": np.abs(action).max()}


def main(run_dir, episodes=10):
    envs = {"no wind": "Hopper-v5"} | {
        f"wind of {newtons} N": lambda newtons=newtons: Windy(gymnasium.make("Hopper-v5"), newtons)
        for newtons in (2, 5)
    }
    envs["four at once"] = lambda: gymnasium.make_vec("Hopper-v5", 4, vectorization_mode="sync")
    rows = damorl.evaluate(run_dir, episodes, env=envs)
    for row in rows:
        print(f"seed {row['seed']}   {row['env']:<14} return {row['return_mean']:8.1f} +- {row['return_std']:.1f}")
    measured = damorl.evaluate(run_dir, evaluator=smoothness)
    for row in measured:
        print(f"seed {row['seed']}   action change {row['action_change']:.4f}")
    return rows, measured


if __name__ == "__main__":
    main(sys.argv[1])
