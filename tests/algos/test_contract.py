"""What every algorithm keeps: it trains from the command line, resumes bit for bit, and gives each seed its own run.

A new algorithm is tested here as soon as it is in `ALGORITHMS` and has a `smoke` preset.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from damorl.algos import ALGORITHMS
from damorl.cli import main
from damorl.data.datasets import Dataset, load_dataset
from damorl.experiment import inputs
from damorl.experiment import train as loop
from damorl.experiment.config import RunConfig, defaults, replace
from damorl.experiment.progress import Progress
from damorl.record import checkpoint, store
from tests.interrupting import cut_off_after

SEEDS, INTERVAL = (3, 5), 5
CLOCK = {
    "total_updates": 20,
    "refresh_interval": 10,
    "eval_interval": 20,
    "checkpoint_interval": 10,
    "eval_episodes": 1,
}

each_algorithm = pytest.mark.parametrize("algo", sorted(ALGORITHMS))


def from_shell(algo: str, data: Path, out: Path, *more: str) -> Path:
    """`damorl train` with the smoke preset on a still shorter clock; the run directory."""
    clock = [word for name, value in CLOCK.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    code = main(
        ["train", algo, "--dataset", str(data), "--preset", "smoke", *clock, "--out", str(out), "--json", *more]
    )
    assert code == 0
    (run_dir,) = out.iterdir()
    return run_dir


def flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted names."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


FOUNDATION = {
    "standardise-observations": "True",
    "reward-factor": "auto",
    "cloning-updates": "20",
    "reference-share": "0.5",
    "critic-start": "returns",
    "critic-start-updates": "20",
    "rollout-noise": "False",
    "dynamics.nll-beta": "0.5",
}
WITH_KEPT = ("mobile", "mopo", "morel", "rambo", "sambo")
KEPT = {"keep": "validated", "validation-steps": "20", "validation-starts": "5"}
VALIDATED = (
    FOUNDATION | KEPT | {"log-ratio": "split", "actor-objective": "imagined", "kl-target": "0.3", "trust": "validated"}
)


@pytest.mark.parametrize(
    ("algo", "changes"),
    [
        *((algo, {}) for algo in sorted(ALGORITHMS)),
        *((algo, FOUNDATION | KEPT) for algo in ("mopo", "mobile", "morel", "rambo", "sambo")),
        ("damo", VALIDATED),
    ],
)
def test_it_trains_from_the_command_line_and_resumes_bit_for_bit(
    algo: str, changes: dict[str, str], hopper_toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [word for name, value in changes.items() for word in (f"--{name}", value)]
    whole = from_shell(algo, hopper_toy, tmp_path / "whole", *options)
    rows = store.read_metrics(whole)
    assert [row["step"] for row in rows] == [10, 20]
    assert "eval/score" in rows[-1]
    assert (whole / "dynamics.json").exists() == hasattr(ALGORITHMS[algo].config_type(), "dynamics")
    with cut_off_after(10, monkeypatch):
        from_shell(algo, hopper_toy, tmp_path / "halves", *options)
    halves = from_shell(algo, hopper_toy, tmp_path / "halves", "--resume", *options)
    arrays, expected = (load_file(checkpoint.checkpoints(run / "checkpoint")[-1]) for run in (halves, whole))
    assert arrays.keys() == expected.keys()
    for name, array in arrays.items():
        assert array.tobytes() == expected[name].tobytes(), name


@each_algorithm
def test_its_settings_survive_being_written_down(algo: str) -> None:
    for preset in ("smoke", "quick", "standard", "paper"):
        _, config = defaults(algo, preset, "hopper-medium-expert")
        written = json.loads(json.dumps(dataclasses.asdict(config)))
        assert replace(ALGORITHMS[algo].config_type(), flat(written)) == config


@pytest.fixture(scope="module")
def toy(hopper_toy: Path) -> Dataset:
    return load_dataset(hopper_toy)


def two_epochs(algo: str, toy: Dataset, seeds: tuple[int, ...]) -> tuple[dict[str, np.ndarray], int]:
    """The state after two epochs, by name, and how often the epoch was compiled."""
    run_loop, settings = defaults(algo, "smoke", "hopper-toy")
    run_loop = dataclasses.replace(run_loop, total_updates=100, refresh_interval=INTERVAL)
    config = RunConfig(algo, "hopper-toy", None, "smoke", seeds, run_loop, settings)
    problem, data = inputs.make_problem(toy), inputs.to_device(toy)
    state = loop.init_state(config, problem, data)
    state = loop.prepare_states(config, problem, data, state, Progress(config, quiet=True))
    epoch = loop.make_epoch(config, problem)
    state, _, _ = epoch(state, data, loop.seed_keys(seeds), 0)
    state, _, metrics = epoch(state, data, loop.seed_keys(seeds), 1)
    assert all(np.isfinite(values).all() for values in jax.tree.leaves(metrics))
    actor = config.algorithm.actor(state)
    assert all(leaf.shape[0] == len(seeds) for leaf in jax.tree.leaves(actor))
    named = {name: np.asarray(leaf) for name, leaf in checkpoint.named_leaves(actor).items()}
    return named, epoch._cache_size()  # type: ignore[attr-defined]


@each_algorithm
def test_seeds_together_equal_seeds_alone_and_epochs_compile_once(algo: str, toy: Dataset) -> None:
    together, compiled = two_epochs(algo, toy, SEEDS)
    assert compiled == 1
    alone, _ = two_epochs(algo, toy, SEEDS[1:])
    for name, leaf in alone.items():
        np.testing.assert_allclose(together[name][1], leaf[0], rtol=1e-3, atol=1e-4, err_msg=name)
    assert any(np.abs(leaf[0] - leaf[1]).max() > 0.01 for leaf in together.values())  # that two seeds differ is seen


NORMALISABLE = [name for name in sorted(ALGORITHMS) if hasattr(ALGORITHMS[name].config_type(), "critic_layer_norm")]


@pytest.mark.parametrize("algo", NORMALISABLE)
def test_layer_normalised_critics_learn_too(algo: str, toy: Dataset) -> None:
    run_loop, settings = defaults(algo, "smoke", "hopper-toy")
    settings = replace(settings, {"critic_layer_norm": True})
    run_loop = dataclasses.replace(run_loop, total_updates=100, refresh_interval=INTERVAL)
    config = RunConfig(algo, "hopper-toy", None, "smoke", (0,), run_loop, settings)
    problem, data = inputs.make_problem(toy), inputs.to_device(toy)
    state = loop.init_state(config, problem, data)
    scales = [name for name in checkpoint.named_leaves(state) if "critic" in name and name.endswith("scale")]
    assert scales  # the networks are those
    before = {name: np.array(checkpoint.named_leaves(state)[name]) for name in scales}
    state, _, metrics = loop.make_epoch(config, problem)(state, data, loop.seed_keys((0,)), 0)
    assert all(np.isfinite(values).all() for values in jax.tree.leaves(metrics))
    after = checkpoint.named_leaves(state)
    assert all(np.any(np.asarray(after[name]) != before[name]) for name in scales if "params" in name)
