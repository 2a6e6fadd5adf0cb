"""CQL: without its weight it is SAC on the data; with it, Q falls where the data has no actions."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damorl.algos import cql
from damorl.algos.base import OfflineData, Problem
from damorl.core import buffer as ring
from damorl.experiment.config import defaults
from damorl.parts import sac
from damorl.parts.critic import q_min
from damorl.types import Spec, Transition
from tests.exact import exact_jit

CONFIG = cql.Config(hidden=(16,), batch_size=32, num_repeats=2, critic_lr=3e-3, gamma=0.9)
PROBLEM = Problem(Spec(1, 1), lambda obs, action, next_obs: obs[:, 0] > jnp.inf)


@pytest.fixture(scope="module")
def one_sided() -> OfflineData:
    """Actions between 0.2 and 0.8 only, all paid the same."""
    rng = np.random.default_rng(0)
    obs, action = rng.uniform(-1.0, 1.0, (500, 1)), rng.uniform(0.2, 0.8, (500, 1))
    rows = Transition(*(jnp.asarray(x, jnp.float32) for x in (obs, action, np.ones(500), obs, np.zeros(500))))
    return OfflineData(rows, rows.obs)


def test_without_weight_it_is_sac_on_the_data_bit_for_bit(one_sided):
    config = replace(CONFIG, conservative_weight=0.0)
    state = cql.init(jax.random.key(0), config, PROBLEM, one_sided)
    found, _ = exact_jit(lambda s, k: cql.update(config, PROBLEM, s, one_sided, k))(state, jax.random.key(1))

    def plain(agent, key):
        batch_key, agent_key = jax.random.split(key)
        return sac.update(config, agent, ring.sample_rows(one_sided.rows, batch_key, 32), agent_key)[0]

    expected = exact_jit(plain)(state.agent, jax.random.key(1))
    for one, other in zip(jax.tree.leaves(found.agent), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(one, other)


def test_q_falls_below_the_datas_where_the_data_has_no_actions(one_sided):
    """Every action is paid the same, so plain SAC sees no great difference; CQL must."""

    def gap(weight: float) -> float:
        config = replace(CONFIG, conservative_weight=weight)
        state = cql.init(jax.random.key(0), config, PROBLEM, one_sided)
        run = jax.jit(
            lambda s: jax.lax.scan(
                lambda s, k: cql.update(config, PROBLEM, s, one_sided, k), s, jax.random.split(jax.random.key(1), 300)
            )
        )
        critic, obs = run(state)[0].agent.critic.params, jnp.linspace(-1.0, 1.0, 9)[:, None]
        at = lambda action: float(q_min(critic, obs, jnp.full_like(obs, action)).mean())
        return at(0.5) - at(-0.8)

    assert gap(5.0) > gap(0.0) + 1.0


def test_presets_are_the_kits():
    loop, config = defaults("cql", "paper", "walker2d-medium-replay")
    assert (loop.total_updates, config.hidden, config.actor_lr_decay) == (1_000_000, (256, 256, 256), None)
    assert (config.conservative_weight, config.conservative_temperature, config.num_repeats) == (5.0, 1.0, 10)
    assert (config.actor_lr, config.critic_lr, config.temperature_lr) == (1e-4, 3e-4, 1e-4)
    assert (config.entropy_backup, config.max_temperature, config.log_sum_exp) == (False, None, "per_repeat")


@pytest.mark.slow
def test_it_beats_the_behaviour_on_a_toy(point_world, point_settings):
    config = cql.Config(**point_settings["agent"], initial_temperature=0.05, conservative_weight=0.5)
    assert point_world.distance(cql, config) < 0.15  # behaviour cloning: about 0.52
