"""The conservative term: its proposals, both readings of its log-sum-exp, and which way it pushes."""

from __future__ import annotations

import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damorl.core.distribution import TanhGaussian
from damorl.core.nets import Dense
from damorl.errors import UserError
from damorl.parts import conservative, sac
from damorl.parts.actor import policy
from damorl.parts.conservative import ConservativeSettings, LogSumExp, Proposals
from damorl.parts.critic import q_values
from damorl.types import Spec, Transition

ROWS, REPEATS, OBS_DIM, ACTION_DIM = 5, 4, 3, 2
SETTINGS = ConservativeSettings(hidden=(8,), num_repeats=REPEATS, conservative_temperature=0.7)
READINGS: list[LogSumExp] = ["per_repeat", "joint"]
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def batch() -> Transition:
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    terminal = jnp.asarray(np.arange(ROWS) % 3 == 1, jnp.float32)
    return Transition(draw(ROWS, OBS_DIM), jnp.tanh(draw(ROWS, ACTION_DIM)), draw(ROWS), draw(ROWS, OBS_DIM), terminal)


@pytest.fixture(scope="module")
def agent() -> sac.SACState:
    return sac.init(jax.random.key(1), SETTINGS, Spec(OBS_DIM, ACTION_DIM))


@pytest.fixture(scope="module")
def proposals(agent, batch) -> Proposals:
    return conservative.propose(agent.actor.params, batch.obs, batch.next_obs, REPEATS, KEY)


