"""Trajectory Transformer: sequences, values and loss by hand, the schedule by hand, and plans that beat cloning."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damorl.algos import bc
from damorl.algos import trajectory_transformer as tt
from damorl.algos.base import OfflineData, Problem
from damorl.errors import UserError
from damorl.experiment.planning import Player, compiled_act
from damorl.parts.actor import policy
from damorl.parts.beam import SearchConfig
from damorl.parts.discretiser import discretise
from damorl.parts.transformer import Dropout, Transformer, all_logits, transform
from damorl.types import Spec, Transition

SMALL = tt.Config(
    bins=6,
    sequence_length=3,
    layers=1,
    heads=2,
    head_dim=4,
    batch_size=16,
    gamma=0.5,
    termination_penalty=None,
    search=SearchConfig(horizon=2, beam_width=4, history=2),
)
PROBLEM = Problem(Spec(1, 1), lambda obs, action, next_obs: obs[:, 0] > jnp.inf)
# Three episodes: one that falls, one that is cut, one that is not finished.
EPISODE = np.array([0, 0, 0, 1, 1, 2])
TERMINAL = np.array([0, 0, 1, 0, 0, 0])


def make_data(reward: np.ndarray, episode: np.ndarray, terminal: np.ndarray, seed: int = 0) -> OfflineData:
    rng = np.random.default_rng(seed)
    obs, action = rng.normal(size=(len(reward), 1)), rng.uniform(-1, 1, (len(reward), 1))
    rows = Transition(*(jnp.asarray(x, jnp.float32) for x in (obs, action, reward, obs, terminal)))
    return OfflineData(rows, rows.obs[:1], jnp.asarray(episode, jnp.int32))


@pytest.fixture(scope="module")
def hand() -> OfflineData:
    return make_data(np.array([1.0, 2.0, 4.0, 8.0, 16.0, 32.0]), EPISODE, TERMINAL)


@pytest.fixture(scope="module")
def state(hand: OfflineData) -> tt.State:
    return jax.jit(lambda key, data: tt.init(key, SMALL, PROBLEM, data))(jax.random.key(0), hand)


def test_values_by_hand(state: tt.State) -> None:
    """V_t = r_{t+1} + r_{t+2} / 2 + ..., and nothing crosses an episode's end."""
    np.testing.assert_allclose(state.values, [2.0 + 2.0, 4.0, 0.0, 16.0, 0.0, 0.0])


def test_values_equal_a_slow_loop() -> None:
    rng = np.random.default_rng(0)
    reward, episode = rng.normal(size=300), np.sort(rng.integers(0, 20, 300))
    expected = np.zeros(300)
    for t in range(299, -1, -1):
        if t < 299 and episode[t + 1] == episode[t]:
            expected[t] = reward[t + 1] + 0.97 * expected[t + 1]
    found = jax.jit(tt.values_after)(reward, episode, 0.97)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_terminal_gets_the_penalty_and_its_past_feels_it(hand: OfflineData) -> None:
    config = replace(SMALL, termination_penalty=100.0)
    reward = tt.penalised_reward(config, hand.rows)
    np.testing.assert_array_equal(reward, [1.0, 2.0, -100.0, 8.0, 16.0, 32.0])
    values = tt.values_after(reward, jnp.asarray(EPISODE), 0.5)
    np.testing.assert_allclose(values, [2.0 - 50.0, -100.0, 0.0, 16.0, 0.0, 0.0])


def test_sequences_stop_after_a_terminal_and_count_nothing_after_a_cut(state: tt.State, hand: OfflineData) -> None:
    config = replace(SMALL, batch_size=200)
    tokens, counts = (
        np.asarray(x) for x in jax.jit(tt.sample_sequences, static_argnums=0)(config, state, hand, jax.random.key(1))
    )
    every = np.asarray(discretise(state.edges, tt.joined(config, hand.rows, state.values)))
    own_rows = ([0, 1, 2], [1, 2], [2], [3, 4], [4], [5])
    expected = {start: (rows, start < 3) for start, rows in enumerate(own_rows)}  # and whether the rest counts
    seen = set()
    for sequence, count in zip(tokens, counts, strict=True):
        (start,) = np.flatnonzero((every == sequence[0]).all(axis=1))
        own, rest = expected[int(start)]
        seen.add(int(start))
        np.testing.assert_array_equal(sequence[: len(own)], every[own])
        assert (sequence[len(own) :] == SMALL.bins).all()
        assert count.tolist() == [True] * len(own) + [rest] * (3 - len(own))
    assert seen == set(expected)


