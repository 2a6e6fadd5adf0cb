"""The ensemble: its likelihood by hand, its fit on a system with a known answer, and the draw of one elite per row."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damorl.core.nets import Dense
from damorl.core.optim import init_learner
from damorl.core.scaler import Standardiser
from damorl.errors import UserError
from damorl.parts import dynamics, dynamics_fit
from damorl.parts.dynamics import Dynamics, DynamicsConfig, DynamicsParams
from damorl.types import Transition

FLOOR = -800.0  # a log-variance whose deviation is exactly 0 in single precision
CONFIG = DynamicsConfig(
    num_members=3,
    num_elites=2,
    hidden=(8,),
    batch_size=64,
    learning_rate=0.02,
    holdout=100,
    max_batches=600,
    epoch_batches=100,
)
NOISE, REWARD_NOISE = 0.2, 0.05
BOTH = jnp.ones(2)  # targets that vary


def unit(dim: int) -> Standardiser:
    return Standardiser(jnp.zeros(dim), jnp.ones(dim))


def constant_model(drifts: list[float], log_std: list[float], log_var_min: float = FLOOR) -> Dynamics:
    """Elites without weights, obs_dim 1: elite e moves by `drifts[e]` and is paid `-drifts[e]`, deviation as given."""
    num_elites, spread = len(drifts), 2.0 * np.asarray(log_std)
    bias = np.stack([drifts, -np.asarray(drifts), spread, spread], axis=1).astype(np.float32)
    layer = Dense(jnp.zeros((num_elites, 2, 4)), jnp.asarray(bias))
    return Dynamics(DynamicsParams((layer,), jnp.full(2, 20.0), jnp.full(2, log_var_min)), unit(2), unit(2))


def softplus(x):
    return np.logaddexp(0.0, x)


# --- the likelihood ---------------------------------------------------------------------------------------------


def single_layer(raw_log_var: np.ndarray, mean: float = 0.0) -> DynamicsParams:
    """One member, no weights, obs_dim 1, bounds -10 and 0.5."""
    bias = np.array([[mean, mean, *raw_log_var]], np.float32)
    return DynamicsParams((Dense(jnp.zeros((1, 1, 4)), jnp.asarray(bias)),), jnp.full(2, 0.5), jnp.full(2, -10.0))


def test_log_variance_is_softly_clamped():
    raw = np.linspace(-100.0, 100.0, 41)
    params = single_layer(np.zeros(2))._replace(log_var_max=jnp.full(41, 0.5), log_var_min=jnp.full(41, -10.0))
    bias = np.concatenate([np.zeros(41), raw])[None].astype(np.float32)
    params = params._replace(layers=(Dense(jnp.zeros((1, 1, 82)), jnp.asarray(bias)),))
    mean, log_var = (np.asarray(value)[0, 0] for value in dynamics.forward(params, jnp.zeros((1, 1, 1))))
    np.testing.assert_array_equal(mean, 0.0)
    upper = 0.5 - softplus(0.5 - raw)
    np.testing.assert_allclose(log_var, -10.0 + softplus(upper + 10.0), atol=1e-5)
    assert np.all(log_var >= -10.0)
    assert np.all(log_var <= 0.5 + 1e-4)  # the second clamp lifts the first by log(1 + exp(-10.5))
    assert log_var[raw == -5.0][0] == pytest.approx(-5.0, abs=0.02)  # far from both bounds: nothing happens
    assert np.all(np.diff(log_var) >= 0.0)


def test_beta_nll_by_hand_and_the_gradient_of_the_mean_does_not_fade():
    """arXiv 2203.09168, Eq. 5: each target's term times its variance to the power beta, which takes no gradient. With
    beta 1 the mean's gradient is that of the squared error, whatever variance is predicted."""
    y, variance = jnp.array([[[3.0, 0.0]]]), []
    slopes = {0.0: [], 0.5: [], 1.0: []}
    for raw in (-4.0, 0.0):
        params = single_layer(np.array([raw, raw]), mean=1.0)
        variance.append(float(jnp.exp(dynamics.forward(params, jnp.zeros((1, 1, 1)))[1][0, 0, 0])))
        for beta, found in slopes.items():
            config = DynamicsConfig(num_members=1, num_elites=1, log_var_coef=0.0, nll_beta=beta)
            grad = jax.grad(lambda p, c=config: dynamics.nll_loss(p, jnp.zeros((1, 1, 1)), y, BOTH, c)[0])(params)
            found.append(float(grad.layers[0].bias[0, 0]))  # of mean - y = -2, averaged over two targets
    for beta, found in slopes.items():
        np.testing.assert_allclose(found, [-2.0 * v ** (beta - 1.0) for v in variance], rtol=1e-4)


