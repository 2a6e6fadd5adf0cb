"""The refined reward of DAMO (arXiv 2502.00850, Eq. 4 in Eq. 2), and the Bellman target that it stands in.

    refined reward   r - w log(rho_M^pi / rho_T^{pi_beta}),  the log-ratio being the classifier's logit
    target           refined reward + gamma Q(s', a'),  with what `terminal_handling` says behind a terminal

w is the divergence weight (the paper's alpha).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp

from damorl.core.nets import MLP
from damorl.core.scaler import Standardiser
from damorl.errors import UserError
from damorl.parts import classifier
from damorl.types import Array, Transition

LEAST_MASS = 1e-3  # of the absorbing state, relative to the living ones: its log-ratio stays finite


@dataclass(frozen=True)
class RefinedRewardSettings:
    """Settings of classifier, refined reward and target; a Config inherits them. The defaults are the paper's."""

    gamma: float = 0.99
    """Discount (paper Table 3)."""
    divergence_weight: float = 3.0
    """Weight of both alignment terms, the paper's alpha (Table 4)."""
    data_alignment: bool = True
    """The explicit term log(rho_M^pi / rho_T^{pi_beta}); off is the paper's "w/o er"."""
    terminal_handling: Literal["floor", "absorbing", "none"] = "floor"
    """`floor`: the Bellman target is at least 0; `absorbing`: a terminal leads to an absorbing state with its own
    log-ratio; `none`: value 0 after a terminal, as printed, with which policies learn to fall."""

    classifier_sees: classifier.Sees = "transition"
    """Inputs of the classifier: (s, a, s'), (s, a) or s. Where the policy's part is split off and the classifier sees
    actions, that part is the known offset of its logit."""
    classifier_hidden: tuple[int, ...] = (256, 256)
    classifier_lr: float = 3e-4
    classifier_regulariser: classifier.Regulariser = "none"
    """What keeps the classifier's logit bounded besides the clip (the paper says nothing)."""
    classifier_strength: float = 10.0
    """Weight of the gradient penalty or the weight decay, or the share of label smoothing."""
    logit_clip: float = 10.0
    """The log-ratio is clipped to +- this."""
    log_ratio_floor: float | None = None
    """The log-ratio is at least this. 0 leaves the penalty alone: rows that look like data earn no bonus, which would
    bootstrap. None: no floor, as printed."""

    def __post_init__(self) -> None:
        """Refuse smoothing that would swap or level the labels."""
        if self.classifier_regulariser == "label_smoothing" and not 0.0 <= self.classifier_strength < 0.5:
            raise UserError(
                "with classifier_regulariser 'label_smoothing', classifier_strength is the share taken off each label "
                f"and must lie in [0, 0.5), found {self.classifier_strength}"
            )


def refined_reward(
    settings: RefinedRewardSettings, params: MLP, inputs: Standardiser, terminal_rate: Array, batch: Transition
) -> tuple[Array, Array]:
    """The refined reward `[B]`, and the value of the absorbing state behind a terminal (scalar).

    `params` and `inputs` are the classifier's; `terminal_rate` `[2]` is the share of terminal rows in the offline data
    and in the model buffer.
    """
    if not settings.data_alignment:
        return batch.reward, jnp.zeros(())
    weight, floor = settings.divergence_weight, settings.log_ratio_floor
    floor = -jnp.inf if floor is None else floor
    ratio = classifier.log_ratio(params, inputs, batch, settings.logit_clip)
    if settings.terminal_handling != "absorbing":
        return batch.reward - weight * jnp.maximum(ratio, floor), jnp.zeros(())
    alive, absorbed = occupancy_log_ratios(terminal_rate, settings.gamma)
    absorbed = jnp.maximum(jnp.clip(absorbed, -settings.logit_clip, settings.logit_clip), floor)
    return batch.reward - weight * jnp.maximum(ratio + alive, floor), -weight * absorbed / (1.0 - settings.gamma)


def occupancy_log_ratios(terminal_rate: Array, gamma: float) -> tuple[Array, Array]:
    """Log-ratio, model to data, of the mass of all living states and of that of the absorbing state (scalars).

    Where occupancy continues after a terminal, a row that terminates sends gamma / (1 - gamma) of its own mass to the
    absorbing state, so that state's log-ratio follows from the two terminal rates, and living rows share what is left.
    """
    mass_real, mass_synthetic = terminal_rate * (gamma / (1.0 - gamma)) + LEAST_MASS
    alive = jnp.log1p(mass_real) - jnp.log1p(mass_synthetic)
    return alive, jnp.log(mass_synthetic) - jnp.log(mass_real) + alive


def bellman_target(settings: RefinedRewardSettings, batch: Transition, next_value: Array, absorbing: Array) -> Array:
    """`r + gamma Q(s', a')`, with the absorbing value behind a terminal, and floored at 0 if so configured.

    `next_value` broadcasts to the batch's `[B]`; `absorbing` is a scalar.
    """
    target = batch.reward + settings.gamma * jnp.where(batch.terminal > 0.5, absorbing, next_value)
    return jnp.maximum(target, 0.0) if settings.terminal_handling == "floor" else target
