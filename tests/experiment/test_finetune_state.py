"""What fine-tuning does to a state: the learned actor is found behind the kept one; the reference stays or moves."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damorl.algos import ALGORITHMS, damo
from damorl.errors import UserError
from damorl.experiment.acting import Record, begin_acting
from damorl.experiment.config import type_hints
from damorl.experiment.finetune_settings import FinetuneSettings
from damorl.experiment.finetune_state import check_reference, judge_members, judge_one, without_kept
from damorl.parts.dynamics import Dynamics
from damorl.parts.validation import Kept, values
from damorl.types import Array, OfflineData, Params, Units
from tests.parts.test_validation import constant_actor, dataset, drifting_model, falls, played, slow_value

SETTINGS = damo.Config(
    keep="validated",
    log_ratio="split",
    cloning_updates=1,
    kl_target=0.3,
    trust="validated",
    validation_starts=2,
    validation_steps=6,
)


class State(NamedTuple):
    """The fields of a state that are looked at, and one that is not."""

    model: Dynamics
    kept: Kept | None
    reference: Params | None
    kl_target: Array | None
    other: Array


def stacked(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), tree)


def two_members(**changes: Any) -> State:
    start = Kept(constant_actor(-0.5), jnp.float32(1e6), constant_actor(-0.5), jnp.float32(0.25))
    one = State(drifting_model(), start, constant_actor(-0.5), jnp.float32(7.0), jnp.arange(3.0))
    return stacked(one._replace(**changes))


def judged(moves: bool, changed: list[bool], refitted: bool, data: OfflineData | None = None, **state: Any) -> State:
    """After an actor that does 0.3 and has earned 2.5 acts."""
    acting = begin_acting(constant_actor(0.3))._replace(incumbent_record=Record(3, 2.5, 0.0))
    judge = jax.jit(partial(judge_one, SETTINGS, falls), static_argnums=0)
    own = stacked(dataset() if data is None else data)
    return judge_members(judge, moves, two_members(**state), [acting, acting], own, changed, refitted)


def action_of(actor: Params, member: int) -> float:
    return float(np.tanh(actor[0].bias[member, 0]))


def test_the_reference_moves_to_whoever_has_come_to_act_and_the_trust_region_begins_anew() -> None:
    found = judged(moves=True, changed=[False, True], refitted=False)
    assert found.kept is not None
    assert found.kl_target is not None
    assert [action_of(found.reference, i) for i in (0, 1)] == pytest.approx([-0.5, 0.3])
    assert [action_of(found.kept.policy, i) for i in (0, 1)] == pytest.approx([-0.5, 0.3])
    assert found.kl_target.tolist() == pytest.approx([7.0, 0.3])
    error = np.mean(np.abs(np.asarray(values(played(0.3))) - 2.5))
    assert found.kept.error.tolist() == pytest.approx([0.25, error], rel=1e-5)
    assert found.kept.best.tolist() == pytest.approx([1e6, slow_value(0.3)], rel=1e-5)
    np.testing.assert_array_equal(found.other, two_members().other)


def test_a_reference_that_stays_is_what_the_acting_policy_is_judged_by() -> None:
    found = judged(moves=False, changed=[False, True], refitted=False)
    assert found.kept is not None
    assert [action_of(found.reference, i) for i in (0, 1)] == pytest.approx([-0.5, -0.5])
    assert action_of(found.kept.policy, 1) == pytest.approx(0.3)
    assert float(found.kept.best[1]) < slow_value(0.3)  # its bound, not its value
    assert found.kl_target is not None
    assert found.kl_target.tolist() == [7.0, 7.0]


def test_after_a_refit_everybody_is_judged_in_the_model_as_it_is_now() -> None:
    found = judged(moves=True, changed=[False, False], refitted=True)
    assert found.kept is not None
    assert max(found.kept.best.tolist()) < 1e3
    assert action_of(found.reference, 0) == pytest.approx(-0.5)


def test_what_was_earned_is_brought_to_the_run_s_units() -> None:
    units = Units(jnp.zeros(1), jnp.ones(1), jnp.float32(0.1))
    found = judged(moves=True, changed=[True, True], refitted=False, data=dataset()._replace(units=units))
    assert found.kept is not None
    error = np.mean(np.abs(np.asarray(values(played(0.3))) - 0.25))
    assert found.kept.error.tolist() == pytest.approx([error, error], rel=1e-5)


def test_a_state_without_any_of_it_is_left_alone() -> None:
    state = two_members(kept=None, reference=None, kl_target=None)
    judge: Any = pytest.fail
    assert judge_members(judge, True, state, [], stacked(dataset()), [True, True], True) is state
    assert without_kept(state) is state
    assert without_kept(two_members()).kept is None


def test_a_reference_that_cannot_move_is_refused() -> None:
    check_reference("damo", two_members(), has_env=True)
    check_reference("mopo", two_members(reference=None), has_env=True)
    with pytest.raises(UserError, match="give --env, or leave it out"):
        check_reference("damo", two_members(), has_env=False)
    with pytest.raises(UserError, match="found bc with settings that have none"):
        check_reference("bc", two_members(kept=None, reference=None), has_env=True)


def test_no_algorithm_has_a_setting_that_is_called_as_one_of_fine_tuning() -> None:
    own = set(type_hints(FinetuneSettings))
    for name, algorithm in ALGORITHMS.items():
        assert not own & set(type_hints(algorithm.config_type)), name
