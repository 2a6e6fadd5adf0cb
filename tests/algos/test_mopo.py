"""MOPO's penalty by hand, whom it touches, and that without it there is only `sac`."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damorl.algos import mobile, mopo, morel, rambo, sac, sambo
from damorl.algos.base import OfflineData, Problem
from damorl.core.nets import Dense
from damorl.core.scaler import Standardiser
from damorl.parts.dynamics import Dynamics, DynamicsConfig, DynamicsParams
from damorl.types import Spec, Transition

TINY = {
    "hidden": (8,),
    "batch_size": 16,
    "rollout_starts": 10,
    "rollout_length": 2,
    "dynamics": DynamicsConfig(num_members=3, num_elites=2, hidden=(8,), max_batches=20, epoch_batches=10),
}
CONFIG = mopo.Config(**TINY)
PROBLEM = Problem(Spec(3, 2), lambda obs, action, next_obs: next_obs[:, 0] > 2.0)


def fake_members(means: list[list[float]], stds: list[list[float]], scale: float = 1.0) -> Dynamics:
    """Members without weights, obs_dim 2: member m moves by `means[m][:2]`, is paid `means[m][2]`, deviates by
    `stds[m]`, all in standardised units, which are `scale` of the data's."""
    bias = np.concatenate([means, 2.0 * np.log(stds)], axis=1).astype(np.float32)
    layer = Dense(jnp.zeros((len(means), 3, 6)), jnp.asarray(bias))
    params = DynamicsParams((layer,), jnp.full(3, 50.0), jnp.full(3, -50.0))
    return Dynamics(params, Standardiser(jnp.zeros(3), jnp.ones(3)), Standardiser(jnp.zeros(3), jnp.full(3, scale)))


MEANS, STDS = [[0.0, 0.0, 7.0], [6.0, 8.0, -7.0]], [[3.0, 4.0, 12.0], [1.0, 1.0, 1.0]]


@pytest.mark.parametrize(("kind", "expected"), [("max_std", 13.0), ("disagreement", 5.0), ("ensemble_std", 12.5**0.5)])
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_penalty_by_hand(kind, expected, scale):
    """max_std: |(3, 4, 12)| = 13, the reward's deviation included. Means (0, 0) and (6, 8) lie 5 from their middle and
    have variances 9 and 16. All in the data's units."""
    obs, action = jnp.array([[1.0, 2.0], [-3.0, 0.5]]), jnp.zeros((2, 1))
    found = mopo.uncertainty(fake_members(MEANS, STDS, scale), obs, action, kind)
    np.testing.assert_allclose(found, [scale * expected] * 2, rtol=1e-5)


@pytest.mark.parametrize(
    ("kind", "means", "stds"),
    [
        ("max_std", MEANS, [STDS[0], [1.0, 1.0, 14.0]]),
        ("disagreement", [MEANS[0], [6.0, 9.0, 0.0]], STDS),
        ("ensemble_std", [MEANS[0], [7.0, 8.0, 0.0]], STDS),
    ],
)
def test_penalty_grows_with_what_it_measures(kind, means, stds):
    ask = lambda *model: float(mopo.uncertainty(fake_members(*model), jnp.zeros((1, 2)), jnp.zeros((1, 1)), kind)[0])
    assert ask(means, stds) > ask(MEANS, STDS) + 0.1


@pytest.fixture(scope="module")
def data() -> OfflineData:
    """A state that moves by its action, rewards that say who they are, and no episode that ends."""
    rng = np.random.default_rng(0)
    obs, action = rng.normal(size=(200, 3)), rng.uniform(-1.0, 1.0, (200, 2))
    next_obs = obs + 0.1 * np.pad(action, ((0, 0), (0, 1))) + 0.02 * rng.normal(size=(200, 3))
    columns = (obs, action, rng.normal(size=200), next_obs, np.zeros(200))
    rows = Transition(*(jnp.asarray(column, jnp.float32) for column in columns))
    return OfflineData(rows, rows.obs[:5])


def start(module, config, data):
    algorithm = module.ALGORITHM
    state = jax.jit(lambda key: algorithm.init(key, config, PROBLEM, data))(jax.random.key(0))
    return algorithm.prepare(jax.random.key(1), config, PROBLEM, state, data, lambda *_: None)


def refreshed(module, config, state, data):
    return jax.jit(partial(module.ALGORITHM.refresh, config, PROBLEM))(state, data, jax.random.key(2))


