"""The loop: compiled once, the same for seeds together and alone, and the same after a kill."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

import damorl
from benchmarks.soak.same import numbers
from damorl.data.datasets import Dataset
from damorl.errors import UserError
from damorl.experiment import inputs
from damorl.experiment import train as loop
from damorl.experiment.config import RunConfig, defaults, replace
from damorl.experiment.result import list_policies, summarise
from damorl.record import checkpoint, store
from tests.interrupting import cut_off_after


def smoke(data_path: Path, seeds: tuple[int, ...] = (0,), algo: str = "damo", **changes: Any) -> RunConfig:
    """A short run; of another `algo` where it need not be DAMO, which takes longest to compile."""
    run_loop, config = defaults(algo, "smoke", str(data_path))
    run_loop = dataclasses.replace(
        run_loop, total_updates=40, refresh_interval=10, eval_interval=20, checkpoint_interval=10, eval_episodes=1
    )
    fit = {"dynamics.max_batches": 4, "dynamics.epoch_batches": 2} if hasattr(config, "dynamics") else {}
    return RunConfig(
        algo, str(data_path), None, "smoke", seeds, run_loop, replace(config, fit | {"batch_size": 16} | changes)
    )


@pytest.fixture(scope="module")
def finished(data_path: Path, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run that nobody interrupted."""
    run_dir = tmp_path_factory.mktemp("finished")
    loop.train(smoke(data_path), dataset, run_dir, quiet=True)
    return run_dir


