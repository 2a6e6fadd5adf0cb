"""MOBILE's inconsistency by hand, whom it touches, the floor, and that without it there is only SAC."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damorl.algos import mobile, sac
from damorl.errors import UserError
from damorl.experiment.config import defaults
from damorl.parts import model_agent, model_data
from damorl.parts import sac as agents
from damorl.parts.dynamics import DynamicsConfig
from damorl.types import Problem, Spec, Transition
from tests.exact import exact_jit

from .conftest import ACTION_DIM, BATCH, OBS_DIM, assert_bits, linear, moving_elites, sac_settings, sac_state

CONFIG = mobile.Config(**sac_settings(real_ratio=0.3), penalty_coefficient=2.0, num_samples=3)
NUM_REAL = 2  # of the batch's 8 rows
KEY = jax.random.key(7)
PROBLEM = Problem(Spec(OBS_DIM, ACTION_DIM), lambda obs, action, next_obs: next_obs[:, 0] > 1.0)


@pytest.fixture(scope="module")
def state(problem, data) -> mobile.State:
    return sac_state(mobile.ALGORITHM, CONFIG, problem, data)


def valued(state: mobile.State, *weights: list[float], moves: list[list[float]], log_std: float = -400.0):
    """The state with target critics Q_j(s, a) = weights_j . s and elites that move by `moves`."""
    kernels = [[[w] for w in [*own, 0.0, 0.0]] for own in weights]
    agent = state.agent._replace(target_critic=linear(*kernels))
    return state._replace(agent=agent, model=moving_elites(moves, log_std))


def ask(state: mobile.State, obs, num_samples: int = 3) -> np.ndarray:
    obs = jnp.asarray(obs, jnp.float32)
    action = jnp.zeros((obs.shape[0], 2))
    found = jax.jit(partial(mobile.inconsistency, num_samples=num_samples))
    return np.asarray(found(state.model, state.agent, obs, action, KEY))


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_inconsistency_of_two_elites_by_hand(state, scale):
    """Q' = 2 s_0 and elites that move s_0 by 0.5 and -0.7: values 2.4 apart, so unbiased deviation 2.4 / sqrt(2), not
    the biased 1.2; and twice as far apart where the elites are."""
    state = valued(state, [2.0, 0, 0], [2.0, 0, 0], moves=[[0.5 * scale, 9.0, 0], [-0.7 * scale, 0, 0]])
    np.testing.assert_allclose(ask(state, [[1.0, 2.0, 3.0], [-5.0, 0, 0]]), [scale * 2.4 / 2**0.5] * 2, rtol=1e-5)


def test_of_three_elites_the_deviation_divides_by_two(state):
    state = valued(state, [1.0, 0, 0], [1.0, 0, 0], moves=[[0.0, 0, 0], [3.0, 0, 0], [6.0, 0, 0]])
    np.testing.assert_allclose(ask(state, [[0.0, 0, 0]]), [3.0], rtol=1e-5)  # ddof 0: sqrt(6)


def test_states_of_equal_value_cost_nothing_and_the_lower_critic_tells(state):
    """min(2 s_0, -2 s_0) = -2 |s_0|: from 0.1 both elites end 0.6 from zero; from 1.1 they end at 1.6 and 0.4."""
    state = valued(state, [2.0, 0, 0], [-2.0, 0, 0], moves=[[0.5, 0, 0], [-0.7, 0, 0]])
    np.testing.assert_allclose(ask(state, [[0.1, 0, 0], [1.1, 0, 0]]), [0.0, 2.4 / 2**0.5], rtol=1e-5, atol=1e-6)


def test_samples_are_averaged_before_the_deviation(state):
    """Equal elites with unit noise: each mean of n values has variance 1 / n, and so has E[u^2]."""
    state = valued(state, [1.0, 0, 0], [1.0, 0, 0], moves=[[0.0, 0, 0]] * 2, log_std=0.0)
    assert np.mean(ask(state, np.zeros((3000, OBS_DIM)), num_samples=10) ** 2) == pytest.approx(0.1, rel=0.1)


def test_all_next_states_are_evaluated_in_one_call(state, batch, monkeypatch):
    calls: dict[str, list[tuple[int, ...]]] = {"policy": [], "q_min": []}

    def count(name):
        plain = getattr(mobile, name)

        def counted(params, obs, *rest):
            calls[name].append(obs.shape)
            return plain(params, obs, *rest)

        monkeypatch.setattr(mobile, name, counted)

    for name in calls:
        count(name)
    mobile.inconsistency(state.model, state.agent, batch.obs, batch.action, KEY, 10)
    rows = 10 * CONFIG.dynamics.num_elites * BATCH
    assert calls == {"policy": [(rows, OBS_DIM)], "q_min": [(rows, OBS_DIM)]}


def test_only_synthetic_rows_are_penalised(state, batch):
    found = np.asarray(jax.jit(partial(mobile.penalty, CONFIG))(state, batch, KEY))
    assert found[:NUM_REAL].tolist() == [0.0] * NUM_REAL
    assert found.shape == (BATCH,)
    assert found[NUM_REAL:].min() > 0.0
    everyone = replace(CONFIG, real_ratio=1.0)
    assert not np.asarray(mobile.penalty(everyone, state, batch, KEY)).any()


@pytest.mark.parametrize(("floor", "expected"), [(True, [3.0, 0.0, 0.0, 2.8]), (False, [3.0, -1.0, -3.0, 2.8])])
def test_target_and_floor_by_hand(state, floor, expected):
    """r - 2 u, and for the last row, which goes on, plus 0.9 * Q'(s') = 0.9 * 2: no entropy, u not discounted."""
    state = valued(state, [2.0, 0, 0], [2.0, 0, 0], moves=[[0.0, 0, 0]] * 2)
    batch = Transition(
        obs=jnp.zeros((4, OBS_DIM)),
        action=jnp.zeros((4, 2)),
        reward=jnp.array([5.0, 1.0, -3.0, 2.0]),
        next_obs=jnp.ones((4, OBS_DIM)),
        terminal=jnp.array([1.0, 1.0, 1.0, 0.0]),
    )
    config = replace(CONFIG, target_floor=floor)
    found = mobile.penalised_target(config, state, batch, jnp.array([1.0, 1.0, 0.0, 0.5]), KEY)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def updated(config: mobile.Config, state: mobile.State, data):
    return exact_jit(partial(mobile.update, config, PROBLEM))(state, data, KEY)


def test_without_a_coefficient_it_is_sac_with_the_floor_bit_for_bit(state, data):
    config = replace(CONFIG, penalty_coefficient=0.0)

    @exact_jit
    def sac_with_a_floor(state: mobile.State, key: jax.Array) -> agents.SACState:
        batch_key, agent_key, _ = jax.random.split(key, 3)
        batch = model_data.mixed_batch(data.rows, state.buffer, batch_key, config.batch_size, config.real_ratio)
        target_key, step_key = jax.random.split(agent_key)
        target = jnp.maximum(agents.td_target(config, state.agent, batch, target_key), 0.0)
        return agents.step(config, state.agent, batch, target, step_key)[0]

    found, metrics = updated(config, state, data)
    assert_bits(found.agent, sac_with_a_floor(state, KEY))
    assert 0.0 < float(metrics["critic/floored"]) < 1.0  # or the floor would not have been tried


def test_without_coefficient_and_floor_it_is_sac_bit_for_bit(state, data, problem):
    found, _ = updated(replace(CONFIG, penalty_coefficient=0.0, target_floor=False), state, data)
    settings = sac.Config(**sac_settings(real_ratio=0.3), entropy_backup=False)
    plain = model_agent.State(state.agent, state.model, state.buffer)
    assert_bits(found.agent, exact_jit(partial(sac.ALGORITHM.update, settings, PROBLEM))(plain, data, KEY)[0].agent)
    refreshed, _ = exact_jit(partial(mobile.ALGORITHM.refresh, CONFIG, problem))(state, data, KEY)
    expected, _ = exact_jit(partial(sac.ALGORITHM.refresh, settings, problem))(plain, data, KEY)
    assert_bits(refreshed.buffer, expected.buffer)


def test_the_penalty_lowers_the_targets_of_synthetic_rows_and_of_nothing_else(state, data):
    state = valued(state, [1.0, 0, 0], [1.0, 0, 0], moves=[[2.0, 0, 0], [-2.0, 0, 0]])
    batch = jax.tree.map(lambda leaf: leaf[:BATCH], data.rows)
    config = replace(CONFIG, target_floor=False)

    @jax.jit
    def targets(state: mobile.State, batch: Transition) -> tuple[jax.Array, ...]:
        costs = mobile.penalty(config, state, batch, KEY), jnp.zeros(BATCH)
        return tuple(mobile.penalised_target(config, state, batch, cost, KEY) for cost in costs)

    lower, plain = targets(state, batch)
    np.testing.assert_allclose(plain - lower, 2.0 * np.array([0.0] * 2 + [4.0 / 2**0.5] * 6), rtol=1e-4, atol=1e-5)


def test_one_elite_is_refused():
    with pytest.raises(UserError, match=r"dynamics.num_elites must be at least 2.*found 1.*train sac"):
        mobile.Config(dynamics=DynamicsConfig(num_elites=1))


@pytest.mark.parametrize("preset", ["quick", "paper"])
def test_presets_have_what_was_tuned(preset):
    config = {name: defaults("mobile", preset, name)[1] for name in ("hopper-medium", "hopper-medium-replay")}
    for own in config.values():
        assert (own.learn_temperature, own.initial_temperature) == (False, 0.2)
    assert [own.penalty_coefficient for own in config.values()] == [1.5, 0.1]
    half = defaults("mobile", preset, "halfcheetah-medium-expert-v2")[1]
    assert (half.real_ratio, half.penalty_coefficient, half.learn_temperature) == (0.5, 1.0, True)
    assert defaults("mobile", preset, "walker2d-medium-replay")[1].rollout_length == 1