def test_the_loss_by_hand(state: tt.State) -> None:
    """Token by token over two transitions, of which the second counts in one sequence only; weights 1, 5, 2, 3."""
    config = replace(SMALL, reward_weight=2.0, value_weight=3.0)
    tokens = jax.random.randint(jax.random.key(2), (2, 2, 4), 0, SMALL.bins)
    counts = jnp.array([[True, True], [True, False]])
    params = jax.tree.map(lambda leaf: leaf * 5.0, state.model.params)
    loss_fn = jax.jit(tt.sequence_loss, static_argnums=(0, 1))
    loss, metrics = loss_fn(config, PROBLEM.spec, params, tokens, counts, None)
    flat = np.asarray(tokens).reshape(2, 8)
    read = jax.jit(lambda p, t: all_logits(p, transform(p, t)[0]))
    logits = np.asarray(read(params, flat[:, :-1]), np.float64)
    total, action = 0.0, []
    for row in range(2):
        for place in range(1, 8):
            error = np.log(np.exp(logits[row, place - 1]).sum()) - logits[row, place - 1, flat[row, place]]
            if counts[row, place // 4]:
                total += error * [1.0, 5.0, 2.0, 3.0][place % 4]
                action += [error] if place % 4 == 1 else []
    assert float(loss) == pytest.approx(total / 14, rel=1e-5)
    assert float(metrics["model/action_nll"]) == pytest.approx(np.mean(action), rel=1e-5)
    assert len(action) == 3


@pytest.mark.parametrize(
    ("schedule", "epoch", "expected"),
    [
        ("published", 0.5, 0.5),
        ("published", 1.0, 1.0),
        ("published", 10.5, 0.5),
        ("published", 20.0, 0.1),
        ("published", 39.0, 1.0),
        ("published", 50.0, 0.38),
        ("monotone", 0.5, 0.5),
        ("monotone", 10.5, 0.5),
        ("monotone", 20.0, 0.1),
        ("monotone", 39.0, 0.1),
        ("monotone", 50.0, 0.1),
    ],
)
def test_the_schedule_by_hand(schedule: Any, epoch: float, expected: float) -> None:
    assert float(tt.lr_multiplier(tt.Config(lr_schedule=schedule), epoch)) == pytest.approx(expected, abs=5e-3)


def test_only_the_mended_schedule_never_rises_again() -> None:
    epochs = jnp.linspace(1.0, 80.0, 500)
    published, mended = (
        np.diff(np.asarray(tt.lr_multiplier(tt.Config(lr_schedule=name), epochs))) for name in ("published", "monotone")
    )
    assert (mended <= 1e-6).all()
    assert published.max() > 0.01


def first_step(config: tt.Config, num_rows: int, params: Transformer, gradient: float) -> Any:
    """What the optimiser adds to `params` if every entry of the gradient is the same."""

    @jax.jit
    def step(params: Transformer) -> Any:
        optimiser = tt.make_optimiser(config, num_rows)
        gradients = jax.tree.map(lambda leaf: jnp.full_like(leaf, gradient), params)
        return optimiser.update(gradients, optimiser.init(params), params)[0]

    return step(params)


def test_the_rate_follows_the_share_of_the_data_that_was_seen(state: tt.State) -> None:
    """Adam's first step is the rate itself, against the gradient: 16 of 64 rows are a quarter of the warm-up."""
    config = replace(SMALL, weight_decay=0.0, learning_rate=0.01)
    np.testing.assert_allclose(first_step(config, 64, state.model.params, 1.0).head, -0.01 / 4, rtol=1e-3)


def test_weights_decay_and_embeddings_do_not(state: tt.State) -> None:
    step = first_step(replace(SMALL, weight_decay=0.1, learning_rate=0.01), 16, state.model.params, 0.0)
    np.testing.assert_allclose(step.head, -0.01 * 0.1 * state.model.params.head, rtol=1e-4)
    assert not np.any(step.token)


TOY = replace(
    SMALL,
    bins=8,
    sequence_length=2,
    head_dim=8,
    dropout=0.0,
    batch_size=64,
    learning_rate=3e-3,
    lr_schedule="monotone",
    warmup_epochs=0.1,
    decay_epochs=40.0,
    gamma=0.3,
    search=SearchConfig(horizon=2, beam_width=16, history=1, cdf_action=None),
)


@pytest.fixture(scope="module")
def toy() -> OfflineData:
    """Random actions in two states, -1 and 1; the reward is the state times the action."""
    data = make_data(np.zeros(2000), np.arange(2000) // 10, np.zeros(2000))
    obs = jnp.sign(data.rows.obs)
    return data._replace(rows=data.rows._replace(obs=obs, reward=obs[:, 0] * data.rows.action[:, 0]))


@partial(jax.jit, static_argnums=(0, 3))
def train(config: tt.Config, data: OfflineData, keys: jax.Array, updates: int) -> tt.State:
    """Seeds together, `[seed]` keys."""

    def one(key: jax.Array, data: OfflineData) -> tt.State:
        step = lambda s, k: tt.update(config, PROBLEM, s, data, k)
        return jax.lax.scan(step, tt.init(key, config, PROBLEM, data), jax.random.split(key, updates))[0]

    return jax.vmap(one, in_axes=(0, None))(keys, data)


def test_planning_beats_cloning_where_the_data_acts_at_random(toy: OfflineData) -> None:
    """Cloning gives the mean action, worth nothing; a plan takes the action of the highest reward."""
    state = jax.tree.map(lambda leaf: leaf[0], train(TOY, toy, jax.random.split(jax.random.key(0), 1), 400))
    obs = np.resize([-1.0, 1.0], (16, 1))
    player = Player(tt.ALGORITHM, TOY, PROBLEM.spec, tt.ALGORITHM.actor(state))
    player.reset(16, 0)
    planned = np.mean(player.act(obs) * obs)
    cloner = bc.Config(hidden=(16,), learning_rate=3e-3)
    step = lambda s, k: bc.update(cloner, PROBLEM, s, toy, k)
    start = bc.init(jax.random.key(0), cloner, PROBLEM, toy)
    cloned, _ = jax.jit(lambda s, k: jax.lax.scan(step, s, k))(start, jax.random.split(jax.random.key(1), 300))
    actions = np.asarray(policy(cloned.actor.params, jnp.asarray(obs)).mode())[:, 0]
    assert np.mean(actions * obs[:, 0]) < 0.3
    assert planned > 0.7


def test_seeds_together_equal_seeds_alone(toy: OfflineData) -> None:
    config, keys = replace(SMALL, batch_size=8), jax.random.split(jax.random.key(3), 2)
    together = train(config, toy, keys, 3)
    for seed in range(2):
        alone = train(config, toy, keys[seed : seed + 1], 3)
        for both, one in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(both[seed], one[0], rtol=1e-4, atol=2e-5)


def test_dropout_changes_the_loss_and_zero_is_none(state: tt.State, hand: OfflineData) -> None:
    tokens, counts = jax.random.randint(jax.random.key(2), (4, 3, 4), 0, SMALL.bins), jnp.ones((4, 3), bool)

    @jax.jit
    def losses(params: Transformer) -> list[jax.Array]:
        dropouts = [Dropout(jax.random.key(seed), rate) for seed, rate in ((0, 0.3), (1, 0.3), (0, 0.0))]
        loss = lambda dropout: tt.sequence_loss(SMALL, PROBLEM.spec, params, tokens, counts, dropout)[0]
        return [loss(dropout) for dropout in [None, *dropouts]]

    without, first, second, zero = (float(x) for x in losses(state.model.params))
    assert without == pytest.approx(zero, rel=1e-6)
    assert len({without, first, second}) == 3


def test_the_memory_holds_the_last_transitions_as_they_were(state: tt.State) -> None:
    """Against a plain list, over more steps than fit: states, actions and rewards, oldest first."""
    player = Player(tt.ALGORITHM, SMALL, PROBLEM.spec, tt.ALGORITHM.actor(state))
    player.reset(3, 0)
    before = compiled_act._cache_size()  # type: ignore[attr-defined]
    rng, history = np.random.default_rng(0), []
    for step in range(5):
        obs, reward = rng.normal(size=(3, 1)), rng.normal(size=3) * 8.0
        action = player.act(obs)
        numbers = np.concatenate([obs, action, reward[:, None]], axis=1).astype(np.float32)
        history.append(np.asarray(discretise(state.edges[:, :3], jnp.asarray(numbers))))
        assert int(player.memory.age) == step + 1
        for slot, expected in enumerate(history[:-1][-2:]):
            np.testing.assert_array_equal(player.memory.past[:, slot, :3], expected)
        player.told(reward)
    assert player.plans == 5
    assert compiled_act._cache_size() == before + 1  # type: ignore[attr-defined]


def test_an_episode_does_not_depend_on_those_beside_it_and_forgets_on_reset(state: tt.State) -> None:
    player = Player(tt.ALGORITHM, SMALL, PROBLEM.spec, tt.ALGORITHM.actor(state))
    obs = np.random.default_rng(0).normal(size=(4, 4, 1))

    def play(first: int) -> np.ndarray:
        """Three of four episodes, of the seeds 7 to 10."""
        player.reset(3, 7 + first)
        return np.stack([player.act(step[first : first + 3]) for step in obs])

    together = play(0)
    np.testing.assert_array_equal(together, play(0))
    np.testing.assert_allclose(together[:, 1:], play(1)[:, :2], atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sequence_length": 4}, r"search.history must be below sequence_length \(4\), found 4"),
        ({"warmup_epochs": 30.0}, "warmup_epochs must be below decay_epochs"),
        ({"dropout": 1.0}, "dropout must lie in"),
    ],
)
def test_settings_that_cannot_work_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        tt.Config(**change)


def test_data_without_episodes_are_refused(hand: OfflineData) -> None:
    with pytest.raises(UserError, match="needs rows in the order of their episodes"):
        tt.init(jax.random.key(0), SMALL, PROBLEM, hand._replace(episode=None))
