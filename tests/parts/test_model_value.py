"""Imagined episodes in a world whose every step can be worked out by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damorl.core.nets import MLP, Dense
from damorl.core.scaler import Standardiser
from damorl.parts.dynamics import Dynamics, DynamicsParams
from damorl.parts.model_value import CHUNK, Bounds, Episode, World, fit_bounds, model_values, play, start
from damorl.types import Transition

GAMMA, HORIZON, PUSH = 0.9, 70, 0.5
KEY = jax.random.key(0)
STARTS = np.array([[0.0], [-0.5], [0.25], [-1.0]], np.float32)
MODES = (0.2, -0.4)  # what the two policies always do
WIDE = Bounds(jnp.full(1, -1e3), jnp.full(1, 1e3), jnp.float32(-1e3), jnp.float32(1e3), jnp.float32(jnp.inf))


def line(offsets: tuple[float, float] = (0.0, 0.0), slope: float = 1.0) -> Dynamics:
    """Two elites that agree on `x' = x + PUSH * a`; elite k pays `slope * x + offsets[k]`.

    The least log-variance is so low that the noise is exactly 0 in single precision.
    """
    kernel = np.zeros((2, 2, 4), np.float32)
    kernel[:, 1, 0], kernel[:, 0, 1] = PUSH, slope
    bias = np.zeros((2, 4), np.float32)
    bias[:, 1], bias[:, 2:] = offsets, -900.0
    params = DynamicsParams((Dense(jnp.asarray(kernel), jnp.asarray(bias)),), jnp.zeros(2), jnp.full(2, -800.0))
    return Dynamics(params, Standardiser(jnp.zeros(2), jnp.ones(2)), Standardiser(jnp.zeros(2), jnp.ones(2)))


def actors() -> MLP:
    bias = np.array([[np.arctanh(mode), 0.0] for mode in MODES], np.float32)
    return (Dense(jnp.zeros((2, 1, 2)), jnp.asarray(bias)),)


def never(obs, action, next_obs):
    return jnp.zeros(obs.shape[:-1], bool)


def beyond_one(obs, action, next_obs):
    return next_obs[..., 0] > 1.0


ENDLESS, ENDING = Episode(never, GAMMA, HORIZON), Episode(beyond_one, GAMMA, HORIZON)


def by_hand(mode: float, ends_beyond: float = np.inf, offset: float = 0.0, horizon: int = HORIZON) -> float:
    """The mean discounted return over STARTS; the reward is the position before the step, plus `offset`."""
    totals = []
    for x in STARTS[:, 0].astype(float):
        total = 0.0
        for step in range(horizon):
            total += GAMMA**step * (x + offset)
            x += PUSH * mode
            if x > ends_beyond:
                break
        totals.append(total)
    return float(np.mean(totals))


def test_the_value_is_the_discounted_return():
    assert HORIZON % CHUNK  # so that the cut falls inside a compiled chunk
    found = model_values(KEY, line(), actors(), jnp.asarray(STARTS), WIDE, ENDLESS)
    np.testing.assert_allclose(found.mean, [by_hand(mode) for mode in MODES], rtol=1e-5)
    np.testing.assert_allclose(found.std, 0.0, atol=1e-5)
    longer = [by_hand(mode, horizon=HORIZON + CHUNK) for mode in MODES]
    assert np.all(np.abs(found.mean - longer) > 1e-4 * np.abs(longer))  # the horizon counts


def test_termination_cuts_the_episode_and_keeps_its_last_reward():
    found = model_values(KEY, line(), actors(), jnp.asarray(STARTS), WIDE, ENDING)
    expected = [by_hand(mode, ends_beyond=1.0) for mode in MODES]
    np.testing.assert_allclose(found.mean, expected, rtol=1e-5)
    assert expected[0] < 0.5 * by_hand(MODES[0])


def test_steps_come_from_all_elites_and_the_error_bar_from_each_alone():
    found = model_values(KEY, line(offsets=(1.0, 4.0)), actors(), jnp.asarray(STARTS), WIDE, ENDLESS)
    alone = np.array([[by_hand(mode, offset=offset) for mode in MODES] for offset in (1.0, 4.0)])
    np.testing.assert_allclose(found.mean, alone.mean(axis=0), rtol=1e-5)  # dealt in equal shares at every step
    np.testing.assert_allclose(found.std, alone.std(axis=0), rtol=1e-5)


def test_predictions_are_kept_in_the_range_of_the_data():
    """The first policy walks right and is stopped at 0.5; the second walks left and is stopped at -2."""
    bounds = WIDE._replace(obs_low=jnp.array([-2.0]), obs_high=jnp.array([0.5]), reward_low=jnp.float32(-1.25))
    found = model_values(KEY, line(), actors(), jnp.asarray(STARTS), bounds, ENDLESS)
    expected = []
    for mode in MODES:
        x, totals = STARTS[:, 0].astype(float), np.zeros(len(STARTS))
        for step in range(HORIZON):
            totals += GAMMA**step * np.maximum(x, -1.25)
            x = np.clip(x + PUSH * mode, -2.0, 0.5)
        expected.append(totals.mean())
    np.testing.assert_allclose(found.mean, expected, rtol=1e-5)


def test_an_episode_ends_where_the_data_never_went():
    """Clipped to 0.95, no state lies beyond 1; the prediction before clipping does."""
    bounds = WIDE._replace(obs_high=jnp.array([0.95]))
    found = model_values(KEY, line(), actors(), jnp.asarray(STARTS), bounds, ENDING)
    steps_right = [by_hand(MODES[0], ends_beyond=1.0), by_hand(MODES[1])]
    np.testing.assert_allclose(found.mean, steps_right, rtol=0.02)


def test_a_model_that_breaks_down_gives_no_number():
    model = line(slope=jnp.nan)
    assert np.isnan(model_values(KEY, model, actors(), jnp.asarray(STARTS), WIDE, ENDING).mean).all()


def test_progress_ends_at_the_horizon_also_when_all_have_fallen():
    steps: list[int] = []
    both_right = jax.tree.map(lambda leaf: jnp.repeat(leaf[:1], 2, axis=0), actors())
    model_values(KEY, line(), both_right, jnp.full((4, 1), 0.95, jnp.float32), WIDE, ENDING, steps.append)
    assert steps == [HORIZON]  # not [CHUNK, HORIZON]
    model_values(KEY, line(), actors(), jnp.asarray(STARTS), WIDE, ENDING, steps.append)
    assert steps == [HORIZON, CHUNK, HORIZON]


@pytest.mark.parametrize(("field", "expected"), [("obs_low", -3.0), ("obs_high", 5.0)])
def test_bounds_cover_states_before_and_after_a_step(field, expected):
    obs, next_obs = jnp.array([[0.0], [5.0]]), jnp.array([[-3.0], [1.0]])
    bounds = fit_bounds(Transition(obs, obs, jnp.array([2.0, -7.0]), next_obs, jnp.zeros(2)), line(), 1.0)
    assert getattr(bounds, field).tolist() == [expected]
    assert (float(bounds.reward_low), float(bounds.reward_high)) == (-7.0, 2.0)


@pytest.mark.parametrize("gamma", [GAMMA, 1.0])
@pytest.mark.parametrize("reward_low", [-3.0, 2.0])
def test_beyond_what_the_model_knows_the_rest_counts_as_the_worst(gamma: float, reward_low: float):
    known, horizon = 1.0, 40
    bounds = WIDE._replace(reward_low=jnp.float32(reward_low), doubt=jnp.float32(known))
    step = lambda obs, action, key: (obs + PUSH * action, 4.0 + obs[:, 0])
    world = World(step, lambda obs, action: jnp.abs(obs[:, 0]), bounds)
    actor = jax.tree.map(lambda leaf: leaf[0], actors())
    found = play(start(jnp.asarray(STARTS)), world, actor, jnp.int32(0), KEY, Episode(never, gamma, horizon))
    for total, x in zip(found.total, STARTS[:, 0].astype(float), strict=True):
        rewards = []
        while abs(x) <= known and len(rewards) < horizon:
            rewards.append(4.0 + x)
            x += PUSH * MODES[0]
        rewards += [min(reward_low, 0.0)] * (horizon - len(rewards))
        assert total == pytest.approx(sum(gamma**i * reward for i, reward in enumerate(rewards)), rel=1e-5)


def test_what_the_model_knows_is_a_share_of_the_data():
    model = line()
    kernel = model.params.layers[0].kernel.at[:, 0, 0].set(jnp.array([0.1, -0.1]))  # x' = x + 0.5 a +- 0.1 x
    bent = model._replace(params=model.params._replace(layers=(Dense(kernel, model.params.layers[0].bias),)))
    obs = jnp.linspace(0.0, 10.0, 101)[:, None]
    rows = Transition(obs, jnp.zeros((101, 1)), jnp.zeros(101), obs, jnp.zeros(101))
    assert fit_bounds(rows, bent, 0.99).doubt == pytest.approx(0.99, rel=1e-5)  # 0.1 * 9.9
    assert fit_bounds(rows, bent, 1.0).doubt == jnp.inf
