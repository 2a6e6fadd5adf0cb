"""COMBO: without its weight there is only `sac`; where it lowers and raises Q; its tuned values."""

from __future__ import annotations

from dataclasses import fields, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damorl.algos import combo, sac
from damorl.algos.base import OfflineData, Problem
from damorl.errors import UserError
from damorl.experiment.config import defaults
from damorl.parts import conservative
from damorl.parts.dynamics import DynamicsConfig

CONFIG = combo.Config(
    hidden=(8,),
    batch_size=8,
    real_ratio=0.25,
    rollout_starts=10,
    rollout_length=2,
    rollout_retain=2,
    num_repeats=2,
    dynamics=DynamicsConfig(num_members=2, num_elites=2, hidden=(8,)),
)


def after_two_updates(module, config, problem: Problem, data: OfflineData):
    """An unfitted model will do."""
    state = module.ALGORITHM.init(jax.random.key(0), config, problem, data)
    state, _ = jax.jit(lambda s, k: module.ALGORITHM.refresh(config, problem, s, data, k))(state, jax.random.key(1))
    step = jax.jit(lambda s, k: module.ALGORITHM.update(config, problem, s, data, k)[0])
    return step(step(state, jax.random.key(2)), jax.random.key(3))


def test_without_weight_it_is_sac_with_the_same_settings_bit_for_bit(problem, data):
    config = replace(CONFIG, conservative_weight=0.0)
    same = sac.Config(**{field.name: getattr(config, field.name) for field in fields(sac.Config)})
    found, expected = (after_two_updates(*pair, problem, data) for pair in ((combo, config), (sac, same)))
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(one, other)
    weighted = after_two_updates(combo, CONFIG, problem, data)
    assert np.any(np.asarray(weighted.agent.critic.params[0].kernel) != np.asarray(found.agent.critic.params[0].kernel))


@pytest.mark.parametrize(("rho", "lowered_rows"), [("mix", 8), ("model", 6)])
def test_q_is_lowered_at_the_states_of_rho_and_raised_on_offline_rows(problem, data, monkeypatch, rho, lowered_rows):
    """Offline rows are paid 7, model rows -7; a quarter of eight rows is two."""
    seen = {}

    def spy(settings, agent, batch, lowered, real, key):
        seen.update(batch=batch, lowered=lowered, real=real)
        return agent, {}

    monkeypatch.setattr(conservative, "update", spy)
    state = combo.ALGORITHM.init(jax.random.key(0), CONFIG, problem, data)
    buffer = state.buffer._replace(rows=state.buffer.rows._replace(reward=jnp.full(40, -7.0)), size=jnp.int32(40))
    paid = data._replace(rows=data.rows._replace(reward=jnp.full(20, 7.0)))
    combo.update(replace(CONFIG, rho=rho), problem, state._replace(buffer=buffer), paid, jax.random.key(1))
    assert seen["batch"].reward.tolist() == [7.0] * 2 + [-7.0] * 6
    assert seen["real"].reward.tolist() == [7.0, 7.0]
    np.testing.assert_array_equal(seen["lowered"].obs, seen["batch"].obs[8 - lowered_rows :])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"real_ratio": 0.1}, "at least one offline row in a batch of 8.*found 0.1"),
        ({"real_ratio": 1.0, "rho": "model"}, "needs model rows"),
        ({"rollout_starts": 11}, "multiple of dynamics.num_elites"),
        ({"conservative_temperature": 0.0}, "conservative_temperature"),
    ],
)
def test_what_cannot_work_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        replace(CONFIG, **changes)
    assert replace(CONFIG, real_ratio=0.0, conservative_weight=0.0)


# Typed from OfflineRL-Kit's run script for D4RL v2, apart from the overrides file: rollout length, weight.
KIT = {
    "halfcheetah-medium": (5, 0.5),
    "hopper-medium": (5, 5.0),
    "walker2d-medium": (1, 5.0),
    "halfcheetah-medium-replay": (5, 0.5),
    "hopper-medium-replay": (5, 0.5),
    "walker2d-medium-replay": (1, 0.5),
    "halfcheetah-medium-expert": (5, 5.0),
    "hopper-medium-expert": (5, 5.0),
    "walker2d-medium-expert": (1, 5.0),
}


@pytest.mark.parametrize("preset", ["quick", "paper"])
def test_tuned_values_are_the_kits(preset):
    for dataset, expected in KIT.items():
        _, config = defaults("combo", preset, dataset)
        assert (config.rollout_length, config.conservative_weight) == expected
        repeats = {"quick": 1}.get(preset, 10)
        assert (config.log_sum_exp, config.num_repeats, config.conservative_temperature) == ("per_repeat", repeats, 1.0)
        assert (config.real_ratio, config.rho, config.entropy_backup) == (0.5, "mix", False)
        assert config.max_temperature is None
    loop, config = defaults("combo", "paper", "hopper-medium")
    assert (loop.total_updates, config.actor_lr_decay, config.hidden) == (1_000_000, 1_000_000, (256, 256, 256))


@pytest.mark.slow
def test_it_beats_the_behaviour_on_a_toy(point_world, point_settings):
    config = combo.Config(
        **point_settings["agent"], **point_settings["model"], initial_temperature=0.05, conservative_weight=0.5
    )
    assert point_world.distance(combo, config) < 0.15  # behaviour cloning: about 0.52
