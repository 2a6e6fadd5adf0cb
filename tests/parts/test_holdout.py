"""What is held out, and the error after k steps: against a slow loop, and where it chooses otherwise than one step."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damorl.core.nets import Dense
from damorl.core.scaler import Standardiser
from damorl.errors import UserError
from damorl.parts import dynamics, dynamics_fit, holdout
from damorl.parts.dynamics import Dynamics, DynamicsConfig, DynamicsParams
from damorl.types import Transition

CONFIG = DynamicsConfig(
    num_members=2, num_elites=1, hidden=(), batch_size=8, holdout=20, max_batches=8, epoch_batches=4, early_stop_steps=4
)
LENGTHS = (7, 30, 3, 12, 9, 25, 14)


def record(lengths: tuple[int, ...] = LENGTHS, noise: float = 0.1) -> tuple[Transition, jax.Array]:
    """Rows of episodes of these lengths, and their numbers: s' = 0.9 s + a (+ noise); a second feature never varies."""
    rng, columns = np.random.default_rng(0), []
    for length in lengths:
        state = rng.normal(size=1)
        for _ in range(length):
            action = rng.uniform(-1.0, 1.0, size=1)
            after = 0.9 * state + action + noise * rng.normal(size=1)
            columns.append((np.append(state, 5.0), action, state[0], np.append(after, 5.0), 0.0))
            state = after
    rows = Transition(*(jnp.asarray(np.stack(column), jnp.float32) for column in zip(*columns, strict=True)))
    return rows, jnp.asarray(np.repeat(np.arange(len(lengths)), lengths), jnp.int32)


def random_model(num_members: int = 3, scale: float = 0.3) -> Dynamics:
    """Linear members over two features and an action, all different, in units of their own."""
    rng = np.random.default_rng(1)
    single = lambda array: jnp.asarray(array, jnp.float32)
    layer = Dense(
        single(scale * rng.normal(size=(num_members, 3, 6))), single(scale * rng.normal(size=(num_members, 6)))
    )
    inputs = Standardiser(single(rng.normal(size=3)), single(rng.uniform(0.5, 2.0, size=3)))
    targets = Standardiser(single([0.1, 0.0, 0.3]), single([0.7, 0.0, 1.0]))
    return Dynamics(DynamicsParams((layer,), jnp.full(3, 0.5), jnp.full(3, -10.0)), inputs, targets)


def slow_error(model: Dynamics, rows: Transition, episode: np.ndarray, held_out: set[int], steps: int) -> np.ndarray:
    """Member by member, start by start, feature by feature."""
    (layer,), data = model.params.layers, [np.asarray(column, np.float64) for column in rows]
    obs, action, _, next_obs, _ = data
    deviation = [np.std(obs[:, feature]) if np.ptp(obs[:, feature]) > 0.0 else None for feature in range(2)]
    errors = []
    for kernel, bias in zip(np.asarray(layer.kernel, np.float64), np.asarray(layer.bias, np.float64), strict=True):
        found = []
        for start in range(len(episode) - steps + 1):
            if episode[start] not in held_out or episode[start + steps - 1] != episode[start]:
                continue
            state = obs[start]
            for row in range(start, start + steps):
                x = (np.append(state, action[row]) - model.inputs.mean) / model.inputs.scale
                state = state + ((x @ kernel + bias)[:3] * model.targets.scale + model.targets.mean)[:2]
            apart = [
                ((state[i] - next_obs[start + steps - 1, i]) / deviation[i]) ** 2
                for i in (0, 1)
                if deviation[i] is not None
            ]
            found.append(min(1.0, sum(apart) / len(apart)))
        errors.append(np.mean(found))
    return np.array(errors)


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("scale", [0.1, 0.6])  # with the second some starts are off by more than a deviation
def test_the_error_after_k_steps_is_that_of_a_slow_loop(steps: int, scale: float) -> None:
    rows, episode = record()
    model, key = random_model(scale=scale), jax.random.key(0)
    found = holdout.hold_out_episodes(key, np.asarray(episode), 20)
    held_out = {int(number) for number in np.asarray(episode)[np.asarray(found.holdout)]}
    stretches = holdout.find_stretches(key, steps, rows, np.asarray(episode), found.holdout)
    expected = slow_error(model, rows, np.asarray(episode), held_out, steps)
    assert len(set(expected)) == 3
    np.testing.assert_allclose(jax.jit(holdout.k_step_error)(model, stretches), expected, rtol=1e-4)


