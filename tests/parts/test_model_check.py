"""What a model is judged by, on numbers that can be worked out by hand, and against the fit's own k-step error."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from damorl.core.nets import Dense
from damorl.core.scaler import Standardiser
from damorl.errors import UserError
from damorl.parts import model_check as check
from damorl.parts.dynamics import Dynamics, DynamicsParams, disagreement
from damorl.parts.holdout import find_stretches, k_step_error
from damorl.types import Transition

RNG = np.random.default_rng(0)


def record(num_episodes: int = 6, length: int = 20, noise: float = 0.1) -> tuple[Transition, np.ndarray]:
    """s' = s + a (+ noise), r = s; a second feature never varies."""
    columns = []
    for _ in range(num_episodes):
        state = RNG.normal()
        for action in RNG.uniform(-1.0, 1.0, length):
            after = state + action + noise * RNG.normal()
            columns.append(([state, 5.0], [action], state, [after, 5.0], 0.0))
            state = after
    rows = Transition(*(jnp.asarray(column, jnp.float32) for column in zip(*columns, strict=True)))
    return rows, np.repeat(np.arange(num_episodes, dtype=np.int32), length)


def linear(pushes: tuple[float, ...], std: float = 0.1) -> Dynamics:
    """Elites with s' = s + push * a and r = s, all of one predicted deviation; units are the data's own."""
    kernel, bias = np.zeros((len(pushes), 3, 6)), np.zeros((len(pushes), 6))
    kernel[:, 2, 0], kernel[:, 0, 2], bias[:, 3:] = pushes, 1.0, 2 * np.log(std)
    params = DynamicsParams((Dense(jnp.asarray(kernel), jnp.asarray(bias)),), jnp.full(3, 90.0), jnp.full(3, -90.0))
    return Dynamics(params, Standardiser(jnp.zeros(3), jnp.ones(3)), Standardiser(jnp.zeros(3), jnp.array([1.0, 0, 1])))


ROWS, EPISODE = record()
ALL = jnp.arange(len(EPISODE))


def test_the_error_after_k_steps_is_what_a_fit_goes_by() -> None:
    key, model = jax.random.key(0), linear((1.0, 1.3, 0.6))
    paths = check.find_paths(key, 4, ROWS, EPISODE, ALL)
    errors = check.path_errors(model, paths, check.data_scale(ROWS))
    states = np.nanmean(errors.each[..., :-1], axis=-1)
    stretches = find_stretches(key, 4, ROWS, EPISODE, ALL)
    np.testing.assert_array_equal(paths.obs, stretches.obs)
    np.testing.assert_allclose(check.capped(states)[-1], float(k_step_error(model, stretches).mean()), rtol=1e-5)
    assert np.isnan(errors.each[..., 1]).all()  # the feature that never varies


