"""What fine-tuning does to an algorithm's state between two epochs, as compiled functions over all members.

A state is asked for four fields, and what it lacks is left out: `model` (fitted on), `kept` (what validation compares
with), `reference` and `kl_target` (the clone that a policy is measured against, and how far it may go).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from damorl.algos.base import OfflineData
from damorl.core import buffer as ring
from damorl.errors import UserError
from damorl.experiment.acting import Acting
from damorl.experiment.finetune_settings import FinetuneSettings
from damorl.experiment.units import Work, convert_rows, own_actor
from damorl.parts.dynamics_refit import RefitSettings, refit
from damorl.parts.new_data import join
from damorl.parts.trust import init_target
from damorl.parts.validation import judge_again, refer_to
from damorl.types import Array, Key, Metrics, Params, TerminationFn, Units


class Tools(NamedTuple):
    """The functions, for a run in its units."""

    has_model: bool
    latest: Callable[[Any], Any]
    """The actors as they are learned by now, whatever the model thinks of them: on the host, members stacked."""
    join: Callable[[OfflineData, ring.RingBuffer, Key], OfflineData]
    """`(old data, new rows, keys) -> ` each member's data of an epoch."""
    refit: Callable[[Any, ring.RingBuffer, OfflineData, Key], tuple[Any, Metrics]]
    judge_again: Callable[[Any, Sequence[Acting], OfflineData, Sequence[bool], bool], Any]
    """`(learner, acting, data, whose incumbent changed, whether the model did) -> learner`."""


def make_tools(work: Work, settings: FinetuneSettings) -> Tools:
    """The functions for `work`."""
    config, units, share = work.config, work.data.units, settings.new_share
    has_model = hasattr(config.algo_config, "dynamics") and not getattr(config.algo_config, "model_moves", False)
    own = lambda new: new._replace(rows=convert_rows(new.rows, units))
    joined = jax.jit(lambda old, new, keys: jax.vmap(lambda one, key: join(old, own(one), key, share))(new, keys))

    @partial(jax.jit, donate_argnums=0)
    def refitted(learner: Any, new: ring.RingBuffer, old: OfflineData, keys: Key) -> tuple[Any, Metrics]:
        how = RefitSettings(settings.refit_batches, settings.refit_rate, share)
        fit = lambda key, model, one: refit(key, config.algo_config.dynamics, how, model, old.rows, own(one))
        model, metrics = jax.vmap(fit)(keys, learner.model, new)
        return learner._replace(model=model), metrics

    judge = jax.jit(partial(judge_one, config.algo_config, work.problem.termination), static_argnums=0)
    return Tools(
        has_model,
        lambda learner: jax.device_get(config.algorithm.actor(without_kept(learner))),
        joined,
        refitted,
        partial(judge_members, judge, settings.reference == "moves"),
    )


def without_kept(learner: Any) -> Any:
    """A state whose actor is the one that is learned, not one that the model vouches for."""
    return learner if getattr(learner, "kept", None) is None else learner._replace(kept=None)


def to_layers(actor: Params, units: Units | None) -> Any:
    """One member's actor on the host, for observations in the data's own units."""
    return jax.device_get(own_actor(jax.tree.map(jnp.asarray, actor), units))


def check_reference(algo: str, template: Any, has_env: bool) -> None:
    """UserError for a reference that cannot move: there is none, or no policy acts."""
    if not has_env:
        raise UserError("reference 'moves' goes to the policy that acts: give --env, or leave it out")
    if getattr(template, "kept", None) is None and getattr(template, "reference", None) is None:
        raise UserError(
            f"reference 'moves': expected an algorithm that measures its policy against a reference, found {algo} with "
            "settings that have none; leave it out, or train the parent with keep validated"
        )


def judge_members(
    judge: Callable[..., Any],
    moves: bool,
    learner: Any,
    acting: Sequence[Acting],
    data: OfflineData,
    changed: Sequence[bool],
    refitted: bool,
) -> Any:
    """The state in which the policy to beat is the one that acts (or that the algorithm keeps), valued in the model as
    it is now; with `moves`, one that has just become the acting one is the reference too."""
    if getattr(learner, "kept", None) is None and getattr(learner, "reference", None) is None:
        return learner
    for index, new in enumerate(changed):
        if not (refitted or new):
            continue
        one, own_data = (jax.tree.map(lambda leaf, i=index: leaf[i], tree) for tree in (learner, data))
        own = acting[index] if acting else None
        policy = getattr(one.kept, "policy", None) if own is None else jax.tree.map(jnp.asarray, own.incumbent)
        earned = jnp.float32(0.0 if own is None else own.incumbent_record.mean)
        found = judge(moves and new, one, policy, earned, own_data)
        learner = jax.tree.map(lambda all_, one_, i=index: all_.at[i].set(one_), learner, found)
    return learner


def judge_one(
    settings: Any, termination: TerminationFn, moved: bool, one: Any, policy: Params, earned: Array, data: OfflineData
) -> Any:
    """One member's state, see `judge_members`; `policy` `earned` so much on average in the real environment."""
    changes: dict[str, Any] = {}
    if moved and getattr(one, "reference", None) is not None:
        changes["reference"] = policy
    if moved and getattr(one, "kl_target", None) is not None:
        changes["kl_target"] = init_target(settings)
    if (kept := getattr(one, "kept", None)) is not None:
        world = one.model, termination, policy
        if moved:
            factor = 1.0 if data.units is None else data.units.reward_factor
            changes["kept"] = refer_to(settings, *world, factor * earned, data)
        else:
            changes["kept"] = judge_again(settings, kept, *world, data, settings.gamma)
    return one._replace(**changes)
