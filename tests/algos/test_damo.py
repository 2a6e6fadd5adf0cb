"""What DAMO refuses, what its rewards and targets are, and what one update and one refresh change."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damorl.algos import damo
from damorl.core.nets import Dense
from damorl.errors import UserError
from damorl.parts import batches, classifier, maximin
from damorl.parts.dynamics import DynamicsConfig
from damorl.parts.refined_reward import bellman_target, refined_reward
from damorl.types import Transition

# --- configuration ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("divergence", ["cubic", "chi_square", "half_chi_square", "soft_chi_square", "kl"])
def test_a_frozen_target_is_refused_to_conjugates_that_push_without_end(divergence):
    with pytest.raises(UserError, match=f"'{divergence}' with critic_gradient 'semi'.*critic_gradient full"):
        damo.Config(divergence=divergence)
    for gradient in ("orthogonal", "full"):
        assert damo.Config(divergence=divergence, critic_gradient=gradient).divergence == divergence


def test_rollout_starts_must_be_dealt_evenly_to_the_elites():
    with pytest.raises(UserError, match=r"multiple of dynamics.num_elites, found 12 and 5"):
        damo.Config(rollout_starts=12)
    assert damo.Config(rollout_starts=12, dynamics=DynamicsConfig(num_elites=4)).rollout_starts == 12


@pytest.mark.parametrize("changes", [{"divergence_weight": 0.0}, {"actor_divergence_weight": -1.0}])
def test_weights_that_residuals_are_divided_by_must_be_positive(changes):
    with pytest.raises(UserError, match="must be above 0"):
        damo.Config(**changes)
    assert damo.Config(**changes, behaviour_alignment=False)  # nothing is divided then


@pytest.mark.parametrize("strength", [10.0, 0.5, -0.1])
def test_label_smoothing_by_half_or_more_is_refused(strength):
    with pytest.raises(UserError, match=f"label_smoothing.*found {strength}"):
        damo.Config(classifier_regulariser="label_smoothing", classifier_strength=strength)
    assert damo.Config(classifier_regulariser="label_smoothing", classifier_strength=0.1)


# --- reward and target ------------------------------------------------------------------------------------------

TWO_ROWS = Transition(
    obs=jnp.zeros((2, 3)),
    action=jnp.zeros((2, 2)),
    reward=jnp.array([1.0, 2.0]),
    next_obs=jnp.array([[0.5, 0.0, 0.0], [-1.0, 0.0, 0.0]]),
    terminal=jnp.array([0.0, 1.0]),
)


@pytest.fixture
def judging(state: damo.State) -> damo.State:
    """A classifier whose logit is twice the change of the first coordinate: log-ratios 1 and -2 on the two rows."""
    kernel = 2.0 * np.eye(8, dtype=np.float32)[:, [5]]  # features: 3 of the state, 2 of the action, 3 of the change
    return state._replace(classifier=state.classifier._replace(params=(Dense(jnp.asarray(kernel), jnp.zeros(1)),)))


def refined(config: damo.Config, state: damo.State, rows: Transition) -> tuple[jax.Array, jax.Array]:
    """The refined reward by this state's classifier."""
    return refined_reward(config, state.classifier.params, state.classifier_inputs, state.terminal_rate, rows)


@pytest.mark.parametrize("handling", ["floor", "none"])
def test_reward_is_refined_by_the_weighted_log_ratio(config, judging, handling):
    config = replace(config, divergence_weight=3.0, terminal_handling=handling)
    reward, absorbing = refined(config, judging, TWO_ROWS)
    assert reward.tolist() == [1.0 - 3.0, 2.0 + 6.0]
    assert float(absorbing) == 0.0
    reward, _ = refined(replace(config, logit_clip=1.5), judging, TWO_ROWS)
    assert reward.tolist() == [1.0 - 3.0, 2.0 + 4.5]


@pytest.mark.parametrize("handling", ["floor", "absorbing", "none"])
def test_a_floor_of_the_log_ratio_takes_the_bonus_and_leaves_the_penalty(config, judging, handling):
    config = replace(config, divergence_weight=3.0, terminal_handling=handling)
    floored = replace(config, log_ratio_floor=0.0)
    judging = judging._replace(terminal_rate=jnp.array([0.3, 0.1]))  # the policy dies less often than the data
    rewards, absorbing = zip(*(refined(c, judging, TWO_ROWS) for c in (config, floored)), strict=True)
    assert float(rewards[0][0]) == float(rewards[1][0]) < 1.0  # off the data: the same penalty
    assert float(rewards[0][1]) > 2.0 == float(rewards[1][1])  # on the data: no bonus
    assert float(absorbing[1]) == 0.0 <= float(absorbing[0])
    reward, _ = refined(replace(config, log_ratio_floor=-1.0), judging, TWO_ROWS)
    assert handling == "absorbing" or reward.tolist() == [1.0 - 3.0, 2.0 + 3.0]


