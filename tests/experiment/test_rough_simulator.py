"""A task file whose simulator breaks in the middle of a run: what was trained stays, and the run goes on from there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.soak.same import numbers
from damorl.api import evaluate
from damorl.cli import main
from damorl.errors import UserError
from damorl.record import checkpoint

TASKS = """
from pathlib import Path
import gymnasium, numpy as np
from damorl import Task
from damorl.world.terminations import never_ended

FAULT = Path(__file__).with_name("fault")

class Rough(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count, self.late = 0, seed > 1_000_000
        return self.np_random.normal(size=2), {}

    def step(self, action):
        self.count += 1
        if FAULT.exists() and self.late and self.count == 3:
            raise ConnectionError("no answer")
        return np.full(2, self.count / 10), float(action[0]), False, False, {}

if "test/RoughFile-v0" not in gymnasium.registry:
    gymnasium.register("test/RoughFile-v0", Rough)
toy = Task("toy", "test/RoughFile-v0", 2, 1, never_ended, max_episode_steps=5)
"""
CLOCK = "--total-updates 40 --refresh-interval 10 --eval-interval 20 --checkpoint-interval 10 --eval-episodes 1"


def test_a_run_goes_on_once_its_simulator_is_mended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng, tasks = np.random.default_rng(0), tmp_path / "mytasks.py"
    tasks.write_text(TASKS)
    arrays: Any = {
        "obs": rng.normal(size=(60, 2)),
        "action": rng.uniform(-1, 1, (60, 1)),
        "reward": rng.normal(size=60),
    }
    np.savez(tmp_path / "log.npz", **arrays, done=np.arange(60) % 6 == 5, timeouts=np.zeros(60, bool))
    data = ["--dataset", str(tmp_path / "log.npz"), "--task", f"{tasks}:toy"]
    train = ["train", "bc", *data, "--preset", "smoke", "--json", *CLOCK.split()]
    broken = [*train, "--out", str(tmp_path / "broken")]
    (tmp_path / "fault").touch()
    assert main(broken) == 2
    said = capsys.readouterr().err
    failed = "failed in episode 1 (seed 1000001), step 3: expected the next state, found ConnectionError: no answer"
    assert failed in said
    assert "Traceback" not in said
    (run_dir,) = (tmp_path / "broken").iterdir()
    assert [row["step"] for row in numbers(run_dir)] == [10, 20, 30]
    assert checkpoint.checkpoints(run_dir / "checkpoint")[-1].name == "step_000000030.safetensors"
    assert not (run_dir / "result.json").exists()
    (tmp_path / "fault").unlink()
    assert main([*broken, "--resume"]) == 0
    assert main([*train, "--out", str(tmp_path / "whole")]) == 0
    (whole,) = (tmp_path / "whole").iterdir()
    assert numbers(run_dir) == numbers(whole)
    (tmp_path / "fault").touch()
    with pytest.raises(UserError, match=r"failed in episode 2 \(seed 1000001\), step 3"):
        evaluate(run_dir, episodes=2)
