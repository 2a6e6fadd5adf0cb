"""A run on a file of which only some rows are in memory: which rows they are, what is of all rows, and resuming."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import damorl
from damorl.algos.base import OfflineData
from damorl.cli import main
from damorl.data.datasets import Dataset, load_dataset
from damorl.data.stored import StoredDataset, load_stored
from damorl.errors import UserError
from damorl.experiment import resident
from damorl.experiment.command import train_command
from damorl.experiment.config import LoopConfig, RunConfig, defaults, run_config_from_dict
from damorl.experiment.inputs import make_problem, to_device
from damorl.experiment.resident import rank_rows, resident_data, shares_before, spread_index, stored_units
from damorl.experiment.units import find_units
from damorl.record import checkpoint, store
from tests.interrupting import cut_off_after

SIZE = 90


@pytest.fixture(scope="module")
def whole(hopper_toy: Path) -> Dataset:
    return load_dataset(hopper_toy)


@pytest.fixture(scope="module")
def found(hopper_toy: Path) -> StoredDataset:
    return load_stored(hopper_toy)


def config_of(algo: str, data: str = "hopper-toy", resident_rows: int | None = SIZE) -> RunConfig:
    return RunConfig(algo, data, None, "smoke", (0,), *defaults(algo, "smoke", data), resident_rows=resident_rows)


def test_rows_ascend_and_each_is_as_likely_as_any_other() -> None:
    epochs = 3000
    drawn = np.array([spread_index(7, 5, resident.ROWS_STREAM, epoch) for epoch in range(epochs)])
    assert (np.diff(drawn, axis=1) >= 0).all()
    assert set(np.unique(drawn)) == set(range(7))
    counts = np.bincount(drawn.ravel())
    np.testing.assert_allclose(counts / epochs, 5 / 7, atol=4 * np.sqrt(5 / 7 / epochs))
    assert max(np.bincount(row).max() for row in drawn) <= 2
    np.testing.assert_array_equal(spread_index(7, 5, 0, 3), spread_index(7, 5, 0, 3))
    large = spread_index(10**12, 1000, 0, 0)  # one row in each thousandth
    np.testing.assert_array_equal(large // 10**9, np.arange(1000))


def test_an_epoch_has_rows_of_the_file_and_the_facts_of_all_rows(found: StoredDataset, whole: Dataset) -> None:
    everything = to_device(whole)
    data = resident_data(found, shares_before(found), SIZE, 4)
    index = spread_index(whole.num_transitions, SIZE, resident.ROWS_STREAM, 4)
    for own, expected in zip(data.rows, everything.rows, strict=True):
        np.testing.assert_array_equal(own, expected[index])
    np.testing.assert_array_equal(data.initial_obs, everything.initial_obs)
    returns, expected = (np.asarray(each.episode_returns) for each in (data, everything))
    np.testing.assert_allclose(returns, expected, rtol=1e-6)
    few = resident_data(found, None, 5, 4)
    assert few.initial_obs.shape == (5, 11)  # no more than of rows
    assert any(
        (other != own).any() for own, other in zip(data.rows, resident_data(found, None, SIZE, 5).rows, strict=True)
    )


def test_rows_are_ranked_by_their_episode_among_all_rows(found: StoredDataset, whole: Dataset) -> None:
    expected = to_device(whole).ranking
    before = shares_before(found)
    assert expected is not None
    assert before is not None
    ranking = rank_rows(before, whole.episode)
    np.testing.assert_array_equal(ranking.best_first, expected.best_first)
    np.testing.assert_allclose(ranking.before, expected.before, atol=1e-7)
    some = np.arange(0, whole.num_transitions, 7)
    ranking = rank_rows(before, whole.episode[some])
    reference = some[np.asarray(ranking.best_first)[np.asarray(ranking.before) < 0.3]]
    of_all = np.asarray(expected.best_first)[np.asarray(expected.before) < 0.3]
    assert set(reference) == set(of_all) & set(some)


def test_an_incomplete_episode_ranks_last(tmp_path: Path, whole: Dataset) -> None:
    rows = np.arange(whole.num_transitions)
    cut = dataclasses.replace(whole, truncated=whole.truncated & (rows < 500))
    terminal = np.where(rows < 500, whole.transitions.terminal, 0.0)
    cut = dataclasses.replace(cut, transitions=whole.transitions._replace(terminal=terminal))
    ends = np.flatnonzero(cut.episode_end)
    stored: Any = type("Stored", (), {"ends": ends, "returns": cut.episode_returns(), "num_transitions": len(rows)})
    stored.starts = np.flatnonzero(cut.episode_start)
    expected, before = to_device(cut).ranking, shares_before(stored)
    assert expected is not None
    assert before is not None
    np.testing.assert_array_equal(rank_rows(before, cut.episode).best_first, expected.best_first)


@pytest.mark.parametrize("loop", [LoopConfig(standardise_observations=True, reward_factor="auto"), LoopConfig()])
def test_units_are_those_of_all_rows(loop: LoopConfig, found: StoredDataset, whole: Dataset) -> None:
    ours, expected = stored_units(loop, found), find_units(loop, to_device(whole))
    assert (ours is None) == (expected is None)
    if ours is not None and expected is not None:
        for own, other in zip(ours, expected, strict=True):
            np.testing.assert_allclose(own, other, rtol=1e-4, atol=1e-6)


def test_the_next_epoch_is_drawn_ahead() -> None:
    asked: list[int] = []
    data_of = resident.in_background(lambda epoch: asked.append(epoch) or epoch)  # type: ignore[arg-type, return-value]
    values: list[OfflineData | int] = [data_of(epoch) for epoch in (3, 4, 5, 0)]
    assert values == [3, 4, 5, 0]
    assert asked[:4] == [3, 4, 5, 6]


def from_shell(data: Path, out: Path, *more: str, algo: str = "bc") -> Path:
    clock = ["--total-updates", "30", "--refresh-interval", "10", "--eval-interval", "30"]
    clock += ["--checkpoint-interval", "10", "--eval-episodes", "1"]
    words = ["train", algo, "--dataset", str(data), "--preset", "smoke", *clock, "--resident-rows", str(SIZE)]
    assert main([*words, "--reference-share", "0.5", "--out", str(out), "--json", *more]) == 0
    (run_dir,) = out.iterdir()
    return run_dir


def test_it_resumes_bit_for_bit(hopper_toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = from_shell(hopper_toy, tmp_path / "whole")
    with cut_off_after(20, monkeypatch):
        from_shell(hopper_toy, tmp_path / "halves")
    halves = from_shell(hopper_toy, tmp_path / "halves", "--resume")
    arrays, expected = (load_file(checkpoint.checkpoints(each / "checkpoint")[-1]) for each in (halves, run))
    assert arrays.keys() == expected.keys()
    for name, array in arrays.items():
        assert array.tobytes() == expected[name].tobytes(), name
    config = store.read_json(run / store.CONFIG)
    assert config["resident_rows"] == SIZE
    assert config["data"]["num_transitions"] == 600
    assert not (run / "dataset.json").exists()
    assert (run / "curves.png").exists()


def test_what_needs_all_rows_is_refused(
    hopper_toy: Path, found: StoredDataset, whole: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for algo, reason in (("damo", "fits a model"), ("trajectory-transformer", "whole episodes")):
        with pytest.raises(UserError, match=f"found {algo}, which .*{reason}"):
            resident.check_resident(config_of(algo))
    with pytest.raises(UserError, match="at least 1, found 0"):
        resident.check_resident(config_of("bc", resident_rows=0))
    with pytest.raises(UserError, match="fewer than the 600 rows"):
        resident.resident_work(config_of("bc", resident_rows=600), make_problem(found), found)
    with pytest.raises(UserError, match="in memory: leave it out"):
        damorl.train("bc", whole, "smoke", out=tmp_path, resident_rows=SIZE)
    assert main(["train", "damo", "--dataset", str(hopper_toy), "--resident-rows", "9", "--out", str(tmp_path)]) == 2
    assert "--resident-rows: expected an algorithm" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_run_with_all_rows_in_memory_is_known_as_before() -> None:
    plain, own = config_of("bc", resident_rows=None), config_of("bc")
    assert "resident_rows" not in plain.as_dict()
    assert plain.digest() != own.digest()
    assert run_config_from_dict(own.as_dict()) == own
    assert run_config_from_dict(plain.as_dict()) == plain
    assert train_command(own)[-2:] == ["--resident-rows", str(SIZE)]
