"""The GPU kit, at tiny sizes on the CPU: it leaves results, stops in time, goes on where it stopped, and does without
packages that a bare machine lacks."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import damorl
from benchmarks import gpu
from damorl.data.datasets import load_dataset
from damorl.data.store import write_dataset
from damorl.experiment import train as loop
from damorl.experiment.config import RunConfig, defaults
from damorl.record import store

ROOT = Path(__file__).resolve().parent.parent
TINY = ("--tiny", "--quiet", "--results")
ROWS, EPISODE = 600, 50
BARE = ("gymnasium", "mujoco", "imageio", "tensorboardX", "tyro", "platformdirs", "matplotlib")
BLOCKER = """
import importlib.abc, os, sys
class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in os.environ.get("BLOCKED", "").split():
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
"""


@pytest.fixture(scope="module")
def data_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hopper-shaped rows of short upright episodes."""
    rng = np.random.default_rng(0)
    obs = rng.normal(0, 0.05, (ROWS, 11)).astype(np.float32)
    obs[:, 0] += 1.25
    last = np.arange(ROWS) % EPISODE == EPISODE - 1
    columns = {
        "observations": obs,
        "actions": rng.uniform(-0.9, 0.9, (ROWS, 3)).astype(np.float32),
        "rewards": rng.uniform(0.5, 1.5, ROWS).astype(np.float32),
        "next_observations": obs + rng.normal(0, 0.01, obs.shape).astype(np.float32),
        "terminals": np.zeros(ROWS, bool),
        "timeouts": last,
    }
    path = tmp_path_factory.mktemp("data") / "hopper-toy.hdf5"
    write_dataset(path, columns, {})
    return path


def run_kit(results: Path, *arguments: str, blocked: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """One call of the kit in a process of its own; `blocked` packages are not there for it."""
    site = results.parent / "site"
    site.mkdir(exist_ok=True)
    (site / "sitecustomize.py").write_text(BLOCKER)
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "NPROC": "1",
        "PYTHONPATH": str(site),
        "BLOCKED": " ".join(blocked),
    }
    command = [sys.executable, str(ROOT / "benchmarks/gpu.py"), *TINY, str(results)]
    return subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True, cwd=results.parent)


def sessions(run_dir: Path) -> list[dict[str, Any]]:
    return store.read_json(run_dir / "summary.json")["sessions"]


