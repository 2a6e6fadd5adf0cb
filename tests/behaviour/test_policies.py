"""Which snapshots become the behaviours, and that what ships is what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from damorl.behaviour import policies
from damorl.behaviour.host_policy import NumpyPolicy
from damorl.behaviour.policies import choose_medium, export, load_policies, select, shipped
from damorl.behaviour.snapshots import write_json, write_snapshot
from damorl.errors import UserError
from damorl.world.tasks import TASKS

from .conftest import constant_policy, random_policy

HOPPER = TASKS["hopper"]


def marked(step: int) -> NumpyPolicy:
    """A policy whose first bias carries its training step in thousands, exactly also in float16."""
    (kernel, bias), last = constant_policy("hopper", 0.1)
    return (kernel, bias + step / 1000), last


def play(monkeypatch: pytest.MonkeyPatch, true: dict[int, float], sampled: dict[int, float] | None = None) -> None:
    """Replace the simulator by a table from training step to return; by sampled actions the same unless told."""

    def evaluate(task: object, layers: NumpyPolicy, seed: int, stochastic: bool = False) -> list[float]:
        step = round(float(layers[0][1][0]) * 1000)
        return [({**true, **(sampled or {})} if stochastic else true)[step]] * 10

    monkeypatch.setattr(policies, "evaluate", evaluate)


def raw_run(folder: Path, logged: dict[int, float]) -> Path:
    for step, mean in logged.items():
        write_snapshot(folder, step, marked(step), [mean])
    return folder


def test_the_choice_follows_fresh_evaluations_and_not_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    true = {step: step / 10 for step in range(0, 40_000, 1000)}  # expert 3900, a third of it at 13_000
    lucky = true | {20_000: 9_999.0, 5_000: 9_999.0, 39_000: 3_700.0}
    play(monkeypatch, true)
    chosen = select(raw_run(tmp_path, lucky), HOPPER)
    assert (chosen.expert, chosen.expert_return) == (39_000, 3_900.0)
    assert (chosen.medium, chosen.medium_return) == (13_000, 1_300.0)
    assert chosen.replay == tuple(range(0, 14_000, 1000))


def test_an_expert_is_one_by_sampled_actions_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    true = {0: 10.0, 1000: 1_100.0, 2000: 3_000.0, 3000: 3_100.0}
    play(monkeypatch, true, sampled={3000: 1_500.0})
    assert select(raw_run(tmp_path, true), HOPPER).expert == 2000


def test_replay_is_sixteen_snapshots_evenly_spread_up_to_medium(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    true = {step: float(step) for step in range(0, 94_000, 1000)}  # medium at 31_000: 32 snapshots until there
    play(monkeypatch, true)
    replay = select(raw_run(tmp_path, true), HOPPER).replay
    assert len(replay) == 16
    assert (replay[0], replay[-1]) == (0, 31_000)
    assert set(np.diff(replay)) == {2000, 3000}


def test_medium_is_the_first_at_a_third_unless_it_overshoots():
    steps = [0, 1, 2, 3, 4, 5, 6, 7]
    smooth = [0, 300, 900, 1200, 1000, 2000, 3000, 3000]
    jump = [0, 850, 100, 2000, 950, 3000, 1001, 1000]
    far_behind_the_jump = [0, 100, 100, 2000, 2000, 2000, 2000, 1000]
    assert choose_medium(steps, 3000.0, smooth.__getitem__) == 3  # 1000 comes later
    assert choose_medium(steps, 3000.0, jump.__getitem__) == 6  # 950 is nearer in time, 1001 in return
    assert choose_medium(steps, 3000.0, far_behind_the_jump.__getitem__) == 1 + np.argmin([900, 900, 1000])
    assert choose_medium(steps, 9001.0, smooth.__getitem__) is None


def test_a_run_without_a_medium_or_without_snapshots_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    play(monkeypatch, {0: 10.0, 1000: 3000.0})
    with pytest.raises(UserError, match=r"log\.jsonl of a behaviour run, found none"):
        select(tmp_path, HOPPER)
    with pytest.raises(UserError, match=r"a third of the expert's return \(3000\) before its step 1000, found none"):
        select(raw_run(tmp_path, {0: 10.0, 1000: 3000.0}), HOPPER)


def test_a_torn_log_line_and_a_snapshot_without_a_line_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    true = {0: 100.0, 1000: 1100.0, 2000: 3000.0}
    play(monkeypatch, true)
    raw_run(tmp_path, true)
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"step": 3000, "mea')
    (tmp_path / "step_0003000.npz").write_bytes(b"PK")
    assert select(tmp_path, HOPPER).replay == (0, 1000)


@pytest.fixture
def exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three random hopper policies, exported into `tmp_path / "out"` with their real, short episodes."""
    raw, out = tmp_path / "raw", tmp_path / "out"
    raw.mkdir()
    out.mkdir()
    for step in (0, 1000, 2000):
        write_snapshot(raw, step, random_policy("hopper", step), [float(step)])
    write_json(raw / "run.json", {"seed": 7, "sac": {"gamma": 0.99}})
    export(raw, HOPPER, out, policies.Selection(2000, 1000, (0, 1000), 2000.0, 1000.0))
    return out


