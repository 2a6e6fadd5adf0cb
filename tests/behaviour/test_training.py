"""A behaviour run leaves complete snapshots, whatever happens to it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from damorl.behaviour import sac, training
from damorl.behaviour.host_policy import episode_return
from damorl.behaviour.snapshots import read_log, read_run, read_snapshot, snapshot_path
from damorl.behaviour.training import train_behaviour
from damorl.errors import UserError
from damorl.world.tasks import TASKS, make_env

from .conftest import random_policy

TINY = sac.SACConfig(
    total_steps=80,
    warmup_steps=40,
    steps_per_chunk=20,
    snapshot_interval=40,
    eval_episodes=2,
    hidden=(8,),
    batch_size=4,
)


def test_a_run_leaves_its_settings_its_log_and_policies_that_play_as_logged(tmp_path: Path, capsys):
    out = tmp_path / "new" / "run"
    train_behaviour(TASKS["hopper"], 3, TINY, out)
    assert read_run(out)["seed"] == 3
    assert read_run(out)["sac"]["total_steps"] == 80
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 40, 80]
    assert all(row["seconds"] >= 0 for row in rows)
    assert list(read_log(out)) == [0, 40, 80]
    with np.load(snapshot_path(out, 80), allow_pickle=False) as arrays:
        layers = tuple((arrays[f"kernel{i}"], arrays[f"bias{i}"]) for i in range(2))
    env = make_env(TASKS["hopper"])
    assert [episode_return(env, layers, 10_000 + i) for i in range(2)] == rows[-1]["returns"]
    assert not all((a == b).all() for a, b in zip(read_snapshot(out, 0)[0], read_snapshot(out, 80)[0], strict=True))
    assert not list(out.glob("*.tmp"))
    bar = capsys.readouterr().err
    assert f"return={np.mean(rows[-1]['returns']):.0f}" in bar
    assert "80/80" in bar


def test_an_interrupted_run_keeps_its_snapshots_and_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupted(make_env, config, seed, on_snapshot, on_progress):
        on_snapshot(0, random_policy("hopper", 0), [1.0, 3.0], {})
        raise KeyboardInterrupt

    monkeypatch.setattr(sac, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_behaviour(TASKS["hopper"], 0, TINY, tmp_path, progress=False)
    assert read_log(tmp_path) == {0: 2.0}
    assert len(read_snapshot(tmp_path, 0)) == 3
    with pytest.raises(UserError, match="already holds a behaviour run"):
        training.train_behaviour(TASKS["hopper"], 0, TINY, tmp_path)


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be made"):
        train_behaviour(TASKS["hopper"], 0, TINY, tmp_path / "file" / "run")
