"""RAMBO: the mixture's density, the advantage, both terms of the model's loss, and what weight 0 leaves."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damorl.algos import rambo, sac
from damorl.algos.base import OfflineData, Problem
from damorl.core.nets import Dense
from damorl.core.optim import minimise
from damorl.core.scaler import Standardiser
from damorl.errors import UserError
from damorl.parts import dynamics
from damorl.parts.actor import cloning_loss, policy
from damorl.types import Spec, Transition

PROBLEM = Problem(Spec(1, 1), lambda obs, action, next_obs: next_obs[:, 0] > jnp.inf)
CONFIG = rambo.Config(
    batch_size=64,
    hidden=(16, 16),
    actor_lr=3e-3,
    critic_lr=3e-3,
    initial_temperature=0.05,
    rollout_starts=50,
    rollout_length=3,
    cloning_updates=100,
    adversary_updates=7,
    adversary_batch_size=64,
    adversary_lr=3e-3,
    dynamics=dynamics.DynamicsConfig(
        num_members=3, num_elites=2, hidden=(16,), max_batches=300, epoch_batches=100, log_var_coef=0.001
    ),
)
quiet = lambda *told: None


@pytest.fixture(scope="module")
def data() -> OfflineData:
    """A point on a line, pushed at random: s' = s + 0.5 a + noise, and the reward is how near to 1 it comes."""
    rng = np.random.default_rng(0)
    obs, action = rng.uniform(-2.0, 2.0, (1000, 1)), rng.uniform(-0.95, 0.95, (1000, 1))
    next_obs = obs + 0.5 * action + 0.1 * rng.normal(size=obs.shape)
    reward = -np.abs(next_obs[:, 0] - 1.0)
    rows = Transition(*(jnp.asarray(part, jnp.float32) for part in (obs, action, reward, next_obs, np.zeros(1000))))
    return OfflineData(rows, rows.obs[:10])


@pytest.fixture(scope="module")
def prepared(data: OfflineData) -> rambo.State:
    state = rambo.init(jax.random.key(0), CONFIG, PROBLEM, data)
    return rambo.prepare(jax.random.key(1), CONFIG, PROBLEM, state, data, quiet)


def constant_model(mean: list[list[float]], log_var: list[list[float]]) -> dynamics.DynamicsParams:
    """One layer whose outputs are these for any input: `[member, obs_dim + 1]`, one state, one action."""
    bias = jnp.concatenate([jnp.array(mean), jnp.array(log_var)], axis=1)
    wide = jnp.full(len(mean[0]), 60.0)
    return dynamics.DynamicsParams((Dense(jnp.zeros((len(mean), 2, bias.shape[1])), bias),), wide, -wide)