@pytest.mark.parametrize("handling", ["floor", "absorbing", "none"])
def test_without_data_alignment_the_reward_is_untouched(config, judging, handling):
    config = replace(config, data_alignment=False, terminal_handling=handling)
    reward, absorbing = refined(config, judging, TWO_ROWS)
    assert reward.tolist() == [1.0, 2.0]
    assert float(absorbing) == 0.0


def test_absorbing_state_has_the_log_ratio_of_its_occupancies(config, judging):
    """Chains that die with chance p at every step, worked out: discounted mass of being alive, and of being dead.

    The alive mass is (1 - gamma) sum_t gamma^t (1 - p)^t. What a living row's log-ratio lacks, and the absorbing
    state's own, are log-ratios of these masses; the absorbing state is paid -w times its own for ever.
    """
    gamma, weight = 0.9, 3.0
    config = replace(config, gamma=gamma, divergence_weight=weight, terminal_handling="absorbing")
    death_real, death_model = 0.1, 0.3
    judging = judging._replace(terminal_rate=jnp.array([death_real, death_model]))
    alive_real, alive_model = (
        (1.0 - gamma) * sum((gamma * (1.0 - p)) ** t for t in range(500)) for p in (death_real, death_model)
    )
    reward, absorbing = refined(config, judging, TWO_ROWS)
    ratios = np.array([1.0, -2.0]) + np.log(alive_model / alive_real)
    np.testing.assert_allclose(reward, np.array([1.0, 2.0]) - weight * ratios, atol=5e-3)
    log_ratio = np.log((1.0 - alive_model) / (1.0 - alive_real))
    assert log_ratio > 0.0  # the policy dies more often than the data: death must cost
    assert float(absorbing) == pytest.approx(-weight * log_ratio / (1.0 - gamma), rel=5e-3)


def test_absorbing_state_is_free_where_the_policy_dies_as_often_as_the_data_and_bounded_where_data_never_do(
    config, judging
):
    config = replace(config, terminal_handling="absorbing")
    _, equal = refined(config, judging._replace(terminal_rate=jnp.array([0.2, 0.2])), TWO_ROWS)
    assert float(equal) == pytest.approx(0.0, abs=1e-4)
    clipped = replace(config, logit_clip=2.0)
    _, never = refined(clipped, judging._replace(terminal_rate=jnp.array([0.0, 0.5])), TWO_ROWS)
    assert float(never) == pytest.approx(-config.divergence_weight * 2.0 / (1.0 - config.gamma), rel=1e-5)


@pytest.mark.parametrize(
    ("handling", "expected"),
    [("none", [1.0 + 0.9 * -5.0, 2.0 - 0.9 * 7.0]), ("absorbing", [-3.5, -4.3]), ("floor", [0.0, 0.0])],
)
def test_bellman_target_by_hand(config, handling, expected):
    config = replace(config, terminal_handling=handling)
    target = bellman_target(config, TWO_ROWS, jnp.array([-5.0, 100.0]), jnp.float32(-7.0))
    np.testing.assert_allclose(target, expected, rtol=1e-6)


def test_the_floor_spares_positive_targets_and_ignores_the_value_behind_a_terminal(config):
    target = bellman_target(config, TWO_ROWS, jnp.array([[4.0, 100.0], [-9.0, -100.0]]), jnp.zeros(()))
    np.testing.assert_allclose(target, [[4.6, 2.0], [0.0, 2.0]], rtol=1e-6)


def test_initial_states_come_from_where_the_configuration_says(config, data):
    for name, source in (("dataset", data.rows.obs), ("episode_starts", data.initial_obs)):
        drawn = batches.sample_initial(replace(config, initial_states=name), data, jax.random.key(0))
        assert drawn.shape == (config.initial_batch_size, source.shape[1])
        assert {tuple(row) for row in np.asarray(drawn)} <= {tuple(row) for row in np.asarray(source)}


# --- the batch --------------------------------------------------------------------------------------------------


class CaughtError(Exception):
    """Carries what a replaced function was given, and ends the update there."""


def caught(function, monkeypatch: pytest.MonkeyPatch, module, name: str):
    def catch(*arguments):
        raise CaughtError(arguments)

    monkeypatch.setattr(module, name, catch)
    with pytest.raises(CaughtError) as caught:
        function()
    return caught.value.args[0]


def by_source(state: damo.State, data, found: jax.Array) -> list[int]:
    """How many of the rows are the data's, and the buffer's, told by the first coordinate of `found`."""
    sources = (np.asarray(data.rows.obs), np.asarray(state.buffer.rows.obs))
    return [int(np.isin(np.asarray(found)[:, 0], source[:, 0]).sum()) for source in sources]


