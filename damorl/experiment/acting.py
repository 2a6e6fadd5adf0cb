"""Who acts in the real environment while a policy is fine-tuned, and what its episodes decide.

The *incumbent* acts and is saved; at first it is the offline policy. A round is some episodes of the incumbent, then
some of a *challenger*, the actor as it has been learned by then. The challenger becomes the incumbent if its mean
return is the higher one by a margin of standard errors. An incumbent whose mean falls below the offline policy's gives
way to that one again. Returns are compared without exploration noise: what is judged is what is saved.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import numpy as np

from damorl.experiment.finetune_settings import FinetuneSettings
from damorl.types import Params


class Record(NamedTuple):
    """The returns of episodes without exploration noise: their number, mean and summed squared deviations."""

    count: Any = 0
    mean: Any = 0.0
    squares: Any = 0.0

    @property
    def error(self) -> float:
        """Standard error of the mean; 0 with fewer than two episodes."""
        return math.sqrt(self.squares / (self.count - 1) / self.count) if self.count > 1 else 0.0


class Acting(NamedTuple):
    """Everything that decides who acts next. Policies are those of the algorithm's state, as NumPy arrays."""

    offline: Params
    incumbent: Params
    challenger: Params
    offline_record: Record = Record()
    incumbent_record: Record = Record()
    challenger_record: Record = Record()
    is_offline: Any = 1
    """Whether the incumbent is the offline policy, 0 or 1."""
    turn: Any = 0
    """Episodes of this round that the incumbent has played."""
    episode: Any = 0
    """Episodes begun so far."""
    step: Any = 0
    """Steps of the episode that is going on; 0 between episodes."""
    changes: Any = 0
    """How often the incumbent has changed."""


def begin_acting(actor: Params) -> Acting:
    """The offline policy `actor` is the incumbent, and nobody has played."""
    copy = lambda: jax.tree.map(np.array, actor)
    return Acting(copy(), copy(), copy())


def add_return(record: Record, earned: float) -> Record:
    """The record with one more return (Welford's update)."""
    count, gap = int(record.count) + 1, earned - float(record.mean)
    mean = float(record.mean) + gap / count
    return Record(count, mean, float(record.squares) + gap * (earned - mean))


def beats(challenger: Record, incumbent: Record, margin: float) -> bool:
    """Whether the challenger's mean is ahead by more than `margin` standard errors of the difference."""
    ahead = float(challenger.mean) - float(incumbent.mean)
    return ahead > margin * math.hypot(challenger.error, incumbent.error)


def on_trial(settings: FinetuneSettings, acting: Acting) -> bool:
    """Whether the next episode, or the one that is going on, is the challenger's."""
    known = acting.incumbent_record.count >= settings.trial_episodes
    return bool(known and acting.turn >= settings.acting_episodes)


def explores(settings: FinetuneSettings, acting: Acting) -> bool:
    """Whether it has exploration noise: those of a known incumbent after the first of a round."""
    known = acting.incumbent_record.count >= settings.trial_episodes
    return bool(known and 0 < acting.turn < settings.acting_episodes)


def after_episode(settings: FinetuneSettings, acting: Acting, earned: float, latest: Params) -> Acting:
    """Who acts once an episode has `earned` its undiscounted return. A new challenger is `latest`, the actor as it is
    learned by now."""
    acting = acting._replace(step=0)
    if on_trial(settings, acting):
        return after_trial(settings, acting, earned)
    if not explores(settings, acting):
        acting = reconsidered(settings, acting, add_return(acting.incumbent_record, earned))
    acting = acting._replace(turn=int(acting.turn) + 1)
    if on_trial(settings, acting):
        acting = acting._replace(challenger=jax.tree.map(np.array, latest), challenger_record=Record())
    return acting


def after_trial(settings: FinetuneSettings, acting: Acting, earned: float) -> Acting:
    """After an episode of the challenger: with the last one it becomes the incumbent, or not."""
    record = add_return(acting.challenger_record, earned)
    if record.count < settings.trial_episodes:
        return acting._replace(challenger_record=record)
    acting = acting._replace(turn=0, challenger_record=Record())
    if not beats(record, acting.incumbent_record, settings.trial_margin):
        return acting
    changes = int(acting.changes) + 1
    return acting._replace(incumbent=acting.challenger, incumbent_record=record, is_offline=0, changes=changes)


def reconsidered(settings: FinetuneSettings, acting: Acting, record: Record) -> Acting:
    """With a new `record` of the incumbent: the offline policy takes its place where the mean has fallen below its."""
    if acting.is_offline:
        return acting._replace(incumbent_record=record, offline_record=record)
    if record.mean >= acting.offline_record.mean:
        return acting._replace(incumbent_record=record)
    return acting._replace(
        incumbent=acting.offline,
        incumbent_record=acting.offline_record,
        is_offline=1,
        changes=int(acting.changes) + 1,
    )
