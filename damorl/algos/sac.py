"""SAC on model data, without a penalty (MBPO, arXiv 1906.08253, made offline): the reference point of every table.

    target   y = r + gamma (1 - terminal) (min_j Q'_j(s', a') - temperature log pi(a'|s')),  a' ~ pi(.|s')
    critic   min_Q   sum_j E_mix[(Q_j(s, a) - y)^2]
    actor    min_pi  E_mix[temperature log pi(a|s) - min_j Q_j(s, a)]

The mixture is `real_ratio` offline rows and the rest short rollouts of the policy in the learned model. Nothing keeps
the policy where the model is right: what a method of this family adds is measured against this one.

Deviations: MBPO is online, with a fresh model as data arrive; here the model is fitted once to the offline data. The
agent's settings are OfflineRL-Kit's for MOPO (its coefficient at zero gives this algorithm bit for bit), among them
the bound 1 on the temperature and a cosine on the actor's rate. `actor_averaging` is ours, off in the `paper` preset.
"""

from __future__ import annotations

from dataclasses import dataclass

from damorl.algos.base import Algorithm
from damorl.parts import model_agent
from damorl.parts.model_data import ModelSettings
from damorl.parts.sac import TRACED, SACSettings


@dataclass(frozen=True)
class Config(ModelSettings, SACSettings):
    """Settings of SAC on model data: the agent's and the model's, nothing of its own."""


ALGORITHM = Algorithm(
    "sac",
    Config,
    init=model_agent.init,
    prepare=model_agent.prepare,
    refresh=model_agent.refresh,
    update=model_agent.update,
    actor=model_agent.actor,
    traced=TRACED,
)