def test_the_error_after_k_steps_by_hand() -> None:
    """A model that is off by 0.3 of each action is off by 0.3 of their sum."""
    rows, episode = record(noise=0.0)
    paths = check.find_paths(jax.random.key(0), 3, rows, episode, jnp.array([0, 20, 45]))
    scale = check.data_scale(rows)
    errors = check.path_errors(linear((1.3,)), paths, scale)
    sums = np.cumsum(np.asarray(paths.action)[..., 0], axis=0)
    np.testing.assert_allclose(errors.each[:, 0, :, 0], (0.3 * sums / scale[0]) ** 2, rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(errors.no_change[..., 0], (sums / scale[0]) ** 2, rtol=1e-3, atol=1e-7)
    before = np.vstack([np.zeros(3), sums[:-1]])  # the reward is the state before the step
    np.testing.assert_allclose(errors.each[:, 0, :, 2], (0.3 * before / scale[2]) ** 2, rtol=1e-3, atol=1e-7)


def test_a_path_that_diverges_counts_as_one_and_is_seen_in_the_quantiles() -> None:
    paths = check.find_paths(jax.random.key(0), 3, ROWS, EPISODE, ALL)
    errors = check.path_errors(linear((np.inf,)), paths, check.data_scale(ROWS))
    assert np.isinf(errors.each[..., 0]).all()
    np.testing.assert_array_equal(check.capped(errors.each[..., 0]), 1.0)


def test_paths_stay_in_their_episode_and_none_is_found_where_none_is_long_enough() -> None:
    paths = check.find_paths(jax.random.key(0), 20, ROWS, EPISODE, ALL)
    np.testing.assert_array_equal(np.sort(paths.obs[:, 0]), np.sort(ROWS.obs[::20, 0]))
    with pytest.raises(UserError, match=r"horizon is 11: .* found at most 10; lower the horizon"):
        check.find_paths(jax.random.key(0), 11, ROWS, EPISODE, jnp.array([10, 15, 38]))


def test_one_step_by_hand() -> None:
    model = linear((1.0, 1.2), std=0.05)
    judged = check.judge_rows(model, ROWS)
    action, recorded = np.asarray(ROWS.action)[:, 0], np.asarray(ROWS.next_obs - ROWS.obs)[:, 0]
    np.testing.assert_allclose(judged.deviations[1, :, 0], (recorded - 1.2 * action) / 0.05, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(judged.error[:, 0], np.abs(recorded - 1.1 * action), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(judged.spread[:, 0], np.abs(0.1 * action), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(judged.disagreement, disagreement(model, ROWS.obs, ROWS.action), rtol=1e-5)
    assert np.isnan(judged.deviations[..., 1]).all()
    assert np.isnan(judged.error[:, 1]).all()


def test_calibrated_predictions_are_called_calibrated_and_others_are_not() -> None:
    draws, levels = RNG.normal(size=(1, 20_000, 1)), np.array([0.1, 0.5, 0.9])
    np.testing.assert_allclose(check.share_within(draws, 1.0), 0.683, atol=0.01)
    np.testing.assert_allclose(check.share_within(draws, 2.0), 0.954, atol=0.01)
    np.testing.assert_allclose(check.reliability(check.probability_transform(draws), levels), levels, atol=0.012)
    counts = np.histogram(check.probability_transform(draws), 10, (0, 1))[0]
    assert np.abs(counts - 2000).max() < 200
    timid, bold = (check.reliability(check.probability_transform(draws * factor), levels) for factor in (0.5, 2.0))
    np.testing.assert_allclose(timid, 2 * norm.cdf(2 * norm.ppf((1 + levels) / 2)) - 1, atol=0.012)  # too wide a spread
    assert (timid > levels).all()
    assert (bold < levels).all()


def test_the_transform_is_that_of_the_mixture_of_elites() -> None:
    """Elites at 0 and 4, as in `draw an elite, then its Gaussian`: half of the probability lies below 2."""
    found = check.probability_transform(np.array([[[2.0]], [[-2.0]]]))
    np.testing.assert_allclose(found, 0.5, atol=1e-12)
    np.testing.assert_array_equal(check.share_within(np.array([[[0.5], [1.5]], [[3.0], [0.1]]]), 1.0), [0.5])
    assert np.isnan(check.share_within(np.full((1, 3, 1), np.nan), 1.0)).all()


def test_rank_agreement_and_bins() -> None:
    doubt = np.arange(100.0)
    assert check.rank_agreement(np.exp(doubt), doubt) == pytest.approx(1.0)
    assert check.rank_agreement(-(doubt**3), doubt) == pytest.approx(-1.0)
    assert check.rank_agreement(np.ones(100), doubt) is None
    assert check.rank_agreement(np.full(100, np.nan), doubt) is None
    shuffled = RNG.permutation(100)
    middles, means = check.binned(2.0 * doubt[shuffled], doubt[shuffled], 4)
    np.testing.assert_allclose(middles, [12.0, 37.0, 62.0, 87.0])
    np.testing.assert_allclose(means, 2.0 * middles)
