"""A trust region around the reference, in nats per step, that widens only as far as the model vouches for the policy.

    kl_target   grows by `kl_growth` where L is within `kl_tolerance` of the best so far, else shrinks by `kl_shrinkage`

L is the lower bound of the policy's return, found before every block of updates (`parts/validation.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp

from damorl.errors import UserError
from damorl.parts.validation import Kept, ValidationSettings
from damorl.types import Array


@dataclass(frozen=True)
class TrustSettings(ValidationSettings):
    """Settings of the trust region; a Config inherits them."""

    kl_target: float | None = None
    """Mean divergence from the reference, in nats per step, that the weight of the policy's part is learned for: a
    trust region that does not depend on the scale of rewards. None: that weight stays as it is."""
    trust: Literal["fixed", "validated", "growing"] = "fixed"
    """`fixed`: `kl_target` stays. `validated`: it begins there and moves with the policy's lower bound. `growing`: it
    begins there and grows before every block, whatever the bound is; what is kept decides."""
    kl_growth: float = 1.15
    """Factor of the target after a block of updates that did well."""
    kl_shrinkage: float = 0.8
    """Factor of the target after one that did not."""
    kl_tolerance: float = 0.05
    """Share of the best bound that a policy may lie below it and still do well."""
    kl_bounds: tuple[float, float] = (0.05, 10.0)
    """The target stays between these, in nats per step."""

    def check_trust(self) -> None:
        """Refuse a trust region without a target, and one that cannot move."""
        if self.trust != "fixed" and self.kl_target is None:
            raise UserError(f"trust '{self.trust}' moves kl_target, found none: give a value to begin with (0.3, say)")
        if self.trust != "fixed" and self.keep == "last":
            raise UserError(f"trust '{self.trust}' asks for the policy's return in the model: set keep to validated")
        if not (self.kl_growth >= 1.0 >= self.kl_shrinkage > 0.0 and 0.0 < self.kl_bounds[0] <= self.kl_bounds[1]):
            raise UserError(
                "expected kl_growth >= 1 >= kl_shrinkage > 0 and kl_bounds in order above 0, found "
                f"{self.kl_growth}, {self.kl_shrinkage} and {self.kl_bounds}"
            )


def init_target(settings: TrustSettings) -> Array | None:
    """The target to begin with (scalar); None where it does not move."""
    return None if settings.trust == "fixed" or settings.kl_target is None else jnp.float32(settings.kl_target)


def move_target(settings: TrustSettings, kl_target: Array, kept: Kept, bound: Array) -> Array:
    """The target after a block of updates that led to a policy with this bound; `kept` is from before it was judged."""
    well = bound >= kept.best - settings.kl_tolerance * jnp.abs(kept.best)
    well |= settings.trust == "growing"
    moved = kl_target * jnp.where(well, settings.kl_growth, settings.kl_shrinkage)
    return jnp.clip(moved, *settings.kl_bounds)
