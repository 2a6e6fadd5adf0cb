"""What is kept: the model's value by hand, the margin, and the reference where nothing is better."""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from damorl.algos import mopo
from damorl.core.nets import Dense
from damorl.core.scaler import Standardiser
from damorl.errors import UserError
from damorl.parts import validation
from damorl.parts.dynamics import Dynamics, DynamicsParams
from damorl.parts.start import rank_episodes
from damorl.parts.validation import Kept
from damorl.types import OfflineData, Transition

SETTINGS = mopo.Config(
    keep="validated", cloning_updates=1, reference_share=0.5, validation_starts=2, validation_steps=6
)


def drifting_model() -> Dynamics:
    """Two elites: s' = s + a, and s + a + 0.5; the reward is s."""
    kernel = np.zeros((2, 2, 4), np.float32)
    kernel[:, 1, 0], kernel[:, 0, 1] = 1.0, 1.0
    bias = np.array([[0.0, 0.0, 3.0, 3.0], [0.5, 0.0, 3.0, 3.0]], np.float32)  # a wide Gaussian, whose mean is followed
    params = DynamicsParams((Dense(jnp.asarray(kernel), jnp.asarray(bias)),), jnp.full(2, 20.0), jnp.full(2, -20.0))
    unit = Standardiser(jnp.zeros(2), jnp.ones(2))
    return Dynamics(params, unit, unit)


def constant_actor(action: float) -> tuple[Dense, ...]:
    return (Dense(jnp.zeros((1, 2)), jnp.array([np.arctanh(action), 0.0], jnp.float32)),)


def falls(obs, action, next_obs):
    return next_obs[:, 0] > 2.0


def dataset() -> OfflineData:
    """Episodes of 4, 2 and 2 steps with returns 8, 6 and 1; states from -3 to 3."""
    reward = np.array([2.0, 2.0, 2.0, 2.0, 3.0, 3.0, 0.0, 1.0], np.float32)
    obs = np.linspace(-3.0, 3.0, 8, dtype=np.float32)[:, None]
    rows = Transition(*map(jnp.asarray, (obs, np.zeros((8, 1), np.float32), reward, obs, np.zeros(8, np.float32))))
    episode = np.array([0, 0, 0, 0, 1, 1, 2, 2])
    ranking = rank_episodes(episode, np.array([8.0, 6.0, 1.0]))
    return OfflineData(rows, jnp.array([[0.0], [9.9], [1.0]]), jnp.asarray(episode, jnp.int32), None, ranking)


def slow_value(action: float, steps: int = 4) -> float:
    totals = []
    for drift in (0.0, 0.5):
        for obs in (0.0, 1.0):  # two of the three initial states, evenly spread
            total = 0.0
            for _ in range(steps):
                total += obs
                following = np.clip(obs + action + drift, -3.0, 3.0)
                if following > 2.0:
                    break
                obs = following
            totals.append(total)
    return float(np.mean(totals))


@pytest.mark.parametrize("action", [0.3, -0.9])
def test_value_equals_a_slow_loop_over_the_data_s_longest_episode(action):
    found = validation.value_in_model(SETTINGS, drifting_model(), falls, constant_actor(action), dataset())
    assert float(found) == pytest.approx(slow_value(action), rel=1e-5)
    short = replace(SETTINGS, validation_steps=2)
    found = validation.value_in_model(short, drifting_model(), falls, constant_actor(action), dataset())
    assert float(found) == pytest.approx(slow_value(action, 2), rel=1e-5)


@pytest.mark.parametrize(("share", "expected"), [(0.1, 8.0), (0.5, 8.0), (0.51, 7.0), (1.0, 5.0)])
def test_return_of_the_reference_by_hand(share, expected):
    """The best episode is half of the rows; the second begins before 0.51 of them are full."""
    data = dataset()
    assert data.ranking is not None
    assert float(validation.reference_return(data.rows.reward, data.ranking, share)) == expected


def begun(action: float = 0.3) -> Kept:
    found = validation.begin_kept(SETTINGS, 0.5, drifting_model(), falls, constant_actor(action), dataset())
    assert found is not None
    return found


def test_it_begins_with_the_reference_and_the_model_s_error_there():
    found, value = begun(), slow_value(0.3)
    assert float(found.best) == float(found.reference) == pytest.approx(value, rel=1e-5)
    assert float(found.margin) == pytest.approx(1.5 * abs(value - 8.0), rel=1e-5)  # its episode earned 8


def after(known: Kept, action: float) -> Kept:
    return validation.validate(SETTINGS, known, drifting_model(), falls, constant_actor(action), dataset())[0]


def action_of(known: Kept) -> float:
    return float(np.tanh(known.policy[0].bias[0]))


def test_a_policy_is_kept_only_if_it_gains_more_than_the_model_errs():
    start = begun(-0.5)
    gain = slow_value(0.3) - slow_value(-0.5)
    assert gain > 0.0
    assert action_of(after(start._replace(margin=jnp.float32(0.9 * gain)), 0.3)) == pytest.approx(0.3)
    assert action_of(after(start._replace(margin=jnp.float32(1.1 * gain)), 0.3)) == pytest.approx(-0.5)


def test_a_worse_policy_never_replaces_a_better_one():
    start = after(begun(-0.5)._replace(margin=jnp.float32(0.0)), 0.3)
    assert action_of(after(start, -0.2)) == pytest.approx(0.3)
    assert float(after(start, -0.2).best) == pytest.approx(slow_value(0.3), rel=1e-5)


def test_what_is_told_of_a_policy():
    start = begun(-0.5)._replace(margin=jnp.float32(0.25))
    _, value, metrics = validation.validate(SETTINGS, start, drifting_model(), falls, constant_actor(0.3), dataset())
    assert float(value) == float(metrics["validation/value"]) == pytest.approx(slow_value(0.3), rel=1e-5)
    assert float(metrics["validation/needed"]) == pytest.approx(slow_value(-0.5) + 0.25, rel=1e-5)


def test_the_last_policy_needs_no_validation():
    last = replace(SETTINGS, keep="last")
    assert validation.begin_kept(last, 0.5, drifting_model(), falls, constant_actor(0.3), dataset()) is None


def test_without_a_clone_there_is_nothing_to_fall_back_on():
    with pytest.raises(UserError, match="falls back on a clone of the data: give cloning_updates"):
        replace(SETTINGS, cloning_updates=None)


def test_without_returns_a_tenth_is_assumed_for_the_model_s_error():
    data = dataset()._replace(ranking=None, episode=None)
    found = validation.begin_kept(SETTINGS, 0.5, drifting_model(), falls, constant_actor(0.3), data)
    assert found is not None
    assert float(found.margin) == pytest.approx(1.5 * 0.1 * abs(slow_value(0.3, 6)), rel=1e-5)
