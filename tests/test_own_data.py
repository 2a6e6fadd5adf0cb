"""A user's own log, from file to exported policy: the commands of the README, run as they are written there."""

from __future__ import annotations

import csv
import glob
import json
import re
import shlex
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from damorl.cli import main

README = Path(__file__).resolve().parents[1] / "README.md"


def commands() -> list[list[str]]:
    """The shell lines under "Your own data", without the word `damorl` and their remarks."""
    section = README.read_text(encoding="utf-8").split("## Your own data")[1].split("\n## ")[0]
    return [shlex.split(line, comments=True)[1:] for line in re.findall(r"^    (damorl .*)$", section, re.MULTILINE)]


def write_log(path: Path, episodes: int) -> None:
    """A pendulum pushed at random, as a control engineer would log it: the torque in its own units."""
    env, rng = gymnasium.make("Pendulum-v1"), np.random.default_rng(0)
    with path.open("w", newline="") as file:
        log = csv.writer(file)
        log.writerow(["episode", "obs_0", "obs_1", "obs_2", "action_0", "reward"])
        for run in range(episodes):
            obs, _ = env.reset(seed=run)
            for _ in range(200):
                action = rng.uniform(-2, 2, 1).astype(np.float32)
                following, reward, *_ = env.step(action)
                log.writerow([run, *obs, action[0], reward])
                obs = following


def test_the_commands_of_the_readme(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_log(tmp_path / "log.csv", 6)
    lines = commands()
    assert [line[0] for line in lines] == ["data", "train", "select", "report", "export"]
    for line in lines:
        quick = [word.replace("quick", "smoke") for word in line]  # seconds instead of minutes
        words = [name for word in quick for name in (sorted(glob.glob(word)) if "*" in word else [word])]
        if line[0] == "select":
            words += [
                "--fqe-updates",
                "1000",
                "--fqe-hidden",
                "8",
                "--model-batches",
                "20",
                "--model-hidden",
                "8",
                "--starts",
                "2",
                "--horizon",
                "5",
            ]
        assert main(words) == 0, capsys.readouterr().err
    run_dir = Path(glob.glob("runs/*")[0])
    data = json.loads((run_dir / "config.json").read_text())["data"]
    assert (data["task"], data["action_low"], data["action_high"]) == ("pendulum", [-2.0], [2.0])
    assert (run_dir / "selection.json").exists()
    assert Path("report.html").exists()
    assert len(list((run_dir / "export").glob("*.onnx"))) == 1
