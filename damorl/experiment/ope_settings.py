"""Settings of off-policy estimates."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from damorl.errors import UserError
from damorl.experiment.densities import Densities
from damorl.experiment.select import SelectConfig


@dataclass(frozen=True)
class OPEConfig:
    """Settings of the estimates."""

    select: SelectConfig = field(default_factory=SelectConfig)
    """Of fitted Q evaluation and the model, with the discount, the horizon and the seed of all."""
    densities: Densities = "auto"
    """Where the behaviour's densities come from: recorded, cloned or, for auto, the first that there is."""
    std: float | None = None
    """Standard deviation, before the tanh, that is given to every policy instead of its own."""
    resamples: int = 200
    """Bootstrap resamples of the episodes."""
    v_actions: int = 8
    """Sampled actions that V is the mean of."""
    features: int = 128
    """Features of the occupancy ratio."""
    strength: float = 1e-5
    """How strongly the ratio is drawn to 1."""
    groups: int = 50
    """Groups of episodes that the ratio's interval is resampled by."""

    def __post_init__(self) -> None:
        """Refuse sizes below what makes sense."""
        least = {"resamples": 2, "v_actions": 1, "features": 2, "groups": 2}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise UserError(f"{name} must be at least {low}, found {getattr(self, name)}: give a larger number")
        if self.std is not None and not (math.exp(-5.0) <= self.std <= math.exp(2.0)):
            raise UserError(
                f"std must lie within e^-5 and e^2, the bounds of the actor, found {self.std}: give 0.1 say"
            )
        if not self.strength >= 0.0:
            raise UserError(f"strength must not be negative, found {self.strength}: give for example 1e-5")
