"""Fine-tuning: real steps counted exactly, offline policies that act until others earn more, runs like any other."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

import damorl
from benchmarks.soak.same import numbers
from damorl import api
from damorl.cli import main
from damorl.core import buffer as ring
from damorl.errors import UserError
from damorl.experiment.acting import begin_acting
from damorl.experiment.finetune import Epochs, State
from damorl.experiment.finetune_settings import FinetuneSettings
from damorl.experiment.finetuned import drop_of, read_drops
from damorl.experiment.parent import Parent, goes_on
from damorl.experiment.real_steps import Stage, take_steps
from damorl.record import checkpoint, store
from damorl.record.members import Member
from damorl.world.playing import open_simulator
from damorl.world.tasks import find_task
from tests.experiment.cart import write_log, write_tasks
from tests.interrupting import cut_off_after

SMALL: dict[str, Any] = {"hidden": (8,), "batch_size": 16}
CLOCK: dict[str, Any] = {
    "total_updates": 40,
    "refresh_interval": 20,
    "eval_interval": 20,
    "eval_episodes": 2,
    "checkpoint_interval": 40,
}
TUNING: dict[str, Any] = {
    "steps": 100,
    "interval": 25,
    "eval_interval": 50,
    "eval_episodes": 2,
    "acting_episodes": 1,
    "trial_episodes": 2,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cart")
    write_log(folder / "log.npz")
    return folder


@pytest.fixture(scope="module")
def cart(place: Path) -> str:
    return write_tasks(place)


@pytest.fixture(scope="module")
def parent(place: Path, cart: str) -> Path:
    """A run of td3bc in units of its own."""
    units = {"standardise_observations": True, "reward_factor": 0.5}
    settings = SMALL | CLOCK | units | {"task": cart, "quiet": True, "out": place / "offline"}
    return api.train("td3bc", str(place / "log.npz"), "smoke", (3, 5), **settings).run_dir


@pytest.fixture(scope="module")
def tune(parent: Path, cart: str, place: Path) -> Callable[..., Path]:
    def run(out: str, **changes: Any) -> Path:
        return api.finetune(parent, cart, out=place / out, quiet=True, **TUNING | changes).run_dir

    return run


@pytest.fixture(scope="module")
def tuned(tune: Callable[..., Path]) -> Path:
    return tune("online")


def last_state(run_dir: Path) -> dict[str, np.ndarray]:
    return load_file(checkpoint.checkpoints(run_dir / "checkpoint")[-1])


def test_real_steps_are_counted_exactly_and_hang_together(tuned: Path) -> None:
    state = last_state(tuned)
    assert state["new/size"].tolist() == [100, 100]
    for member in range(2):
        obs, reached, terminal, reward = (state[f"new/rows/{name}"][member] for name in NAMES)
        np.testing.assert_array_equal(terminal, np.abs(reached[:, 0]) > 2.0)
        np.testing.assert_allclose(reward, 1.0 - np.abs(reached[:, 0]), atol=1e-6)  # in the environment's own units
        goes_on = (obs[1:] == reached[:-1]).all(axis=1)
        ends = np.append(-1, np.flatnonzero(~goes_on))
        lengths = np.diff(ends)
        assert all(length == 12 or terminal[end] for length, end in zip(lengths, ends[1:], strict=True))
        assert lengths.max() <= 12
        assert int(state[f"acting/{member}/episode"]) == len(ends)
        rest = 99 - ends[-1]
        assert int(state[f"acting/{member}/step"]) == (0 if terminal[-1] or rest == 12 else rest)
    assert not np.array_equal(state["new/rows/obs"][0], state["new/rows/obs"][1])


NAMES = ("obs", "next_obs", "terminal", "reward")


def test_a_run_that_is_cut_off_in_an_episode_goes_on_bit_for_bit(
    tune: Callable[..., Path], tuned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert int(load_file(checkpoint.checkpoints(tuned / "checkpoint")[0])["acting/0/step"]) > 0
    with cut_off_after(50, monkeypatch):
        tune("halves")
    halves = tune("halves", resume=True)
    one, other = last_state(halves), last_state(tuned)
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name)
    assert numbers(halves) == numbers(tuned)
    one, other = (load_file(run_dir / "policies.safetensors") for run_dir in (halves, tuned))
    np.testing.assert_equal(one, other)


def test_it_begins_with_the_offline_policies_and_says_with_which(tuned: Path, parent: Path) -> None:
    first = [row for row in numbers(tuned) if row["step"] == 0]
    assert [row["seed"] for row in first] == [3, 5]
    np.testing.assert_equal(
        load_file(tuned / "policies/step_000000000.safetensors"), load_file(parent / "policies.safetensors")
    )
    told = store.read_json(tuned / store.CONFIG)["finetune"]
    assert told["parent"]["run"] == parent.name
    assert parent.name.endswith(told["parent"]["digest"])
    assert told["parent"]["updates"] == 40
    leaves, _ = checkpoint.read(checkpoint.checkpoints(parent / "checkpoint")[-1])
    assert told["parent"]["sha256"] == checkpoint.digest(leaves, {})
    drops = read_drops(tuned)
    assert drops["5"]["offline"] == first[1]["eval/score"]


def test_it_is_a_run_like_any_other(tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = damorl.load_policy(tuned, seed=5)
    exported = tmp_path / "policy.onnx"
    assert main(["export", str(tuned), "--seed", "5", "--out", str(exported)]) == 0
    obs = np.array([[0.5, -0.1], [1.0, 0.2]], np.float32)
    np.testing.assert_allclose(damorl.load_policy(exported)(obs), policy(obs), atol=1e-5)
    rows = damorl.evaluate(tuned, episodes=2)
    assert [row["seed"] for row in rows] == [3, 5]
    assert "score" in rows[0]
    summary = store.read_json(tuned / store.RESULT)
    assert summary["updates"] == 100
    assert set(summary["per_seed"]) == {"3", "5"}
    assert main(["report", str(tuned), "--out", str(tmp_path / "report.html")]) == 0
    capsys.readouterr()


def test_a_simulator_that_does_not_repeat_itself_begins_a_new_episode(cart: str) -> None:
    actor: Any = ((np.zeros((2, 2), np.float32), np.zeros(2, np.float32)),)
    how: dict[str, Any] = {"acting_episodes": 9, "trial_episodes": 1}  # all but the first with noise
    settings = FinetuneSettings(steps=100, interval=50, eval_interval=50, refit_interval=None, **how)
    said: list[str] = []

    def resumed(name: str) -> tuple[int, int]:
        """Steps of the episode that is going on, before and after 38 steps are picked up by another process."""
        task = find_task(cart.replace(":cart", f":{name}"))
        stage = Stage(open_simulator(task), 3, settings, lambda layers: layers)
        acting, rows = take_steps(stage, begin_acting(actor), actor, 38)
        new = ring.add(ring.init_buffer(100, 2, 1), rows, jnp.ones(38, bool))
        plan = SimpleNamespace(env=task, more=None, settings=settings, config=SimpleNamespace(members=[Member(3)]))
        warning = SimpleNamespace(warn=said.append)
        epochs: Any = SimpleNamespace(plan=plan, stages=[], to_layers=lambda layers: layers, progress=warning)
        state = Epochs.on_stage(epochs, State(None, jax.tree.map(lambda leaf: leaf[None], new), (acting,)))
        if state.acting[0].step:
            np.testing.assert_array_equal(epochs.stages[0].obs, stage.obs)
            assert epochs.stages[0].earned == stage.earned
            assert epochs.stages[0].noise.standard_normal() == stage.noise.standard_normal()
        return int(acting.step), int(state.acting[0].step)

    before, after = resumed("cart")
    assert before == after > 0
    assert resumed("restless") == (2, 0)
    (sentence,) = said
    assert "does not play an episode again in the same way: seed 3 begins a new one after 2 steps" in sentence


def test_more_offline_data_join_by_the_same_verb(parent: Path, place: Path, cart: str, capsys: Any) -> None:
    more, out = write_log(place / "more.npz", 30, seed=1), place / "more"
    words = ["finetune", str(parent), "--dataset", str(more), "--out", str(out), "--steps", "50", "--interval", "25"]
    assert main([*words, "--eval-interval", "50", "--eval-episodes", "1", "--value-weight", "4", "--json"]) == 0
    (run_dir,) = out.iterdir()
    config, state = store.read_json(run_dir / store.CONFIG), last_state(run_dir)
    rows = damorl.load_dataset(more, task=cart)
    assert config["algo_config"]["value_weight"] == 4.0
    assert config["finetune"]["dataset"]["sha256"] == rows.sha256
    np.testing.assert_array_equal(state["new/rows/obs"][1], rows.transitions.obs)
    assert not any(name.startswith("acting") for name in state)
    before = load_file(parent / "policies.safetensors")
    after = load_file(run_dir / "policies.safetensors")  # without an environment the algorithm's own
    assert np.abs(after["3/kernel0"] - before["3/kernel0"]).max() > 0.0
    assert main([*words, "--eval-interval", "50", "--eval-episodes", "1", "--value-weight", "4"]) == 2
    assert "--resume" in capsys.readouterr().err


def test_exploration_noise_is_the_episodes_own(tuned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage.__new__(Stage)
    stage.layers = ((np.zeros((2, 2), np.float32), np.zeros(2, np.float32)),)
    stage.obs, stage.deviation, stage.noise = np.zeros(2), 0.5, np.random.default_rng(0)
    drawn = np.array([stage.choose() for _ in range(2000)])
    assert drawn.dtype == np.float32
    assert np.abs(drawn).max() == 1.0
    expected = np.clip(0.5 * np.random.default_rng(0).standard_normal((2000, 1)), -1.0, 1.0)
    np.testing.assert_allclose(drawn, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"env": None}, "expected an environment, more data or both, found neither"),
        ({"env": "hopper"}, r"--env hopper: expected 2 observations and 1 actions, as in log, found 11 and 3"),
        ({"env": "nothing"}, "unknown task 'nothing'"),
        ({"hidden": (16,)}, "expected settings that fit its state, found one that changes"),
        ({"hiden": (16,)}, "unknown setting 'hiden' of td3bc: did you mean 'hidden'"),
        ({"interval": 30}, r"steps must be a multiple of interval \(30\), found 100"),
        ({"interval": 5}, "interval must be at least 10, found 5"),
        ({"new_share": 1.0}, "new_share must lie between 0 and 1, found 1.0"),
        ({"steps": 2.5}, "steps must be int, found 2.5"),
        ({"reference": "moves"}, "found td3bc with settings that have none"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    changes: dict[str, Any], message: str, parent: Path, cart: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        api.finetune(parent, **{"env": cart, "out": tmp_path, "quiet": True, **TUNING, **changes})


def test_a_run_that_cannot_go_on_is_told_why(tuned: Path, parent: Path, cart: str, tmp_path: Path) -> None:
    def refused(run_dir: Path, message: str) -> None:
        with pytest.raises(UserError, match=message):
            api.finetune(run_dir, cart, out=tmp_path / "out", quiet=True)

    def changed(name: str, **entries: Any) -> Path:
        config = store.read_json(parent / store.CONFIG)
        (tmp_path / name).mkdir()
        store.write_json(tmp_path / name / store.CONFIG, config | entries)
        return tmp_path / name

    refused(tmp_path, "expected a run directory, found no config.json in it")
    refused(tuned, "expected an offline run, found one that was fine-tuned")
    shutil.copytree(parent, tmp_path / "bare", ignore=shutil.ignore_patterns("checkpoint"))
    refused(tmp_path / "bare", "expected a checkpoint, for critics and model go on learning, found none")
    refused(changed("rebrac", algo="rebrac", algo_config={}), "found rebrac: its critic needs the data's next actions")
    refused(changed("planner", algo="trajectory-transformer", algo_config={}), "which plans")
    refused(changed("varied", population={"tau": [0.1, 0.2]}), "found a population")
    refused(changed("resident", resident_rows=10), "found one with resident_rows")


def test_a_drop_is_the_longest_stretch_below_nine_tenths() -> None:
    found = drop_of([50.0, 44.0, 46.0, 40.0, 41.0, 60.0, 44.9])
    assert found == {"offline": 50.0, "lowest": 40.0, "evaluations_below": 2, "final": pytest.approx(275.9 / 6)}
    assert drop_of([-100.0, -105.0, -111.0, -90.0])["evaluations_below"] == 1  # a negative return, too


def test_a_schedule_begins_again_and_everything_else_goes_on() -> None:
    parent: Any = Parent(Path("run"), cast(Any, None), Path("step"), {})
    count = np.array([7, 7], np.int32)
    begin = partial(goes_on, parent, like=count, fresh={"actor/opt_state/1/count": np.zeros(2, np.int32)})
    assert begin(name="actor/opt_state/0/count", found=count).tolist() == [7, 7]
    assert begin(name="actor/opt_state/1/count", found=count).tolist() == [0, 0]
    assert begin(name="actor/opt_state/1/count", found=None).tolist() == [0, 0]
    assert begin(name="step", found=count).tolist() == [7, 7]
    for found in (None, count[:1], count.astype(np.int64)):
        with pytest.raises(UserError, match="found one that changes step; leave out settings that shape"):
            begin(name="step", found=found)
