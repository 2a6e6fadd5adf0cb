"""What is kept: the model's value by hand, the lower bound, the reference where nothing is better, the occupancy."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damorl.algos import mopo
from damorl.core.nets import Dense
from damorl.core.scaler import Standardiser
from damorl.errors import UserError
from damorl.parts import validation
from damorl.parts.actor import policy
from damorl.parts.dynamics import Dynamics, DynamicsParams
from damorl.parts.model_data import draw_starts, imagine
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


def slow_episodes(action: float, steps: int = 4) -> list[list[float]]:
    """The states of each episode, elite by elite, start by start."""
    found = []
    for drift in (0.0, 0.5):
        for obs in (0.0, 1.0):  # two of the three initial states, evenly spread
            states = []
            for _ in range(steps):
                states.append(obs)
                following = np.clip(obs + action + drift, -3.0, 3.0)
                if following > 2.0:
                    break
                obs = following
            found.append(states)
    return found


def slow_value(action: float, steps: int = 4) -> float:
    return float(np.mean([sum(states) for states in slow_episodes(action, steps)]))


def played(action: float, settings: mopo.Config = SETTINGS) -> validation.Episodes:
    return validation.play(settings, drifting_model(), falls, constant_actor(action), dataset())


@pytest.mark.parametrize("action", [0.3, -0.9])
def test_value_equals_a_slow_loop_over_the_data_s_longest_episode(action):
    found = validation.values(played(action))
    episodes = slow_episodes(action)
    assert found == pytest.approx([np.mean([sum(s) for s in episodes[i : i + 2]]) for i in (0, 2)], rel=1e-5)
    short = validation.values(played(action, replace(SETTINGS, validation_steps=2)))
    assert float(jnp.mean(short)) == pytest.approx(slow_value(action, 2), rel=1e-5)


@pytest.mark.parametrize("gamma", [0.5, 0.9])
def test_occupancy_is_the_discounted_visit_of_each_state(gamma):
    """Draws against the weights gamma^t of a slow loop; an ended episode is visited no more."""
    episodes = played(0.3)
    weights: dict[float, float] = {}
    for states in slow_episodes(0.3):
        for time, obs in enumerate(states):
            weights[round(obs, 4)] = weights.get(round(obs, 4), 0.0) + gamma**time
    assert float(jnp.sum(validation.occupancy(episodes, gamma))) == pytest.approx(sum(weights.values()), rel=1e-5)
    drawn = np.asarray(validation.sample_occupancy(episodes, gamma, jax.random.key(0), 40_000))[:, 0].round(4)
    for obs, weight in weights.items():
        share = float(np.mean(np.isclose(drawn, obs, atol=2e-4)))
        assert share == pytest.approx(weight / sum(weights.values()), abs=0.01)


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
    """The error is each elite's own, so that two that err to both sides do not make none; its episode earned 8."""
    found, each = begun(), validation.values(played(0.3))
    assert float(found.best) == pytest.approx(slow_value(0.3), rel=1e-5)
    assert float(found.error) == pytest.approx(np.mean(np.abs(np.asarray(each) - 8.0)), rel=1e-5)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.all(a == b)), found.reference, constant_actor(0.3)))


def judged(known: Kept, action: float, settings: mopo.Config = SETTINGS):
    return validation.validate(
        settings, known, drifting_model(), falls, constant_actor(action), dataset(), gamma=settings.gamma
    )


def after(known: Kept, action: float) -> Kept:
    return judged(known, action)[0]


def action_of(known: Kept) -> float:
    return float(np.tanh(known.policy[0].bias[0]))


def distance(action: float, reference: float) -> float:
    """sqrt(KL) of two Gaussians of one width, by hand."""
    width = float(jnp.exp(policy(constant_actor(action), jnp.zeros((1, 1))).log_std[0, 0]))
    return abs(np.arctanh(action) - np.arctanh(reference)) / width / np.sqrt(2.0)


def test_a_policy_is_kept_only_if_it_gains_more_than_the_model_may_err_so_far_from_the_reference():
    start = begun(-0.5)
    gain, far = slow_value(0.3) - slow_value(-0.5), distance(0.3, -0.5)
    assert gain > 0.0
    assert action_of(after(start._replace(error=jnp.float32(0.9 * gain / far)), 0.3)) == pytest.approx(0.3)
    assert action_of(after(start._replace(error=jnp.float32(1.1 * gain / far)), 0.3)) == pytest.approx(-0.5)


def test_the_reference_itself_is_charged_nothing():
    start = begun(-0.5)._replace(error=jnp.float32(1e6))
    _, bound, _, metrics = judged(start, -0.5)
    assert float(bound) == pytest.approx(float(start.best), rel=1e-6)
    assert float(metrics["validation/divergence"]) == pytest.approx(0.0, abs=1e-6)


def test_a_worse_policy_never_replaces_a_better_one():
    start = after(begun(-0.5)._replace(error=jnp.float32(0.0)), 0.3)
    assert action_of(after(start, -0.2)) == pytest.approx(0.3)
    assert float(after(start, -0.2).best) == pytest.approx(slow_value(0.3), rel=1e-5)


