"""Run a policy that `damorl export --distribution` wrote, with NumPy and onnxruntime alone.

python run_onnx.py policy.onnx
"""

import json
import sys

import numpy as np
import onnxruntime


def load(path):
    """The session, and the card that travels in the file."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session, json.loads(session.get_modelmeta().custom_metadata_map["card.json"])


def act(policy, obs):
    """The deterministic action, for one observation [obs_dim] or a batch [n, obs_dim], in the environment's units."""
    session, card = policy
    rows = np.asarray(obs, np.float32).reshape(-1, card["obs_dim"])
    (action,) = session.run(["action"], {"obs": rows})
    return action.reshape(*np.shape(obs)[:-1], card["action_dim"])


def sample(policy, obs, rng):
    """A sampled action: a Gaussian through tanh, brought from [-1, 1] to the action bounds."""
    session, card = policy
    rows = np.asarray(obs, np.float32).reshape(-1, card["obs_dim"])
    mean, log_std = session.run(["mean", "log_std"], {"obs": rows})
    unit = np.tanh(mean + np.exp(log_std) * rng.standard_normal(mean.shape, np.float32))
    low, high = np.float32(card["action_low"]), np.float32(card["action_high"])
    action = np.clip((high - low) / 2 * unit + (high + low) / 2, low, high)
    return action.reshape(*np.shape(obs)[:-1], card["action_dim"])


if __name__ == "__main__":
    policy = load(sys.argv[1])
    card = policy[1]
    print(f"{card['algorithm']} on {card['dataset']['name']}, {card['step']} updates")
    centre, spread = (np.array(card["observations"][name]) for name in ("obs_mean", "obs_std"))
    rng = np.random.default_rng(0)
    batch = centre + spread * rng.standard_normal((4, card["obs_dim"]))
    print("one observation:", act(policy, batch[0]))
    print("four:", act(policy, batch), sep="\n")
    if "log_std" in card["outputs"]:
        print("four, sampled:", sample(policy, batch, rng), sep="\n")