def test_the_run_directory_holds_everything(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert names >= {
        "config.json",
        "provenance.json",
        "metrics.jsonl",
        "tb",
        "checkpoint",
        "result.json",
        "curves.png",
        "dataset.json",
        "dynamics.json",
    }
    rows = numbers(finished)
    assert [row["step"] for row in rows] == [10, 20, 30, 40]
    assert {"critic/loss", "classifier/accuracy", "rollout/length_mean", "actor/temperature"} <= rows[0].keys()
    assert "eval/score" in rows[1]
    assert "eval/score" not in rows[0]
    policy = damorl.load_policy(finished)
    action = policy(np.zeros((5, 11)))
    assert action.shape == (5, 3)
    assert np.abs(action).max() <= 1.0


@pytest.fixture(scope="module")
def epoch_alone(data_path: Path, dataset: Dataset) -> loop.Epoch:
    """The epoch of one seed, whichever."""
    return loop.make_epoch(smoke(data_path), inputs.make_problem(dataset))


def test_seeds_together_equal_seeds_alone(data_path: Path, dataset: Dataset, epoch_alone: loop.Epoch) -> None:
    problem, data, seeds = inputs.make_problem(dataset), inputs.to_device(dataset), (0, 1, 2, 3)

    def after(epoch: loop.Epoch, seeds: tuple[int, ...]) -> Any:
        state = loop.init_state(smoke(data_path, seeds), problem, data)
        return epoch(state, data, loop.seed_keys(seeds), 0)[0]

    together = after(loop.make_epoch(smoke(data_path, seeds), problem), seeds)
    for index, seed in enumerate(seeds):
        alone = after(epoch_alone, (seed,))
        for name, leaf in checkpoint.named_leaves((alone.actor.params, alone.critic.params)).items():
            both = checkpoint.named_leaves((together.actor.params, together.critic.params))[name]
            np.testing.assert_allclose(both[index], leaf[0], rtol=1e-4, atol=1e-5, err_msg=f"{name}, seed {seed}")


def test_the_epoch_compiles_once(data_path: Path, dataset: Dataset, epoch_alone: loop.Epoch) -> None:
    config, data = smoke(data_path), inputs.to_device(dataset)
    state = loop.init_state(config, inputs.make_problem(dataset), data)
    for number in range(3):
        state, _, _ = epoch_alone(state, data, loop.seed_keys(config.seeds), number)
    assert epoch_alone._cache_size() == 1  # type: ignore[attr-defined]


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_train import smoke
from damorl.experiment import train
from damorl.data.datasets import load_dataset
path = Path(sys.argv[2])
train.train(smoke(path), load_dataset(path), Path(sys.argv[3]), quiet=True)
"""


def test_kill_and_resume_is_bit_for_bit(data_path: Path, dataset: Dataset, finished: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "killed"
    run_dir.mkdir()
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(data_path), str(run_dir)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while not (run_dir / "metrics.jsonl").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert (run_dir / "metrics.jsonl").exists()
    assert not (run_dir / "result.json").exists(), "the run was over before it could be killed"
    loop.train(smoke(data_path), dataset, run_dir, quiet=True)
    assert numbers(run_dir) == numbers(finished)
    assert (run_dir / "dynamics.json").read_bytes() == (finished / "dynamics.json").read_bytes()
    mine, theirs = (load_file(checkpoint.checkpoints(d / "checkpoint")[-1]) for d in (run_dir, finished))
    assert mine.keys() == theirs.keys()
    for name in mine:
        assert mine[name].tobytes() == theirs[name].tobytes(), name


def test_the_course_of_every_fit_is_told_and_stays_when_a_run_goes_on(
    data_path: Path, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = smoke(data_path, (0, 1), "sac", **{"dynamics.early_stop": "k_step"})
    with cut_off_after(10, monkeypatch):
        loop.train(config, dataset, tmp_path, quiet=True)
    told = (tmp_path / "dynamics.json").read_bytes()
    loop.train(config, dataset, tmp_path, quiet=True)
    assert (tmp_path / "dynamics.json").read_bytes() == told
    found, settings = store.read_json(tmp_path / "dynamics.json"), config.algo_config.dynamics
    assert found["settings"] == store.plain(dataclasses.asdict(settings))
    assert list(found["seeds"]) == ["0", "1"]
    for figures in found["seeds"].values():
        assert [epoch["batches"] for epoch in figures["epochs"]] == [2, 4]
        assert all(epoch[name] > 0.0 for epoch in figures["epochs"] for name in ("holdout_error", "k_step_error"))
        assert len(figures["chosen"]) == settings.num_members
        assert figures["chosen"] == sorted(figures["chosen"])
        assert (figures["elites"], figures["batches"]) == (settings.num_elites, 4)
        assert figures["stopped"] == "max_batches"
    assert found["seeds"]["0"] != found["seeds"]["1"]


def test_a_damaged_checkpoint_is_passed_over(data_path: Path, dataset: Dataset, finished: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    loop_dir = finished / "checkpoint"
    (run_dir / "checkpoint").mkdir(parents=True)
    for path in [
        *loop_dir.iterdir(),
        finished / "metrics.jsonl",
        finished / "config.json",
        finished / "provenance.json",
    ]:
        target = run_dir / path.relative_to(finished)
        target.write_bytes(path.read_bytes())
    newest = checkpoint.checkpoints(run_dir / "checkpoint")[-1]
    newest.write_bytes(newest.read_bytes()[:-100])
    loop.train(smoke(data_path), dataset, run_dir, quiet=True)
    assert numbers(run_dir) == numbers(finished)


def test_a_foreign_checkpoint_is_refused(data_path: Path, dataset: Dataset, finished: Path) -> None:
    with pytest.raises(UserError, match="checkpoint"):
        loop.train(smoke(data_path, gamma=0.9), dataset, finished, quiet=True)


def test_a_loss_that_is_not_finite_stops_the_run(data_path: Path, dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"training stopped: .*/.* of seed 0 was not finite at update \d+"):
        loop.train(smoke(data_path, algo="td3bc", critic_lr=1e30), dataset, tmp_path, quiet=True)
    assert checkpoint.checkpoints(tmp_path / "checkpoint")


def test_the_first_bad_update_is_named(tmp_path: Path, data_path: Path) -> None:
    values = np.ones((2, 10))
    later = values.copy()
    values[1, 4], later[0, 7] = np.nan, np.inf
    metrics = {"a/later": jnp.asarray(later), "a/first": jnp.asarray(values)}
    with pytest.raises(UserError, match=r"a/first of seed 5 was not finite at update 105"):
        loop.check_finite(metrics, smoke(data_path, (3, 5)), 100, tmp_path)


def test_data_without_a_simulator_trains_unscored_and_says_so(
    dataset: Dataset, data_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unknown = dataclasses.replace(dataset, task=None, name="mine")
    result = loop.train(smoke(data_path, algo="bc"), unknown, tmp_path, quiet=True)
    assert result.summary["per_seed"] == {}
    assert result.summary["eval_share"] is None
    assert list(list_policies(tmp_path)) == [20, 40]  # to choose among without a simulator
    assert "no task is known for mine" in capsys.readouterr().err


def test_data_without_complete_episodes_train_and_say_what_they_go_without(
    dataset: Dataset, data_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = dataset.transitions._replace(terminal=np.zeros_like(dataset.transitions.terminal))
    endless = dataclasses.replace(dataset, transitions=rows, truncated=np.zeros_like(dataset.truncated), name="mine")
    start = {"cloning_updates": 5, "reference_share": 0.5, "critic_start": "returns", "critic_start_updates": 5}
    kept = {"keep": "validated", "validation_starts": 2, "validation_steps": 5}
    config = smoke(data_path, algo="mopo", gamma=0.999, **start, **kept)
    assert loop.train(config, endless, tmp_path, quiet=True).summary["per_seed"]
    said = capsys.readouterr().err
    assert "no episode of mine is complete" in said
    assert "episodes of mine are cut before their rewards stop to count (gamma 0.999)" in said


def test_policies_are_kept_and_found_by_their_step(finished: Path) -> None:
    assert list(list_policies(finished)) == [20, 40]
    obs = np.ones((3, 11))
    last, early = damorl.load_policy(finished)(obs), damorl.load_policy(finished, step=20)(obs)
    np.testing.assert_array_equal(last, damorl.load_policy(finished, step=40)(obs))
    assert np.abs(last - early).max() > 0
    with pytest.raises(UserError, match=r"expected one of the kept steps \[20, 40\], found 30"):
        damorl.load_policy(finished, step=30)


def test_the_score_is_the_mean_of_the_last_ten_evaluations(tmp_path: Path) -> None:
    store.write_json(
        tmp_path / store.CONFIG,
        {
            "algo": "bc",
            "seeds": [0, 4],
            "data": {"name": "d", "sha256": "0"},
            "loop": {"total_updates": 12},
        },
    )
    store.write_json(tmp_path / store.PROVENANCE, {})
    scores = {0: [100.0, 50.0, *[float(i) for i in range(10)]], 4: [0.0] * 11 + [20.0]}
    rows = [
        {"step": step + 1, "seed": seed, "eval/return_mean": 1.0, "eval/score": scores[seed][step]}
        | {"time/train_seconds": 3.0, "time/eval_seconds": 1.0}
        for step in range(12)
        for seed in (0, 4)
    ]
    store.append_metrics(tmp_path, rows)
    summary = summarise(tmp_path).summary
    assert summary["per_seed"]["0"] == {"last": 9.0, "last_10_mean": 4.5, "evaluations": 10, "best": 100.0}
    assert summary["per_seed"]["4"] == {"last": 20.0, "last_10_mean": 2.0, "evaluations": 10, "best": 20.0}
    assert summary["last_10_mean"] == 3.25
    assert summary["last_10_std"] == pytest.approx(2.5 / np.sqrt(2))  # of a sample, as the report
    assert summary["eval_share"] == 0.25  # both seeds play in the same second