def slow_log_density(params: Any, x: Any, y: Any, varying: Any) -> np.ndarray:
    """Row by row, member by member, in float64, numbers that are too small to be exponentiated included."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    x, y, found = np.asarray(x, np.float64), np.asarray(y, np.float64), []
    for row, outcome in zip(x, y, strict=True):
        logs = []
        for member in range(len(params.layers[0].kernel)):
            h = row
            for number, layer in enumerate(params.layers):
                h = h @ layer.kernel[member] + layer.bias[member]
                h = h / (1.0 + np.exp(-h)) if number < len(params.layers) - 1 else h
            mean, log_var = np.split(h, 2)
            log_var = params.log_var_max - np.log1p(np.exp(params.log_var_max - log_var))
            log_var = params.log_var_min + np.log1p(np.exp(log_var - params.log_var_min))
            each = -0.5 * (outcome - mean) ** 2 / np.exp(log_var) - 0.5 * log_var
            logs.append(each[np.asarray(varying) > 0].sum())
        top = max(logs)
        found.append(top + math.log(sum(math.exp(one - top) for one in logs) / len(logs)))
    return np.array(found)


@pytest.mark.parametrize("far", [1.0, 1e2, 1e4])
@pytest.mark.parametrize("varying", [(1.0, 1.0, 1.0), (1.0, 0.0, 1.0)])
def test_the_mixtures_density_equals_a_slow_one_also_where_it_vanishes(far: float, varying: tuple[float, ...]) -> None:
    config = dynamics.DynamicsConfig(num_members=3, num_elites=3, hidden=(8,))
    params = dynamics.init_params(jax.random.key(0), config, 2, 2)
    params = params._replace(layers=jax.tree.map(lambda leaf: 2.0 * leaf + 0.1, params.layers))
    x, y = jax.random.normal(jax.random.key(1), (20, 4)), far * jax.random.normal(jax.random.key(2), (20, 3))
    found = rambo.log_density(params, x, y, jnp.array(varying)) + 1.5 * math.log(2.0 * math.pi)
    np.testing.assert_allclose(found, slow_log_density(params, x, y, varying), rtol=1e-5, atol=1e-5)
    if far > 1.0:
        assert float(jnp.max(found)) < -104.0  # whose exponential is 0 in float32


def test_the_adversarial_loss_of_two_members_by_hand() -> None:
    """Members predict 0 and 1 for the change of state, deviation 1, in units of 2 around 0.5; the reward is 0."""
    params = constant_model([[0.0, 0.0], [1.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]])
    targets = Standardiser(jnp.array([0.5, 0.0]), jnp.array([2.0, 1.0]))
    model = dynamics.Dynamics(params, Standardiser(jnp.zeros(2), jnp.ones(2)), targets)
    column = lambda *values: jnp.array([[value] for value in values])
    rows = Transition(column(3.0, 5.0), column(0.0, 0.0), jnp.array([0.0, 2.0]), column(3.5, 9.5), jnp.zeros(2))
    # standardised changes 0 and 2: the first fits member one, the second is 1 from member two, its reward 2 from both
    normal = lambda *distances: math.prod(math.exp(-0.5 * d * d) / math.sqrt(2.0 * math.pi) for d in distances)
    first = math.log(0.5 * normal(0.0, 0.0) + 0.5 * normal(1.0, 0.0))
    second = math.log(0.5 * normal(2.0, 2.0) + 0.5 * normal(1.0, 2.0))
    loss, metrics = rambo.adversarial_loss(params, model, rows, jnp.array([1.5, -0.5]))
    assert float(loss) == pytest.approx(0.5 * (1.5 * first - 0.5 * second), rel=1e-5)
    assert float(metrics["adversary/log_density"]) == pytest.approx(0.5 * (first + second), rel=1e-5)


def test_advantages_are_of_live_critics_at_the_mode_without_entropy(prepared: rambo.State) -> None:
    """Linear networks by hand. Target critic and temperature are NaN: nobody may ask them."""
    critic = (Dense(jnp.array([[[1.0], [2.0]], [[0.5], [-1.0]]]), jnp.array([[0.0], [0.3]])),)
    actor = (Dense(jnp.array([[0.7, 0.0]]), jnp.array([0.1, -0.5])),)
    nan = partial(jax.tree.map, lambda leaf: jnp.full_like(leaf, jnp.nan))
    agent = prepared.agent._replace(
        actor=prepared.agent.actor._replace(params=actor),
        critic=prepared.agent.critic._replace(params=critic),
        target_critic=nan(critic),
        average_actor=nan(actor),
        temperature=nan(prepared.agent.temperature),
    )
    q = lambda s, a: min(1.0 * s + 2.0 * a, 0.5 * s - 1.0 * a + 0.3)
    rows = Transition(
        jnp.array([[0.2], [-1.0]]),
        jnp.array([[0.5], [-0.4]]),
        jnp.array([1.0, 2.0]),
        jnp.array([[0.4], [3.0]]),
        jnp.array([0.0, 1.0]),
    )
    alive = 1.0 + 0.99 * q(0.4, math.tanh(0.7 * 0.4 + 0.1)) - q(0.2, 0.5)
    ended = 2.0 - q(-1.0, -0.4)
    np.testing.assert_allclose(rambo.advantage(CONFIG, agent, rows), [alive, ended], rtol=1e-5)


def test_standardised_advantages_forget_shift_and_scale() -> None:
    values = jnp.array([3.0, -1.0, 0.5, 7.0])
    found = np.asarray(rambo.standardise(values))
    assert found.mean() == pytest.approx(0.0, abs=1e-6)
    assert found.std() == pytest.approx(1.0, rel=1e-5)
    np.testing.assert_allclose(rambo.standardise(100.0 * values - 40.0), found, atol=1e-5)
    np.testing.assert_array_equal(rambo.standardise(jnp.full(4, 2.0)), 0.0)


def test_a_target_that_never_changes_is_left_out() -> None:
    """Its scale is 0 in a fitted model: no division by it, and no gradient from it."""
    params = constant_model([[0.0, 0.0], [1.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]])
    targets = Standardiser(jnp.array([0.0, 5.0]), jnp.array([1.0, 0.0]))
    model = dynamics.Dynamics(params, Standardiser(jnp.zeros(2), jnp.ones(2)), targets)
    rows = Transition(jnp.zeros((4, 1)), jnp.zeros((4, 1)), jnp.full(4, 6.0), jnp.ones((4, 1)), jnp.zeros(4))
    grads = jax.grad(lambda p: rambo.adversarial_loss(p, model, rows, jnp.ones(4))[0])(params)
    bias = np.asarray(grads.layers[0].bias)
    assert np.isfinite(bias).all()
    assert bias[0, 0] > 0.3  # the first member's mean is below the outcome, the second's deviation is too large
    assert bias[1, 2] < -0.3
    np.testing.assert_array_equal(bias[:, [1, 3]], 0.0)


class Played(NamedTuple):
    """Of a model after its turn: nats per real row, and its expected value of the next state, `E[r + gamma V(s')]`."""

    nll: float
    value: float


@pytest.fixture(scope="module")
def right_is_good(prepared: rambo.State) -> rambo.State:
    """A critic for which a state is worth itself, Q(s, a) = s, and a model that has seen the data."""
    critic = (Dense(jnp.tile(jnp.array([[1.0], [0.0]]), (2, 1, 1)), jnp.zeros((2, 1))),)
    return prepared._replace(agent=prepared.agent._replace(critic=prepared.agent.critic._replace(params=critic)))


@pytest.fixture(scope="module")
def turn(data: OfflineData) -> Callable[..., Any]:
    """150 model updates and what came of them, the weight not yet given: one compilation for all of them."""

    @jax.jit
    def run(state: rambo.State, weight: Any) -> tuple[Any, ...]:
        config = replace(CONFIG, adversary_weight=weight, adversary_updates=150)
        moved, metrics = rambo.play(config, PROBLEM, state, data, jax.random.key(3))
        log_prob = rambo.log_density(moved.model.params, *rambo.fit_units(moved.model, data.rows))
        action = policy(state.agent.actor.params, data.rows.obs).mode()
        mean = dynamics.predict_all(moved.model, data.rows.obs, action).mean
        return -jnp.mean(log_prob), jnp.mean(mean[..., 1] + 0.99 * mean[..., 0]), metrics

    return run


def after_its_turn(turn: Callable[..., Any], state: rambo.State, weight: float) -> Played:
    nll, value, metrics = turn(state, weight)
    assert all(np.isfinite(figure) for figure in metrics.values())
    return Played(float(nll), float(value))


def test_the_adversary_lowers_the_models_value_and_a_small_weight_keeps_the_data_likely(
    right_is_good: rambo.State, turn: Callable[..., Any]
) -> None:
    honest, mild, fierce = (after_its_turn(turn, right_is_good, weight) for weight in (0.0, 1.0, 30.0))
    assert mild.value < honest.value - 0.03
    assert fierce.value < mild.value - 0.1
    assert mild.nll < honest.nll + 0.15
    assert fierce.nll > honest.nll + 1.0  # so the likelihood term is what keeps the mild one


def test_one_step_takes_likelihood_from_good_outcomes_and_gives_it_to_bad_ones(right_is_good: rambo.State) -> None:
    @jax.jit
    def step(state: rambo.State) -> tuple[Any, Any]:
        model = state.model
        rows = rambo.imagine(model, state.agent.actor.params, PROBLEM, jnp.zeros((64, 1)), jax.random.key(0))
        weights = rambo.standardise(rambo.advantage(CONFIG, state.agent, rows))
        grads = jax.grad(lambda params: rambo.adversarial_loss(params, model, rows, weights)[0])(model.params)
        params = jax.tree.map(lambda leaf, grad: leaf - 1e-3 * grad, model.params, grads)
        density = lambda params: rambo.log_density(params, *rambo.fit_units(model, rows))
        return weights, density(params) - density(model.params)

    weights, gained = (np.asarray(part) for part in step(right_is_good))
    assert gained[weights > 0.5].mean() < 0.0 < gained[weights < -0.5].mean()


def test_the_sampled_outcome_is_a_constant_of_the_gradient(right_is_good: rambo.State, data: OfflineData) -> None:
    """REINFORCE: one update moves the model along the gradient of `weight * E[A log p] + L_MLE`, rows held fixed."""
    config, key, obs = replace(CONFIG, adversary_weight=2.0), jax.random.key(5), data.rows.obs[:64]

    @jax.jit
    def both(state: rambo.State) -> tuple[Any, ...]:
        moved, next_obs, _ = rambo.update_model(config, PROBLEM, state, data, obs, key)
        step_key, real_key = jax.random.split(key)
        rows = rambo.imagine(state.model, state.agent.actor.params, PROBLEM, obs, step_key)
        real = rambo.ring.sample_rows(data.rows, real_key, 128)
        weights = rambo.standardise(rambo.advantage(config, state.agent, rows))
        x, y, varying = rambo.fit_units(state.model, real)

        def loss(params: Any) -> Any:
            members = (x.reshape(2, 64, 2), y.reshape(2, 64, 2))
            likelihood, _ = dynamics.nll_loss(params, *members, varying, config.dynamics)
            density = rambo.log_density(params, *rambo.fit_units(state.model, rows))
            return 2.0 * jnp.mean(weights * density) + likelihood, ()

        before = rambo.Learner(state.model.params, state.model_optimiser)
        expected, _ = minimise(loss, before, rambo.adam(config.adversary_lr))
        return moved, expected, next_obs, rows

    moved, expected, next_obs, rows = both(right_is_good)
    for found, wanted in zip(jax.tree.leaves(moved.model.params), jax.tree.leaves(expected.params), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(next_obs, rows.next_obs, rtol=1e-5)
    np.testing.assert_array_equal(moved.model.targets.scale, right_is_good.model.targets.scale)  # the fit's units stay


def test_chains_run_on_from_step_to_step_and_past_terminals(
    prepared: rambo.State, data: OfflineData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seven updates in chains of three: starts from the data at 0, 3 and 6; in between, where the last step led."""
    log, always = jnp.zeros((7, 64, 1)), Problem(Spec(1, 1), lambda obs, action, next_obs: next_obs[:, 0] < jnp.inf)
    real = rambo.update_model

    def noting(config: Any, problem: Any, noted: Any, data: Any, obs: Any, key: Any) -> Any:
        state, log, index = noted
        state, next_obs, metrics = real(config, problem, state, data, obs, key)
        return (state, log.at[index].set(obs), index + 1), next_obs, metrics

    monkeypatch.setattr(rambo, "update_model", noting)
    noted: Any = (prepared, log, jnp.int32(0))
    noted, metrics = jax.jit(lambda start, k: rambo.play(CONFIG, always, start, data, k))(noted, jax.random.key(0))
    seen, starts = np.asarray(noted[1]), {float(value) for value in data.rows.obs[:, 0]}
    for index in range(7):
        from_data = [float(value) in starts for value in seen[index, :, 0]]
        assert all(from_data) if index % 3 == 0 else not any(from_data), index
    assert not np.array_equal(seen[0], seen[3])
    assert np.abs(seen[1] - seen[0]).max() < 1.5  # one push of at most 0.5, and noise
    assert np.isfinite(float(metrics["adversary/advantage"]))