def test_what_is_loaded_is_what_was_trained_rounded_to_float16(exported: Path):
    loaded = load_policies("hopper", exported)
    for policy, step in ((loaded.expert, 2000), (loaded.medium, 1000), (loaded.replay[0], 0), (loaded.replay[1], 1000)):
        for stored, trained in zip(policy, random_policy("hopper", step), strict=True):
            for a, b in zip(stored, trained, strict=True):
                assert a.dtype == np.float32
                np.testing.assert_array_equal(a, b.astype(np.float16))
    assert len(loaded.replay) == 2
    with np.load(exported / "hopper.npz", allow_pickle=False) as arrays:
        assert {arrays[name].dtype for name in arrays.files} == {np.dtype(np.float16)}


def test_the_card_tells_the_returns_of_the_rounded_policies(exported: Path):
    loaded = load_policies("hopper", exported)
    card = loaded.card["policies"]
    assert {label: entry["step"] for label, entry in card.items()} == {
        "expert": 2000, "medium": 1000, "replay/0": 0, "replay/1": 1000
    }  # fmt: skip
    played = policies.evaluate(HOPPER, loaded.expert, policies.CARD_SEED)
    assert len(played) == 10
    assert card["expert"]["deterministic"] == {"mean": np.mean(played), "std": np.std(played)}
    assert card["expert"]["sampled"]["std"] > card["expert"]["deterministic"]["std"]
    assert loaded.card["training"]["seed"] == 7
    assert set(loaded.card["evaluation"]["versions"]) == {"gymnasium", "mujoco", "numpy", "jax"}


def test_a_run_without_its_settings_is_not_exported(tmp_path: Path):
    with pytest.raises(UserError, match=r"run\.json: expected the seed and settings"):
        export(tmp_path, HOPPER, tmp_path)


def test_a_task_without_policies_names_those_that_have_some(exported: Path, tmp_path: Path):
    with pytest.raises(UserError, match=r"task 'walker2d': expected a task with behaviour policies.*: hopper$"):
        load_policies("walker2d", exported)
    with pytest.raises(UserError, match=r"none is shipped yet$"):
        load_policies("walker2d", tmp_path / "missing")


LEAST_EXPERT_RETURN = {"hopper": 2500.0, "halfcheetah": 6000.0, "walker2d": 3000.0, "inverted_double_pendulum": 9000.0}
# The pendulum is learnt within 2000 steps: its snapshots jump from 9 % of the expert to 19 % to 81 %.
LEAST_MEDIUM_SHARE = {"inverted_double_pendulum": 0.15}


@pytest.mark.parametrize("task_name", shipped())
def test_shipped_policies_fit_their_task_and_deserve_their_names(task_name: str):
    task, loaded = TASKS[task_name], load_policies(task_name)
    for policy in (loaded.expert, loaded.medium, *loaded.replay):
        assert policy[0][0].shape[0] == task.obs_dim
        assert policy[-1][1].shape == (2 * task.action_dim,)
        assert all(np.isfinite(array).all() for layer in policy for array in layer)
    card = {label: entry["deterministic"]["mean"] for label, entry in loaded.card["policies"].items()}
    assert card["expert"] >= LEAST_EXPERT_RETURN[task_name]
    assert LEAST_MEDIUM_SHARE.get(task_name, 0.2) <= card["medium"] / card["expert"] <= 0.6
    assert len(loaded.replay) >= 4
    assert json.dumps(loaded.card)


@pytest.mark.slow
@pytest.mark.parametrize("task_name", shipped())
def test_a_shipped_expert_still_plays_as_its_card_says(task_name: str):
    loaded = load_policies(task_name)
    told = loaded.card["policies"]["expert"]["deterministic"]
    played = float(np.mean(policies.evaluate(TASKS[task_name], loaded.expert, policies.CARD_SEED)))
    assert played == pytest.approx(told["mean"], abs=max(3 * told["std"], 0.1 * told["mean"]))