def test_beta_nll_moves_the_log_variance_the_same_way():
    """The weight scales the likelihood's gradient in the log-variance and keeps its root: variance = squared error."""
    y, params = jnp.array([[[3.0, 1.0]]]), single_layer(np.array([-1.0, -1.0]), mean=1.0)
    grads = []
    for beta in (0.0, 0.5):
        config = DynamicsConfig(num_members=1, num_elites=1, log_var_coef=0.0, nll_beta=beta)
        loss = lambda p, c=config: dynamics.nll_loss(p, jnp.zeros((1, 1, 1)), y, BOTH, c)[0]
        grads.append(np.asarray(jax.grad(loss)(params).layers[0].bias[0, 2:]))
    std = np.exp(0.5 * np.asarray(dynamics.forward(params, jnp.zeros((1, 1, 1)))[1][0, 0]))
    np.testing.assert_allclose(grads[1], grads[0] * std, rtol=1e-4)
    assert grads[0][0] < 0.0 < grads[0][1]  # too sure of the first target, not sure enough of the second


@pytest.mark.parametrize("beta", [-0.1, 1.1])
def test_a_power_that_is_none_is_refused(beta):
    with pytest.raises(UserError, match="nll_beta must lie between 0 and 1"):
        DynamicsConfig(nll_beta=beta)


def test_nll_by_hand():
    params = single_layer(np.array([-1.0, -2.0]), mean=1.0)
    y = jnp.array([[[1.0, 1.5], [3.0, 1.0]]])
    log_var = [-10.0 + softplus(0.5 - softplus(0.5 - raw) + 10.0) for raw in (-1.0, -2.0)]
    squared = [(0.0 + 4.0) / 2, (0.25 + 0.0) / 2]
    nll = np.mean([s * math.exp(-v) + v for s, v in zip(squared, log_var, strict=True)])
    config = DynamicsConfig(num_members=1, num_elites=1, log_var_coef=0.01)
    loss, metrics = jax.jit(lambda p: dynamics.nll_loss(p, jnp.zeros((1, 2, 1)), y, BOTH, config))(params)
    assert float(metrics["dynamics/nll"]) == pytest.approx(nll, rel=1e-5)
    assert float(loss) == pytest.approx(nll + 0.01 * (2 * 0.5 + 2 * 10.0), rel=1e-5)


def test_a_target_that_never_changes_is_left_out():
    params, config = (
        single_layer(np.array([-1.0, -2.0]), mean=1.0),
        DynamicsConfig(num_members=1, num_elites=1, log_var_coef=0.0),
    )
    loss = jax.jit(lambda p, y: dynamics.nll_loss(p, jnp.zeros((1, 2, 1)), y, jnp.array([0.0, 1.0]), config)[0])
    y = np.array([[[1.0, 1.5], [3.0, 1.0]]], np.float32)
    log_var = -10.0 + softplus(0.5 - softplus(0.5 + 2.0) + 10.0)
    assert float(loss(params, y)) == pytest.approx(0.125 * math.exp(-log_var) + log_var, rel=1e-5)
    slope = jax.jit(jax.grad(loss))(params, y).layers[0].bias[0]
    np.testing.assert_array_equal(slope[np.array([0, 2])], 0.0)


def test_nll_is_least_at_the_data_s_own_mean_and_variance():
    y = jnp.array([[[-2.0, 0.1], [0.0, 0.3], [5.0, 0.2]]])
    x, config = jnp.zeros((1, 3, 1)), DynamicsConfig(num_members=1, num_elites=1, log_var_coef=0.0)
    wide = DynamicsParams((), jnp.full(2, 30.0), jnp.full(2, -30.0))  # bounds out of the way

    def nll(mean, log_var):
        layer = Dense(jnp.zeros((1, 1, 4)), jnp.concatenate([mean, log_var])[None])
        return dynamics.nll_loss(wide._replace(layers=(layer,)), x, y, BOTH, config)[0]

    best = y.mean(axis=1)[0], jnp.log(y.var(axis=1)[0])
    for slope in jax.jit(jax.grad(nll, argnums=(0, 1)))(*best):
        np.testing.assert_allclose(slope, 0.0, atol=1e-5)


