"""The classifier's logit is a log density ratio; its penalties and figures are what their formulas say."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from damorl.core.nets import Dense, init_mlp
from damorl.core.optim import init_learner, minimise
from damorl.core.scaler import Standardiser
from damorl.parts import classifier
from damorl.types import Transition

KEY = jax.random.key(0)


def linear(weights: list[float], bias: float = 0.0) -> Any:
    """A network without hidden layers: logit = weights . x + bias."""
    return (Dense(jnp.asarray(np.array(weights, np.float32)[:, None]), jnp.asarray(np.array([bias], np.float32))),)


classifier_loss = jax.jit(classifier.classifier_loss, static_argnames="regulariser")
gradient_penalty = jax.jit(classifier.gradient_penalty, static_argnames="one_sided")


def loss_of(params, real, synthetic, regulariser="none", strength=0.0) -> float:
    real, synthetic = np.array(real, np.float32), np.array(synthetic, np.float32)
    return float(classifier_loss(params, real, synthetic, KEY, regulariser=regulariser, strength=strength)[0])


def test_trained_logit_is_the_analytic_log_density_ratio():
    """Real N(0, 1) against synthetic N(1, 0.8^2): log q/p is a parabola, and positive where synthetic rows live."""
    rng = np.random.default_rng(0)
    real, synthetic = (jnp.asarray(rng.normal(m, s, size=(4000, 1)), jnp.float32) for m, s in ((0.0, 1.0), (1.0, 0.8)))
    optimiser = optax.adam(0.03)

    @jax.jit
    def fit(learner):
        def step(learner, _):
            def loss(params):
                return classifier.classifier_loss(params, real, synthetic, KEY, "none", 0.0)

            return minimise(loss, learner, optimiser)

        return jax.lax.scan(step, learner, length=200)

    learner, metrics = fit(init_learner(init_mlp(KEY, (1, 8, 1)), optimiser))
    x = np.linspace(-1.0, 2.0, 31)
    analytic = -math.log(0.8) - 0.5 * ((x - 1.0) / 0.8) ** 2 + 0.5 * x**2
    found = np.asarray(classifier.logit(learner.params, jnp.asarray(x[:, None], jnp.float32)))
    assert np.mean(np.abs(found - analytic)) < 0.12
    assert np.max(np.abs(found - analytic)) < 0.4
    assert metrics["classifier/log_ratio_real"][-1] < -0.2  # minus a Kullback-Leibler divergence
    assert metrics["classifier/log_ratio_synthetic"][-1] > 0.2


def test_cross_entropy_by_hand():
    # h = 1/2 costs log 2 a row; certain and right costs nothing; certain and wrong costs the logit
    assert loss_of(linear([0.0, 0.0]), [[1.0, 5.0]], [[1.0, 5.0]]) == pytest.approx(math.log(2.0), rel=1e-6)
    assert loss_of(linear([40.0, 0.0]), [[-1.0, 5.0]], [[1.0, 5.0]]) == pytest.approx(0.0, abs=1e-6)
    assert loss_of(linear([-40.0, 0.0]), [[-1.0, 5.0]], [[1.0, 5.0]]) == pytest.approx(40.0, rel=1e-6)
    # label 1 = model-generated: -log(1 - h) on the real row, -log h on the synthetic one
    h_real, h_synthetic = (1.0 / (1.0 + math.exp(-logit)) for logit in (0.5, 1.5))
    expected = 0.5 * (-math.log(1.0 - h_real) - math.log(h_synthetic))
    assert loss_of(linear([1.0, 0.0]), [[0.5, 5.0]], [[1.5, 5.0]]) == pytest.approx(expected, rel=1e-6)


def test_the_printed_equation_3_is_unbounded_below_and_ours_is_not():
    """Printed: min_h E_R log h + E_M log(1 - h). A classifier that calls real rows generated drives it to -infinity."""

    def printed(logit_real: float, logit_synthetic: float) -> float:
        log_sigmoid = lambda z: -math.log1p(math.exp(-z))
        return log_sigmoid(logit_real) + log_sigmoid(-logit_synthetic)

    scales = [1.0, 10.0, 100.0, 500.0]
    values = [printed(-scale, scale) for scale in scales]
    assert all(value <= -2.0 * scale for value, scale in zip(values, scales, strict=True))
    losses = [loss_of(linear([scale, 0.0]), [[-1.0, 5.0]], [[1.0, 5.0]]) for scale in scales]
    assert min(losses) >= 0.0
    assert losses == sorted(losses, reverse=True)  # while ours falls to 0 along the same classifiers


def test_label_smoothing_moves_each_label_by_its_share():
    # targets 0.1 and 0.9 at logits 0.5 and 1.5
    expected = 0.5 * (math.log1p(math.exp(0.5)) - 0.1 * 0.5 + math.log1p(math.exp(1.5)) - 0.9 * 1.5)
    assert loss_of(linear([1.0, 0.0]), [[0.5, 5.0]], [[1.5, 5.0]], "label_smoothing", 0.1) == pytest.approx(
        expected, rel=1e-6
    )


def test_smoothed_labels_bound_the_best_logit():
    """Where plain labels ask for infinity, shares 0.1 and 0.9 ask for log 9."""
    for scale, sign in ((math.log(9.0) - 0.1, -1.0), (math.log(9.0) + 0.1, 1.0)):
        rows = [[-scale, 0.0]], [[scale, 0.0]]
        nudged = [[-scale - 0.01, 0.0]], [[scale + 0.01, 0.0]]
        change = loss_of(linear([1.0, 0.0]), *nudged, "label_smoothing", 0.1)
        change -= loss_of(linear([1.0, 0.0]), *rows, "label_smoothing", 0.1)
        assert np.sign(change) == sign


def test_weight_decay_adds_the_squared_kernels():
    plain = loss_of(linear([1.0, -2.0], bias=3.0), [[0.5, 0.0]], [[1.5, 1.0]])
    decayed = loss_of(linear([1.0, -2.0], bias=3.0), [[0.5, 0.0]], [[1.5, 1.0]], "weight_decay", 0.1)
    assert decayed - plain == pytest.approx(0.1 * 5.0, rel=1e-5)


@pytest.mark.parametrize(("norm", "two_sided", "one_sided"), [(3.0, 4.0, 4.0), (0.25, 0.5625, 0.0), (1.0, 0.0, 0.0)])
def test_gradient_penalty_of_a_linear_net_is_the_distance_of_its_norm_from_one(norm, two_sided, one_sided):
    params = linear([0.6 * norm, -0.8 * norm])
    real, synthetic = jnp.array([[0.0, 1.0], [2.0, 0.0]]), jnp.array([[1.0, 1.0], [5.0, -1.0]])
    for flag, expected in ((False, two_sided), (True, one_sided)):
        penalty = gradient_penalty(params, real, synthetic, KEY, one_sided=flag)
        assert float(penalty) == pytest.approx(expected, abs=1e-5)
    for name, expected in (("gradient_penalty", two_sided), ("one_sided", one_sided)):
        added = loss_of(params, real, synthetic, name, 10.0) - loss_of(params, real, synthetic)
        assert added == pytest.approx(10.0 * expected, abs=1e-4)


def test_gradient_penalty_is_taken_between_the_two_rows():
    """A net whose slope is 3 only on (1, 2), between a real row at 0 and a synthetic one at 3."""
    params = (
        Dense(jnp.array([[1.0, 1.0]]), jnp.array([-1.0, -2.0])),
        Dense(jnp.array([[3.0], [-3.0]]), jnp.zeros(1)),
    )
    count = 4000
    penalty = gradient_penalty(params, jnp.zeros((count, 1)), jnp.full((count, 1), 3.0), KEY, one_sided=True)
    assert float(penalty) == pytest.approx(4.0 / 3.0, abs=0.15)  # (3 - 1)^2 on the share 1/3


def test_penalty_of_a_flat_net_has_a_finite_gradient():
    slope = jax.grad(lambda p: classifier.gradient_penalty(p, jnp.ones((2, 2)), jnp.zeros((2, 2)), KEY, False))
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(slope(linear([0.0, 0.0]))))


def test_calibration_figures_by_hand():
    probability = np.array([0.12, 0.18, 0.95, 0.93, 1.0])
    with np.errstate(divide="ignore"):
        logits = np.minimum(np.log(probability) - np.log1p(-probability), 50.0).astype(np.float32)
    labels = np.array([0.0, 1.0, 1.0, 0.0, 1.0], np.float32)
    figures = classifier.calibration(jnp.asarray(logits), jnp.asarray(labels))
    # bin [.1, .2): sum of p 0.30 against 1 label; bin [.9, 1]: 2.88 against 2
    assert float(figures["classifier/calibration_error"]) == pytest.approx((0.70 + 0.88) / 5, abs=1e-5)
    assert float(figures["classifier/accuracy"]) == pytest.approx(3 / 5)
    assert float(figures["classifier/log_ratio_real"]) == pytest.approx(float(logits[0] + logits[3]) / 2, rel=1e-5)
    mean_synthetic = float(logits[1] + logits[2] + logits[4]) / 3
    assert float(figures["classifier/log_ratio_synthetic"]) == pytest.approx(mean_synthetic, rel=1e-5)


ROWS = Transition(
    obs=jnp.array([[1.0, 2.0], [0.0, 0.0]]),
    action=jnp.array([[0.5], [-0.5]]),
    reward=jnp.zeros(2),
    next_obs=jnp.array([[1.5, 1.0], [8.0, 0.0]]),
    terminal=jnp.zeros(2),
)


def test_features_are_state_action_and_change():
    assert classifier.features(ROWS).tolist() == [[1.0, 2.0, 0.5, 0.5, -1.0], [0.0, 0.0, -0.5, 8.0, 0.0]]
    inputs = classifier.fit_inputs(ROWS)
    np.testing.assert_allclose(inputs.apply(classifier.features(ROWS)), [[1, 1, 1, -1, -1], [-1, -1, -1, 1, 1]])


def test_log_ratio_is_the_standardised_logit_clipped_and_flat_beyond():
    inputs = Standardiser(jnp.ones(5), jnp.full(5, 2.0))
    params = linear([0.0, 0.0, 0.0, 2.0, 0.0], bias=1.0)
    # change of the first coordinate 0.5 and 8: logits 2 (0.5 - 1) / 2 + 1 = 0.5 and 2 (8 - 1) / 2 + 1 = 8
    assert classifier.log_ratio(params, inputs, ROWS, 10.0).tolist() == [0.5, 8.0]
    assert classifier.log_ratio(params, inputs, ROWS, 3.0).tolist() == [0.5, 3.0]
    assert classifier.log_ratio(linear([0.0] * 5, bias=-7.0), inputs, ROWS, 3.0).tolist() == [-3.0, -3.0]
    slope = jax.grad(lambda rows: jnp.sum(classifier.log_ratio(params, inputs, rows, 3.0)))(ROWS)
    np.testing.assert_allclose(slope.next_obs[:, 0], [1.0, 0.0])  # weight 2 over scale 2, then beyond the clip
