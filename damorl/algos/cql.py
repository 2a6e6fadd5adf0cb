"""CQL: Conservative Q-Learning for offline RL (arXiv 2006.04779), model-free, in its variant CQL(H).

    target   y = r + gamma (1 - terminal) min_j Q'_j(s', a'),  a' ~ pi(.|s')
    critic   min_Q   sum_j E_data[(Q_j(s, a) - y)^2]
                     + weight sum_j (T E_s[log int exp(Q_j(s, a) / T) da] - E_data[Q_j(s, a)])                 (Eq. 4)
    actor    min_pi  E_data[temperature log pi(a|s) - min_j Q_j(s, a)]

Everything is drawn from offline rows. The conservative term, its two readings and what it does not copy from public
codes are in `parts/conservative.py`.

Deviations. Defaults and tuned values are OfflineRL-Kit's (weight 5 and T = 1 on all of D4RL's Gym tasks, 3x256
networks, no entropy in the target, 1000 epochs, no cosine), not the paper's own. Left out because that kit has them
off: the Lagrange multiplier that tunes the weight, and the target's maximum over ten actions; the behaviour cloning of
the actor in the authors' code is left out as well. `actor_averaging` is ours, off in the `paper` preset.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax

from damorl.algos.base import Algorithm, OfflineData, Problem, no_prepare, no_refresh
from damorl.core import buffer as ring
from damorl.parts import conservative, sac
from damorl.parts.conservative import ConservativeSettings
from damorl.types import Key, Metrics


@dataclass(frozen=True)
class Config(ConservativeSettings):
    """Settings of CQL: those of a conservative SAC agent, nothing of its own."""


class State(NamedTuple):
    """Everything that changes."""

    agent: sac.SACState


def init(key: Key, config: Config, problem: Problem, data: OfflineData) -> State:
    """Fresh networks."""
    return State(sac.init(key, config, problem.spec))


def update(config: Config, problem: Problem, state: State, data: OfflineData, key: Key) -> tuple[State, Metrics]:
    """One gradient step of critic, actor and temperature on offline rows."""
    batch_key, agent_key = jax.random.split(key)
    batch = ring.sample_rows(data.rows, batch_key, config.batch_size)
    agent, metrics = conservative.update(config, state.agent, batch, batch, batch, agent_key)
    return State(agent), metrics


ALGORITHM = Algorithm("cql", Config, init, no_prepare, no_refresh, update, lambda state: state.agent.average_actor)
