"""What every algorithm keeps: it trains from the command line, resumes bit for bit, and gives each seed its own run.

A new algorithm is tested here as soon as it is in `ALGORITHMS` and has a `smoke` preset; the assertions are those of
`damorl.testing`, which packages that add one use, too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
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
from damorl.record import checkpoint, store
from damorl.report import card, curves
from damorl.testing import algorithms as testing
from tests.interrupting import copied_after

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
    "critic-layer-norm": "True",
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
        *((algo, FOUNDATION | KEPT) for algo in WITH_KEPT),
        ("damo", VALIDATED),
    ],
)
def test_it_trains_from_the_command_line_and_resumes_bit_for_bit(
    algo: str, changes: dict[str, str], hopper_toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [word for name, value in changes.items() for word in (f"--{name}", value)]
    monkeypatch.setattr(card, "draw_card", lambda *_: None)  # of the same data for all
    with copied_after(5, tmp_path / "halves", monkeypatch):
        whole = from_shell(algo, hopper_toy, tmp_path / "whole", *options)
    testing.check_run(ALGORITHMS[algo], whole)
    assert (whole / "curves.png").exists()
    (cut_off,) = (tmp_path / "halves").iterdir()
    assert [row["step"] for row in store.read_metrics(cut_off)] == [5]
    monkeypatch.setattr(curves, "draw_curves", lambda _: None)  # the first run has drawn them
    halves = from_shell(algo, hopper_toy, tmp_path / "halves", "--resume", *options)
    testing.check_same_end(halves, whole)
    if "critic-layer-norm" in changes:
        check_layer_norm_learns(*(load_file(path) for path in checkpoint.checkpoints(whole / "checkpoint")))


def check_layer_norm_learns(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """The states, by the names of their leaves, have normalised critics, whose scales have moved."""
    scales = [name for name in before if "critic" in name and name.endswith("scale")]
    assert scales  # the networks are those
    assert all(np.any(np.asarray(after[name]) != before[name]) for name in scales if "params" in name)


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


@pytest.mark.parametrize("algo", [name for name in NORMALISABLE if name not in (*WITH_KEPT, "damo")])
def test_layer_normalised_critics_learn_too(algo: str, toy: Dataset) -> None:
    run_loop, settings = defaults(algo, "smoke", "hopper-toy")
    settings = replace(settings, {"critic_layer_norm": True})
    run_loop = dataclasses.replace(run_loop, total_updates=100, refresh_interval=5)
    config = RunConfig(algo, "hopper-toy", None, "smoke", (0,), run_loop, settings)
    problem, data = inputs.make_problem(toy), inputs.to_device(toy)
    state = loop.init_state(config, problem, data)
    before = {name: np.array(leaf) for name, leaf in checkpoint.named_leaves(state).items()}
    state, _, metrics = loop.make_epoch(config, problem)(state, data, loop.seed_keys((0,)), 0)
    assert all(np.isfinite(values).all() for values in jax.tree.leaves(metrics))
    check_layer_norm_learns(before, checkpoint.named_leaves(state))
