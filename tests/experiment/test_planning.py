"""A planner in the loop: one call for all episodes, the same after a stop, and the same from its files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import damorl
from benchmarks.soak.same import numbers
from damorl.bench import planner as bench_planner
from damorl.cli import main
from damorl.data.datasets import Dataset
from damorl.errors import UserError
from damorl.experiment import train as loop
from damorl.experiment.config import RunConfig, defaults, from_dict, replace
from damorl.experiment.evaluation import EVAL_SEED
from damorl.experiment.planning import Player, compiled_act, load_player
from damorl.record import store
from damorl.world.evaluate import Evaluator
from damorl.world.tasks import TASKS

ALGO = "trajectory-transformer"


def tiny(data_path: Path) -> RunConfig:
    run_loop, config = defaults(ALGO, "smoke", str(data_path))
    clock = {"total_updates": 20, "refresh_interval": 10, "eval_interval": 10, "checkpoint_interval": 10}
    return RunConfig(ALGO, str(data_path), None, "smoke", (0, 3), replace(run_loop, clock), config)


@pytest.fixture(scope="module")
def finished(data_path: Path, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("planner")
    loop.train(tiny(data_path), dataset, run_dir, quiet=True, without=("tensorboard", "curves"))
    return run_dir


def test_all_episodes_are_planned_in_one_call_per_step(finished: Path) -> None:
    player, evaluator = load_player(finished), Evaluator(TASKS["hopper"])
    before = compiled_act._cache_size()  # type: ignore[attr-defined]
    episodes = player.play(evaluator, 2, 5)
    evaluator.close()
    assert player.plans == episodes.lengths.max() < episodes.lengths.sum()
    assert compiled_act._cache_size() == before  # type: ignore[attr-defined] # training has compiled it


def test_the_planner_sees_what_the_simulator_pays(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    player, evaluator, paid = load_player(finished), Evaluator(TASKS["hopper"]), []
    real = Player.told
    monkeypatch.setattr(Player, "told", lambda self, reward: (paid.append(reward), real(self, reward))[1])
    episodes = player.play(evaluator, 2, 5)
    evaluator.close()
    np.testing.assert_allclose(np.sum(paid, axis=0), episodes.returns)
    assert len(paid) == episodes.lengths.max()
    short = int(episodes.lengths.argmin())
    assert not np.any(np.array(paid)[episodes.lengths[short] :, short])


def test_the_files_hold_what_was_trained(finished: Path, data_path: Path) -> None:
    """Scores in training and from the run directory are the same on the same starts, at every kept step."""
    trained = {(row["step"], row["seed"]): row["eval/return_mean"] for row in numbers(finished)}
    assert set(trained) == {(step, seed) for step in (10, 20) for seed in (0, 3)}
    for step, first_seed in ((10, EVAL_SEED), (20, EVAL_SEED + 2)):
        assert {row["eval/first_seed"] for row in numbers(finished) if row["step"] == step} == {first_seed}
        rows = damorl.evaluate(finished, episodes=2, step=step, eval_seed=first_seed)
        assert [row["return_mean"] for row in rows] == [trained[step, seed] for seed in (0, 3)]
    (noisy, _) = damorl.evaluate(finished, episodes=2, noise=0.5)
    assert noisy["return_mean"] != trained[20, 0]
    stored = json.loads((finished / store.CONFIG).read_text())["algo_config"]
    assert from_dict(type(tiny(data_path).algo_config), stored) == tiny(data_path).algo_config


def test_stopped_and_resumed_is_bit_for_bit(finished: Path, data_path: Path, dataset: Dataset, tmp_path: Path) -> None:
    bare = ("tensorboard", "curves")
    stopped = loop.train(tiny(data_path), dataset, tmp_path, quiet=True, deadline=0.0, without=bare)
    assert stopped.summary == {"stopped_at": 10}
    loop.train(tiny(data_path), dataset, tmp_path, quiet=True, without=bare)
    assert numbers(tmp_path) == numbers(finished)
    mine, theirs = ((d / "policies.safetensors").read_bytes() for d in (tmp_path, finished))
    assert mine == theirs


@pytest.mark.parametrize("words", [["export"], ["select"], ["eval", "--stochastic"]])
def test_what_needs_a_function_of_the_state_says_so(
    words: list[str], finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([words[0], str(finished), *words[1:]]) == 2
    assert f"found {ALGO}, which plans" in capsys.readouterr().err.replace("for ", "found ")
    with pytest.raises(UserError, match="which plans from what it remembers"):
        damorl.load_policy(finished)


def test_the_bench_counts_plans_not_calls(data_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def two_seconds_a_call(jobs: dict[str, Callable[[], Any]], seconds: float) -> dict[str, float]:
        for job in jobs.values():
            job()
        return dict.fromkeys(jobs, 2.0)

    monkeypatch.setattr(bench_planner, "interleave", two_seconds_a_call)
    config = tiny(data_path).algo_config
    figures = bench_planner.run_planner_bench(ALGO, 0.05, True, config, (1, 8))
    one, eight = figures["plans"]
    assert (one["num_episodes"], eight["num_episodes"]) == (1, 8)
    assert (one["plans_per_second"], eight["plans_per_second"]) == (0.5, 4.0)
    table = bench_planner.format_planner_bench(figures)
    assert f"8 episodes in one call{eight['plans_per_second']:>16,.2f} plans per second" in table
    with pytest.raises(UserError, match="expected an algorithm that plans, found 'bc'"):
        bench_planner.run_planner_bench("bc")