def test_a_start_that_diverges_counts_as_one_and_no_more() -> None:
    rows, episode = record()
    stretches = holdout.find_stretches(jax.random.key(0), 4, rows, np.asarray(episode), jnp.arange(len(episode)))
    model = random_model()
    lost = lambda value: model._replace(
        params=model.params._replace(layers=(Dense(*(value * x for x in model.params.layers[0])),))
    )
    for value in (1e30, jnp.nan):
        np.testing.assert_array_equal(holdout.k_step_error(lost(value), stretches), 1.0)


@pytest.mark.parametrize("seed", range(8))
def test_held_out_episodes_are_whole_and_never_trained_on(seed: int) -> None:
    _, numbers = record()
    episode, rows = np.asarray(numbers), 20  # a fifth of the 100 rows
    found = holdout.hold_out_episodes(jax.random.key(seed), episode, 1000)
    out, train = np.asarray(found.holdout), np.asarray(found.train)
    np.testing.assert_array_equal(np.sort(np.append(out, train)), np.arange(len(episode)))
    assert not set(episode[out]) & set(episode[train])
    assert len(out) >= rows
    assert any(len(out) - LENGTHS[number] < rows for number in set(episode[out]))  # the last one drawn was needed


def test_one_episode_stays_for_training() -> None:
    episode = np.repeat([0, 1], [2, 98])
    for seed in range(4):
        found = holdout.hold_out_episodes(jax.random.key(seed), episode, 1000)
        assert len(set(episode[np.asarray(found.holdout)])) == len(set(episode[np.asarray(found.train)])) == 1


def test_no_more_than_a_thousand_starts_are_followed_each_of_them_once() -> None:
    rows, episode = record((600, 700, 20))
    stretches = holdout.find_stretches(jax.random.key(0), 4, rows, np.asarray(episode), jnp.arange(1320))
    assert stretches.action.shape == (4, 1000, 1)
    assert len(np.unique(np.asarray(stretches.obs)[:, 0])) == 1000
    # The states that were reached lie where the recorded actions lead, up to the noise: the rows belong together.
    state = np.asarray(stretches.obs)[:, 0]
    for action in np.asarray(stretches.action)[..., 0]:
        state = 0.9 * state + action
    assert np.abs(state - np.asarray(stretches.reached)[:, 0]).max() < 1.0


def linear_members(key: Any, config: DynamicsConfig, obs_dim: int, action_dim: int) -> DynamicsParams:
    """The change of s is a + 0.1 according to the first member, 1.2 a according to the second."""
    del key, config
    kernel, bias = np.zeros((2, obs_dim + action_dim, 2 * (obs_dim + 1))), np.zeros((2, 2 * (obs_dim + 1)))
    kernel[:, 1, 0], bias[:, 0] = [1.0, 1.2], [0.1, 0.0]
    layer = Dense(jnp.asarray(kernel, jnp.float32), jnp.asarray(bias, jnp.float32))
    return DynamicsParams((layer,), jnp.full(obs_dim + 1, 0.5), jnp.full(obs_dim + 1, -10.0))