def test_the_kit_measures_trains_stops_and_goes_on(
    data_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    arguments = ("--minutes", "0.02", "--dataset", str(data_path), "--seeds", "2")
    assert gpu.main([*TINY, str(results), *arguments]) == 0
    told = capsys.readouterr().out
    bench, run_dir = results / "bench-tiny-cpu.json", results / "damo-hopper-toy"
    figures = store.read_json(bench)
    assert figures["updates"][0]["per_second"] > 0
    summary = json.loads(told[told.index("\n{") :])
    assert summary == store.read_json(run_dir / "summary.json")
    assert summary["seeds"] == [0, 1]
    assert not summary["finished"]
    assert not (run_dir / store.RESULT).exists()
    (stopped,) = sessions(run_dir)
    assert stopped["from"] == 0 < stopped["to"] == summary["updates"]
    assert (run_dir / "checkpoint" / f"step_{stopped['to']:09d}.safetensors").exists()
    assert (run_dir / "curves.png").stat().st_size > 10_000
    policy = damorl.load_policy(run_dir, seed=1)
    assert policy(np.zeros((5, 11), np.float32)).shape == (5, 3)
    assert (results / ".gitignore").read_text() == "cache/\n"  # the rest is small enough to commit

    measured = bench.read_bytes()
    bare = run_kit(results, *arguments[:-2], blocked=BARE)  # a poorer machine; the seeds are those of the run
    assert bare.returncode == 0, bare.stderr
    assert all(name in bare.stderr for name in BARE if name != "tyro")
    assert bench.read_bytes() == measured
    after = sessions(run_dir)[1]
    assert after["from"] == stopped["to"] < after["to"]
    steps = [row["step"] for row in store.read_metrics(run_dir) if row["seed"] == 1]
    assert steps == list(range(50, after["to"] + 1, 50))
    history = [json.loads(line) for line in (run_dir / "history.jsonl").read_text().splitlines()]
    assert history[-1]["step"] <= after["to"]
    assert {row["seed"] for row in history} == {0, 1}


@pytest.mark.slow
def test_without_a_package_for_training_there_is_still_the_bench(tmp_path: Path) -> None:
    finished = run_kit(tmp_path / "results", "--minutes", "0.001", blocked=("h5py", "safetensors", *BARE))
    assert finished.returncode == 0, finished.stderr
    assert "no training: it needs h5py and safetensors" in finished.stderr
    assert store.read_json(tmp_path / "results/bench-tiny-cpu.json")["evaluation_steps_per_second"] is None


def test_without_optax_the_kit_says_so(tmp_path: Path) -> None:
    refused = run_kit(tmp_path / "results", blocked=("optax",))
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("the GPU kit needs optax, which ")
    assert "Traceback" not in refused.stderr


def test_a_built_in_dataset_needs_the_simulator(tmp_path: Path) -> None:
    args = gpu.parse(["--results", str(tmp_path)])
    with pytest.raises(damorl.UserError, match="cannot be made here without gymnasium and mujoco"):
        gpu.load_data(args, 1000, simulator=False)


def figures(per_second: tuple[float, float], memory: tuple[int, int]) -> dict[str, Any]:
    rows = [
        {"num_seeds": n, "per_second": s, "memory_bytes": m} for n, s, m in zip((1, 4), per_second, memory, strict=True)
    ]
    return {"updates": rows, "rollout_transitions_per_second": 1e6, "evaluation_steps_per_second": None}


@pytest.mark.parametrize(
    ("per_second", "memory", "expected"),
    [
        ((100.0, 25.0), (10, 40), 1),  # four cost four times as much: a CPU
        ((1000.0, 1000.0 / 1.09), (10, 40), 17),  # one more costs 3 %: 16 more cost not quite a half
        ((1000.0, 1000.0), (10, 40), gpu.MAX_SEEDS),
        ((1000.0, 1000.0), (100, 400), 6),  # memory for 600
    ],
)
def test_as_many_seeds_as_fit(
    per_second: tuple[float, float],
    memory: tuple[int, int],
    expected: int,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(gpu, "memory", lambda: 1000)
    assert gpu.num_seeds(gpu.parse([]), figures(per_second, memory), tmp_path) == expected
    assert gpu.num_seeds(gpu.parse(["--seeds", "3"]), figures(per_second, memory), tmp_path) == 3


def test_a_run_goes_on_with_the_seeds_it_has(tmp_path: Path) -> None:
    store.write_json(tmp_path / store.CONFIG, {"seeds": [0, 1, 2]})
    assert gpu.num_seeds(gpu.parse([]), {}, tmp_path) == 3


def test_settings_are_the_presets_then_the_kits_then_the_users() -> None:
    args = gpu.parse(["--set", "total_updates=5000", "--set", "dynamics.max_batches=70", "--set", "hidden=[8, 8]"])
    config = gpu.make_config(args, 2)
    assert (config.preset, config.seeds) == ("paper", (0, 1))
    assert config.loop.total_updates == 5000
    assert config.loop.eval_interval == gpu.CALMER["eval_interval"]
    assert config.algo_config.dynamics.max_batches == 70
    assert config.algo_config.hidden == (8, 8)
    assert config.algo_config.actor_lr == 1e-5  # the paper's Table 4
    with pytest.raises(damorl.UserError, match="expected NAME=VALUE"):
        gpu.make_config(gpu.parse(["--set", "hidden"]), 1)


def test_time_is_kept_for_the_last_epoch_and_for_saving() -> None:
    config = gpu.make_config(gpu.parse([]), 4)
    kept = gpu.reserve(figures((100.0, 50.0), (200_000_000, 800_000_000)), config, simulator=False)
    epoch = 1000 / 50.0 + 4 * 50_000 * 5 / 1e6
    assert kept == pytest.approx(epoch + 4 * 1.0 + 3.0)
    assert gpu.reserve(figures((100.0, 50.0), (0, 0)), config, simulator=True) > epoch + 1.0


def test_large_results_are_kept_from_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "LARGE", 100)
    for name, size in {"run/checkpoint/step": 101, "run/tb/events": 5, "run/metrics.jsonl": 200, "run/a": 100}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(bytes(size))
    gpu.ignore_large(tmp_path, everything=False)
    assert (tmp_path / ".gitignore").read_text().splitlines() == ["cache/", "run/checkpoint/", "run/metrics.jsonl"]
    gpu.ignore_large(tmp_path, everything=True)
    assert {"*/checkpoint/", "*/tb/"} < set((tmp_path / ".gitignore").read_text().splitlines())


def test_a_run_stopped_by_its_deadline_goes_on_bit_for_bit(data_path: Path, tmp_path: Path) -> None:
    dataset = load_dataset(data_path)
    run_loop, settings = defaults("bc", "smoke", "")
    run_loop = dataclasses.replace(
        run_loop, total_updates=30, refresh_interval=10, eval_interval=30, checkpoint_interval=30
    )
    config = RunConfig("bc", str(data_path), None, "smoke", (0, 1), run_loop, settings)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for run_dir in (whole, parts):
        run_dir.mkdir()
    without = ("simulator", "tensorboard", "curves")
    assert "per_seed" in loop.train(config, dataset, whole, quiet=True, without=without).summary

    for stopped_at in (10, 20):
        result = loop.train(config, dataset, parts, quiet=True, deadline=time.monotonic(), without=without)
        assert result.summary == {"stopped_at": stopped_at}
        assert not (parts / store.RESULT).exists()
    loop.train(config, dataset, parts, quiet=True, deadline=time.monotonic() + 600, without=without)
    assert not list(parts.glob("tb/*"))
    last = [load_file(run_dir / "checkpoint/step_000000030.safetensors") for run_dir in (whole, parts)]
    assert {name: leaf.tobytes() for name, leaf in last[0].items()} == {
        n: leaf.tobytes() for n, leaf in last[1].items()
    }
    clockless = [
        [{k: v for k, v in row.items() if not k.startswith("time/")} for row in store.read_metrics(run_dir)]
        for run_dir in (whole, parts)
    ]
    assert clockless[0] == clockless[1]


def test_a_stage_before_the_updates_ends_at_the_deadline() -> None:
    seen: list[int] = []
    on_progress = loop.until(time.monotonic() - 1.0, lambda stage, done, total, figures: seen.append(done))
    with pytest.raises(damorl.UserError, match="the dynamics stage was not finished in the given time, after 500"):
        on_progress("dynamics", 500, None, {})
    on_progress("dynamics", 600, 600, {})  # it is finished after all
    loop.until(None, lambda stage, done, total, figures: seen.append(done))("dynamics", 7, None, {})
    loop.until(time.monotonic() + 600, lambda stage, done, total, figures: seen.append(done))("dynamics", 8, None, {})
    assert seen == [500, 600, 7, 8]


def test_the_training_loop_needs_no_locks_no_type_checks_and_no_tables(tmp_path: Path) -> None:
    code = """
import sys
for name in ("filelock", "typeguard", "rich", "ray", "submitit"):
    sys.modules[name] = None
from pathlib import Path
from damorl import api
from damorl.experiment.config import resolve
from damorl.record.hold import held
resolve("damo", "hopper-medium", "paper", (0,), {"divergence_weight": 1})
with held(Path(sys.argv[1])):
    print("held")
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "held\n"), done.stderr
