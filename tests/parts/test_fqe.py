"""Fitted Q evaluation against linear solves of small worlds.

The world is a chain of four states. An action `a` steps right with chance `(1 + a) / 2` and left otherwise (from the
left end, nowhere); stepping right from the right end is terminal. The data hold every state with five actions, each
four times with its outcomes in exact proportion, so the data's best fit is the world itself.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damorl.core.nets import MLP, Dense, init_mlp
from damorl.errors import UserError
from damorl.parts import fqe
from damorl.types import Transition

STATES, COPIES, GAMMA, PRIZE = 4, 4, 0.9, 4.0
GRID = (-1.0, -0.5, 0.0, 0.5, 1.0)
ACTIONS = np.array([[0.5, 0.5, 0.5, 0.5], [-0.5, -0.5, 0.0, -0.5]])  # of two policies, in each state
STARTS = np.eye(STATES, dtype=np.float32)[[0, 1]]
CONFIG = fqe.FQEConfig(
    num_updates=4000, block_updates=500, gamma=GAMMA, hidden=(32, 32), batch_size=80, learning_rate=1e-3, tau=0.05
)
SHORT = dataclasses.replace(CONFIG, num_updates=500)
KEY = jax.random.key(0)


def reward(state: int, action: float) -> float:
    return 0.5 * state + 0.3 * action


def chain() -> Transition:
    rows = []
    for state in range(STATES):
        for action in GRID:
            rights = round(COPIES * (1 + action) / 2)
            for copy in range(COPIES):
                to = state + 1 if copy < rights else max(state - 1, 0)
                fell = to == STATES
                rows.append((state, action, reward(state, action) + PRIZE * fell, 0 if fell else to, fell))
    state, action, earned, to, fell = map(np.array, zip(*rows, strict=True))
    one_hot = np.eye(STATES, dtype=np.float32)
    columns = one_hot[state], action[:, None], earned, one_hot[to], fell
    return Transition(*(jnp.asarray(column, jnp.float32) for column in columns))


def exact_value(actions: np.ndarray) -> float:
    """The mean over STARTS of the solution of `V = r + GAMMA P V`."""
    right, left, r = np.zeros((2, STATES, STATES)), None, np.zeros(STATES)
    right, left = right
    for state in range(STATES):
        chance = (1 + actions[state]) / 2
        left[state, max(state - 1, 0)] = 1 - chance
        if state + 1 < STATES:
            right[state, state + 1] = chance
        r[state] = reward(state, actions[state]) + (PRIZE * chance if state + 1 == STATES else 0.0)
    values = np.linalg.solve(np.eye(STATES) - GAMMA * (right + left), r)
    return float(np.mean(STARTS @ values))


def linear_actors(actions: np.ndarray, log_std: float = -5.0) -> MLP:
    """Policies without hidden layers whose modes in the states are `actions` `[policy, state]`."""
    mean = np.arctanh(actions)[..., None]
    kernel = np.concatenate([mean, np.full_like(mean, log_std)], axis=-1).astype(np.float32)
    return (Dense(jnp.asarray(kernel), jnp.zeros((len(actions), 2))),)


def evaluate(rows: Transition, actors: MLP | None = None, config: fqe.FQEConfig = CONFIG):
    actors = linear_actors(ACTIONS) if actors is None else actors
    return fqe.evaluate_policies(KEY, config, actors, rows, jnp.asarray(STARTS))


@pytest.fixture(scope="module")
def result() -> fqe.FQEResult:
    return evaluate(chain())


def test_it_finds_the_value_of_policies_that_did_not_make_the_data(result):
    exact = [exact_value(actions) for actions in ACTIONS]
    behaviour = exact_value(np.zeros(STATES))
    assert min(abs(value - behaviour) for value in exact) > 1.5  # else the data's own value would pass
    np.testing.assert_allclose(result.value, exact, atol=0.15)


def test_the_curve_ends_at_the_value(result):
    assert result.curve.shape == result.td_error.shape == (8, 2)
    np.testing.assert_array_equal(result.curve[-1], result.value)
    np.testing.assert_allclose(result.curve[-2], result.value, atol=0.15)


@pytest.fixture(scope="module")
def early() -> fqe.FQEResult:
    """After one block: later, rounding errors would have grown."""
    return evaluate(chain(), config=SHORT)


def test_values_have_the_rewards_units(early):
    rows = chain()
    scaled = evaluate(rows._replace(reward=1000.0 * rows.reward), config=SHORT)
    np.testing.assert_allclose(scaled.value, 1000.0 * early.value, rtol=1e-3)
    np.testing.assert_allclose(scaled.td_error, 1000.0 * early.td_error, rtol=1e-3)


def test_values_do_not_depend_on_the_units_of_the_states(early):
    rows, actors = chain(), linear_actors(ACTIONS)
    rows = rows._replace(obs=1000.0 * rows.obs, next_obs=1000.0 * rows.next_obs)
    actors = (actors[0]._replace(kernel=actors[0].kernel / 1000.0),)
    scaled = fqe.evaluate_policies(KEY, SHORT, actors, rows, jnp.asarray(1000.0 * STARTS))
    np.testing.assert_allclose(scaled.value, early.value, rtol=1e-3)


@pytest.mark.parametrize(("every", "value"), [(0, 1 / (1 - GAMMA)), (1, 1.0), (2, 1 / (1 - GAMMA / 2))])
def test_only_terminals_end_the_sum(every, value):
    """A single state that pays 1: for ever, once, or until each second step ends it on average."""
    rows = chain()
    number = np.arange(len(rows.reward))
    terminal = np.zeros(len(number)) if every == 0 else (number % every == 0)
    still = jnp.tile(jnp.asarray(STARTS[:1]), (len(number), 1))
    rows = rows._replace(obs=still, next_obs=still, reward=jnp.ones(len(number)), terminal=jnp.float32(terminal))
    starts = jnp.asarray(STARTS[[0, 0]])
    config = dataclasses.replace(CONFIG, num_updates=1500)
    found = fqe.evaluate_policies(KEY, config, linear_actors(ACTIONS), rows, starts).value
    np.testing.assert_allclose(found, value, rtol=0.02)


def test_a_value_does_not_depend_on_the_company(early):
    for index, own in enumerate(ACTIONS):
        alone = evaluate(chain(), linear_actors(own[None]), SHORT)
        np.testing.assert_allclose(alone.value[0], early.value[index], rtol=1e-3)
        np.testing.assert_allclose(alone.td_error[0, 0], early.td_error[0, index], rtol=1e-3)


def test_a_sampled_policy_is_worth_what_its_mean_action_is():
    """The world is linear in the action, so only the mean of tanh(u + noise) counts; it is nearer to 0 than tanh(u)."""
    noise = np.random.default_rng(0).standard_normal(200_000)
    means = np.tanh(np.arctanh(ACTIONS)[..., None] + np.exp(0.5) * noise).mean(axis=-1)
    actors, starts = linear_actors(ACTIONS, log_std=0.5), jnp.tile(jnp.asarray(STARTS), (2000, 1))
    found = fqe.evaluate_policies(KEY, CONFIG, actors, chain(), starts, fqe.act_sampled).value
    expected = [exact_value(actions) for actions in means]
    assert np.all(np.abs(np.subtract(expected, [exact_value(actions) for actions in ACTIONS])) > 0.3)
    np.testing.assert_allclose(found, expected, atol=0.15)


def test_q_levels_out_far_from_the_data():
    critic = init_mlp(KEY, (STATES + 1, 32, 32, 1))
    units, action = fqe.fit_units(chain(), GAMMA), jnp.zeros((1, 1))
    near, far, farther = (fqe.q_value(critic, units, scale * jnp.ones((1, STATES)), action) for scale in (1, 1e4, 1e7))
    spread = float(units.value.scale)
    assert abs(float((far - near)[0])) > 1e-2 * spread
    assert abs(float((farther - far)[0])) < 1e-4 * spread


def test_normalised_relu_by_hand():
    x = jnp.array([[3.0, 5.0, 4.0, 4.0]])
    np.testing.assert_allclose(fqe.normalised_relu(x), [[0.0, np.sqrt(2.0), 0.0, 0.0]], atol=1e-4)


def test_an_estimate_that_is_not_finite_has_diverged():
    rows = chain()
    found = evaluate(rows._replace(reward=rows.reward.at[3].set(jnp.nan)), config=SHORT)
    assert np.isnan(found.value).all()


def test_an_estimate_beyond_any_sum_of_rewards_has_diverged(early, monkeypatch):
    most = float(jnp.max(jnp.abs(chain().reward))) / (1 - GAMMA)
    monkeypatch.setattr(fqe, "BELIEVABLE", float(np.mean(early.value)) / most)  # between the two policies
    found = evaluate(chain(), config=SHORT)
    assert np.isnan(found.value).tolist() == [True, False]
    assert np.isfinite(found.curve).all()


def test_no_reward_at_all_is_worth_nothing():
    rows = chain()
    assert evaluate(rows._replace(reward=jnp.zeros_like(rows.reward)), config=SHORT).value.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [({"num_updates": 2500, "block_updates": 1000}, "multiple of 1000"), ({"gamma": 1.0}, r"gamma must lie in \[0, 1")],
)
def test_settings_that_cannot_work_are_refused(changes, sentence):
    with pytest.raises(UserError, match=sentence):
        dataclasses.replace(CONFIG, **changes)
