"""The policy's part of the log-ratio, against densities, samples and hand values."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damorl.core.distribution import TanhGaussian
from damorl.core.nets import Dense
from damorl.parts import classifier, reference, sac
from damorl.parts.actor import init_actor, policy
from damorl.parts.critic import init_critic, q_min

OURS, THEIRS = init_actor(jax.random.key(0), 3, 2, (8,)), init_actor(jax.random.key(1), 3, 2, (8,))
OBS = jax.random.normal(jax.random.key(2), (5, 3))


def test_divergence_by_hand() -> None:
    law = TanhGaussian(jnp.array([1.0, 0.0]), jnp.log(jnp.array([2.0, 1.0])))
    other = TanhGaussian(jnp.array([0.0, 0.0]), jnp.zeros(2))
    np.testing.assert_allclose(reference.kl(law, other), 0.5 * (1.0 + 4.0 - 1.0 - 2.0 * np.log(2.0)), rtol=1e-6)
    np.testing.assert_allclose(reference.kl(law, law), 0.0, atol=1e-7)


def test_divergence_is_the_mean_log_ratio_of_the_policy_s_own_actions() -> None:
    many = jnp.repeat(OBS[:1], 20_000, axis=0)
    action, _ = policy(OURS, many).sample(jax.random.key(3))
    sampled = reference.policy_log_ratio(OURS, THEIRS, many, action)
    exact = reference.kl(policy(OURS, OBS[0]), policy(THEIRS, OBS[0]))
    error = float(jnp.std(sampled)) / np.sqrt(len(sampled))
    assert abs(float(jnp.mean(sampled) - exact)) < 4.0 * error


def test_the_squash_cancels_and_saturated_actions_stay_finite() -> None:
    action, ours = policy(OURS, OBS).sample(jax.random.key(4))
    theirs = policy(THEIRS, OBS).log_prob_pre_tanh(jnp.arctanh(action))
    np.testing.assert_allclose(
        reference.policy_log_ratio(OURS, THEIRS, OBS, action), ours - theirs, rtol=1e-3, atol=1e-4
    )
    assert bool(jnp.all(jnp.isfinite(reference.policy_log_ratio(OURS, THEIRS, OBS, jnp.ones((5, 2))))))


def test_without_a_reference_the_cost_is_sac_s() -> None:
    action, cost = reference.sample_with_cost(OURS, OBS, jax.random.key(5))
    expected, log_prob = policy(OURS, OBS).sample(jax.random.key(5))
    np.testing.assert_array_equal(action, expected)
    np.testing.assert_array_equal(cost, log_prob)


def test_with_one_the_value_and_the_actor_pay_for_the_divergence() -> None:
    critic, weight, key = init_critic(jax.random.key(6), 3, 2, (8,)), jnp.float32(0.7), jax.random.key(7)
    action, _ = policy(OURS, OBS).sample(key)
    cost = reference.kl(policy(OURS, OBS), policy(THEIRS, OBS))
    value = sac.soft_next_value(OURS, critic, weight, OBS, key, THEIRS)
    np.testing.assert_allclose(value, q_min(critic, OBS, action) - weight * cost, rtol=1e-5, atol=1e-6)
    loss, (paid, _) = sac.actor_loss(OURS, critic, weight, OBS, key, THEIRS)
    np.testing.assert_allclose(paid, cost, rtol=1e-6)
    np.testing.assert_allclose(loss, jnp.mean(weight * cost - q_min(critic, OBS, action)), rtol=1e-5)


def test_a_large_weight_pulls_the_policy_to_the_reference() -> None:
    critic = init_critic(jax.random.key(6), 3, 2, (8,))
    loss = lambda actor: sac.actor_loss(actor, critic, jnp.float32(100.0), OBS, jax.random.key(8), THEIRS)[0]
    step = jax.tree.map(lambda p, g: p - 1e-4 * g, OURS, jax.grad(loss)(OURS))
    before, after = (jnp.mean(reference.kl(policy(actor, OBS), policy(THEIRS, OBS))) for actor in (OURS, step))
    assert after < before


@pytest.mark.parametrize(("divergence", "sign"), [(3.0, -1.0), (0.5, 1.0)])
def test_the_weight_rises_where_the_policy_is_farther_than_the_target(divergence: float, sign: float) -> None:
    slope = jax.grad(lambda p: reference.kl_weight_loss(p, jnp.full(4, divergence), 1.0)[0])(jnp.zeros(()))
    assert np.sign(float(slope)) == sign  # descent moves against the slope


def test_the_optimum_of_the_classifier_with_an_offset_is_the_rest_of_the_log_ratio() -> None:
    """Two states, one logit each: the known part goes into the offset and out of the logit."""
    real, synthetic = np.array([0.75, 0.25]), np.array([0.25, 0.75])  # how often each is seen
    known = np.array([-0.5, 0.3])
    counts = np.concatenate([np.repeat([0, 1], (400 * share).astype(int)) for share in (real, synthetic)])
    x = jnp.asarray(counts, jnp.float32)[:, None]
    offset = jnp.asarray(known[counts], jnp.float32)
    net = (Dense(jnp.zeros((1, 1)), jnp.zeros(1)),)
    loss = lambda p: classifier.classifier_loss(p, x[:400], x[400:], jax.random.key(0), "none", 0.0, offset)[0]
    step = lambda _, p: jax.tree.map(lambda leaf, slope: leaf - 2.0 * slope, p, jax.grad(loss)(p))
    net = jax.lax.fori_loop(0, 2000, step, net)
    found = classifier.logit(net, jnp.array([[0.0], [1.0]]))
    np.testing.assert_allclose(found, np.log(synthetic / real) - known, atol=1e-3)


@pytest.mark.parametrize(("sees", "width"), [("transition", 8), ("pair", 5), ("state", 3)])
def test_a_classifier_sees_the_first_of_the_features(sees: classifier.Sees, width: int) -> None:
    net = classifier.init_classifier(jax.random.key(0), 3, 2, (4,), sees)
    x = jax.random.normal(jax.random.key(1), (6, 8))
    hidden = x.at[:, width:].set(0.0)
    np.testing.assert_array_equal(classifier.logit(net, x), classifier.logit(net, hidden))
    assert net[0].kernel.shape == (width, 4)
