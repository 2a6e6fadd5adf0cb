"""MOPO: Model-based Offline Policy Optimization (arXiv 2005.13239).

    r~(s, a) = r^(s, a) - penalty_coefficient * u(s, a)                                       (the paper's lambda and u)
    max_std:       u = max_m ||sigma_m(s, a)||_2 over all members m; outputs: next state and reward
    disagreement:  u = max_m ||mu_m(s, a) - mean_m mu_m(s, a)||_2 over the next state's outputs
    ensemble_std:  u = sqrt(mean_k Var_m mu_{m,k}(s, a)) over the next state's outputs k

Then soft actor-critic on 5 % offline rows and 95 % short rollouts whose rewards are r~. Offline rewards are untouched.
u is in the data's own units of state and reward, whatever the run works in (`OfflineData.units`), so a published
coefficient keeps its meaning.

Deviations. From the paper: its u is the largest Frobenius norm of a member's covariance; the released code, like
this one, takes the norm of standard deviations, reward included, and the maximum over all seven members, not over the
elites. From the released TensorFlow code: the agent is OfflineRL-Kit's (actor rate 1e-4 with a cosine instead of 3e-4,
target entropy -action_dim instead of -3 everywhere, temperature at most 1), and tuned values are that kit's for D4RL
v2. From that kit: the dynamics' own (targets standardised, see `parts/dynamics_fit.py`), rollouts end where a
task's rule says, with the whole rule for Hopper, and `actor_averaging`, which is off in the `paper` preset.
Bugs not copied: next states that are the next episode's start (D4RL's loader), rollouts that go on after their end.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import jax.numpy as jnp

from damorl.algos.base import Algorithm, OfflineData, Problem
from damorl.parts import dynamics, model_agent
from damorl.parts.model_agent import State
from damorl.parts.model_data import ModelSettings
from damorl.parts.model_units import to_own_units
from damorl.parts.sac import TRACED, SACSettings
from damorl.types import REWARD_UNIT, Array, Key, Metrics, Transition, Units

Penalty = Literal["max_std", "disagreement", "ensemble_std"]


@dataclass(frozen=True)
class Config(ModelSettings, SACSettings):
    """Settings of MOPO: the agent's, the model's, and the penalty."""

    penalty_coefficient: float = field(default=2.5, metadata=REWARD_UNIT)
    """Weight of the penalty, the paper's lambda (OfflineRL-Kit's default; tuned per dataset). 0 gives `sac`."""
    penalty: Penalty = "max_std"
    """The uncertainty u: largest predicted deviation of any member (released codes), or one of two disagreements."""


def uncertainty(
    model: dynamics.Dynamics, obs: Array, action: Array, kind: Penalty, units: Units | None = None
) -> Array:
    """u(s, a) of the module's first lines, `[B, obs_dim], [B, action_dim] -> [B]`, in the data's own units; `units` are
    those of the model."""
    prediction = to_own_units(dynamics.predict_all(model, obs, action), units)
    if kind == "max_std":
        return jnp.max(jnp.linalg.norm(prediction.std, axis=-1), axis=0)
    next_obs = prediction.mean[..., :-1]
    if kind == "disagreement":
        apart = jnp.linalg.norm(next_obs - jnp.mean(next_obs, axis=0), axis=-1)
        return jnp.max(apart, axis=0)
    return jnp.sqrt(jnp.mean(jnp.var(next_obs, axis=0), axis=-1))


def penalise(config: Config, model: dynamics.Dynamics, rows: Transition, units: Units | None = None) -> Transition:
    """Rows of the model with r~ for their reward."""
    cost = config.penalty_coefficient * uncertainty(model, rows.obs, rows.action, config.penalty, units)
    return rows._replace(reward=rows.reward - cost)


def refresh(config: Config, problem: Problem, state: State, data: OfflineData, key: Key) -> tuple[State, Metrics]:
    """Branched rollouts of the policy in the elites, with penalised rewards, into the buffer."""
    revise = lambda rows: penalise(config, state.model, rows, data.units)
    return model_agent.refresh(config, problem, state, data, key, revise)


ALGORITHM = Algorithm(
    "mopo",
    Config,
    init=partial(model_agent.init, all_members=True),
    prepare=partial(model_agent.prepare, all_members=True),
    refresh=refresh,
    update=model_agent.update,
    actor=model_agent.actor,
    traced=("penalty_coefficient", *TRACED),
)
