"""Every algorithm that learns row by row goes on learning in the simulator; DAMO with all that it can carry along."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from damorl import api
from damorl.algos import ALGORITHMS
from damorl.record import checkpoint, store
from damorl.testing.algorithms import CLOCK
from tests.interrupting import cut_off_after

ABLE = sorted(set(ALGORITHMS) - {"rebrac", "trajectory-transformer"})
KEPT = {"keep": "validated", "cloning_updates": 20, "validation_steps": 20, "validation_starts": 5}
TRUST = {"log_ratio": "split", "actor_objective": "imagined", "kl_target": 0.3, "trust": "validated"}
TUNING: dict[str, Any] = {
    "steps": 80,
    "interval": 20,
    "eval_interval": 40,
    "eval_episodes": 1,
    "refit_interval": 40,
    "refit_batches": 5,
    "acting_episodes": 1,
    "trial_episodes": 1,
    "trial_margin": 0.0,
}


def offline(algo: str, data: Path, out: Path, **changes: Any) -> Path:
    settings: dict[str, Any] = CLOCK | changes
    return api.train(algo, str(data), "smoke", out=out, quiet=True, **settings).run_dir


@pytest.mark.slow
@pytest.mark.parametrize("algo", ABLE)
def test_it_goes_on(algo: str, hopper_toy: Path, tmp_path: Path) -> None:
    parent = offline(algo, hopper_toy, tmp_path / "offline")
    run_dir = api.finetune(parent, "hopper", out=tmp_path / "online", quiet=True, **TUNING).run_dir
    rows = store.read_metrics(run_dir)
    assert [row["step"] for row in rows] == [0, 20, 40, 60, 80]
    assert [row["online/steps"] for row in rows[1:]] == [20.0, 40.0, 60.0, 80.0]
    has_model = hasattr(ALGORITHMS[algo].config_type(), "dynamics")
    assert [("dynamics/error_after" in row) for row in rows[1:]] == [False, False, has_model, False]
    before, after = (load_file(checkpoint.checkpoints(run_dir / "checkpoint")[i]) for i in (0, 1))
    moved = [name for name in after if name.startswith("learner/") and not np.array_equal(before[name], after[name])]
    assert any("actor" in name for name in moved)
    assert any("/model/" in name for name in moved) == has_model


@pytest.mark.slow
@pytest.mark.parametrize("reference", ["stays", "moves"])
def test_damo_with_all_that_it_carries_goes_on_bit_for_bit(
    reference: str, hopper_toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = offline("damo", hopper_toy, tmp_path / "offline", seeds=(0, 1), **KEPT, **TRUST)
    how = TUNING | {"reference": reference, "quiet": True}
    whole = api.finetune(parent, "hopper", out=tmp_path / "whole", **how).run_dir
    with cut_off_after(40, monkeypatch):
        api.finetune(parent, "hopper", out=tmp_path / "halves", **how)
    halves = api.finetune(parent, "hopper", out=tmp_path / "halves", resume=True, **how).run_dir
    found, expected = (load_file(checkpoint.checkpoints(run / "checkpoint")[-1]) for run in (halves, whole))
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    first = load_file(checkpoint.checkpoints(parent / "checkpoint")[-1])
    changes = [int(expected[f"acting/{i}/changes"]) for i in (0, 1)]
    moved = [
        not np.array_equal(first["reference/0/kernel"][i], expected["learner/reference/0/kernel"][i]) for i in (0, 1)
    ]
    assert moved == [reference == "moves" and count > 0 for count in changes]
