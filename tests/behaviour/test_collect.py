"""Rows are what the simulator did, to the digit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import damorl
from damorl.behaviour.collect import Rows, Shard, collect_episode, collect_shard
from damorl.behaviour.host_policy import gaussian
from damorl.world.tasks import TASKS, make_env, simulator_of

from .conftest import random_policy

COLUMNS = {
    "observations": np.float32,
    "actions": np.float32,
    "rewards": np.float32,
    "next_observations": np.float32,
    "terminals": np.bool_,
    "timeouts": np.bool_,
    "infos/qpos": np.float64,
    "infos/qvel": np.float64,
    "infos/action_log_probs": np.float32,
}


def collect(task_name: str, num_steps: int, uniform: bool = False, limit: int = 1000) -> Rows:
    layers = None if uniform else random_policy(task_name, 5)
    return collect_shard(Shard(simulator_of(TASKS[task_name]), limit, layers, num_steps, np.random.SeedSequence(11)))


@pytest.mark.parametrize("task_name", ["hopper", "halfcheetah", "walker2d", "inverted_double_pendulum"])
def test_every_row_replays_in_the_simulator(task_name: str):
    task, rows = TASKS[task_name], collect(task_name, 300, limit=250)
    assert {name: column.dtype.type for name, column in rows.items()} == COLUMNS
    assert {len(column) for column in rows.values()} == {len(rows["rewards"])}
    env = make_env(task)
    simulator: Any = env.unwrapped
    env.reset(seed=0)
    for row in range(len(rows["rewards"])):
        simulator.set_state(rows["infos/qpos"][row], rows["infos/qvel"][row])
        next_obs, reward, terminated, *_ = simulator.step(rows["actions"][row])
        np.testing.assert_allclose(next_obs, rows["next_observations"][row], atol=1e-5)
        assert reward == pytest.approx(rows["rewards"][row], abs=1e-5)
        assert terminated == rows["terminals"][row] or rows["timeouts"][row]


def test_a_terminal_row_leads_to_the_fall_and_not_to_the_next_start():
    rows = collect("hopper", 400)
    obs, next_obs = rows["observations"], rows["next_observations"]
    fallen = np.flatnonzero(rows["terminals"])
    assert len(fallen) >= 3
    assert rows["terminals"][-1]
    inside = ~rows["terminals"][:-1]
    np.testing.assert_array_equal(next_obs[:-1][inside], obs[1:][inside])
    height, angle = next_obs[:, 0], np.abs(next_obs[:, 1])
    np.testing.assert_array_equal((height <= 0.7) | (angle >= 0.2), rows["terminals"])
    starts = obs[np.append(0, fallen[:-1] + 1)]
    assert np.abs(starts[:, 0] - 1.25).max() < 0.01  # the simulator starts at 1.25 +- 0.005
    assert len(np.unique(starts[:, 0])) == len(starts)


def test_halfcheetah_times_out_after_a_thousand_steps():
    rows = collect("halfcheetah", 1001)
    np.testing.assert_array_equal(np.flatnonzero(rows["timeouts"]), [999, 1999])
    assert not rows["terminals"].any()
    assert len(rows["rewards"]) == 2000


class FallAtTheLimit(gymnasium.Wrapper):
    """Both ends at once, at every step."""

    def step(self, action: np.ndarray) -> tuple[Any, ...]:
        obs, reward, *_, info = self.env.step(action)
        return obs, reward, True, True, info


def test_a_fall_on_the_last_allowed_step_is_a_timeout():
    env = FallAtTheLimit(make_env(TASKS["hopper"]))
    rows = collect_episode(env, None, np.random.default_rng(0))
    assert (rows["terminals"].tolist(), rows["timeouts"].tolist()) == ([False], [True])


def test_uniform_actions_fill_the_box():
    rows = collect("walker2d", 600, uniform=True)
    actions = rows["actions"]
    counts, _ = np.histogram(actions, bins=4, range=(-1, 1))
    np.testing.assert_allclose(counts / actions.size, 0.25, atol=0.03)
    np.testing.assert_allclose(rows["infos/action_log_probs"], -6 * np.log(2.0), rtol=1e-6)


def test_a_policy_is_sampled_with_its_own_spread():
    rows, layers = collect("hopper", 600), random_policy("hopper", 5)
    mean, log_std = gaussian(layers, rows["observations"])
    noise = (np.arctanh(rows["actions"].astype(float)) - mean) / np.exp(log_std)
    noise = noise[np.abs(rows["actions"]).max(axis=1) < 0.999]
    assert np.abs(noise.mean()) < 0.1
    assert noise.std() == pytest.approx(1.0, abs=0.1)


def test_a_script_without_a_main_guard_can_collect_and_no_process_loads_jax(tmp_path: Path):
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys\n"
        "import numpy as np\n"
        "from damorl.behaviour.collect import Shard, run_shards\n"
        "print('begun')\n"
        "seeds = np.random.SeedSequence(0).spawn(2)\n"
        "before = dict(os.environ)\n"
        "rows = list(run_shards([Shard('Hopper-v4', 1000, None, 30, s) for s in seeds], 1))\n"
        "assert dict(os.environ) == before and sys.modules['__main__'].__file__ == __file__\n"
        "assert 'jax' not in sys.modules\n"
        "print([len(r['rewards']) >= 30 for r in rows])\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(damorl.__path__[0]).parent)}
    command = [sys.executable, "-W", "error", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert (done.stdout, done.stderr) == ("begun\n[True, True]\n", "")