def test_what_is_told_of_a_policy():
    start = begun(-0.5)._replace(error=jnp.float32(0.25))
    _, bound, episodes, metrics = judged(start, 0.3, replace(SETTINGS, validation_margin=2.0))
    assert float(metrics["validation/value"]) == pytest.approx(slow_value(0.3), rel=1e-5)
    assert float(bound) == float(metrics["validation/bound"])
    assert float(bound) == pytest.approx(slow_value(0.3) - 2.0 * 0.25 * distance(0.3, -0.5), rel=1e-5)
    assert float(metrics["validation/divergence"]) == pytest.approx(distance(0.3, -0.5) ** 2, rel=1e-5)
    assert float(metrics["validation/best"]) == pytest.approx(slow_value(-0.5), rel=1e-5)
    assert float(jnp.mean(validation.values(episodes))) == pytest.approx(slow_value(0.3), rel=1e-5)


def wide_dataset() -> OfflineData:
    """A hundred episodes of 4 steps; states from -3 to 3 with actions from -0.5 to 0.5; the lowest reward is -1."""
    rng, episode = np.random.default_rng(0), np.repeat(np.arange(100), 4)
    obs = rng.uniform(-3.0, 3.0, (400, 1)).astype(np.float32)
    action, reward = rng.uniform(-0.5, 0.5, (400, 1)).astype(np.float32), np.linspace(-1.0, 3.0, 400, dtype=np.float32)
    rows = Transition(*map(jnp.asarray, (obs, action, reward, obs, np.zeros(400, np.float32))))
    return OfflineData(rows, jnp.array([[0.0], [1.0]]), jnp.asarray(episode, jnp.int32), None, None)


def test_supported_is_the_return_among_known_pairs() -> None:
    """Where all is known, the whole return; where nothing is, the data's lowest reward in all four steps, and the
    policy is not kept however much the model promises."""
    settings, data = replace(SETTINGS, keep="supported"), wide_dataset()
    world = settings, drifting_model(), falls
    begun = lambda action: validation.begin_kept(settings, 0.5, *world[1:], constant_actor(action), data)
    first = begun(0.1)
    assert first is not None
    assert float(first.best) == pytest.approx(slow_value(0.1), rel=1e-4)
    better, bound, _, _ = validation.validate(settings, first, *world[1:], constant_actor(0.3), data, settings.gamma)
    assert float(bound) == pytest.approx(slow_value(0.3), rel=1e-4)
    assert slow_value(0.3) > slow_value(0.1)
    assert action_of(better) == pytest.approx(0.3, rel=1e-5)
    unknown, bound, _, told = validation.validate(
        settings, first, *world[1:], constant_actor(0.95), data, settings.gamma
    )
    assert float(bound) == pytest.approx(-4.0)
    assert float(told["validation/value"]) > float(bound)
    assert action_of(unknown) == pytest.approx(0.1, rel=1e-5)


def test_a_policy_that_is_judged_again_is_the_one_to_beat_even_if_it_is_worse():
    start = after(begun(-0.5)._replace(error=jnp.float32(0.25)), 0.3)
    world = drifting_model(), falls, constant_actor(-0.2)
    found = validation.judge_again(SETTINGS, start, *world, dataset(), SETTINGS.gamma)
    assert action_of(found) == pytest.approx(-0.2)
    expected = slow_value(-0.2) - SETTINGS.validation_margin * 0.25 * distance(-0.2, -0.5)
    assert float(found.best) == pytest.approx(expected, rel=1e-5)
    assert float(found.best) < float(start.best)
    assert (found.reference, found.error) == (start.reference, start.error)


def test_a_new_reference_tells_the_model_s_error_by_what_it_really_earned():
    found = validation.refer_to(SETTINGS, drifting_model(), falls, constant_actor(0.3), jnp.float32(2.5), dataset())
    each = np.asarray(validation.values(played(0.3)))
    assert float(found.error) == pytest.approx(np.mean(np.abs(each - 2.5)), rel=1e-5)
    assert float(found.best) == pytest.approx(slow_value(0.3), rel=1e-5)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.all(a == b)), found.reference, found.policy))


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
    assert float(found.error) == pytest.approx(0.1 * abs(slow_value(0.3, 6)), rel=1e-5)


def test_starts_come_from_the_data_and_from_the_policy_s_own_episodes_in_their_shares():
    settings = replace(SETTINGS, rollout_starts=100, rollout_length=1, rollout_occupancy=0.3, rollout_noise=False)
    settings = replace(settings, dynamics=replace(settings.dynamics, num_members=2, num_elites=2))
    world = drifting_model(), constant_actor(0.3), falls
    far = dataset().rows._replace(obs=jnp.full((8, 1), -2.5))  # where no episode comes
    starts = draw_starts(settings, far, played(0.3), jax.random.key(1))
    rows, _, _ = imagine(settings, *world, starts, jax.random.key(0))
    assert int(jnp.sum(rows.obs == -2.5)) == 70
    own = {round(obs, 4) for states in slow_episodes(0.3) for obs in states}
    assert {round(float(obs), 4) for obs in rows.obs[:, 0] if obs != -2.5} <= own


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rollout_occupancy": 1.5}, "rollout_occupancy must be between 0 and 1, found 1.5"),
        ({"rollout_occupancy": 0.5, "keep": "last"}, "set keep to validated"),
    ],
)
def test_a_share_of_starts_that_cannot_be_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        replace(SETTINGS, **changes)