def test_weight_zero_without_model_updates_is_sac_with_a_cloned_start_bit_for_bit(
    prepared: rambo.State, data: OfflineData
) -> None:
    config = replace(CONFIG, adversary_weight=0.0)
    plain = sac.Config(**{name: getattr(config, name) for name in sac.Config.__dataclass_fields__})

    @partial(jax.jit, static_argnums=(0, 1))
    def epoch(algo: Any, settings: Any, state: Any, key: Any) -> Any:
        refresh_key, update_key = jax.random.split(key)
        state, _ = algo.refresh(settings, PROBLEM, state, data, refresh_key)
        step = lambda s, k: algo.update(settings, s, data, k)
        return jax.lax.scan(step, state, jax.random.split(update_key, 5))[0]

    state, expected = prepared, sac.State(prepared.agent, prepared.model, prepared.buffer)
    for number in range(2):
        state = epoch(rambo.ALGORITHM, config, state, jax.random.key(number))
        expected = epoch(sac.ALGORITHM, plain, expected, jax.random.key(number))
    found = sac.State(state.agent, state.model, state.buffer)
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert np.asarray(ours).tobytes() == np.asarray(theirs).tobytes()
    before, after = (np.asarray(s.agent.actor.params[0].kernel) for s in (prepared, state))
    assert not np.array_equal(before, after)


