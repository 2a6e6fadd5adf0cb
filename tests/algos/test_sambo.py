"""SAMBO's classifiers know a Gaussian world's log-ratios, whom the reward touches, and without weights it is SAC."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from damorl.algos import sac, sambo
from damorl.core.nets import Dense
from damorl.core.optim import init_learner, minimise
from damorl.core.scaler import Standardiser
from damorl.errors import UserError
from damorl.parts import classifier, model_agent
from damorl.types import Transition
from tests.exact import exact_jit

from .conftest import ACTION_DIM, BATCH, OBS_DIM, assert_bits, rows, sac_settings, sac_state

OWN = {"classifier_hidden": (8,), "model_weight": 2.0, "policy_weight": 0.5, "logit_clip": 3.0}
CONFIG = sambo.Config(**sac_settings(real_ratio=0.3), **OWN)
NUM_REAL = 2  # of the batch's 8 rows
FEATURES = 2 * OBS_DIM + ACTION_DIM
KEY = jax.random.key(7)


def by_hand(feature: int, weight: float, num_features: int) -> tuple[Dense, ...]:
    """A net whose logit is `weight` times one feature."""
    kernel = np.zeros((num_features, 1), np.float32)
    kernel[feature] = weight
    return (Dense(jnp.asarray(kernel), jnp.zeros(1)),)


@pytest.fixture(scope="module")
def state(problem, data) -> sambo.State:
    """g(s) = s_0, g(s, a) = 2 a_0, g(s, a, s') = 4 (s'_0 - s_0)."""
    nets = sambo.Classifiers(
        by_hand(0, 1.0, OBS_DIM),
        by_hand(OBS_DIM, 2.0, OBS_DIM + ACTION_DIM),
        by_hand(OBS_DIM + ACTION_DIM, 4.0, FEATURES),
    )
    return sac_state(sambo.ALGORITHM, CONFIG, problem, data)._replace(
        classifiers=init_learner(nets, optax.adam(CONFIG.classifier_lr)),
        classifier_inputs=Standardiser(jnp.zeros(FEATURES), jnp.ones(FEATURES)),
    )


def shifts_by_hand(batch: Transition) -> tuple[np.ndarray, np.ndarray]:
    obs, action, next_obs = (np.asarray(part)[:, 0] for part in (batch.obs, batch.action, batch.next_obs))
    model, policy = 2.0 * action - 4.0 * (next_obs - obs), obs - 2.0 * action
    return np.clip(model, -3.0, 3.0), np.clip(policy, -3.0, 3.0)


def test_shifts_are_differences_of_logits_clipped(state, batch):
    found = sambo.shifts(state.classifiers.params, state.classifier_inputs, batch, 3.0)
    for one, other in zip(found, shifts_by_hand(batch), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    assert 0 < np.sum(np.abs(found[0]) == 3.0) < BATCH  # the clip is tried


@pytest.mark.parametrize(("model_weight", "policy_weight"), [(2.0, 0.5), (1.0, 0.0), (0.0, 1.0)])
def test_each_weight_pays_its_own_shift_to_synthetic_rows_only(state, batch, model_weight, policy_weight):
    config = replace(CONFIG, model_weight=model_weight, policy_weight=policy_weight)
    found, metrics = sambo.shifts_aware(config, state, batch)
    model, policy = shifts_by_hand(batch)
    bonus = np.where(np.arange(BATCH) < NUM_REAL, 0.0, model_weight * model + policy_weight * policy)
    np.testing.assert_allclose(found.reward - batch.reward, bonus, rtol=1e-4, atol=1e-5)
    assert float(metrics["reward/model_shift"]) == pytest.approx(model[NUM_REAL:].mean(), rel=1e-5)
    assert float(metrics["reward/policy_shift"]) == pytest.approx(policy[NUM_REAL:].mean(), rel=1e-5)
    assert_bits(found._replace(reward=batch.reward), batch)


def test_without_weights_it_is_sac_bit_for_bit(state, data, problem):
    config = replace(CONFIG, model_weight=0.0, policy_weight=0.0)
    found, _ = exact_jit(partial(sambo.update, config, problem))(state, data, KEY)
    settings = sac.Config(**sac_settings(real_ratio=0.3))
    plain = model_agent.State(state.agent, state.model, state.buffer)
    assert_bits(found.agent, exact_jit(partial(sac.ALGORITHM.update, settings, problem))(plain, data, KEY)[0].agent)
    refreshed, _ = exact_jit(partial(sambo.ALGORITHM.refresh, config, problem))(state, data, KEY)
    expected, _ = exact_jit(partial(sac.ALGORITHM.refresh, settings, problem))(plain, data, KEY)
    assert_bits(refreshed.buffer, expected.buffer)
    with_weights, _ = exact_jit(partial(sambo.update, CONFIG, problem))(state, data, KEY)
    assert np.any(np.asarray(with_weights.agent.critic.params[0].kernel != found.agent.critic.params[0].kernel))


MOVED, BIASED, SPREAD, NOISE = 0.4, 0.3, 0.5, 0.3


def gaussian_world(seed: int, count: int, synthetic: bool) -> Transition:
    """Real: s ~ N(0, 1), a ~ N(s / 2, 0.5^2), s' - s ~ N(0, 0.3^2). Synthetic: states around 0.5, actions 0.4 higher,
    changes 0.3 a higher."""
    rng = np.random.default_rng(seed)
    obs = rng.normal(size=(count, 1)) + 0.5 * synthetic
    action = 0.5 * obs + MOVED * synthetic + SPREAD * rng.normal(size=(count, 1))
    change = BIASED * action * synthetic + NOISE * rng.normal(size=(count, 1))
    columns = (obs, action, np.zeros(count), obs + change, np.zeros(count))
    return Transition(*(jnp.asarray(column, jnp.float32) for column in columns))


@pytest.fixture(scope="module")
def trained() -> tuple[sambo.Classifiers, Standardiser]:
    real, synthetic = gaussian_world(0, 4000, False), gaussian_world(1, 4000, True)
    inputs, optimiser = classifier.fit_inputs(real), optax.adam(0.02)
    x_real, x_synthetic = (inputs.apply(classifier.features(part)) for part in (real, synthetic))
    loss = lambda params: sambo.classifiers_loss(params, CONFIG, x_real, x_synthetic, KEY)

    @jax.jit
    def fit(learner):
        return jax.lax.scan(lambda own, _: minimise(loss, own, optimiser), learner, length=250)[0]

    learner = fit(init_learner(sambo.init_classifiers(KEY, 1, 1, (12,)), optimiser))
    return learner.params, inputs


@pytest.mark.parametrize("synthetic", [False, True])
def test_trained_classifiers_know_the_analytic_log_ratios(trained, synthetic):
    """On rows they were not trained on; the states' own ratio has dropped out of both."""
    fresh = gaussian_world(2, 2000, synthetic)
    obs, action, change = (np.asarray(x)[:, 0] for x in (fresh.obs, fresh.action, fresh.next_obs - fresh.obs))
    off = action - 0.5 * obs
    policy_shift = ((off - MOVED) ** 2 - off**2) / (2.0 * SPREAD**2)  # log pi_b / pi
    model_shift = ((change - BIASED * action) ** 2 - change**2) / (2.0 * NOISE**2)  # log p / p^
    nets, inputs = trained
    found = [np.asarray(shift) for shift in sambo.shifts(nets, inputs, fresh, 10.0)]
    for one, analytic in zip(found, (model_shift, policy_shift), strict=True):
        assert np.mean(np.abs(one - analytic)) < 0.15
        assert np.corrcoef(one, analytic)[0, 1] > 0.95
        # minus a divergence under the model and the policy, plus one under the world and the behaviour
        assert one.mean() < -0.1 if synthetic else one.mean() > 0.1


