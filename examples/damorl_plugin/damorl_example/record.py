"""Record random play in the corridor: `python -m damorl_example.record corridor-random.steps`."""

import sys
from pathlib import Path

import numpy as np

from damorl_example.corridor import STEPS, Corridor


def play(seed: int) -> list[str]:
    """An episode of uniformly random pushes, as lines."""
    env, rng, lines = Corridor(), np.random.default_rng(seed), list[str]()
    obs, _ = env.reset(seed=seed)
    for step in range(1, STEPS + 1):
        push = rng.uniform(-2.0, 2.0, 1).astype(np.float32)
        next_obs, reward, fell, _, _ = env.step(push)
        end = "fell" if fell else "cut" if step == STEPS else "-"
        parts = (obs, push, (reward,), next_obs)
        lines.append(" | ".join([*(" ".join(repr(float(number)) for number in part) for part in parts), end]))
        if fell:
            break
        obs = next_obs
    return lines


if __name__ == "__main__":
    Path(sys.argv[1]).write_text("\n".join(line for seed in range(100) for line in play(seed)) + "\n", encoding="utf-8")
