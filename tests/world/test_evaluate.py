"""Evaluation plays the episodes it says it plays: checked against a plain loop in the real simulator."""

from __future__ import annotations

from unittest.mock import Mock

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damorl.behaviour.host_policy import squash
from damorl.behaviour.policies import load_policies
from damorl.errors import UserError
from damorl.types import Spec
from damorl.world.evaluate import Evaluator, action_draws, evaluate
from damorl.world.tasks import TASKS, Task, find_task, make_env, never_ended

HOPPER = TASKS["hopper"]


def reflex(obs: np.ndarray) -> np.ndarray:
    """A wild policy whose rows do not depend on the batch around them."""
    return np.sin(40.0 * obs[:, 2:5])


def plain_episode(seed: int) -> tuple[float, int, bool]:
    env = make_env(HOPPER)
    obs, _ = env.reset(seed=seed)
    total, length = 0.0, 0
    while True:
        obs, reward, terminated, truncated, _ = env.step(reflex(obs[None])[0])
        total, length = total + float(reward), length + 1
        if terminated or truncated:
            env.close()
            return total, length, bool(terminated)


@pytest.fixture(scope="module")
def evaluator():
    evaluator = Evaluator(HOPPER, HOPPER.spec)
    yield evaluator
    evaluator.close()


def test_every_episode_equals_a_plain_loop_with_its_seed(evaluator):
    episodes = evaluator.run(reflex, 4, seed=30)
    returns, lengths, terminated = zip(*(plain_episode(30 + i) for i in range(4)), strict=True)
    assert episodes.returns.tolist() == list(returns)
    assert episodes.lengths.tolist() == list(lengths)
    assert episodes.terminated.tolist() == list(terminated)
    assert len(set(lengths)) > 1  # else nothing was shown about episodes that end before others


def test_rewards_are_told_step_by_step_and_are_zero_after_the_end(evaluator):
    told: list[np.ndarray] = []
    episodes = evaluator.run(reflex, 4, seed=30, on_reward=told.append)
    rewards = np.array(told)
    np.testing.assert_allclose(rewards.sum(axis=0), episodes.returns)
    assert len(rewards) == episodes.lengths.max()
    for column, length in zip(rewards.T, episodes.lengths, strict=True):
        assert not column[length:].any()
        assert column[:length].all()


def test_simulators_that_are_used_again_give_the_same_numbers(evaluator):
    first = evaluator.run(reflex, 4, seed=30)
    evaluator.run(reflex, 2, seed=99)
    again = evaluator.run(reflex, 4, seed=30)
    assert [column.tolist() for column in first] == [column.tolist() for column in again]
    assert len(evaluator.envs) == 4
    fewer = evaluator.run(reflex, 2, seed=32)
    assert fewer.returns.tolist() == first.returns[2:].tolist()


def test_each_simulator_plays_one_episode_and_then_rests(monkeypatch):
    """Short episodes must not be counted more often than long ones."""
    evaluator = Evaluator(HOPPER)
    evaluator.run(reflex, 3, seed=0)
    resets = [Mock(side_effect=env.reset) for env in evaluator.envs]
    steps = [Mock(side_effect=env.step) for env in evaluator.envs]
    for env, reset, step in zip(evaluator.envs, resets, steps, strict=True):
        monkeypatch.setattr(env, "reset", reset)
        monkeypatch.setattr(env, "step", step)
    episodes = evaluator.run(reflex, 3, seed=0)
    evaluator.close()
    assert [reset.call_count for reset in resets] == [1, 1, 1]
    assert [step.call_count for step in steps] == episodes.lengths.tolist()


def test_the_time_limit_ends_an_episode_without_terminating_it():
    episodes = evaluate(TASKS["halfcheetah"], lambda obs: np.zeros((len(obs), 6)), 2, seed=0)
    assert episodes.lengths.tolist() == [1000, 1000]
    assert episodes.terminated.tolist() == [False, False]


def test_a_jitted_policy_compiles_once(evaluator):
    traced = []

    @jax.jit
    def policy(obs):
        traced.append(obs.shape)
        return jnp.sin(40.0 * obs[:, 2:5])

    episodes = evaluator.run(policy, 4, seed=30)
    assert len(set(episodes.lengths.tolist())) > 1
    assert traced == [(4, 11)]


# --- other tasks ---


def test_a_task_with_other_action_bounds_is_played_in_its_own_units():
    """The pendulum turns by -2 to 2: the same episode as Gymnasium's own, given twice the policy's actions."""
    policy = lambda obs: np.tanh(obs[:, 1:2] - obs[:, 2:] / 3)
    episodes = evaluate(TASKS["pendulum"], policy, 2, seed=5)
    env = gymnasium.make("Pendulum-v1")
    for i in range(2):
        obs, _ = env.reset(seed=5 + i)
        total = 0.0
        for _ in range(200):
            obs, reward, *_ = env.step(2 * policy(obs[None])[0])
            total += float(reward)
        assert episodes.returns[i] == pytest.approx(total)
    assert episodes.lengths.tolist() == [200, 200]


def test_an_environment_that_is_in_no_table_is_played():
    episodes = evaluate(find_task("Reacher-v5"), lambda obs: np.zeros((len(obs), 2)), 2, seed=0)
    assert episodes.lengths.tolist() == [50, 50]
    assert (episodes.returns < 0).all()


