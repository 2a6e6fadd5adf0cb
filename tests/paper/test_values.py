"""Real values from the simulator, and their summary by hand."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from damorl.cli import main
from damorl.errors import UserError
from damorl.paper.trained import Samples, at_most, synthetic
from damorl.paper.values import Pairs, can_place, horizon_of, measure_pairs, place, real_return, summarise
from damorl.world.simulators import make_env
from damorl.world.tasks import find_task


def linear_policy(obs_dim: int, action_dim: int, seed: int) -> Any:
    """One layer with the smallest deviation: mean and log-std."""
    rng = np.random.default_rng(seed)
    kernel = np.concatenate([0.1 * rng.normal(size=(obs_dim, action_dim)), np.zeros((obs_dim, action_dim))], axis=1)
    return ((kernel.astype(np.float32), np.repeat([0.0, -20.0], action_dim).astype(np.float32)),)


def test_horizon_leaves_out_at_most_a_hundredth():
    assert horizon_of(0.99, 1000) == 459
    assert 0.99**459 <= 0.01 < 0.99**458
    assert horizon_of(0.99, 100) == 100
    assert horizon_of(0.5, 1000) == 7


@pytest.mark.parametrize("name", ["hopper", "halfcheetah", "walker2d"])
def test_the_simulator_goes_on_as_if_it_had_been_there(name: str):
    task = find_task(name)
    env, other = make_env(task), make_env(task)
    obs, _ = env.reset(seed=3)
    other.reset(seed=4)
    actions = np.random.default_rng(0).uniform(-0.3, 0.3, size=(8, task.action_dim))
    assert can_place(task, env)
    for action in actions[:4]:
        obs = env.step(action)[0]
    assert place(other, obs)
    for action in actions[4:]:  # the solver's warm start is not part of the state
        first, second = env.step(action), other.step(action)
        np.testing.assert_allclose(first[0], second[0], atol=1e-3)
        assert first[1] == pytest.approx(second[1], abs=1e-3)
    env.close()
    other.close()


def test_a_state_that_no_simulator_reports_is_refused():
    env = make_env(find_task("hopper"))
    obs, _ = env.reset(seed=0)
    assert place(env, obs)
    obs[-1] = 50.0  # velocities are reported up to 10
    assert not place(env, obs)
    policy = linear_policy(11, 3, 0)
    assert np.isnan(real_return(env, policy, (obs, np.zeros(3)), 0.99, np.random.default_rng(0)))
    env.close()


def test_the_real_value_equals_a_slow_rollout():
    env, policy, gamma = make_env(find_task("hopper")), linear_policy(11, 3, 1), 0.9
    obs, _ = env.reset(seed=5)
    action = np.array([0.2, -0.1, 0.3])
    found = real_return(env, policy, (obs, action), gamma, np.random.default_rng(0))
    env.reset(seed=0)
    assert place(env, obs)
    rewards, ended, rng = [], False, np.random.default_rng(0)
    while not ended and len(rewards) < 44:  # 0.9^44 < 0.01
        now, reward, terminated, truncated, _ = env.step(action)
        noise = np.exp(-5.0) * rng.standard_normal(3, np.float32)  # the smallest deviation that an actor may have
        action = np.tanh(np.asarray(now, np.float32) @ policy[0][0][:, :3] + noise)
        rewards.append(float(reward))
        ended = terminated or truncated
    assert found == pytest.approx(sum(r * gamma**t for t, r in enumerate(rewards)), rel=1e-4)
    env.close()


def test_summary_by_hand():
    outside = np.array([True, True, False])
    pairs = Pairs(outside, q=np.array([10.0, 20.0, 4.0]), real=np.array([5.0, 7.0, 3.0]))
    found = summarise(pairs, outside_share=0.25)
    assert found["outside"] == {"pairs": 2, "q": 15.0, "real": 6.0, "standard_error": pytest.approx(1.0)}
    assert found["inside"]["standard_error"] is None
    assert found["all"]["q"] == pytest.approx(0.25 * 15 + 0.75 * 4)
    assert found["overestimation"] == pytest.approx(0.25 * (15 - 6) + 0.75 * (4 - 3))


def test_without_pairs_outside_the_rest_is_the_whole():
    pairs = Pairs(np.zeros(2, bool), q=np.array([2.0, 4.0]), real=np.array([1.0, 1.0]))
    found = summarise(pairs, outside_share=0.0)
    assert found["outside"] == {"pairs": 0, "q": None, "real": None, "standard_error": None}
    assert found["overestimation"] == pytest.approx(2.0)


def test_a_constant_critic_overestimates_by_the_constant_less_the_return(monkeypatch: pytest.MonkeyPatch):
    from damorl.paper import values

    task = find_task("hopper")
    env = make_env(task)
    states = np.stack([env.reset(seed=seed)[0] for seed in range(6)])
    env.close()
    monkeypatch.setattr(values, "critic_values", lambda trained, index, obs, action: np.full(len(obs), 100.0))
    monkeypatch.setattr(values, "CANDIDATES", 40)
    trained: Any = SimpleNamespace(
        config=SimpleNamespace(seeds=(0,), algo_config=SimpleNamespace(gamma=0.5)),
        layers=lambda index: linear_policy(11, 3, 2),
        task=task,
    )
    support: Any = SimpleNamespace(outside=lambda points: points[:, 0] > np.median(points[:, 0]))
    samples = Samples(states, np.zeros((6, 3)), states, np.arange(6))
    pairs, outside_share = measure_pairs(trained, 0, support, samples, 5, lambda: None)
    assert 0.0 < outside_share <= 0.5
    assert pairs.outside.tolist() == [True] * 5 + [False] * 5
    found = summarise(pairs, outside_share)
    assert 0.5 < found["all"]["real"] < 4.0  # alive is worth 1 a step, twice that at gamma 1/2
    assert found["overestimation"] == pytest.approx(100.0 - found["all"]["real"])


def test_an_algorithm_without_a_model_gives_no_synthetic_data():
    trained: Any = SimpleNamespace(
        seed_state=lambda index: SimpleNamespace(), config=SimpleNamespace(algo="bc", algo_config=None)
    )
    with pytest.raises(UserError, match="bc has no dynamics model"):
        synthetic(trained, 0, 10)


def test_some_rows_keep_their_order():
    samples = Samples(*(np.arange(20) for _ in range(4)))
    found = at_most(samples, 5, 0).obs
    assert len(found) == 5
    assert (np.diff(found) > 0).all()
    assert len(at_most(samples, 50, 0).obs) == 20


@pytest.mark.slow
def test_figures_from_end_to_end_share_their_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """fig3 trains three smoke runs; fig4, fig1 and table1 use them, and only the inconsistent one is new."""
    command = ["--scale", "smoke", "--out", str(tmp_path), "--json"]
    assert main(["paper", "fig3", *command]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["measured"]["by_seed"]) == {"w/o er", "w/o ir", "DAMO"}
    assert 0.0 <= found["measured"]["by_seed"]["DAMO"]["0"]["real_states_outside"] <= 1.0
    assert all(run["finished"] for run in found["runs"])
    first = Path(found["picture"]).read_bytes()
    assert main(["paper", "fig3", *command]) == 0
    capsys.readouterr()
    assert Path(found["picture"]).read_bytes() == first
    runs = {path.name for path in tmp_path.iterdir() if path.is_dir()}
    for name in (["fig4"], ["fig1", "--algos", "damo"], ["table1"]):
        assert main(["paper", *name, *command]) == 0
        found = json.loads(capsys.readouterr().out)
        assert Path(found["picture"]).exists()
    assert len({path.name for path in tmp_path.iterdir() if path.is_dir()}) == len(runs) + 1
    assert set(found["measured"]["by_task"]["hopper"]) == {"consistent", "inconsistent"}
    assert found["printed_in_the_paper"]["rows"]["Real value"]["hopper"] == 269.6
