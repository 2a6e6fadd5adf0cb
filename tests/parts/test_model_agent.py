"""The steps that agents on model data share: shapes hold, only elites play, and a state's other fields stay."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damorl.core.buffer import RingBuffer
from damorl.parts import dynamics, model_agent
from damorl.parts.model_data import ModelSettings
from damorl.parts.sac import SACSettings, SACState
from damorl.parts.validation import Kept
from damorl.types import OfflineData, Problem, Spec, Transition
from tests.exact import exact_jit

KEY = jax.random.key(0)
PROBLEM = Problem(Spec(3, 2), lambda obs, action, next_obs: next_obs[:, 0] > 2.0)


@dataclass(frozen=True)
class Config(ModelSettings, SACSettings):
    """As every algorithm of the family has one."""


CONFIG = Config(
    hidden=(8,),
    batch_size=16,
    real_ratio=0.25,
    rollout_starts=10,
    rollout_length=2,
    dynamics=dynamics.DynamicsConfig(num_members=3, num_elites=2, hidden=(8,), max_batches=2, epoch_batches=2),
)


class Longer(NamedTuple):
    """A state with more to it, the four fields in another order."""

    buffer: RingBuffer
    more: jax.Array
    model: dynamics.Dynamics
    kept: Kept | None
    agent: SACState


@pytest.fixture(scope="module")
def data() -> OfflineData:
    rng = np.random.default_rng(0)
    sizes = ((50, 3), (50, 2), 50, (50, 3))
    columns = (*(rng.normal(size=size) for size in sizes), np.zeros(50))
    rows = Transition(*(jnp.asarray(column, jnp.float32) for column in columns))
    return OfflineData(rows, rows.obs[:5])


@pytest.fixture(scope="module")
def state(data: OfflineData) -> model_agent.State:
    """With all members."""
    return model_agent.init(KEY, CONFIG, PROBLEM, data, all_members=True)


@partial(exact_jit, static_argnums=0)
def epoch(config: Config, state: Any, data: OfflineData) -> Any:
    state, _ = model_agent.refresh(config, PROBLEM, state, data, jax.random.key(1))
    return model_agent.update(config, PROBLEM, state, data, jax.random.key(2))[0]


def assert_same(found: Any, expected: Any) -> None:
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("all_members", "count"), [(False, 2), (True, 3)])
def test_a_prepared_state_has_the_shape_of_a_fresh_one(data: OfflineData, all_members: bool, count: int) -> None:
    """Or it could not be restored from a checkpoint."""
    fresh = model_agent.init(KEY, CONFIG, PROBLEM, data, all_members=all_members)
    fitted = model_agent.prepare(KEY, CONFIG, PROBLEM, fresh, data, lambda *_: None, all_members=all_members)
    shape = lambda state: jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state)
    assert shape(fitted) == shape(fresh)
    assert fitted.model.params.layers[0].kernel.shape[0] == count
    assert_same(fitted._replace(model=fresh.model), fresh)


def test_only_the_elites_play(state: model_agent.State, data: OfflineData) -> None:
    elites = state._replace(model=dynamics.first_members(state.model, 2))
    found, expected = epoch(CONFIG, state, data), epoch(CONFIG, elites, data)
    assert_same((found.agent, found.buffer), (expected.agent, expected.buffer))
    assert int(found.buffer.size) > 0
    assert_same(found.model, state.model)


def test_a_longer_state_takes_the_same_steps_and_keeps_what_is_its_own(
    state: model_agent.State, data: OfflineData
) -> None:
    longer = Longer(state.buffer, jnp.arange(3.0), state.model, state.kept, state.agent)
    found, expected = epoch(CONFIG, longer, data), epoch(CONFIG, state, data)
    assert type(found) is Longer
    assert_same((found.agent, found.model, found.buffer), expected)
    assert_same(found.more, longer.more)
    assert model_agent.actor(found) is found.agent.average_actor
