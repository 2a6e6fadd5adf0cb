"""The settings of fine-tuning, and the run that they make of the one it begins with."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from damorl.errors import UserError
from damorl.experiment.config import LoopConfig, RunConfig, check_numbers, checked_value, replace, type_hints
from damorl.parts.dynamics_refit import HELD_OUT


@dataclass(frozen=True)
class FinetuneSettings:
    """What fine-tuning is set to. Intervals count real steps and are multiples of `interval`; without an environment a
    step is `updates_per_step` updates."""

    steps: int = 50_000
    """Real steps of each seed."""
    updates_per_step: int = 1
    """Gradient updates per real step."""
    interval: int = 500
    """Real steps that are taken before as many updates (times `updates_per_step`) in one compiled call."""
    new_share: float = 0.5
    """Share of new rows in what an update draws from the data: real steps, and rows of the further data set. The rest
    is the data of the offline run (half: RLPD, arXiv 2302.02948)."""
    refit_interval: int | None = 5_000
    """Real steps between two times that the model is fitted on to the data as they are then. None: it stays."""
    refit_batches: int = 1_000
    """Batches of each."""
    refit_rate: float = 3e-4
    """Learning rate at the beginning of each; it follows a cosine to zero."""
    reference: Literal["stays", "moves"] = "stays"
    """`stays`: the policy is measured against the clone of the data that the offline run began with. `moves`: against
    the policy that acts, from its first change on."""
    exploration_noise: float = 0.1
    """Deviation of Gaussian noise on the actions in [-1, 1], in the episodes that have it."""
    acting_episodes: int = 2
    """Episodes of the policy that acts in a round; all but the first with noise."""
    trial_episodes: int = 3
    """Episodes, without noise, that a policy is known by: of one on trial, and of the offline one at the beginning."""
    trial_margin: float = 1.0
    """Standard errors that a policy on trial must be ahead to take the place of the one that acts."""
    eval_interval: int = 2_500
    """Real steps between two evaluations, whose episodes are no real steps: nothing is learned from them."""
    eval_episodes: int = 10

    def __post_init__(self) -> None:
        """Refuse intervals that do not fit into each other, and shares that are none."""
        check_numbers(self)
        if not 0.0 < self.new_share < 1.0:
            raise UserError(f"new_share must lie between 0 and 1, found {self.new_share}: give the share of new rows")
        if self.interval < HELD_OUT:
            raise UserError(
                f"interval must be at least {HELD_OUT}, found {self.interval}: a model needs rows to judge by"
            )
        for name in ("steps", "eval_interval", "refit_interval"):
            value = getattr(self, name)
            if value is not None and value % self.interval:
                raise UserError(
                    f"{name} must be a multiple of interval ({self.interval}), found {value}: change one of the two"
                )


def settings_from(given: Mapping[str, Any]) -> tuple[FinetuneSettings, dict[str, Any]]:
    """The settings among what was `given` by name, and the rest of it. UserError for a wrong type or value."""
    hints = type_hints(FinetuneSettings)
    own = {name: checked_value(name, value, hints[name]) for name, value in given.items() if name in hints}
    return FinetuneSettings(**own), {name: value for name, value in given.items() if name not in hints}


def finetuned_config(parent: RunConfig, settings: FinetuneSettings, changes: Mapping[str, Any]) -> RunConfig:
    """The run config of the offline run, with the clock of `settings` and `changes` of the algorithm's settings.

    The rate of the actor is constant again, unless `changes` say otherwise: in the offline run it may have followed a
    cosine to zero. UserError for an unknown setting.
    """
    per_step, constant = settings.updates_per_step, {}
    if "actor_lr_decay" in type_hints(type(parent.algo_config)):
        constant = {"actor_lr_decay": None}
    return dataclasses.replace(
        parent,
        loop=finetuned_loop(parent.loop, settings, per_step),
        algo_config=replace(parent.algo_config, constant | dict(changes)),
    )


def finetuned_loop(loop: LoopConfig, settings: FinetuneSettings, per_step: int) -> LoopConfig:
    """The loop's clock in updates."""
    return dataclasses.replace(
        loop,
        total_updates=settings.steps * per_step,
        refresh_interval=settings.interval * per_step,
        eval_interval=settings.eval_interval * per_step,
        checkpoint_interval=settings.eval_interval * per_step,
        eval_episodes=settings.eval_episodes,
    )