def updated(module, config, state, data):
    return jax.jit(partial(module.ALGORITHM.update, config, PROBLEM))(state, data, jax.random.key(3))


@pytest.fixture(scope="module")
def state(data) -> mopo.State:
    return start(mopo, CONFIG, data)


@pytest.fixture(scope="module")
def free(state, data):
    return refreshed(mopo, replace(CONFIG, penalty_coefficient=0.0), state, data)


def test_synthetic_rewards_lose_the_penalty_and_nothing_else_changes(state, data, free):
    costly, metrics = refreshed(mopo, replace(CONFIG, penalty_coefficient=3.0), state, data)
    size = int(free[0].buffer.size)
    assert int(costly.buffer.size) == size == 19  # of 20: one would follow an end
    rows, plain = (jax.tree.map(lambda leaf: leaf[:size], s.buffer.rows) for s in (costly, free[0]))
    for name in ("obs", "action", "next_obs", "terminal"):
        np.testing.assert_array_equal(getattr(rows, name), getattr(plain, name))
    cost = 3.0 * mopo.uncertainty(state.model, rows.obs, rows.action, "max_std")
    assert float(cost.min()) > 0.0
    np.testing.assert_allclose(plain.reward - rows.reward, cost, rtol=1e-3, atol=1e-5)
    assert float(metrics["rollout/penalty_mean"]) == pytest.approx(float(cost.mean()), rel=1e-3)
    assert float(free[1]["rollout/penalty_mean"]) == 0.0


def test_all_members_are_asked_and_only_elites_play(state, data, free):
    """Ruin the last member, which is no elite: the rollouts stay, the penalty does not."""
    *hidden, last = state.model.params.layers
    loud = last._replace(bias=last.bias.at[2, 4:].add(20.0))
    params = state.model.params._replace(layers=(*hidden, loud), log_var_max=jnp.full(4, 5.0))
    quiet = state._replace(model=state.model._replace(params=state.model.params._replace(log_var_max=jnp.full(4, 5.0))))
    ruined = state._replace(model=state.model._replace(params=params))
    (calm, calm_metrics), (wild, wild_metrics) = (refreshed(mopo, CONFIG, s, data) for s in (quiet, ruined))
    np.testing.assert_array_equal(calm.buffer.rows.next_obs, wild.buffer.rows.next_obs)
    assert float(wild_metrics["rollout/penalty_mean"]) > 2.0 * float(calm_metrics["rollout/penalty_mean"])


def test_real_rewards_are_untouched(data, state):
    """A batch of offline rows only does not see the buffer's penalty, whatever it is."""
    config = replace(CONFIG, real_ratio=1.0)
    poor = state._replace(buffer=state.buffer._replace(size=jnp.int32(1)))
    with_pay = lambda pay: poor._replace(
        buffer=poor.buffer._replace(rows=poor.buffer.rows._replace(reward=poor.buffer.rows.reward + pay))
    )
    rich, ruined = (updated(mopo, config, with_pay(pay), data) for pay in (0.0, -1e9))
    assert float(rich[1]["critic/loss"]) == float(ruined[1]["critic/loss"]) < 1e3


def test_without_a_coefficient_it_is_sac_bit_for_bit(data, free):
    settings = sac.Config(**TINY)
    plain, _ = refreshed(sac, settings, start(sac, settings, data), data)
    np.testing.assert_array_equal(plain.buffer.rows.reward, free[0].buffer.rows.reward)
    ours, _ = updated(mopo, replace(CONFIG, penalty_coefficient=0.0), free[0], data)
    theirs, _ = updated(sac, settings, plain, data)
    for one, other in zip(jax.tree.leaves(ours.agent), jax.tree.leaves(theirs.agent), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "own"),
    # without MOBILE's floor: no reward of this world is above 0, so every target would be the floor
    [
        (sac, {}),
        (mopo, {}),
        (mobile, {"target_floor": False, "penalty_coefficient": 0.5}),
        (morel, {}),
        (sambo, {}),
        (rambo, {"adversary_updates": 20, "adversary_batch_size": 64, "cloning_updates": 100}),
    ],
)
def test_it_beats_the_behaviour_on_a_toy(module, own, point_world, point_settings):
    config = module.Config(**point_settings["agent"], **point_settings["model"], initial_temperature=0.05, **own)
    assert point_world.distance(module, config) < 0.15  # behaviour cloning: about 0.52
