"""What a soft value charges for the policy, and how the weight of that charge is tuned."""

from __future__ import annotations

from typing import Protocol

import optax

from damorl.core.optim import Learner, minimise
from damorl.parts import sac
from damorl.parts.reference import kl_weight_loss
from damorl.types import Array, Metrics


class Charge(Protocol):
    """The settings that say what is charged."""

    @property
    def log_ratio(self) -> str:
        """`joint`: log pi(a|s), as in SAC; `split`: KL(pi || pi_ref)."""
        ...

    @property
    def kl_target(self) -> float | None:
        """The mean of that KL in nats per step; None: its weight stays."""
        ...


def tune_weight(
    settings: Charge, weight: Learner, cost: Array, action_dim: int, optimiser: optax.GradientTransformation
) -> tuple[Learner, Metrics]:
    """One step of the entropy temperature, or of the weight of the policy's divergence from the reference, whose
    logarithms stand in the same place of a state. `cost` is log pi or that divergence, `[B]`."""
    if settings.log_ratio == "joint":
        return sac.tune_temperature(weight, cost, action_dim, optimiser)
    if settings.kl_target is None:
        return weight, kl_weight_loss(weight.params, cost, 0.0)[1]
    target = settings.kl_target
    return minimise(lambda p: kl_weight_loss(p, cost, target), weight, optimiser)