@pytest.mark.parametrize(("real_ratio", "expected"), [(0.0, [0, 8]), (0.3, [2, 6]), (0.75, [6, 2]), (1.0, [8, 0])])
def test_a_batch_has_its_share_of_real_rows_and_its_full_size(
    config, problem, state, data, monkeypatch, real_ratio, expected
):
    config = replace(config, real_ratio=real_ratio, data_alignment=False)
    update = partial(damo.update, config, problem, state, data, jax.random.key(0))
    batch = caught(update, monkeypatch, maximin, "maximin_gradients")[2]
    assert by_source(state, data, batch.obs) == expected
    assert np.isin(batch.reward, np.concatenate([data.rows.reward, state.buffer.rows.reward])).all()  # w/o er


@pytest.mark.parametrize("real_ratio", [0.0, 0.75])
def test_the_classifier_sees_one_half_of_each_kind(config, problem, state, data, monkeypatch, real_ratio):
    config = replace(config, real_ratio=real_ratio)
    update = partial(damo.update, config, problem, state, data, jax.random.key(0))
    _, real, synthetic, *_ = caught(update, monkeypatch, classifier, "classifier_loss")
    assert by_source(state, data, real) == [4, 0]
    assert by_source(state, data, synthetic) == [0, 4]


# --- one update -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def averaging(config):
    return replace(config, actor_averaging=0.25)


@pytest.fixture(scope="module")
def update(averaging, problem, data):
    return jax.jit(lambda state, key: damo.update(averaging, problem, state, data, key))


class Updated(NamedTuple):
    state: damo.State
    metrics: dict[str, jax.Array]


@pytest.fixture(scope="module")
def updated(update, state) -> Updated:
    return Updated(*update(state, jax.random.key(3)))


def assert_trees(found, expected, **tolerance) -> None:
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, **tolerance)


def test_update_moves_every_learner_by_one_adam_step_and_leaves_model_and_buffer(updated, state, averaging):
    rates = {
        "actor": averaging.actor_lr,
        "critic": averaging.critic_lr,
        "temperature": averaging.temperature_lr,
        "classifier": averaging.classifier_lr,
    }
    for name, rate in rates.items():
        before, after = getattr(state, name).params, getattr(updated.state, name).params
        moves = [
            np.max(np.abs(np.asarray(a) - np.asarray(b)))
            for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(before), strict=True)
        ]
        assert max(moves) == pytest.approx(rate, rel=0.02)  # Adam's first step is the rate itself
    for name in ("model", "buffer", "classifier_inputs", "terminal_rate"):
        assert_trees(getattr(updated.state, name), getattr(state, name), rtol=0.0)


def test_targets_and_averages_follow_their_networks(updated, state, averaging):
    mix = lambda rate: partial(jax.tree.map, lambda old, new: (1.0 - rate) * np.asarray(old) + rate * np.asarray(new))
    expected = mix(averaging.tau)(state.target_critic, updated.state.critic.params)
    assert_trees(updated.state.target_critic, expected, rtol=1e-4, atol=1e-6)
    expected = mix(averaging.actor_averaging)(state.average_actor, updated.state.actor.params)
    assert_trees(updated.state.average_actor, expected, rtol=1e-4, atol=1e-6)
    assert damo.ALGORITHM.actor(updated.state) is updated.state.average_actor


def test_update_is_pure(update, updated, state):
    again = Updated(*update(state, jax.random.key(3)))
    assert_trees(again, updated, rtol=0.0)
    other = Updated(*update(state, jax.random.key(4)))
    assert float(other.metrics["critic/loss"]) != float(updated.metrics["critic/loss"])


def test_update_keeps_the_types_of_its_state(averaging, state, data, problem):
    """So that a loop compiles it once, and a checkpoint fits whatever wrote it."""
    describe = partial(jax.tree.map, lambda leaf: (leaf.shape, leaf.dtype, leaf.weak_type))
    key = jax.random.key(0)
    start = jax.eval_shape(lambda: damo.init(key, averaging, problem, data))
    refreshed, _ = jax.eval_shape(lambda s: damo.refresh(averaging, problem, s, data, key), start)
    stepped, _ = jax.eval_shape(lambda s: damo.update(averaging, problem, s, data, key), refreshed)
    assert describe(start) == describe(refreshed) == describe(stepped)


