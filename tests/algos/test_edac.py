"""EDAC: the cosines by hand, a whole critic step against NumPy, and SAC-N without diversity."""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np
import pytest

from damorl.algos import edac
from damorl.algos.base import OfflineData, Problem
from damorl.core import buffer as ring
from damorl.errors import UserError
from damorl.experiment.config import defaults
from damorl.experiment.units import scale_weights
from damorl.parts import sac
from tests.algos import slow
from tests.algos.conftest import ACTION_DIM, OBS_DIM, linear

CONFIG = edac.Config(hidden=(8,), batch_size=8, gamma=0.9, num_critics=3, diversity_weight=2.0)
KEY = jax.random.key(5)


@pytest.fixture(scope="module")
def before(problem: Problem, data: OfflineData) -> edac.State:
    """A target that differs from the critics."""
    agent = edac.init(jax.random.key(0), CONFIG, problem, data).agent
    return edac.State(agent._replace(target_critic=jax.tree.map(lambda leaf: 1.5 * leaf + 0.1, agent.critic.params)))


def linear_critics(*slopes: tuple[float, float]):
    """Q_j(s, a) = s . (1, 2, 3) + a . slope_j."""
    return linear(*([[1.0], [2.0], [3.0], [slope[0]], [slope[1]]] for slope in slopes))


def test_cosines_of_linear_critics_by_hand(batch):
    """Gradients (3, 4), (4, 3), (-4, 3): cosines 24/25, 0 and -7/25."""
    critics = linear_critics((3.0, 4.0), (4.0, 3.0), (-4.0, 3.0))
    np.testing.assert_allclose(edac.action_gradients(critics, batch.obs, batch.action)[2], [[-4.0, 3.0]] * 8)
    loss, metrics = edac.diversity_loss(critics, batch.obs, batch.action)
    cosines = np.array([0.96, 0.0, -0.28])
    assert float(loss) == pytest.approx(2.0 * cosines.sum() / 2.0, abs=1e-5)  # each pair in both orders, over N - 1
    assert float(metrics["critic/cosine"]) == pytest.approx(cosines.mean(), abs=1e-5)


@pytest.mark.parametrize(
    ("slopes", "cosine"),
    [(((1.0, 2.0), (2.0, 4.0)), 1.0), (((1.0, 2.0), (-1.0, -2.0)), -1.0), (((1.0, 2.0), (0.0, 0.0)), 0.0)],
)
def test_bounds_of_the_cosine_and_a_critic_without_slope(slopes, cosine, batch):
    found = jax.value_and_grad(lambda critics: edac.diversity_loss(critics, batch.obs, batch.action)[0])
    loss, gradient = found(linear_critics(*slopes))
    assert float(loss) == pytest.approx(2.0 * cosine, abs=1e-5)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_it_depends_on_directions_only_and_a_step_turns_them_apart(before, batch):
    critic = before.agent.critic.params
    cosine = jax.jit(jax.value_and_grad(lambda p: edac.diversity_loss(p, batch.obs, batch.action)[0]))
    loss, gradient = cosine(critic)
    louder = (*critic[:-1], jax.tree.map(lambda leaf: 10.0 * leaf, critic[-1]))
    assert float(cosine(louder)[0]) == pytest.approx(float(loss), rel=1e-4, abs=1e-5)
    assert float(cosine(jax.tree.map(lambda p, g: p - 1e-2 * g, critic, gradient))[0]) < float(loss) - 1e-4


def test_the_critics_step_down_both_terms(problem, data, before):
    after, metrics = jax.jit(lambda s, d: edac.update(CONFIG, problem, s, d, KEY))(before, data)
    batch_key, agent_key = jax.random.split(KEY)
    batch = ring.sample_rows(data.rows, batch_key, CONFIG.batch_size)
    rows = slow.in_doubles(batch)
    target = jax.jit(lambda a, b, k: sac.td_target(CONFIG, a, b, k))(
        before.agent, batch, jax.random.split(agent_key)[0]
    )

    def slopes(member) -> np.ndarray:
        """Of a critic with one hidden layer, with respect to the action."""
        (kernel, bias), (last, _) = member
        on = np.concatenate([rows.obs, rows.action], axis=1) @ kernel + bias > 0.0
        return (on * last[:, 0]) @ kernel[OBS_DIM:].T

    def loss(critic) -> float:
        error = slow.values(critic, rows.obs, rows.action) - np.asarray(target, np.float64)
        own, pairs = [slopes(member) for member in slow.members(critic)], 0.0
        for i, one in enumerate(own):
            for j, other in enumerate(own):
                lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
                pairs += np.mean(np.sum(one * other, axis=1) / lengths) * (i != j)
        return float(np.sum(np.mean(error**2, axis=1)) + CONFIG.diversity_weight * pairs / 2.0)

    expected = slow.gradient(loss, before.agent.critic.params)
    slow.assert_close(slow.first_gradient(after.agent.critic), expected)
    assert slopes(slow.members(slow.in_doubles(before.agent.critic.params))[0]).shape == (8, ACTION_DIM)
    assert -0.5 <= float(metrics["critic/cosine"]) <= 1.0  # three directions cannot all be opposite


def test_without_diversity_it_is_sac_with_many_critics_bit_for_bit(problem, data, before):
    config = replace(CONFIG, diversity_weight=0.0)
    found, _ = jax.jit(lambda s, d: edac.update(config, problem, s, d, KEY))(before, data)

    def plain(agent, data):
        batch_key, agent_key = jax.random.split(KEY)
        return sac.update(config, agent, ring.sample_rows(data.rows, batch_key, 8), agent_key)[0]

    jax.tree.map(np.testing.assert_array_equal, found.agent, jax.jit(plain)(before.agent, data))
    assert found.agent.critic.params[0].bias.shape == (3, 8)


def test_its_weight_is_one_of_squared_rewards():
    """Rewards and values times f: the squared error grows by f^2, the cosines stay."""
    scaled = scale_weights(edac.Config(diversity_weight=5.0, initial_temperature=0.5), 0.1)
    assert scaled.diversity_weight == pytest.approx(0.05)
    assert scaled.initial_temperature == pytest.approx(0.05)


def test_diversity_of_a_single_critic_is_refused():
    with pytest.raises(UserError, match="num_critics must be at least 2"):
        edac.Config(num_critics=1)
    assert edac.Config(num_critics=1, diversity_weight=0.0).num_critics == 1


def test_paper_preset_is_the_released_one():
    loop, config = defaults("edac", "paper", "hopper-medium-expert")
    assert (loop.total_updates, config.hidden, config.batch_size) == (3_000_000, (256, 256, 256), 256)
    assert (config.num_critics, config.diversity_weight, config.max_temperature) == (50, 1.0, None)
    assert (config.actor_lr, config.critic_lr, config.temperature_lr) == (3e-4, 3e-4, 3e-4)
    assert (config.entropy_backup, config.actor_averaging, config.actor_lr_decay) == (True, 1.0, None)
    assert defaults("edac", "paper", "walker2d-medium-expert")[1].diversity_weight == 5.0


@pytest.mark.slow
def test_it_beats_the_behaviour_on_a_toy(point_world, point_settings):
    config = edac.Config(**point_settings["agent"], initial_temperature=0.05, num_critics=4, diversity_weight=0.01)
    assert point_world.distance(edac, config) < 0.15  # behaviour cloning: about 0.52
