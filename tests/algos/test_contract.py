"""What every algorithm keeps: it trains from the command line, resumes bit for bit, and gives each seed its own run.

A new algorithm is tested here as soon as it is in `ALGORITHMS` and has a `smoke` preset; the assertions are those of
`damorl.testing`, which packages that add one use, too.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

from damorl.algos import ALGORITHMS
from damorl.cli import main
from damorl.data.datasets import Dataset, load_dataset
from damorl.experiment import inputs
from damorl.experiment import train as loop
from damorl.experiment.config import RunConfig, defaults, replace
from damorl.record import checkpoint
from damorl.testing import algorithms as testing
from tests.interrupting import cut_off_after

each_algorithm = pytest.mark.parametrize("algo", sorted(ALGORITHMS))


def from_shell(algo: str, data: Path, out: Path, *more: str) -> Path:
    """`damorl train` with the smoke preset on a still shorter clock; the run directory."""
    clock = [word for name, value in testing.CLOCK.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    code = main(
        ["train", algo, "--dataset", str(data), "--preset", "smoke", *clock, "--out", str(out), "--json", *more]
    )
    assert code == 0
    (run_dir,) = out.iterdir()
    return run_dir


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
    testing.check_run(ALGORITHMS[algo], whole)
    with cut_off_after(10, monkeypatch):
        from_shell(algo, hopper_toy, tmp_path / "halves", *options)
    halves = from_shell(algo, hopper_toy, tmp_path / "halves", "--resume", *options)
    testing.check_same_end(halves, whole)


@each_algorithm
def test_its_settings_survive_being_written_down(algo: str) -> None:
    testing.check_settings(ALGORITHMS[algo])


@pytest.fixture(scope="module")
def toy(hopper_toy: Path) -> Dataset:
    return load_dataset(hopper_toy)


@each_algorithm
def test_seeds_together_equal_seeds_alone_and_epochs_compile_once(algo: str, toy: Dataset) -> None:
    testing.check_seeds(ALGORITHMS[algo], toy)


NORMALISABLE = [name for name in sorted(ALGORITHMS) if hasattr(ALGORITHMS[name].config_type(), "critic_layer_norm")]


@pytest.mark.parametrize("algo", NORMALISABLE)
def test_layer_normalised_critics_learn_too(algo: str, toy: Dataset) -> None:
    run_loop, settings = defaults(algo, "smoke", "hopper-toy")
    settings = replace(settings, {"critic_layer_norm": True})
    run_loop = dataclasses.replace(run_loop, total_updates=100, refresh_interval=5)
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
