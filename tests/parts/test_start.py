"""The start: which episodes are the reference's, what returns are known, and that networks begin there."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damorl.errors import UserError
from damorl.parts import start
from damorl.parts.actor import init_actor, policy
from damorl.parts.critic import init_critic, q_values
from damorl.parts.start import StartSettings
from damorl.types import OfflineData, Transition

EPISODE = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 3], np.int32)
RETURNS = np.array([1.0, 5.0, 3.0])  # of the complete ones: the last row's episode goes on


def rows(reward: Any, terminal: Any, obs_dim: int = 2) -> Transition:
    count = len(reward)
    obs = jax.random.normal(jax.random.key(0), (count, obs_dim))
    action = jnp.linspace(-0.5, 0.5, count)[:, None]
    return Transition(obs, action, jnp.asarray(reward, jnp.float32), obs, jnp.asarray(terminal, jnp.float32))


@pytest.fixture
def data() -> OfflineData:
    ranking = start.rank_episodes(EPISODE, RETURNS)
    return OfflineData(
        rows(np.ones(10), np.zeros(10)), jnp.zeros((4, 2)), jnp.asarray(EPISODE), jnp.asarray(RETURNS), ranking
    )


def test_episodes_are_ranked_by_return_and_incomplete_ones_come_last() -> None:
    ranking = start.rank_episodes(EPISODE, RETURNS)
    assert ranking is not None
    np.testing.assert_array_equal(ranking.best_first, [3, 4, 5, 6, 7, 8, 0, 1, 2, 9])
    np.testing.assert_allclose(ranking.before, [0.0, 0.0, 0.2, 0.2, 0.2, 0.2, 0.6, 0.6, 0.6, 0.9], rtol=1e-6)


@pytest.mark.parametrize(("share", "count"), [(0.01, 2), (0.2, 2), (0.21, 6), (0.6, 6), (0.7, 9), (0.95, 10)])
def test_the_reference_is_whole_episodes_until_the_share_is_full(data: OfflineData, share: float, count: int) -> None:
    assert data.ranking is not None
    assert int(start.count_reference(data.ranking, share)) == count
    found = start.reference_rows(data, share)
    np.testing.assert_array_equal(found.action, data.rows.action[data.ranking.best_first[:count]])
    drawn = start.sample_reference(data, jax.random.key(0), 400, share)
    assert set(np.unique(drawn.action)) == set(np.unique(found.action))


def test_a_share_of_one_is_the_whole_data_even_if_nothing_is_known_of_episodes(data: OfflineData) -> None:
    unknown = data._replace(ranking=None)
    assert start.reference_rows(unknown, 1.0) is data.rows
    assert start.sample_reference(unknown, jax.random.key(0), 5, 1.0).reward.shape == (5,)


def test_without_complete_episodes_all_of_the_data_is_the_reference(data: OfflineData) -> None:
    assert start.rank_episodes(EPISODE, np.array([])) is None
    unknown = data._replace(ranking=None)
    assert start.reference_rows(unknown, 0.5) is data.rows
    drawn = start.sample_reference(unknown, jax.random.key(0), 500, 0.5)
    assert len(np.unique(np.asarray(drawn.reward))) == len(np.unique(np.asarray(data.rows.reward)))


@pytest.mark.parametrize("share", [0.0, 1.5])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(UserError, match="reference_share must be above 0 and at most 1"):
        StartSettings(reference_share=share)


def test_returns_by_hand_where_they_are_known(data: OfflineData) -> None:
    # gamma 0.5: after seven steps less than 1 % of the weight is left. Episode 0 ends by itself, 1 was cut after two
    # steps, 2 goes on for long enough.
    episode = np.repeat([0, 1, 2], [3, 2, 8])
    terminal = (np.arange(13) == 2).astype(np.float32)
    reward = np.arange(13, dtype=np.float32)
    given = data._replace(rows=rows(reward, terminal), episode=jnp.asarray(episode))
    known = start.known_returns(given, 0.5)
    assert known is not None
    found, returns = known
    np.testing.assert_array_equal(found.reward, [0, 1, 2, 5, 6])
    by_hand = sum(0.5**i * (5 + i) for i in range(8))
    np.testing.assert_allclose(
        returns, [0 + 0.5 * (1 + 0.5 * 2), 1 + 0.5 * 2, 2, by_hand, 2 * (by_hand - 5)], rtol=1e-6
    )


def test_where_all_episodes_were_cut_early_no_return_is_known(data: OfflineData) -> None:
    assert start.known_returns(data, 0.99) is None
    assert start.known_returns(data._replace(episode=None), 0.99) is None


def test_nothing_asked_for_is_nothing_done(data: OfflineData) -> None:
    actor, critic = init_actor(jax.random.key(1), 2, 1, (8,)), init_critic(jax.random.key(2), 2, 1, (8,))
    found = start.start(jax.random.key(3), StartSettings(), 0.99, data, actor, critic)
    assert found.actor is actor
    assert found.critic is critic


def test_actor_and_critics_begin_at_the_best_share_and_its_returns() -> None:
    # Two actions, good and bad: whole episodes of one row each that end by themselves.
    count = 400
    action = jnp.where(jnp.arange(count) % 2 == 0, 0.6, -0.6)[:, None]
    reward = jnp.where(jnp.arange(count) % 2 == 0, 3.0, 1.0)
    obs = jax.random.normal(jax.random.key(0), (count, 2))
    given = Transition(obs, action, reward, obs, jnp.ones(count))
    episode = np.arange(count, dtype=np.int32)
    data = OfflineData(given, obs, jnp.asarray(episode), reward, start.rank_episodes(episode, np.asarray(reward)))
    settings = StartSettings(
        reference_share=0.5, cloning_updates=500, critic_start="returns", critic_start_updates=3_000
    )
    actor, critic = init_actor(jax.random.key(1), 2, 1, (16,)), init_critic(jax.random.key(2), 2, 1, (16,))
    found = start.start(jax.random.key(3), settings, 0.99, data, actor, critic)
    np.testing.assert_allclose(policy(found.actor, obs).mode(), 0.6, atol=0.12)
    values = q_values(found.critic, obs, action)
    assert values.shape == (2, count)
    assert float(jnp.mean(jnp.abs(values - reward))) < 0.1
