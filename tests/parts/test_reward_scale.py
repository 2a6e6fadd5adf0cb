"""Rewards scaled by the range of the data's returns, by hand."""

from __future__ import annotations

import jax.numpy as jnp
import pytest

from damorl.errors import UserError
from damorl.parts.reward_scale import reward_scale
from damorl.types import OfflineData, Transition

ROWS = Transition(*(jnp.zeros((2, 1)), jnp.zeros((2, 1)), jnp.zeros(2), jnp.zeros((2, 1)), jnp.zeros(2)))
DATA = OfflineData(ROWS, initial_obs=ROWS.obs)


def test_rewards_are_scaled_by_the_range_of_returns() -> None:
    spread = DATA._replace(episode_returns=jnp.array([100.0, 350.0, 300.0]))
    assert float(reward_scale(None, spread)) == pytest.approx(4.0)
    assert float(reward_scale(2.5, spread)) == 2.5


def test_equal_returns_leave_rewards_as_they_are() -> None:
    assert float(reward_scale(None, DATA._replace(episode_returns=jnp.array([7.0, 7.0])))) == 1.0


def test_without_a_complete_episode_a_number_is_asked_for() -> None:
    assert float(reward_scale(2.5, DATA)) == 2.5
    with pytest.raises(UserError, match="reward_scale"):
        reward_scale(None, DATA)