X, Y = jnp.zeros((1, 1, 1)), jnp.zeros((1, 1, 2))


@pytest.mark.parametrize("depth", [0, 1, 4, 6])
def test_weight_decay_is_the_published_one_per_layer(depth):
    """Layer i of the hidden ones 2.5e-5, 5e-5, 7.5e-5, 7.5e-5 (and on), the last 1e-4, each half the squared norm."""
    sizes = (1, *[2] * depth, 4)
    layers = tuple(Dense(jnp.ones((1, i, o)), jnp.zeros((1, o))) for i, o in pairwise(sizes))
    params = DynamicsParams(layers, jnp.zeros(2), jnp.zeros(2))
    loss = jax.jit(lambda w: dynamics.nll_loss(params, X, Y, BOTH, DynamicsConfig(weight_decay=w))[0])
    plain, decayed = float(loss(0.0)), float(loss(1000.0))
    rates = [*[2.5e-5, 5e-5, 7.5e-5, 7.5e-5, 7.5e-5, 7.5e-5][:depth], 1e-4]
    expected = sum(rate * i * o / 2.0 for rate, (i, o) in zip(rates, pairwise(sizes), strict=True))
    assert decayed - plain == pytest.approx(1000.0 * expected, rel=1e-3)


class Fitted(NamedTuple):
    model: Dynamics
    figures: dict[str, float]
    epochs: list[tuple[int, dict[str, float]]]
    programs: int
    """How many times the epoch was compiled."""


# --- the fit ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def system() -> Transition:
    """s' = 0.9 s + 0.5 a + noise, r = s - a + noise, with states around 10: units matter. A second coordinate stays."""
    rng = np.random.default_rng(0)
    obs, action = inputs(rng, 1000)
    next_obs = np.stack([0.9 * obs[:, 0] + 0.5 * action[:, 0] + NOISE * rng.normal(size=1000), obs[:, 1]], axis=1)
    reward = (obs - action)[:, 0] + REWARD_NOISE * rng.normal(size=1000)
    return Transition(*(jnp.asarray(f, jnp.float32) for f in (obs, action, reward, next_obs, np.zeros(1000))))