@pytest.mark.parametrize(
    ("changes", "moves"),
    [
        ({"adversary_weight": 0.0}, False),
        ({"adversary_weight": 0.0, "zero_weight": "likelihood"}, True),
        ({"adversary_weight": 3e-4}, True),
    ],
)
def test_weight_zero_means_what_it_is_said_to_mean(
    prepared: rambo.State, data: OfflineData, monkeypatch: pytest.MonkeyPatch, changes: Any, moves: bool
) -> None:
    """And the policy's rollouts are made in the model as it is after its turn."""
    used = []
    monkeypatch.setattr(rambo, "play", lambda *arguments: (prepared._replace(model="moved"), {"adversary/loss": 0.0}))
    monkeypatch.setattr(rambo.model_data, "imagine", lambda _, model, *rest: used.append(model) or (None, None, {}))
    monkeypatch.setattr(rambo.ring, "add", lambda buffer, rows, keep: buffer)
    state, metrics = rambo.refresh(replace(CONFIG, **changes), PROBLEM, prepared, data, jax.random.key(0))
    assert used == ["moved"] if moves else used[0] is prepared.model
    assert state.model is used[0]
    assert ("adversary/loss" in metrics) == moves


def test_the_actor_starts_as_a_clone_unless_told_not_to(prepared: rambo.State, data: OfflineData) -> None:
    state = rambo.init(jax.random.key(0), CONFIG, PROBLEM, data)
    loss = lambda params: float(cloning_loss(params, data.rows.obs, data.rows.action)[0])
    assert loss(prepared.agent.actor.params) < loss(state.agent.actor.params) - 0.05
    np.testing.assert_array_equal(prepared.agent.average_actor[0].kernel, prepared.agent.actor.params[0].kernel)
    fresh = rambo.prepare(jax.random.key(1), replace(CONFIG, cloning_updates=None), PROBLEM, state, data, quiet)
    assert fresh.agent is state.agent
    np.testing.assert_array_equal(fresh.model.params.layers[0].kernel, prepared.model.params.layers[0].kernel)


