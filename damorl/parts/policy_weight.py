"""How the weight of what a soft value charges for the policy is tuned."""

from __future__ import annotations

from typing import Literal

import optax

from damorl.core.optim import Learner, minimise
from damorl.parts import sac
from damorl.parts.reference import kl_weight_loss
from damorl.types import Array, Metrics


def tune_weight(
    log_ratio: Literal["joint", "split"],
    kl_target: Array | float | None,
    weight: Learner,
    cost: Array,
    action_dim: int,
    optimiser: optax.GradientTransformation,
) -> tuple[Learner, Metrics]:
    """One step of the entropy temperature (`joint`), or of the weight of the policy's divergence from the reference
    (`split`), whose logarithms stand in the same place of a state.

    `cost` is log pi or that divergence, `[B]`; `kl_target` is where its mean is to be, in nats per step. None: the
    weight stays as it is.
    """
    if log_ratio == "joint":
        return sac.tune_temperature(weight, cost, action_dim, optimiser)
    if kl_target is None:
        return weight, kl_weight_loss(weight.params, cost, 0.0)[1]
    return minimise(lambda p: kl_weight_loss(p, cost, kl_target), weight, optimiser)