def test_a_task_without_simulator_is_refused_at_once():
    with pytest.raises(UserError, match=r"task 'plant' has no simulator.*env_id"):
        Evaluator(Task("plant", None, 4, 2, never_ended))


# --- a policy that samples ---


def test_a_sampled_episode_is_the_same_whatever_episodes_run_beside_it(evaluator):
    def sampled(num_episodes, seed):
        draws = action_draws(HOPPER, num_episodes, seed)
        return evaluator.run(lambda obs: reflex(obs) + 0.1 * next(draws), num_episodes, seed)

    five, again, last = sampled(5, 10), sampled(5, 10), sampled(2, 13)
    assert five.returns.tolist() == again.returns.tolist()
    assert five.returns[3:].tolist() == last.returns.tolist()
    assert (evaluator.run(reflex, 5, 10).returns != five.returns).all()


def test_a_shipped_policy_samples_its_episodes(evaluator):
    layers, draws = load_policies("hopper").expert, action_draws(HOPPER, 2, seed=0)
    episodes = evaluator.run(lambda obs: squash(layers, obs, next(draws)), 2, seed=0)
    assert episodes.returns.min() > 1000


def test_draws_are_standard_normal_and_each_episodes_own():
    draws = action_draws(HOPPER, 4, seed=7)
    steps = np.stack([next(draws) for _ in range(2000)])
    assert steps.dtype == np.float32
    assert steps.shape == (2000, 4, 3)
    assert np.abs(steps.mean(0)).max() < 5 / np.sqrt(2000)
    assert np.abs(steps.std(0) - 1).max() < 5 / np.sqrt(2 * 2000)
    between = np.corrcoef(steps.reshape(2000, 12).T) - np.eye(12)
    assert np.abs(between).max() < 5 / np.sqrt(2000)
    alone = action_draws(HOPPER, 1, seed=9)
    np.testing.assert_array_equal(np.stack([next(alone) for _ in range(2000)])[:, 0], steps[:, 2])


# --- measurement noise ---


def test_noise_reaches_the_policy_scaled_and_leaves_the_simulator_alone(evaluator):
    """A policy that ignores its input returns the same under noise, and what it saw is off by S times the std."""
    obs_std = np.linspace(0.5, 1.5, 11)
    clean, noisy = [], []

    def watch(seen):
        return lambda obs: seen.append(obs) or np.zeros((len(obs), 3))

    quiet = evaluator.run(watch(clean), 8, seed=0)
    loud = evaluator.run(watch(noisy), 8, seed=0, noise=0.1, obs_std=obs_std)
    assert quiet.returns.tolist() == loud.returns.tolist()
    difference = (np.concatenate(noisy) - np.concatenate(clean)) / (0.1 * obs_std)
    count = difference.shape[0]
    assert np.abs(difference.mean(0)).max() < 5 / np.sqrt(count)
    assert np.abs(difference.std(0) - 1).max() < 5 / np.sqrt(2 * count)
    neighbours = np.corrcoef(noisy[0] - clean[0])[np.triu_indices(8, 1)]
    assert np.abs(neighbours).max() < 0.95  # episodes do not share their noise


def test_noise_is_reproducible_and_its_own_in_every_episode(evaluator):
    noise = {"noise": 0.5, "obs_std": np.ones(11)}
    first = evaluator.run(reflex, 3, seed=4, **noise)
    assert first.returns.tolist() == evaluator.run(reflex, 3, seed=4, **noise).returns.tolist()
    assert first.returns[1:].tolist() == evaluator.run(reflex, 2, seed=5, **noise).returns.tolist()
    assert first.returns.tolist() != evaluator.run(reflex, 3, seed=4).returns.tolist()


# --- bad input ---


def test_a_policy_for_another_task_is_refused():
    with pytest.raises(UserError, match="'hopper': expected 11 observations and 3 actions, found 17 and 6"):
        Evaluator(HOPPER, Spec(17, 6))


@pytest.mark.parametrize(
    ("act", "sentence"),
    [
        (lambda obs: np.zeros((len(obs), 6)), r"expected actions of shape \(2, 3\), found \(2, 6\)"),
        (lambda obs: np.zeros(3), r"expected actions of shape \(2, 3\), found \(3,\)"),
        (lambda obs: np.full((len(obs), 3), np.nan), "expected finite actions"),
    ],
)
def test_actions_that_the_simulator_cannot_take_are_refused(evaluator, act, sentence):
    with pytest.raises(UserError, match=sentence):
        evaluator.run(act, 2, seed=0)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"num_episodes": 0}, "at least 1 episode"),
        ({"seed": -1}, "a seed of 0 or more"),
        ({"noise": -0.1}, "noise of 0 or more, found -0.1"),
        ({"noise": float("nan")}, "noise of 0 or more, found nan"),
        ({"noise": 0.1}, "11 features, found none"),
        ({"noise": 0.1, "obs_std": np.ones(17)}, r"11 features, found \(17,\)"),
    ],
)
def test_unusable_arguments_are_one_sentence(evaluator, arguments, sentence):
    with pytest.raises(UserError, match=sentence):
        evaluator.run(reflex, **({"num_episodes": 1, "seed": 0} | arguments))