def test_each_proposal_has_the_density_of_the_law_it_was_drawn_from(agent, batch, proposals):
    assert proposals.action.shape == (3, REPEATS, ROWS, ACTION_DIM)
    for index, obs in enumerate((batch.obs, batch.next_obs)):
        law = policy(agent.actor.params, obs)
        expected = TanhGaussian(law.mean[None], law.log_std[None]).log_prob_pre_tanh(
            jnp.arctanh(proposals.action[index])
        )
        np.testing.assert_allclose(proposals.log_density[index], expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(np.exp(proposals.log_density[2]), 0.25, rtol=1e-6)  # a square of side 2
    uniform = np.asarray(conservative.propose(agent.actor.params, batch.obs, batch.next_obs, 500, KEY).action[2])
    assert uniform.mean() == pytest.approx(0.0, abs=0.03)
    assert uniform.var() == pytest.approx(1.0 / 3.0, abs=0.02)
    assert len(np.unique(np.asarray(proposals.action))) == 3 * REPEATS * ROWS * ACTION_DIM  # no draw is used twice


@pytest.mark.parametrize("reading", READINGS)
def test_loss_is_that_of_a_slow_loop(agent, batch, proposals, reading):
    """Critic by critic, state by state, action by action. The data's rows are others than those that are lowered."""
    settings, temperature = replace(SETTINGS, log_sum_exp=reading), 0.7
    real = batch._replace(obs=batch.obs[:2] + 1.0, action=-batch.action[:2])
    ask = jax.jit(lambda s, a: q_values(agent.critic.params, s[None], a[None])[:, 0])
    high = np.zeros(2)
    for row in range(ROWS):
        terms = np.zeros((2, REPEATS, 3))
        for repeat in range(REPEATS):
            for proposal in range(3):
                q = np.asarray(ask(batch.obs[row], proposals.action[proposal, repeat, row]), np.float64)
                terms[:, repeat, proposal] = q / temperature - float(proposals.log_density[proposal, repeat, row])
        if reading == "joint":
            high += temperature * np.log(np.exp(terms).sum(axis=(1, 2))) / ROWS
        else:
            high += temperature * np.log(np.exp(terms).sum(axis=2)).mean(axis=1) / ROWS
    low = np.mean([np.asarray(ask(real.obs[row], real.action[row])) for row in range(2)], axis=0)
    found, metrics = conservative.conservative_loss(agent.critic.params, settings, batch.obs, proposals, real)
    assert float(found) == pytest.approx(float(np.sum(high - low)), rel=1e-5)
    assert float(metrics["critic/conservative"]) == pytest.approx(float(np.mean(high - low)), rel=1e-5)


def test_readings_of_equal_values_by_hand():
    """Q = 1 everywhere, density 1/2: joint sums 3 n terms 2 e^(1/T), per_repeat sums 3 and averages."""
    q, log_density, temperature = jnp.ones((2, 3, 10, 6)), jnp.full((3, 10, 6), math.log(0.5)), 0.5
    counts: dict[LogSumExp, int] = {"joint": 30, "per_repeat": 3}
    for reading, count in counts.items():
        found = conservative.soft_maximum(q, log_density, temperature, reading)
        np.testing.assert_allclose(found, [1.0 + temperature * math.log(2.0 * count)] * 2, rtol=1e-6)


def test_joint_reading_estimates_the_integral_at_any_temperature():
    """Q(a) = 2 a on [-1, 1]: T log int exp(2 a / T) da = T log(T sinh(2 / T)). Dividing the log densities by T, as
    released codes do, is off by (1 - T) log 2 here."""
    temperature = 0.5
    action = jnp.asarray(np.random.default_rng(0).uniform(-1.0, 1.0, (1, 3, 20_000, 1)), jnp.float32)
    found = conservative.soft_maximum(2.0 * action, jnp.full(action.shape[1:], math.log(0.5)), temperature, "joint")
    exact = temperature * math.log(temperature * math.sinh(2.0 / temperature))
    assert float(found[0]) - temperature * math.log(60_000) == pytest.approx(exact, abs=0.01)


@pytest.mark.parametrize("reading", READINGS)
def test_gradient_is_that_of_finite_differences(agent, batch, proposals, reading):
    """A stop-gradient around the log-sum-exp fails here: only the push up on the data would be left."""
    settings = replace(SETTINGS, log_sum_exp=reading)
    loss = jax.jit(lambda p: conservative.conservative_loss(p, settings, batch.obs, proposals, batch)[0])
    params = agent.critic.params
    grad = jax.grad(loss)(params)
    *hidden, last = params
    for critic in range(2):
        for unit in range(8):
            moved = lambda size, c=critic, u=unit: loss((*hidden, last._replace(kernel=last.kernel.at[c, u].add(size))))
            slope = (float(moved(0.1)) - float(moved(-0.1))) / 0.2
            assert float(grad[-1].kernel[critic, unit, 0]) == pytest.approx(slope, abs=2e-3)
    assert np.abs(np.asarray(grad[-1].kernel)).max() > 0.05


@pytest.mark.parametrize("reading", READINGS)
def test_it_lowers_q_off_the_data_and_raises_it_on_the_data(reading):
    """A critic Q = w phi(a), phi = 1 for a > 0: the data plays a > 0, proposals lie on both sides alike."""
    settings = replace(SETTINGS, log_sum_exp=reading)
    ways = np.random.default_rng(0).uniform(-1.0, 1.0, (3, REPEATS, ROWS, 1))
    proposals = Proposals(jnp.asarray(ways, jnp.float32), jnp.full(ways.shape[:-1], -math.log(2.0)))
    real = Transition(jnp.zeros((4, 1)), jnp.full((4, 1), 0.5), *(jnp.zeros(4), jnp.zeros((4, 1)), jnp.zeros(4)))
    step = jnp.array([[[0.0, 0.0], [1e3, -1e3]]])  # two units: one sees a > 0, the other a < 0
    bound = (Dense(jnp.clip(step, -1.0, 1.0), jnp.zeros((1, 2))), Dense(jnp.zeros((1, 2, 1)), jnp.zeros((1, 1))))
    loss = lambda p: conservative.conservative_loss(p, settings, jnp.zeros((ROWS, 1)), proposals, real)[0]
    grad = jax.jit(jax.grad(loss))(bound)
    on_data, off_data = np.asarray(grad[-1].kernel)[0, :, 0]
    assert on_data < -0.1  # descent raises Q where the data is
    assert off_data > 0.1  # and lowers it where only proposals are
    moved = jax.tree.map(lambda p, g: p - 0.1 * g, bound, grad)
    before, after = (q_values(p, jnp.zeros((2, 1)), jnp.array([[0.5], [-0.5]]))[0] for p in (bound, moved))
    assert float(after[0] - before[0]) > float(after[1] - before[1]) + 0.01


@pytest.mark.parametrize("weight", [0.0, 1e-9])
def test_without_weight_an_update_is_that_of_sac(agent, batch, weight):
    """Bit for bit where the term is left out; nearly so where it is next to nothing, by the other path."""
    settings = replace(SETTINGS, conservative_weight=weight)
    run = lambda f: jax.jit(f)(agent, batch)[0]
    found = run(lambda s, b: conservative.update(settings, s, b, b, b, KEY))
    expected = run(lambda s, b: sac.update(settings, s, b, KEY))
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=0.0 if weight == 0.0 else 1e-3, atol=0.0 if weight == 0.0 else 1e-6)


def test_the_proposals_share_no_key_with_the_target_or_the_actor():
    own = jax.random.key_data(jax.random.fold_in(KEY, conservative.PROPOSAL_STREAM))
    for other in jax.random.split(KEY):
        assert np.any(own != jax.random.key_data(other))


def test_the_weight_scales_the_push(agent, batch):
    """Adam's first moment is a tenth of the gradient, which is affine in the weight."""

    def moment(weight: float):
        settings = replace(SETTINGS, conservative_weight=weight)
        after = jax.jit(lambda s, b: conservative.update(settings, s, b, b, b, KEY)[0])(agent, batch)
        return [layer.kernel for layer in after.critic.opt_state[0].mu]  # a constant added to Q is neither up nor down

    for none, one, three in zip(*(moment(weight) for weight in (0.0, 1.0, 3.0)), strict=True):
        np.testing.assert_allclose(three - none, 3.0 * (one - none), rtol=1e-3, atol=1e-6)
        assert np.abs(np.asarray(one - none)).max() > 1e-4


def test_a_temperature_of_zero_is_refused():
    with pytest.raises(UserError, match="conservative_temperature must be above 0, found 0"):
        ConservativeSettings(conservative_temperature=0.0)