def inputs(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    return rng.normal([10.0, -3.0], 2.0, size=(count, 2)).astype(np.float32), rng.uniform(-1.0, 1.0, size=(count, 1))


def num_programs() -> int:
    """How many versions of the epoch have been compiled so far."""
    return getattr(dynamics_fit.fit_epoch, "_cache_size")()  # noqa: B009


@pytest.fixture(scope="module")
def fitted(system: Transition) -> Fitted:
    epochs, programs = [], num_programs()
    members, figures = dynamics_fit.fit_members(jax.random.key(0), CONFIG, system, lambda *epoch: epochs.append(epoch))
    model = dynamics.first_members(members, CONFIG.num_elites)
    return Fitted(model, figures, epochs, num_programs() - programs)


def test_fit_recovers_a_linear_gaussian_system(fitted):
    obs, action = inputs(np.random.default_rng(1), 200)
    stack = lambda rows: jnp.asarray(np.broadcast_to(rows, (CONFIG.num_elites, *rows.shape)), jnp.float32)
    mean, std = map(np.asarray, dynamics.predict(fitted.model, stack(obs), stack(action)))
    state_error = np.sqrt(np.mean((mean[..., 0] - 0.9 * obs[:, 0] - 0.5 * action[:, 0]) ** 2))
    reward_error = np.sqrt(np.mean((mean[..., 2] - obs[:, 0] + action[:, 0]) ** 2))
    assert state_error < 0.4 * NOISE
    assert reward_error < 0.1  # 5 % of the reward's deviation
    assert np.mean(std[..., 0]) == pytest.approx(NOISE, rel=0.15)
    assert REWARD_NOISE < np.mean(std[..., 2]) < 2.5 * REWARD_NOISE  # what the fit has not yet learned counts as noise
    np.testing.assert_array_equal(mean[..., 1], stack(obs)[..., 1])  # what never changed stays, without noise
    np.testing.assert_array_equal(std[..., 1], 0.0)


def test_fit_reports_the_share_of_variance_that_noise_leaves(fitted, system):
    _, figures, epochs, _ = fitted
    change = np.asarray(system.next_obs - system.obs)[:, 0]
    floor = 0.5 * (NOISE**2 / np.var(change) + REWARD_NOISE**2 / np.var(np.asarray(system.reward)))
    assert figures["holdout_error"] == pytest.approx(floor, rel=0.3)
    assert figures["batches"] == epochs[-1][0] == CONFIG.max_batches
    assert [done for done, _ in epochs] == list(range(100, 601, 100))
    assert epochs[-1][1]["dynamics/holdout_error"] < epochs[0][1]["dynamics/holdout_error"]
    assert set(epochs[-1][1]) == {"dynamics/nll", "dynamics/holdout_error"}
    assert figures["stopped"] == "max_batches"
    for told, (batches, metrics) in zip(figures["epochs"], epochs, strict=True):
        expected = {name.removeprefix("dynamics/"): value for name, value in metrics.items()}
        assert told == {"batches": batches, "k_step_error": None} | expected


def test_fit_has_the_shape_of_an_unfitted_model(fitted):
    unfitted = jax.eval_shape(lambda: dynamics.init_model(jax.random.key(0), CONFIG, 2, 1))
    assert jax.tree.structure(unfitted) == jax.tree.structure(fitted.model)
    shapes = partial(jax.tree.map, jnp.shape)
    assert shapes(unfitted) == shapes(fitted.model)
    assert fitted.model.params.layers[0].kernel.shape == (CONFIG.num_elites, 3, 8)


def test_every_epoch_runs_the_same_compiled_program(fitted):
    """A change of (weak) type from one epoch to the next would silently compile again."""
    assert len(fitted.epochs) > 2
    assert fitted.programs <= 1


def numbered_layers(num_members: int) -> Any:
    return (Dense(jnp.zeros((num_members, 2, 4)), jnp.tile(jnp.arange(num_members)[:, None], (1, 4))),)


def test_elites_are_the_members_of_lowest_holdout_error_best_first_and_patience_ends_the_fit(system, monkeypatch):
    """The epoch is replaced by one that only reports: errors as given, one improvement, then none."""
    config = replace(CONFIG, max_batches=None, epoch_batches=None, patience=2)
    calls = []

    def fake_epoch(state, arrays, key, *, config, num_batches):
        calls.append(num_batches)
        return state._replace(
            best_layers=numbered_layers(3),
            best_error=jnp.array([0.4, 0.9, 0.1]),
            stale_epochs=jnp.int32(len(calls) - 1),
        ), {}

    monkeypatch.setattr(dynamics_fit, "fit_epoch", fake_epoch)
    members, figures = dynamics_fit.fit_members(jax.random.key(0), config, system)
    model = dynamics.first_members(members, config.num_elites)
    assert model.params.layers[0].bias[:, 0].tolist() == [2.0, 0.0]
    assert figures["holdout_error"] == pytest.approx((0.1 + 0.4) / 2)
    assert calls == [15] * 3  # 900 training rows are 15 batches of 64; the first epoch improved, two did not
    assert (figures["batches"], figures["stopped"], figures["elites"]) == (45, "patience", 2)
    assert figures["chosen"] == pytest.approx([0.1, 0.4, 0.9])
    assert [epoch["batches"] for epoch in figures["epochs"]] == [15, 30, 45]


def test_each_member_keeps_its_best_snapshot_and_only_that(system, fitted):
    del fitted  # only so that the epoch below is compiled already
    x, y = dynamics.model_arrays(system)
    x, y = (x - x.mean(axis=0)) / x.std(axis=0), (y - y.mean(axis=0)) / jnp.maximum(y.std(axis=0), 1e-3)
    rows = jnp.tile(jnp.arange(900), (3, 1))
    varying = jnp.array([1.0, 0.0, 1.0], jnp.float32)
    arrays = dynamics_fit.FitRows(rows, x[100:], y[100:], x[:100], y[:100], varying, unit(3), unit(3))
    params = dynamics.init_params(jax.random.key(1), CONFIG, 2, 1)
    start = jax.tree.map(np.asarray, params.layers)
    state = dynamics_fit.FitState(
        learner=init_learner(params, dynamics_fit.make_optimiser(CONFIG)),
        best_layers=jax.tree.map(jnp.copy, params.layers),
        best_error=jnp.array([1e10, 1e-9, 1e10], jnp.float32),  # nothing will beat the second member's
        stale_epochs=jnp.int32(3),
    )

    def epoch(state):
        return dynamics_fit.fit_epoch(state, arrays, jax.random.key(2), config=CONFIG, num_batches=100)

    state, metrics = epoch(state)
    for best, now, before in zip(
        *map(jax.tree.leaves, (state.best_layers, state.learner.params.layers, start)), strict=True
    ):
        assert not np.allclose(now[1], before[1])  # it went on learning
        np.testing.assert_array_equal(best[1], before[1])
        np.testing.assert_array_equal(np.asarray(best)[[0, 2]], np.asarray(now)[[0, 2]])
    mean, _ = dynamics.forward(state.learner.params, jnp.broadcast_to(x[:100], (3, 100, 3)))
    error = np.mean((np.asarray(mean) - np.asarray(y[:100]))[..., [0, 2]] ** 2, axis=(1, 2))
    np.testing.assert_allclose(np.asarray(state.best_error)[[0, 2]], error[[0, 2]], rtol=1e-3)
    assert float(metrics["dynamics/holdout_error"]) == pytest.approx(error.mean(), rel=1e-3)
    assert float(state.best_error[1]) == pytest.approx(1e-9)
    assert int(state.stale_epochs) == 0

    state, _ = epoch(state._replace(best_error=jnp.full(3, 1e-9, jnp.float32), stale_epochs=jnp.int32(3)))
    assert int(state.stale_epochs) == 4


# --- prediction -------------------------------------------------------------------------------------------------


def test_prediction_undoes_the_scaling():
    rng = np.random.default_rng(0)
    kernel, bias = rng.normal(size=(2, 3, 6)), rng.normal(size=(2, 6))
    inputs, targets = ((rng.normal(size=3), rng.uniform(0.5, 3.0, size=3)) for _ in range(2))
    obs, action = rng.normal(size=(2, 4, 2)), rng.normal(size=(2, 4, 1))
    single = partial(jax.tree.map, lambda leaf: jnp.asarray(leaf, jnp.float32))
    layers = (Dense(*single((kernel, bias))),)
    model = Dynamics(
        DynamicsParams(layers, jnp.full(3, 30.0), jnp.full(3, -30.0)),
        Standardiser(*single(inputs)),
        Standardiser(*single(targets)),
    )
    mean, std = dynamics.predict(model, *single((obs, action)))
    x = (np.concatenate([obs, action], axis=-1) - inputs[0]) / inputs[1]
    output = np.einsum("mbi,mio->mbo", x, kernel) + bias[:, None]
    change = output[..., :3] * targets[1] + targets[0]
    np.testing.assert_allclose(mean[..., :2], obs + change[..., :2], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(mean[..., 2], change[..., 2], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(std, np.exp(0.5 * output[..., 3:]) * targets[1], rtol=1e-4)


def chi_square(counts: np.ndarray) -> float:
    """Against equal shares."""
    expected = counts.sum() / counts.size
    return float(np.sum((counts - expected) ** 2) / expected)


@pytest.fixture(scope="module")
def elites_of_two_steps() -> np.ndarray:
    """`[step, draw, row]`: which of three elites moved each of 6 rows, over 900 independent two-step draws."""
    model = constant_model([0.0, 100.0, 200.0], [-900.0] * 3)
    start = jnp.arange(6.0)[:, None]

    @jax.jit
    @jax.vmap
    def two_steps(key):
        first_key, second_key = jax.random.split(key)
        first, reward = dynamics.sample_step(model, start, jnp.zeros((6, 1)), first_key)
        second, _ = dynamics.sample_step(model, first, jnp.zeros((6, 1)), second_key)
        return first, second, reward

    first, second, reward = map(np.asarray, two_steps(jax.random.split(jax.random.key(0), 900)))
    moves = np.stack([first - np.arange(6.0)[:, None], second - first])[..., 0]
    elites = np.rint(moves / 100.0).astype(int)
    np.testing.assert_array_equal(moves, 100.0 * elites)  # every row came back to its own place
    np.testing.assert_array_equal(reward, -moves[0])  # with the reward of the same elite
    return elites


def test_every_row_draws_its_elite_uniformly(elites_of_two_steps):
    for step in elites_of_two_steps:
        for row in step.T:
            assert chi_square(np.bincount(row, minlength=3)) < 16.0  # 2 degrees of freedom: p = 3e-4


def test_an_elite_says_nothing_about_the_next_step_s(elites_of_two_steps):
    first, second = elites_of_two_steps
    for row in range(6):
        pairs = np.bincount(3 * first[:, row] + second[:, row], minlength=9)
        assert chi_square(pairs) < 29.0  # 8 degrees of freedom: p = 3e-4


def test_elites_serve_equal_shares_of_every_batch(elites_of_two_steps):
    counts = np.stack([(elites_of_two_steps == elite).sum(axis=-1) for elite in range(3)])
    np.testing.assert_array_equal(counts, 2)


def slow_sample_step(model: Dynamics, obs, action, rng: np.random.Generator) -> np.ndarray:
    """Every elite on every row, then one of them, picked uniformly and independently for each row."""
    num_elites = model.params.layers[0].bias.shape[0]
    stack = lambda rows: jnp.broadcast_to(rows, (num_elites, *rows.shape))
    mean, std = (np.asarray(value) for value in dynamics.predict(model, stack(obs), stack(action)))
    everyone = mean + std * rng.normal(size=mean.shape)
    return everyone[rng.integers(num_elites, size=len(obs)), np.arange(len(obs))]


def test_moments_are_those_of_the_slow_way_and_of_the_mixture():
    drifts, deviations, count = np.array([0.0, 1.0, 4.0]), np.array([0.5, 1.0, 2.0]), 30_000
    model = constant_model(drifts.tolist(), np.log(deviations).tolist(), log_var_min=-30.0)
    obs, action = np.full((count, 1), 10.0, np.float32), np.zeros((count, 1), np.float32)
    next_obs, reward = map(np.asarray, jax.jit(dynamics.sample_step)(model, obs, action, jax.random.key(0)))
    fast = np.concatenate([next_obs, reward[:, None]], axis=1)
    slow = slow_sample_step(model, obs, action, np.random.default_rng(0))
    variance = np.mean(deviations**2 + drifts**2) - drifts.mean() ** 2
    covariance = -np.var(drifts)  # state and reward share the elite, not the noise
    for sample in (fast, slow):
        np.testing.assert_allclose(sample.mean(axis=0), [10.0 + drifts.mean(), -drifts.mean()], atol=0.06)
        np.testing.assert_allclose(sample.var(axis=0), variance, rtol=0.03)
        assert np.cov(sample.T)[0, 1] == pytest.approx(covariance, rel=0.06)


def test_without_noise_a_row_follows_the_mean_of_its_elite():
    model = constant_model([0.0, 1.0, 4.0], [2.0] * 3, log_var_min=-30.0)
    obs, action, key = jnp.full((300, 1), 10.0), jnp.zeros((300, 1)), jax.random.key(1)
    quiet, reward = map(np.asarray, dynamics.sample_step(model, obs, action, key, noise=False))
    np.testing.assert_array_equal(np.unique(quiet, return_counts=True), [[10.0, 11.0, 14.0], [100, 100, 100]])
    np.testing.assert_array_equal(reward, 10.0 - quiet[:, 0])
    noisy = np.asarray(dynamics.sample_step(model, obs, action, key)[0])
    assert abs(np.std(noisy - quiet) - np.exp(2.0)) < 0.5  # the same elites, the noise besides


def test_disagreement_is_the_farthest_elite_in_deviations_of_the_change():
    offsets = np.zeros((2, 6), np.float32)  # [elite, (2 states, reward) of mean and log-variance]
    offsets[:, :3] = [[1.0, 5.0, 9.0], [-1.0, -5.0, -9.0]]
    params = dynamics.DynamicsParams(
        (Dense(jnp.zeros((2, 3, 6)), jnp.asarray(offsets)),), jnp.full(3, 0.5), jnp.full(3, -10.0)
    )
    unit = Standardiser(jnp.zeros(3), jnp.ones(3))
    model = dynamics.Dynamics(params, unit, Standardiser(jnp.zeros(3), jnp.array([4.0, 0.0, 7.0])))
    found = dynamics.disagreement(model, jnp.zeros((2, 2)), jnp.zeros((2, 1)))
    np.testing.assert_allclose(found, [1.0, 1.0], rtol=1e-6)  # the second feature never changes; rewards do not count
