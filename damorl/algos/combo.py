"""COMBO: Conservative Offline Model-Based Policy Optimization (arXiv 2102.08363).

    target   y = r + gamma (1 - terminal) min_j Q'_j(s', a'),  a' ~ pi(.|s')
    critic   min_Q   sum_j E_mix[(Q_j(s, a) - y)^2]
                     + weight sum_j (T E_{s ~ rho}[log int exp(Q_j(s, a) / T) da] - E_data[Q_j(s, a)])
    actor    min_pi  E_mix[temperature log pi(a|s) - min_j Q_j(s, a)]

The mixture is half offline rows and half short rollouts of the policy in the learned model. Nothing is measured of
the model's doubt: Q is pushed down on actions at the states of rho and up on the offline rows of the batch. The term,
its two readings and what it does not copy from public codes are in `parts/conservative.py`.

Deviations. From the paper: it lowers Q at (s, a) of the model's rollouts; here, as in OfflineRL-Kit, at fresh actions
of three proposals with the log-sum-exp of CQL(H), by default at all states of the mixed batch (`rho`). From that kit:
the dynamics' own (targets standardised, see `parts/dynamics_fit.py`), rollouts end where a task's rule says,
with the whole rule for Hopper, and `actor_averaging`, which is off in the `paper` preset. Left out because that kit has
them off: rollouts with uniform actions, the Lagrange multiplier, the target's maximum over ten actions.
Bugs not copied: rollouts that never terminate (polixir's), proposals for s' evaluated at s' (unifloral's).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import jax

from damorl.algos.base import Algorithm, OfflineData, Problem
from damorl.errors import UserError
from damorl.parts import conservative, model_agent, model_data
from damorl.parts.conservative import ConservativeSettings
from damorl.parts.model_agent import State
from damorl.parts.model_data import ModelSettings, count_real
from damorl.types import Key, Metrics


@dataclass(frozen=True)
class Config(ModelSettings, ConservativeSettings):
    """Settings of COMBO: the model's, those of a conservative SAC agent, and where it is conservative."""

    real_ratio: float = 0.5
    """Share of offline rows in a batch (OfflineRL-Kit)."""
    rho: Literal["mix", "model"] = "mix"
    """States at which Q is lowered: the whole mixed batch (OfflineRL-Kit's default) or its model rows only."""

    def __post_init__(self) -> None:
        """Refuse batches that leave one side of the conservative term empty."""
        ModelSettings.__post_init__(self)
        ConservativeSettings.__post_init__(self)
        num_real = count_real(self.batch_size, self.real_ratio)
        if self.conservative_weight and not num_real:
            raise UserError(
                f"real_ratio must leave at least one offline row in a batch of {self.batch_size}, since Q is raised "
                f"on those, found {self.real_ratio}: give a larger share, or set conservative_weight to 0"
            )
        if self.conservative_weight and self.rho == "model" and num_real == self.batch_size:
            raise UserError(
                f"rho 'model' needs model rows in a batch, found real_ratio {self.real_ratio}: give less, or rho 'mix'"
            )


def update(config: Config, problem: Problem, state: State, data: OfflineData, key: Key) -> tuple[State, Metrics]:
    """One gradient step of critic, actor and temperature on a mixed batch."""
    batch_key, agent_key = jax.random.split(key)
    batch = model_data.mixed_batch(data.rows, state.buffer, batch_key, config.batch_size, config.real_ratio)
    num_real = count_real(config.batch_size, config.real_ratio)
    real = jax.tree.map(lambda leaf: leaf[:num_real], batch)
    synthetic = jax.tree.map(lambda leaf: leaf[num_real:], batch)
    lowered = batch if config.rho == "mix" else synthetic
    agent, metrics = conservative.update(config, state.agent, batch, lowered, real, agent_key)
    return state._replace(agent=agent), metrics


ALGORITHM = Algorithm(
    "combo",
    Config,
    init=model_agent.init,
    prepare=model_agent.prepare,
    refresh=model_agent.refresh,
    update=update,
    actor=model_agent.actor,
)