def test_update_trains_the_classifiers_to_tell_synthetic_rows(state, data):
    """The gradient of the cross-entropy raises the logit of synthetic rows over that of real ones, for each net."""
    real, synthetic = data.rows, rows(80, 20)
    x_real, x_synthetic = (classifier.features(part) for part in (real, synthetic))
    nets = sambo.init_classifiers(KEY, OBS_DIM, ACTION_DIM, (8,))
    loss = lambda params: sambo.classifiers_loss(params, CONFIG, x_real, x_synthetic, KEY)[0]
    slopes = jax.jit(jax.grad(loss))(nets)
    nudged = jax.tree.map(lambda p, g: p - 1e-2 * g, nets, slopes)

    def gap(net):
        mean = lambda x: float(jnp.mean(classifier.logit(net, sambo.seen(net, x))))
        return mean(x_synthetic) - mean(x_real)

    for before, after in zip(nets, nudged, strict=True):
        assert gap(after) > gap(before)


def test_the_floor_is_under_the_target(problem, state, data, monkeypatch):
    monkeypatch.setattr(sambo.sac, "step", lambda config, agent, batch, target, key: (agent, {"target": target}))
    find = lambda config: np.asarray(jax.jit(partial(sambo.update, config, problem))(state, data, KEY)[1]["target"])
    free, floored = (find(replace(CONFIG, target_floor=floor)) for floor in (False, True))
    assert free.min() < 0.0 < free.max()
    np.testing.assert_array_equal(floored, np.maximum(free, 0.0))


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_label_smoothing_by_half_or_more_is_refused(strength):
    with pytest.raises(UserError, match=f"label_smoothing.*found {strength}"):
        sambo.Config(classifier_regulariser="label_smoothing", classifier_strength=strength)
