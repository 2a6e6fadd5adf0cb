"""What the critic says of state-action pairs beside what the simulator gives for them (Table 1, and overestimation).

Pairs are the policy's own: states of the data that the support was not fitted to, actions sampled by the scored
policy. The simulator is put into the state, takes the action, and the policy goes on: the real value is that one
discounted return, exact but for the policy's and the start's chance, which the mean over pairs takes out.

The critic's Q is soft (it counts an entropy bonus) and, with data alignment, of the refined reward; both are as the
paper compares them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from damorl.behaviour.host_policy import NumpyPolicy, act
from damorl.errors import UserError
from damorl.paper.measure import Support, share
from damorl.paper.trained import Samples, Trained, critic_values
from damorl.world.simulators import make_env
from damorl.world.task import Task

NEGLIGIBLE = 0.01
"""Share of the discounted weight that a return may leave out."""
CLOSE = 1e-3
"""Largest difference between a state asked for and the state the simulator then reports."""
CANDIDATES = 4000
"""Pairs that are drawn before the ones that are played are chosen."""
VALUE_STREAM = 4


class Pairs(NamedTuple):
    """State-action pairs `[N]` with both values."""

    outside: np.ndarray
    """Whether the pair lies outside the data's support, bool."""
    q: np.ndarray
    real: np.ndarray


def horizon_of(gamma: float, longest: int) -> int:
    """Steps after which at most `NEGLIGIBLE` of the weight is left, at most `longest`."""
    return longest if gamma <= 0.0 else min(longest, math.ceil(math.log(NEGLIGIBLE) / math.log(gamma)))


def place(env: Any, obs: np.ndarray) -> bool:
    """Put a MuJoCo simulator into the state that `obs` reports; False if it then reports another one.

    For tasks that observe all positions but the first, which is how far they have come, and all velocities.
    """
    simulator = env.unwrapped
    num_positions = len(simulator.data.qpos)
    position = np.concatenate([[0.0], obs[: num_positions - 1]])
    simulator.set_state(position, np.asarray(obs[num_positions - 1 :], np.float64))
    return bool(np.max(np.abs(simulator._get_obs() - obs)) < CLOSE)


def can_place(task: Task, env: Any) -> bool:
    """Whether the task's observations are a whole state for `place`."""
    data = getattr(env.unwrapped, "data", None)
    return data is not None and len(data.qpos) + len(data.qvel) - 1 == task.obs_dim


def real_return(
    env: Any, layers: NumpyPolicy, start: tuple[np.ndarray, np.ndarray], gamma: float, rng: np.random.Generator
) -> float:
    """The discounted return after the pair `start`, or NaN if the simulator cannot be put there."""
    env.reset(seed=0)
    if not place(env, start[0]):
        return float("nan")
    action, total, weight = start[1], 0.0, 1.0
    for _ in range(horizon_of(gamma, env.spec.max_episode_steps)):
        obs, reward, terminated, truncated, _ = env.step(action)
        total += weight * float(reward)
        weight *= gamma
        if terminated or truncated:
            break
        action = act(layers, np.asarray(obs, np.float32), rng)
    return total


def draw_pairs(trained: Trained, index: int, states: Samples, rng: np.random.Generator) -> tuple[Any, Any]:
    """`CANDIDATES` states of the data at random, and an action of the policy in each."""
    obs = states.obs[rng.integers(len(states.obs), size=CANDIDATES)]
    return obs, act(trained.layers(index), obs, rng)


def measure_pairs(
    trained: Trained, index: int, support: Support, states: Samples, count: int, on_pair: Callable[[], object]
) -> tuple[Pairs, float]:
    """Up to `count` pairs outside the support and as many inside, played; and the share of all that is outside.

    UserError if the task's observations do not tell its whole state.
    """
    rng = np.random.default_rng((trained.config.seeds[index], VALUE_STREAM))
    obs, action = draw_pairs(trained, index, states, rng)
    outside = support.outside(np.concatenate([obs, action], axis=1))
    chosen = np.concatenate([np.flatnonzero(outside)[:count], np.flatnonzero(~outside)[:count]])
    q = critic_values(trained, index, obs[chosen], action[chosen])
    env = make_env(trained.task)
    if not can_place(trained.task, env):
        raise UserError(
            f"{trained.dataset.name}: expected a MuJoCo task whose observations are its positions but the first and "
            "its velocities (hopper, halfcheetah, walker2d), found another; real values need one of those"
        )
    values, gamma = np.empty(len(chosen)), trained.config.algo_config.gamma
    for place_in, row in enumerate(chosen):
        values[place_in] = real_return(env, trained.layers(index), (obs[row], action[row]), gamma, rng)
        on_pair()
    env.close()
    known = np.isfinite(values)
    return Pairs(outside[chosen][known], q[known], values[known]), share(outside)


def summarise(pairs: Pairs, outside_share: float) -> dict[str, Any]:
    """Means over the pairs outside the support and inside, and over all in the proportion that the policy takes them.

    `standard_error` is that of the mean real value. Where there are no pairs of a kind their values are None, and the
    mean over all is that of the other kind.
    """
    found: dict[str, Any] = {"share_outside": outside_share}
    weights = []
    for name, here in (("outside", pairs.outside), ("inside", ~pairs.outside)):
        count = int(here.sum())
        q, value = (float(values[here].mean()) if count else None for values in (pairs.q, pairs.real))
        error = float(pairs.real[here].std(ddof=1) / math.sqrt(count)) if count > 1 else None
        found[name] = {"pairs": count, "q": q, "real": value, "standard_error": error}
        chance = outside_share if name == "outside" else 1.0 - outside_share
        weights.append(np.where(here, chance / max(count, 1), 0.0))
    weight = np.sum(weights, axis=0)
    q, value = (float(np.average(values, weights=weight)) for values in (pairs.q, pairs.real))
    return found | {"all": {"q": q, "real": value}, "overestimation": q - value}
