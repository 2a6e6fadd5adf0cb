"""Fits found again: the same bits, for every algorithm, and never somebody else's."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from damorl import api
from damorl.experiment.remember import model_hashes, noting_fits, remember
from damorl.experiment.result import load_layers
from damorl.parts import dynamics, dynamics_fit
from damorl.record import store
from damorl.types import Problem, Spec
from damorl.world.tasks import never_ended

SETTINGS = dynamics.DynamicsConfig(hidden=(8,), max_batches=2)
KEY = jax.random.key(3)
TEMPLATE = jax.eval_shape(lambda: dynamics.init_members(KEY, SETTINGS, 3, 2))


class Fit:
    """A stand-in for a fit, which counts how often it is made."""

    def __init__(self, seed: int = 0) -> None:
        self.made, self.model = 0, dynamics.init_members(jax.random.key(seed), SETTINGS, 3, 2)
        self.figures = {"epochs": [{"batches": 2, "k_step_error": None}], "chosen": [0.25, float("nan")]}

    def __call__(self) -> tuple[dynamics.Dynamics, dict[str, Any]]:
        self.made += 1
        return self.model, self.figures


def test_the_second_time_is_read_and_the_same_to_the_bit(tmp_path: Path) -> None:
    fit, notes = Fit(), list[str]()
    recall = remember("abc", notes.append, tmp_path)
    (first, told), (second, found) = (recall(KEY, SETTINGS, TEMPLATE, fit) for _ in range(2))
    assert (fit.made, len(notes)) == (1, 1)
    assert str(tmp_path) in notes[0]
    assert jax.tree.structure(first) == jax.tree.structure(second)
    for made, read in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        assert (made.dtype, made.tobytes()) == (read.dtype, read.tobytes())
    assert found == store.plain(told)


@pytest.mark.parametrize("damaged", [False, True])
def test_a_model_whose_figures_are_lost_is_read_all_the_same(tmp_path: Path, damaged: bool) -> None:
    fit, told, recall = Fit(), [], remember("abc", print, tmp_path)
    recall(KEY, SETTINGS, TEMPLATE, fit)
    (file,) = tmp_path.rglob("figures.json")
    file.write_text("{") if damaged else file.unlink()
    asking = noting_fits(Problem(Spec(3, 2), never_ended, recall), told.append)
    assert asking.recall is not None
    model, figures = asking.recall(KEY, SETTINGS, TEMPLATE, fit)
    assert (fit.made, figures) == (1, None)
    assert jax.tree.all(jax.tree.map(np.array_equal, model, fit.model))
    assert [list(entry) for entry in told] == [["missing"]]
    assert "not kept" in told[0]["missing"]


@pytest.mark.parametrize(
    ("data", "settings", "key"),
    [
        ("abd", SETTINGS, KEY),
        ("abc", dataclasses.replace(SETTINGS, learning_rate=2e-3), KEY),
        ("abc", SETTINGS, jax.random.key(4)),
    ],
    ids=["data", "settings", "key"],
)
def test_anything_else_is_fitted(tmp_path: Path, data: str, settings: dynamics.DynamicsConfig, key: jax.Array) -> None:
    remember("abc", print, tmp_path)(KEY, SETTINGS, TEMPLATE, Fit())
    other = Fit(1)
    remember(data, print, tmp_path)(key, settings, TEMPLATE, other)
    assert other.made == 1


def test_a_damaged_file_is_fitted_again_and_replaced(tmp_path: Path) -> None:
    notes: list[str] = []
    recall, fit = remember("abc", notes.append, tmp_path), Fit()
    recall(KEY, SETTINGS, TEMPLATE, fit)
    (file,) = tmp_path.rglob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-7] + b"damaged")
    recall(KEY, SETTINGS, TEMPLATE, fit)
    assert fit.made == 2
    assert "damaged" in notes[0]
    recall(KEY, SETTINGS, TEMPLATE, fit)
    assert fit.made == 2


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    fit, recall = Fit(), remember("abc", print, tmp_path)
    recall(KEY, SETTINGS, TEMPLATE, fit)
    (place,) = tmp_path.glob("[0-9a-f]*")
    shutil.rmtree(place)
    (tmp_path / f".{place.name}.k1ll3d.tmp" / place.name).mkdir(parents=True)
    (tmp_path / ".0123456789abcdef.k1ll3d.tmp").mkdir()  # of another model
    recall(KEY, SETTINGS, TEMPLATE, fit)
    assert fit.made == 2
    assert [path.name for path in tmp_path.glob(".*.tmp")] == [".0123456789abcdef.k1ll3d.tmp"]


def test_a_cache_that_cannot_be_written_costs_the_run_nothing(tmp_path: Path) -> None:
    notes: list[str] = []
    (tmp_path / "file").write_text("in the way")
    fit = Fit()
    model, _ = remember("abc", notes.append, tmp_path / "file")(KEY, SETTINGS, TEMPLATE, fit)
    assert model is fit.model
    assert "not kept" in notes[0]


def test_runs_share_their_model_and_refit_gives_the_same(hopper_toy: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("DAMORL_HOME", str(tmp_path / "home"))
    made: list[int] = []
    honest = dynamics_fit.fit_members
    monkeypatch.setattr(dynamics_fit, "fit_members", lambda *given: made.append(1) or honest(*given))
    train = lambda algo, out, **more: api.train(
        algo, str(hopper_toy), "smoke", out=tmp_path / out, task="hopper", quiet=True, total_updates=50, **more
    )
    first = train("sac", "a")
    assert len(made) == 1
    again = train("mopo", "a", penalty_coefficient=1.0)  # another algorithm
    assert len(made) == 1
    refitted = train("mopo", "b", refit=True, penalty_coefficient=1.0)
    assert len(made) == 2
    told = [(run.run_dir / "dynamics.json").read_bytes() for run in (first, again, refitted)]
    assert set(told) == {told[0]}
    for one, other in zip(load_layers(again.run_dir, 0), load_layers(refitted.run_dir, 0), strict=True):
        for left, right in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
            np.testing.assert_array_equal(left, right)
    shutil.rmtree(tmp_path / "home")


def test_equal_fits_have_equal_hashes_whatever_an_algorithm_keeps_of_them() -> None:
    model = lambda seed: dynamics.init_members(jax.random.key(seed), SETTINGS, 3, 2)
    stack = lambda *models: jax.tree.map(lambda *leaves: np.stack(leaves), *models)
    elites = lambda seed: dynamics.first_members(model(seed), SETTINGS.num_elites)
    config: Any = SimpleNamespace(seeds=(4, 9), algo_config=SimpleNamespace(dynamics=SETTINGS))
    hashes = lambda *models: model_hashes(config, SimpleNamespace(model=stack(*models)))
    every = hashes(model(0), model(1))
    assert every == hashes(elites(0), elites(1))
    assert list(every) == ["4", "9"]
    assert every["4"] != every["9"]
    assert every["4"] == hashes(model(0), model(2))["4"]
    assert model_hashes(config, SimpleNamespace()) == {"4": None, "9": None}