def test_a_batch_that_cannot_be_dealt_to_the_elites_is_refused() -> None:
    with pytest.raises(UserError, match=r"adversary_batch_size must be a multiple of dynamics\.num_elites, found 256"):
        rambo.Config(adversary_batch_size=256)


def test_it_finds_what_cloning_random_pushes_does_not(prepared: rambo.State, data: OfflineData) -> None:
    """The data push at random; the point should be brought to 1 and kept there."""
    config = replace(CONFIG, adversary_updates=20, gamma=0.9)

    @jax.jit
    def epoch(state: rambo.State, key: Any) -> rambo.State:
        refresh_key, update_key = jax.random.split(key)
        state, _ = rambo.refresh(config, PROBLEM, state, data, refresh_key)
        step = lambda s, k: rambo.update(config, s, data, k)
        return jax.lax.scan(step, state, jax.random.split(update_key, 100))[0]

    def mean_reward(actor: Any) -> float:
        layers = [jax.tree.map(np.asarray, layer) for layer in actor]
        obs, total = np.linspace(-1.5, 1.5, 21)[:, None], 0.0
        for _ in range(20):
            h = obs
            for layer in layers[:-1]:
                h = np.maximum(h @ layer.kernel + layer.bias, 0.0)
            mean = (h @ layers[-1].kernel + layers[-1].bias)[:, :1]
            obs = obs + 0.5 * np.tanh(mean)
            total += float(np.mean(-np.abs(obs[:, 0] - 1.0))) / 20
        return total

    state = prepared
    for number in range(10):
        state = epoch(state, jax.random.key(number))
    cloned, learned = mean_reward(prepared.agent.actor.params), mean_reward(state.agent.actor.params)
    assert cloned < -0.8
    assert learned > -0.35
