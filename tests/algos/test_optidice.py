"""OptiDICE's losses by hand, its absorbing state, and the actor that is saved."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damorl.algos import optidice
from damorl.core.divergence import DIVERGENCES
from damorl.core.nets import Dense
from damorl.parts.actor import policy

CONFIG = optidice.Config(hidden=(8,), batch_size=64, gamma=0.9, divergence_weight=0.5)
KEY = jax.random.key(5)
NON_NEGATIVE = pytest.mark.parametrize("name", [n for n, d in DIVERGENCES.items() if not d.whole_line])


@pytest.fixture(scope="module")
def state(problem, data) -> optidice.State:
    return jax.jit(lambda key: optidice.init(key, CONFIG, problem, data))(jax.random.key(0))


def hand_rows(e_nu: list[float]) -> optidice.Rows:
    """Rows whose reward is the residual if nu is 0; observation, action and next observation are 0."""
    count = len(e_nu)
    zeros, column = jnp.zeros((count, 2)), jnp.zeros((count, 1))
    return optidice.Rows(zeros, column, jnp.array(e_nu), zeros, jnp.ones(count), zeros)


def constant(value: float, num_inputs: int) -> tuple[Dense]:
    return (Dense(jnp.zeros((num_inputs, 1)), jnp.array([value])),)


@NON_NEGATIVE
def test_ratio_is_the_records_inverse(name):
    """nu's slope is minus the ratio for every row, ratio = (f')^-1((e - l) / w) and nothing below 0."""
    config, e = replace(CONFIG, divergence=name), jnp.array([-3.0, -0.2, 0.4, 1.5])
    slope = jax.jit(jax.grad(lambda e: optidice.dual(config, e, jnp.asarray(0.1))))(e)
    expected = jnp.maximum(DIVERGENCES[name].f_prime_inverse((e - 0.1) / 0.5), 0.0)
    np.testing.assert_allclose(4.0 * slope, expected, rtol=1e-5, atol=1e-6)
    to_multiplier = jax.grad(lambda own: optidice.dual(config, e, own))(jnp.asarray(0.1))
    assert float(to_multiplier) == pytest.approx(1.0 - float(jnp.mean(expected)), abs=1e-5)


def test_nu_loss_by_hand():
    """nu = 2 everywhere: e = r - 0.2; soft chi-square's f* at (e - l) / w, l = 0.1."""
    rows = hand_rows([1.3, -0.2])
    y = (np.array([1.3, -0.2]) - 0.2 - 0.1) / 0.5
    conjugate = np.where(y < 0.0, np.exp(np.minimum(y, 0.0)) - 1.0, y + y**2 / 2.0)
    expected = 0.1 * 2.0 + 0.5 * conjugate.mean() + 0.1
    loss, (e, metrics) = optidice.nu_loss((constant(2.0, 2), jnp.asarray(0.1)), CONFIG, rows)
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(e, [1.1, -0.4], rtol=1e-5)
    assert float(metrics["nu/ratio"]) == pytest.approx(np.mean([1.0 + 2.0, np.exp(-1.0)]), rel=1e-5)
    free = replace(CONFIG, normalise_ratios=False)
    left, right = (optidice.nu_loss((constant(2.0, 2), jnp.asarray(own)), free, rows)[0] for own in (0.0, 9.0))
    assert float(left) == float(right)


@NON_NEGATIVE
def test_minimax_loss_is_the_released_one(name):
    """`E[w f(ratio) - ratio (e_nu - l)]`; its slope in e has the sign of e - e_nu, or is 0 where the ratio is."""
    config, record = replace(CONFIG, divergence=name, normalise_ratios=False), DIVERGENCES[name]
    e_nu = jnp.array([0.9, -0.3])
    for e in (0.4, -0.1):
        ratio = record.weight(jnp.asarray(e / 0.5))
        released = jnp.mean(0.5 * record.f(ratio) - ratio * e_nu)
        bare = lambda b: optidice.e_loss(
            ((Dense(jnp.zeros((3, 1)), b),), jnp.zeros(())), config, hand_rows([0.0, 0.0]), e_nu
        )[0]
        rest = optidice.dual(config, jnp.full(2, e), jnp.zeros(()))
        assert float(bare(jnp.array([e])) - rest) == pytest.approx(float(released), rel=1e-4, abs=1e-6)
        slope = float(jax.grad(bare)(jnp.array([e]))[0])
        assert np.sign(slope) in (np.sign(e - 0.3), 0.0)
        assert slope != 0.0 or float(ratio) == 0.0


