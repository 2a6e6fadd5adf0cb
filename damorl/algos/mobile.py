"""MOBILE: Model-Bellman Inconsistency Penalized Offline Policy Optimization (Sun et al., ICML 2023; no arXiv id found).

    v_k(s, a)  = mean_i min_j Q'_j(s'_ki, a'_ki),   s'_ki ~ elite k at (s, a),  a'_ki ~ pi(.|s'_ki),  i = 1 .. n
    u(s, a)    = std_k v_k(s, a) over the K elites, unbiased (divided by K - 1);  0 on offline rows
    target     y = max(0, r - penalty_coefficient u(s, a) + gamma (1 - terminal) min_j Q'_j(s', a'))
    critic     min_Q   sum_j E_mix[(Q_j(s, a) - y)^2]
    actor      min_pi  E_mix[temperature log pi(a|s) - min_j Q_j(s, a)]

The penalty is in units of value, not of state: elites may disagree about a state as long as it is worth the same.
u is neither discounted nor differentiated, and asks neither the elites' rewards nor whether s' ends the episode.

Choices of the released codes that the headline equation does not show, each a field of `Config`: the floor at 0
(`target_floor`), no entropy in the target (`entropy_backup`), a fixed temperature on two data sets
(`learn_temperature`). The floor is biased where returns are negative, as early on halfcheetah-random.

Deviations. From the authors' code (mobile) and OfflineRL-Kit, which is by the same authors: u is not computed for
offline rows, where it is set to 0 anyway; the dynamics' own (`parts/dynamics_fit.py`), rollouts that end by a task's
whole rule, and `actor_averaging`, which is off in the `paper` preset. The two codes differ: the kit stops every
dynamics fit at 30 epochs, mobile only walker2d-medium's; the kit's coefficient for halfcheetah-medium-expert is 2.0
with 5 % offline rows, mobile's 1.0 with half; the kit learns the temperature on hopper-medium-replay, mobile fixes it
at 0.2. Where they differ, the presets have mobile's. Not taken over: options that cannot be switched off (`type=bool`
reads the text "False" as true), a normalised deviation with the reference score subtracted, max-Q backups (off there).
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from damorl.algos.base import Algorithm, OfflineData, Problem
from damorl.errors import UserError
from damorl.parts import dynamics, model_agent, model_data, sac
from damorl.parts.actor import policy
from damorl.parts.critic import q_min
from damorl.parts.model_agent import State
from damorl.parts.model_data import ModelSettings
from damorl.parts.sac import TRACED, SACSettings
from damorl.types import Array, Key, Metrics, Transition


@dataclass(frozen=True)
class Config(ModelSettings, SACSettings):
    """Settings of MOBILE: the agent's, the model's, and the penalty."""

    penalty_coefficient: float = 1.5
    """Weight of the inconsistency, the paper's beta (tuned per dataset; 1.5 is both codes' for three of the sets)."""
    num_samples: int = 10
    """Next states drawn from each elite for one u (both codes). num_samples * num_elites * batch_size rows more per
    update."""
    target_floor: bool = True
    """The Bellman target is at least 0 (both codes; not in the paper's headline equation)."""
    entropy_backup: bool = False
    """Whether the target has the entropy term (off in both codes)."""

    def __post_init__(self) -> None:
        """Refuse an ensemble whose deviation is not defined."""
        super().__post_init__()
        if self.dynamics.num_elites < 2:
            raise UserError(
                f"dynamics.num_elites must be at least 2 for the deviation between elites, found "
                f"{self.dynamics.num_elites}: give more elites, or train sac"
            )


def inconsistency(
    elites: dynamics.Dynamics, agent: sac.SACState, obs: Array, action: Array, key: Key, num_samples: int
) -> Array:
    """u(s, a) of the module's second line, `[B, obs_dim], [B, action_dim] -> [B]`, in units of value.

    All `num_samples * K * B` next states go through policy and target critics in one batch.
    """
    state_key, action_key = jax.random.split(key)
    prediction = dynamics.predict_all(elites, obs, action)
    mean, std = prediction.mean[..., :-1], prediction.std[..., :-1]
    draws = jax.random.normal(state_key, (num_samples, *mean.shape))
    next_obs = (mean + std * draws).reshape(-1, obs.shape[-1])
    next_action, _ = policy(agent.actor.params, next_obs).sample(action_key)
    value = q_min(agent.target_critic, next_obs, next_action).reshape(draws.shape[:-1])
    return jnp.std(jnp.mean(value, axis=0), axis=0, ddof=1)


def penalty(config: Config, state: State, batch: Transition, key: Key) -> Array:
    """u of every row of a mixed batch, `[B]`: 0 on its offline rows, which come first."""
    num_real = model_data.count_real(config.batch_size, config.real_ratio)
    obs, action = batch.obs[num_real:], batch.action[num_real:]
    found = inconsistency(state.model, state.agent, obs, action, key, config.num_samples)
    return jnp.concatenate([jnp.zeros(num_real), found])


def penalised_target(config: Config, state: State, batch: Transition, cost: Array, key: Key) -> Array:
    """y of the module's third line, `[B]`; `cost` is u, `[B]`."""
    batch = batch._replace(reward=batch.reward - config.penalty_coefficient * cost)
    target = sac.td_target(config, state.agent, batch, key)
    return jnp.maximum(target, 0.0) if config.target_floor else target


def update(config: Config, problem: Problem, state: State, data: OfflineData, key: Key) -> tuple[State, Metrics]:
    """One gradient step of critic, actor and temperature on a mixed batch, towards the penalised target."""
    batch_key, agent_key, penalty_key = jax.random.split(key, 3)
    batch = model_data.mixed_batch(data.rows, state.buffer, batch_key, config.batch_size, config.real_ratio)
    cost = penalty(config, state, batch, penalty_key)
    target_key, step_key = jax.random.split(agent_key)
    target = penalised_target(config, state, batch, cost, target_key)
    agent, metrics = sac.step(config, state.agent, batch, target, step_key)
    metrics |= {"critic/inconsistency": jnp.mean(cost), "critic/floored": jnp.mean(target <= 0.0, dtype=jnp.float32)}
    return state._replace(agent=agent), metrics


ALGORITHM = Algorithm(
    "mobile",
    Config,
    init=model_agent.init,
    prepare=model_agent.prepare,
    refresh=model_agent.refresh,
    update=update,
    actor=model_agent.actor,
    traced=("penalty_coefficient", *TRACED),
)