@pytest.mark.parametrize(
    ("early_stop", "errors", "biases"), [("one_step", [0.01, 0.04], [0.1, 0.0]), ("k_step", [0.0, 0.16], [0.0, 0.1])]
)
def test_what_one_step_and_k_steps_choose_may_differ(
    monkeypatch: pytest.MonkeyPatch, early_stop: Any, errors: list[float], biases: list[float]
) -> None:
    """s' = s + a with actions 1, -1, 1, -1, ...: the first member's error is small and adds up, the second one's is
    larger and cancels. Nothing is learned (rate 0) and units are those of the data."""
    config = DynamicsConfig(**{**vars(CONFIG), "early_stop": early_stop, "learning_rate": 0.0, "patience": 10})
    action = np.tile([1.0, -1.0], 50)[:, None]
    obs = np.repeat(np.arange(5.0), 20)[:, None] + np.tile([0.0, 1.0], 50)[:, None]
    columns = (obs, action, np.zeros(100), obs + action, np.zeros(100))
    rows = Transition(*(jnp.asarray(column, jnp.float32) for column in columns))
    monkeypatch.setattr(dynamics_fit, "init_params", linear_members)
    for module in (dynamics_fit, holdout):
        monkeypatch.setattr(
            module, "fit_standardiser", lambda x: Standardiser(jnp.zeros(x.shape[1]), jnp.ones(x.shape[1]))
        )
    told: list[dict[str, float]] = []
    model, figures = dynamics_fit.fit_members(
        jax.random.key(0), config, rows, lambda _, metrics: told.append(metrics), jnp.repeat(jnp.arange(5), 20)
    )
    np.testing.assert_allclose(figures["chosen"], errors, atol=1e-5)
    np.testing.assert_allclose(model.params.layers[0].bias[:, 0], biases, atol=1e-6)
    assert figures["holdout_error"] == pytest.approx(0.01 if early_stop == "one_step" else 0.04, rel=1e-4)
    assert len(figures["epochs"]) == len(told) == 2
    for epoch, metrics in zip(figures["epochs"], told, strict=True):
        assert epoch["holdout_error"] == pytest.approx(0.025, rel=1e-4) == metrics["dynamics/holdout_error"]
        assert epoch["k_step_error"] == metrics.get("dynamics/k_step_error")
        assert epoch["k_step_error"] == (None if early_stop == "one_step" else pytest.approx(0.08, rel=1e-4))


def test_by_default_the_episodes_change_nothing() -> None:
    rows, episode = record()
    fits = [dynamics_fit.fit_members(jax.random.key(0), CONFIG, rows, episode=known) for known in (None, episode)]
    for one, other in zip(*(jax.tree.leaves(model) for model, _ in fits), strict=True):
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()
    assert fits[0][1] == fits[1][1]
    expected = jax.random.permutation(jax.random.split(jax.random.key(0), 4)[1], 100)
    found = holdout.hold_out(jax.random.split(jax.random.key(0), 4)[1], CONFIG, rows, episode)
    np.testing.assert_array_equal(found.holdout, expected[:20])
    np.testing.assert_array_equal(found.train, expected[20:])


K_STEP = DynamicsConfig(**{**vars(CONFIG), "early_stop": "k_step", "hidden": (8,), "learning_rate": 0.02})


def test_a_fit_by_k_steps_learns_and_has_the_shape_of_any_other() -> None:
    rows, episode = record((40,) * 20)
    config = DynamicsConfig(**{**vars(K_STEP), "max_batches": 300, "epoch_batches": 20, "holdout": 100})
    model, figures = dynamics_fit.fit_members(jax.random.key(0), config, rows, episode=episode)
    first, *_, last = (epoch["k_step_error"] for epoch in figures["epochs"])
    assert 0.0 < last < 0.5 * first
    assert figures["chosen"] == sorted(figures["chosen"])
    like = jax.eval_shape(lambda: dynamics.init_members(jax.random.key(0), config, 2, 1))
    assert jax.tree.map(jnp.shape, like) == jax.tree.map(jnp.shape, model)


@pytest.mark.parametrize(
    ("episode", "found"),
    [(None, "none that are marked"), (jnp.zeros(100, jnp.int32), "at least two episodes, found 1;")],
)
def test_without_episodes_k_steps_cannot_be_followed(episode: jax.Array | None, found: str) -> None:
    with pytest.raises(UserError, match=rf"dynamics\.early_stop k_step.*{found}.*set dynamics\.early_stop to one_step"):
        dynamics_fit.fit_members(jax.random.key(0), K_STEP, record()[0], episode=episode)


def test_episodes_that_are_too_short_are_named_with_their_length() -> None:
    rows, episode = record((3,) * 30)
    with pytest.raises(UserError, match=r"early_stop_steps is 4: .*found 3 in the longest; lower"):
        dynamics_fit.fit_members(jax.random.key(0), K_STEP, rows, episode=episode)
    many = DynamicsConfig(**{**vars(K_STEP), "early_stop_steps": 200})  # more than there are rows
    with pytest.raises(UserError, match=r"early_stop_steps is 200: .*found 3"):
        dynamics_fit.fit_members(jax.random.key(0), many, rows, episode=episode)


def test_no_steps_are_refused() -> None:
    with pytest.raises(UserError, match="early_stop_steps must be at least 1, found 0"):
        DynamicsConfig(early_stop_steps=0)