def test_log_weight_keeps_its_slope_where_the_ratio_underflows():
    """And the chi-squares' is log(1 + y) also below 0, where the released one is constant."""
    soft = DIVERGENCES["soft_chi_square"].log_weight
    np.testing.assert_allclose(soft(jnp.array([-500.0, -0.5, 3.0])), [-500.0, -0.5, np.log(4.0)], rtol=1e-6)
    assert float(jax.grad(soft)(-500.0)) == 1.0
    half = DIVERGENCES["half_chi_square"].log_weight
    np.testing.assert_allclose(half(jnp.array([-0.5, 0.0, 2.0])), np.log([0.5, 1.0, 3.0]), atol=1e-6)
    assert np.isfinite(float(half(jnp.asarray(-7.0))))
    for record in DIVERGENCES.values():
        y = jnp.array([0.1, 0.7, 4.0])
        np.testing.assert_allclose(record.log_weight(y), np.log(record.weight(y)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", ["connected", "released", "none"])
def test_what_is_behind_a_terminal(mode, state, data):
    config = replace(CONFIG, absorbing=mode, batch_size=512)
    state = state._replace(absorbing_share=jnp.float32(0.3))
    rows = jax.jit(lambda key: optidice.sample(config, state, data, key))(KEY)
    loop, absorbed = np.asarray(rows.obs[:, -1]) == 1.0, np.asarray(rows.next_obs[:, -1]) == 1.0
    assert np.all(np.asarray(rows.initial_obs[:, -1]) == 0.0)
    if mode == "none":
        assert not loop.any()
        assert not absorbed.any()
        assert 0.2 < np.mean(rows.alive == 0.0) < 0.5
        return
    assert 0.2 < loop.mean() < 0.4
    assert np.all(absorbed[loop])
    assert absorbed.sum() > loop.sum() + 50
    np.testing.assert_array_equal(rows.obs[loop, :-1], 0.0)
    np.testing.assert_array_equal(rows.next_obs[absorbed, :-1], 0.0)
    np.testing.assert_array_equal(rows.alive, 1.0 if mode == "connected" else np.where(absorbed, 0.0, 1.0))
    mean, std = float(np.mean(data.rows.reward)), float(np.std(data.rows.reward))
    np.testing.assert_allclose(rows.reward[loop], -0.1 * mean / std if mode == "connected" else 0.0, rtol=1e-4)


def test_share_of_absorbing_rows_is_that_of_one_row_more_for_each_terminal(state, data):
    terminals = float(np.sum(data.rows.terminal))
    assert float(state.absorbing_share) == pytest.approx(terminals / (20 + terminals), rel=1e-5)


def test_actor_on_raw_observations_is_the_actor(state, data):
    raw = optidice.raw_actor(state)
    inside = policy(state.actor.params, optidice.flagged(state.inputs, data.rows.obs, jnp.zeros(20, bool)))
    np.testing.assert_allclose(policy(raw, data.rows.obs).mean, inside.mean, atol=1e-5)
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, 2.0 * leaf]), state)
    np.testing.assert_allclose(optidice.raw_actor(stacked)[0].kernel[0], raw[0].kernel, rtol=1e-6)
    assert raw[0].kernel.shape == (3, 8)


@pytest.mark.parametrize("extraction", ["information_projection", "weighted_cloning"])
def test_policy_moves_towards_higher_ratios(extraction, state):
    """e rises with each action; behaviour and clones are spread around 0."""
    config = replace(CONFIG, policy_extraction=extraction, entropy_tuning=False, divergence_weight=0.3)
    rng = np.random.default_rng(0)
    action = jnp.asarray(rng.uniform(-0.9, 0.9, (256, 2)), jnp.float32)
    ramp = Dense(jnp.zeros((6, 1)).at[4:].set(2.0), jnp.zeros(1))
    obs = jnp.zeros((256, 4))
    rows = optidice.Rows(obs, action, jnp.zeros(256), obs, jnp.ones(256), obs)
    state = state._replace(e=state.e._replace(params=((ramp,), jnp.zeros(()))))
    flat = jax.tree.map(jnp.zeros_like, state.behaviour.params)
    state = state._replace(behaviour=state.behaviour._replace(params=flat))
    ratio = DIVERGENCES[config.divergence].weight(2.0 * jnp.sum(action, axis=1) / 0.3)
    start = jax.tree.map(jnp.zeros_like, state.actor.params)
    slope = jax.jit(jax.grad(lambda p: optidice.actor_loss(p, config, state, rows, ratio, KEY)[0]))(start)
    assert np.all(np.asarray(slope[-1].bias)[:2] < -0.1)


def test_warm_up_leaves_the_policy(problem, data, state):
    """And moves the rest; it tells how far it is."""
    config, told = replace(CONFIG, batch_size=4, warmup_updates=1000), []
    end = optidice.prepare(KEY, config, problem, state, data, lambda *args: told.append(args[:3]))
    assert told == [("warm-up", 1000, 1000)]
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), state, end)
    assert not any(jax.tree.leaves((moved.actor, moved.temperature, moved.inputs, moved.rewards)))
    assert all(jax.tree.leaves((moved.nu.params, moved.e.params, moved.behaviour.params)))
