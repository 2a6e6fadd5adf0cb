"""Branched rollouts against a slow loop, in a world whose next state can be worked out by hand."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damorl.core.nets import Dense
from damorl.core.scaler import Standardiser
from damorl.parts.dynamics import Dynamics, DynamicsParams, sample_step
from damorl.parts.rollout import rollout

LENGTH, DRIFT, REWARD, BLOW_UP = 5, (0.25, 0.0), 2.0, 1e25
STARTS = np.array([[0.0, 0.0], [0.9, 0.0], [-0.4, 0.0], [0.3, 1.0], [0.85, 1.0], [-9.0, 0.0]], np.float32)


class Result(NamedTuple):
    rows: tuple[np.ndarray, ...]
    keep: np.ndarray
    metrics: dict[str, float]


def drifting_model() -> Dynamics:
    """Two equal elites: the first coordinate drifts by 0.25, the second grows by the factor BLOW_UP.

    The least log-variance is so low that the noise is exactly 0 in single precision.
    """
    kernel = np.zeros((2, 3, 6), np.float32)
    kernel[:, 1, 1] = BLOW_UP
    bias = np.array([*DRIFT, REWARD, -900.0, -900.0, -900.0], np.float32)
    params = DynamicsParams((Dense(jnp.asarray(kernel), jnp.tile(bias, (2, 1))),), jnp.zeros(3), jnp.full(3, -800.0))
    return Dynamics(params, Standardiser(jnp.zeros(3), jnp.ones(3)), Standardiser(jnp.zeros(3), jnp.ones(3)))


def act(obs, key):
    return 0.1 * obs[:, :1]


def termination(obs, action, next_obs):
    return next_obs[:, 0] > 1.0


@pytest.fixture(scope="module")
def result() -> Result:
    world = partial(sample_step, drifting_model())
    roll = jax.jit(lambda starts, key: rollout(world, act, termination, starts, key, LENGTH))
    rows, keep, metrics = roll(STARTS, jax.random.key(0))
    return Result(
        tuple(map(np.asarray, rows)), np.asarray(keep), {name: float(value) for name, value in metrics.items()}
    )


def slow_rollout() -> list[tuple]:
    """Kept rows as `(step, start, obs, action, reward, next_obs, terminal)`, step by step as the buffer takes them."""
    kept, obs, alive = [], STARTS.copy(), [True] * len(STARTS)
    for step in range(LENGTH):
        for start in range(len(STARTS)):
            if not alive[start]:
                continue
            with np.errstate(over="ignore"):
                grown = obs[start, 1] + np.float32(BLOW_UP) * obs[start, 1]
            next_obs = np.array([obs[start, 0] + np.float32(DRIFT[0]), grown], np.float32)
            if not np.all(np.isfinite(next_obs)):
                alive[start] = False
                continue
            terminal = next_obs[0] > 1.0
            kept.append((step, start, obs[start].copy(), 0.1 * obs[start, :1], REWARD, next_obs, float(terminal)))
            obs[start], alive[start] = next_obs, not terminal
    return kept


def test_kept_rows_are_the_slow_loops(result):
    expected = slow_rollout()
    index = [step * len(STARTS) + start for step, start, *_ in expected]
    assert np.flatnonzero(result.keep).tolist() == index
    for position, field in enumerate(result.rows):
        wanted = np.stack([row[2 + position] for row in expected])
        np.testing.assert_allclose(field[result.keep], wanted, rtol=1e-5, atol=1e-6)


def test_the_slow_loop_meets_every_case():
    """Else the comparison above would prove little."""
    lengths = [sum(row[1] == start for row in slow_rollout()) for start in range(len(STARTS))]
    # dies after 5 (1.25 > 1 at the last step), at once, never; overflows on step 2; dies before it can; never
    assert lengths == [5, 1, 5, 1, 1, 5]
    assert [row[1] for row in slow_rollout() if row[-1]] == [1, 4, 0]


def test_terminal_rows_are_kept_and_nothing_after_them(result):
    terminal, keep = (array.reshape(LENGTH, -1) for array in (result.rows[4], result.keep))
    assert keep[0, 1]
    assert terminal[0, 1] == 1.0
    assert not keep[1:, 1].any()
    assert keep[4, 0]
    assert terminal[4, 0] == 1.0


def test_rows_that_overflow_are_dropped_with_all_that_follows(result):
    keep, next_obs = result.keep.reshape(LENGTH, -1), result.rows[3].reshape(LENGTH, -1, 2)
    assert keep[:, 3].tolist() == [True, False, False, False, False]
    assert np.isfinite(next_obs[0, 3]).all()
    assert not np.isfinite(next_obs[1, 3]).all()
    assert np.isfinite(np.concatenate([field[result.keep].ravel() for field in result.rows])).all()


def test_metrics_count_kept_rows_only(result):
    expected = slow_rollout()
    assert result.metrics["rollout/length_mean"] == pytest.approx(len(expected) / len(STARTS))
    assert result.metrics["rollout/terminal_share"] == pytest.approx(3 / len(expected))
    assert result.metrics["rollout/reward_mean"] == pytest.approx(REWARD)
