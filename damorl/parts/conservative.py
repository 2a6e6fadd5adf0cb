"""The conservative term that CQL (arXiv 2006.04779, Eq. 4) and COMBO (arXiv 2102.08363) add to SAC's critic loss.

    C(Q) = sum_j  T E_s[log int exp(Q_j(s, a) / T) da] - E_data[Q_j(s, a)]

It pushes Q down where it is high off the data and up on the data. The integral is estimated from `num_repeats` draws
of three proposals: a ~ pi(.|s), a ~ pi(.|s') but evaluated at s, and a uniform on [-1, 1]^action_dim. With x = Q(s, a)
/ T - log density(a):

    joint:       T E_s[log sum over repeats and proposals of exp(x)]                       (the paper, up to a constant)
    per_repeat:  T E_s[mean over repeats of log sum over proposals of exp(x)]         (OfflineRL-Kit, in effect)

That kit computes a reshape and discards the result, so its log-sum-exp runs over one draw of each proposal. Its tuned
weights belong to this reading, hence the default; `joint` is higher by about T log(num_repeats), and its gradient goes
to fewer actions.

Deviations of both algorithms from the released codes: T does not divide the log densities (the estimate of the
integral needs it so; at T = 1, the only value tuned, nothing changes); the critic moves first and the actor sees the
new critic (that kit's CQL and COMBO move the actor first). From the papers: the squared error has no factor 1/2, as in
the released codes, so a weight here is twice the paper's; no Lagrange multiplier. Bug not copied: a stop-gradient
around the log-sum-exp (unifloral's COMBO), which leaves the push up and no pessimism.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from damorl.core.distribution import TanhGaussian
from damorl.errors import UserError
from damorl.parts import sac
from damorl.parts.actor import policy
from damorl.parts.critic import q_values
from damorl.parts.sac import SACSettings, SACState
from damorl.types import REWARD_UNIT, Array, Key, Metrics, Params, Transition

LogSumExp = Literal["per_repeat", "joint"]
PROPOSAL_STREAM = 2  # 0 and 1 are the target's and the actor's halves of the same key
NUM_PROPOSALS = 3


@dataclass(frozen=True)
class ConservativeSettings(SACSettings):
    """Settings of a SAC agent with a conservative critic. Defaults: OfflineRL-Kit's, the same for CQL and COMBO."""

    hidden: tuple[int, ...] = (256, 256, 256)
    """Hidden widths of actor and critics (OfflineRL-Kit)."""
    entropy_backup: bool = False
    """Whether the target has the entropy term. Off in OfflineRL-Kit."""
    max_temperature: float | None = field(default=None, metadata=REWARD_UNIT)
    """The learned temperature never exceeds this. None: no bound (OfflineRL-Kit)."""
    conservative_weight: float = field(default=5.0, metadata=REWARD_UNIT)
    """Weight of the conservative term: CQL's alpha, COMBO's beta (OfflineRL-Kit). 0 is plain SAC."""
    conservative_temperature: float = field(default=1.0, metadata=REWARD_UNIT)
    """Temperature T of the log-sum-exp (OfflineRL-Kit)."""
    num_repeats: int = 10
    """Draws of each proposal per state (OfflineRL-Kit)."""
    log_sum_exp: LogSumExp = "per_repeat"
    """What the log-sum-exp runs over, see `parts/conservative.py`: one draw of each proposal, averaged over repeats
    (OfflineRL-Kit in effect, and the reading its weights were tuned with), or all draws (the paper)."""

    def __post_init__(self) -> None:
        """Refuse a temperature that is divided by."""
        if self.conservative_temperature <= 0.0:
            raise UserError(
                f"conservative_temperature must be above 0, found {self.conservative_temperature}: to drop the term, "
                "set conservative_weight to 0"
            )


class Proposals(NamedTuple):
    """Actions that Q is asked about at every state."""

    action: Array
    """`[proposal, repeat, B, action_dim]`."""
    log_density: Array
    """`[proposal, repeat, B]`: under the law that the action was drawn from."""


def propose(actor: Params, obs: Array, next_obs: Array, num_repeats: int, key: Key) -> Proposals:
    """`num_repeats` draws from pi(.|s), pi(.|s') and the uniform law for each row of `[B, obs_dim]`."""
    policy_key, uniform_key = jax.random.split(key)
    num_rows = obs.shape[0]
    law = policy(actor, jnp.concatenate([obs, next_obs]))  # once; only the noise differs between repeats
    repeated = TanhGaussian(*(jnp.broadcast_to(leaf, (num_repeats, *leaf.shape)) for leaf in law))
    action, log_density = repeated.sample(policy_key)
    uniform = jax.random.uniform(uniform_key, action[:, :num_rows].shape, minval=-1.0, maxval=1.0)
    of_uniform = jnp.full(uniform.shape[:-1], -math.log(2.0) * uniform.shape[-1])
    return Proposals(
        jnp.stack([action[:, :num_rows], action[:, num_rows:], uniform]),
        jnp.stack([log_density[:, :num_rows], log_density[:, num_rows:], of_uniform]),
    )


def soft_maximum(q: Array, log_density: Array, temperature: float, reading: LogSumExp) -> Array:
    """`T log int exp(Q / T)` by either reading: `[critic, proposal, repeat, B], [proposal, repeat, B] -> [critic]`."""
    exponent = q / temperature - log_density
    axes = 1 if reading == "per_repeat" else (1, 2)
    value = jax.nn.logsumexp(exponent, axis=axes)
    return temperature * jnp.mean(value, axis=tuple(range(1, value.ndim)))


def conservative_loss(
    critic: Params, settings: ConservativeSettings, obs: Array, proposals: Proposals, real: Transition
) -> tuple[Array, Metrics]:
    """`C(Q)` of the module's first line, unweighted, from one evaluation of the critics; `obs` is `[B, obs_dim]`."""
    num_asked = math.prod(proposals.log_density.shape)
    tiled = jnp.broadcast_to(obs, (*proposals.log_density.shape, obs.shape[-1]))
    action = proposals.action.reshape(num_asked, -1)
    q = q_values(
        critic,
        jnp.concatenate([tiled.reshape(num_asked, -1), real.obs]),
        jnp.concatenate([action, real.action]),
    )
    asked = q[:, :num_asked].reshape(-1, *proposals.log_density.shape)
    high = soft_maximum(asked, proposals.log_density, settings.conservative_temperature, settings.log_sum_exp)
    gap = high - jnp.mean(q[:, num_asked:], axis=1)
    return jnp.sum(gap), {"critic/conservative": jnp.mean(gap)}


def update(
    settings: ConservativeSettings, agent: SACState, batch: Transition, lowered: Transition, real: Transition, key: Key
) -> tuple[SACState, Metrics]:
    """`sac.update` on `batch` with the conservative term: down at the states of `lowered`, up on `real`.

    With weight 0 it is `sac.update`, bit for bit: the proposals' key is not one of SAC's.
    """
    if not settings.conservative_weight:
        return sac.update(settings, agent, batch, key)
    target_key, step_key = jax.random.split(key)
    proposal_key = jax.random.fold_in(key, PROPOSAL_STREAM)
    proposals = propose(agent.actor.params, lowered.obs, lowered.next_obs, settings.num_repeats, proposal_key)

    def weighted(critic: Params) -> tuple[Array, Metrics]:
        loss, metrics = conservative_loss(critic, settings, lowered.obs, proposals, real)
        return settings.conservative_weight * loss, metrics

    target = sac.td_target(settings, agent, batch, target_key)
    return sac.step(settings, agent, batch, target, step_key, weighted)
