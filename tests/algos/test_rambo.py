"""RAMBO: the model's turn, its chains, what weight 0 leaves, and the cloned start."""

from __future__ import annotations

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
from damorl.errors import UserError
from damorl.parts import dynamics, model_agent, model_data
from damorl.parts.actor import cloning_loss, policy
from damorl.types import Spec, Transition

from .conftest import assert_bits

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
        step = lambda s, k: algo.update(settings, PROBLEM, s, data, k)
        return jax.lax.scan(step, state, jax.random.split(update_key, 5))[0]

    state, expected = prepared, model_agent.State(prepared.agent, prepared.model, prepared.buffer)
    for number in range(2):
        state = epoch(rambo.ALGORITHM, config, state, jax.random.key(number))
        expected = epoch(sac.ALGORITHM, plain, expected, jax.random.key(number))
    found = model_agent.State(state.agent, state.model, state.buffer)
    assert_bits(found, expected)
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
    used, moved = [], prepared._replace(model=prepared.model._replace(inputs="moved"))
    monkeypatch.setattr(rambo, "play", lambda *arguments: (moved, {"adversary/loss": 0.0}))
    note = lambda _, model, *rest: used.append(model.inputs) or (None, None, {})
    monkeypatch.setattr(model_data, "imagine", note)
    monkeypatch.setattr(rambo.ring, "add", lambda buffer, rows, keep: buffer)
    state, metrics = rambo.refresh(replace(CONFIG, **changes), PROBLEM, prepared, data, jax.random.key(0))
    assert used == ["moved"] if moves else used[0] is prepared.model.inputs
    assert state.model.inputs is used[0]
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