def test_seeds_under_vmap_equal_seeds_alone(problem, averaging, update, updated, state, data):
    """Two seeds with states and keys of their own."""
    first = jax.tree.map(np.asarray, state)
    second = jax.tree.map(lambda leaf: (leaf * 1.1).astype(leaf.dtype), first)
    keys = [jax.random.key(3), jax.random.key(9)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), first, second)
    together = jax.jit(jax.vmap(lambda s, k: damo.update(averaging, problem, s, data, k)))(stacked, jnp.stack(keys))
    for seed, alone in enumerate((updated, Updated(*update(second, keys[1])))):
        found = Updated(*jax.tree.map(lambda leaf, i=seed: np.asarray(leaf)[i], together))
        assert_trees(found, alone, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("log_std", "log_temperature"), [(-5.0, 0.0), (-5.0, -0.5), (0.0, 0.0), (0.0, -0.5)])
def test_temperature_seeks_the_target_entropy_and_never_passes_one(update, averaging, state, log_std, log_temperature):
    """The target is -2 nats: a deviation of exp(-5) lies far below it, one of 1 around a mean of 0 above."""
    *hidden, last = state.actor.params
    bias = jnp.array([0.0, 0.0, log_std, log_std])
    params = (*hidden, Dense(0.0 * last.kernel, bias))
    start = state._replace(
        actor=state.actor._replace(params=params),
        temperature=state.temperature._replace(params=jnp.float32(log_temperature)),
    )
    after, metrics = update(start, jax.random.key(0))
    too_low = log_std == -5.0
    assert (float(metrics["actor/entropy"]) < -2.0) == too_low
    step = averaging.temperature_lr * (1.0 if too_low else -1.0)
    assert float(after.temperature.params) == pytest.approx(min(log_temperature + step, 0.0), abs=1e-6)


# --- one refresh ------------------------------------------------------------------------------------------------

STEPS, STARTS = 3, 10


@pytest.fixture(scope="module")
def drifting(state: damo.State) -> damo.State:
    """A model that moves the first coordinate by 0.5, no noise; an actor that plays wide, an average that plays -1."""
    zeros = jax.tree.map(np.zeros_like, state.model)
    bias = np.array([[0.5, 0.0, 0.0, 0.0] + [-900.0] * 4] * 2, np.float32)
    last = zeros.params.layers[-1]._replace(bias=bias)
    params = zeros.params._replace(layers=(*zeros.params.layers[:-1], last), log_var_min=np.full(4, -800.0, np.float32))
    ones = lambda scaler: scaler._replace(scale=np.ones_like(scaler.scale))
    play = lambda actor, *bias: (*actor[:-1], Dense(0.0 * actor[-1].kernel, jnp.repeat(jnp.array(bias), 2)))
    return state._replace(
        model=zeros._replace(params=params, inputs=ones(zeros.inputs), targets=ones(zeros.targets)),
        actor=state.actor._replace(params=play(state.actor.params, 0.0, 0.0)),
        average_actor=play(state.average_actor, -9.0, -5.0),
        buffer=jax.tree.map(np.zeros_like, state.buffer),
    )


@pytest.fixture(scope="module")
def refresh(config, problem, data):
    return jax.jit(lambda state, key: damo.refresh(config, problem, state, data, key))


def test_refresh_fills_the_buffer_with_the_actors_rollouts_from_dataset_states(refresh, drifting, data):
    state, metrics = refresh(drifting, jax.random.key(0))
    size = int(state.buffer.size)
    obs, action, _, next_obs, terminal = (np.asarray(field)[:size] for field in state.buffer.rows)
    starts = {tuple(row) for row in np.asarray(data.rows.obs)}
    assert all(tuple(row) in starts for row in obs[:STARTS])
    np.testing.assert_allclose(next_obs, obs + np.array([0.5, 0.0, 0.0]), atol=1e-6)
    assert abs(action.mean()) < 0.4  # of the actor itself, not of its average
    assert action.std() > 0.4  # samples, not modes
    np.testing.assert_array_equal(terminal, next_obs[:, 0] > 1.0)
    # each start lives until its first coordinate passes 1, at most three steps
    lengths = np.clip(np.floor((1.0 - obs[:STARTS, 0]) / 0.5) + 1.0, 1.0, STEPS)
    assert size == lengths.sum() < STARTS * STEPS
    assert float(metrics["rollout/length_mean"]) == pytest.approx(lengths.mean())


def test_terminal_rates_are_those_of_the_data_and_of_the_whole_buffer(refresh, drifting):
    state = drifting
    for call in range(3):  # the third overwrites part of the first
        state, _ = refresh(state, jax.random.key(call))
        written = np.asarray(state.buffer.rows.terminal)[: int(state.buffer.size)]
        assert 0.0 < written.mean() < 1.0
        assert float(state.terminal_rate[1]) == pytest.approx(written.mean(), rel=1e-5)
        assert float(state.terminal_rate[0]) == float(drifting.terminal_rate[0])
    assert int(state.buffer.size) > STARTS * STEPS
