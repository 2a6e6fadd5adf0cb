"""Our data sets as Minari's: written whole, and read back the same, in both of its formats."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import minari
import numpy as np
import pytest
from minari.dataset.minari_storage import MinariStorage

from damorl.data.datasets import Dataset, load_dataset
from damorl.data.minari_export import export_minari
from damorl.errors import UserError
from damorl.types import Array, Transition
from damorl.world.task import Task
from damorl.world.tasks import TASKS, make_env
from damorl.world.terminations import never_ended

FORMATS = ["hdf5", "arrow"]


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Minari store."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return tmp_path / "minari"


def played(num_rows: int = 25) -> Dataset:
    """The hopper moved at random: falls, a cut every seventh row, and an incomplete last episode."""
    env: Any = make_env(TASKS["hopper"])
    env.action_space.seed(0)
    obs, rows = env.reset(seed=0)[0], []
    for step in range(num_rows):
        action = env.action_space.sample()
        next_obs, reward, terminal, *_ = env.step(action)
        terminal, cut = terminal or step == 10, step % 7 == 6
        rows.append((obs, action, reward, next_obs, terminal, cut))
        obs = env.reset()[0] if terminal or cut else next_obs
    keys = ("observations", "actions", "rewards", "next_observations", "terminals", "timeouts")
    arrays = {key: np.array(column) for key, column in zip(keys, zip(*rows, strict=True), strict=True)}
    return load_dataset(arrays, task="hopper", name="hopper-mine")


@pytest.mark.parametrize("data_format", FORMATS)
def test_what_is_exported_is_read_back(store: Path, data_format: str) -> None:
    dataset = replace(played(), metadata={"algorithm_name": "random", "seed": 3, "author": "Ada", "sha256": "0" * 64})
    assert export_minari(dataset, "damorl/hopper/mine-v0", data_format) == store / "damorl/hopper/mine-v0"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read = load_dataset("damorl/hopper/mine-v0")
    for column, expected in zip(read.transitions, dataset.transitions, strict=True):
        np.testing.assert_array_equal(column, expected)
    assert np.asarray(read.transitions.terminal).any()
    np.testing.assert_array_equal(read.truncated[:-1], dataset.truncated[:-1])
    assert (read.truncated[-1], dataset.truncated[-1], read.episode_end.sum()) == (True, False, 5)
    assert read.task == dataset.task == TASKS["hopper"]
    assert {"algorithm_name": "random", "seed": 3, "author": "Ada", "data_format": data_format}.items() <= (
        read.metadata.items()
    )
    export_minari(read, "damorl/hopper/mine-v1", data_format)
    assert load_dataset("damorl/hopper/mine-v1").sha256 == read.sha256
    assert [path.name for path in (store / "damorl/hopper").iterdir() if path.name.startswith(".")] == []


def test_others_can_use_what_is_exported() -> None:
    export_minari(played(), "damorl/hopper/mine-v0")
    assert list(minari.list_local_datasets()) == ["damorl/hopper/mine-v0"]
    dataset = minari.load_dataset("damorl/hopper/mine-v0")
    assert (dataset.total_episodes, dataset.total_steps) == (5, 25)
    assert minari.get_normalized_score(dataset, np.array([3234.3])) == pytest.approx(1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # v4 is out of date
        env = dataset.recover_environment()
    assert env.observation_space.shape == dataset.observation_space.shape == (11,)
    assert dataset[4].truncations[-1]
    first = dataset[0]
    assert (first.observations.shape, first.actions.shape) == ((8, 11), (7, 3))


@pytest.mark.parametrize("data_format", FORMATS)
def test_actions_are_exported_in_the_simulators_units(data_format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    low, high = (-0.4, 1.0), (0.4, 7.0)
    states = rng.normal(size=(41, 3)).astype(np.float32)
    flags = {"terminals": np.zeros(40), "timeouts": np.arange(40) % 8 == 7}
    actions = rng.uniform(low, high, (40, 2))
    arrays = {"obs": states[:-1], "action": actions, "reward": np.arange(40.0), "next_obs": states[1:], **flags}
    monkeypatch.setitem(TASKS, "arm", Task("arm", None, 3, 2, never_ended, action_low=low, action_high=high))
    dataset = load_dataset(arrays, task="arm")
    export_minari(dataset, "lab/gripper-v0", data_format)
    stored = minari.load_dataset("lab/gripper-v0")
    np.testing.assert_allclose(stored[0].actions, actions[:8], rtol=1e-6)
    assert np.array_equal([stored.action_space.low, stored.action_space.high], [low, high])
    read = load_dataset("lab/gripper-v0")
    assert (read.sha256, read.metadata["action_low"]) == (dataset.sha256, "[-0.4, 1.0]")


def test_what_cannot_be_exported_is_refused_and_leaves_nothing(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = played()
    for dataset_id in ("no-version", "a/b-v0", "../up-v0", "wörter/x y-v0"):
        with pytest.raises(UserError, match=re.escape(f"Minari id {dataset_id!r}: expected words")):
            export_minari(dataset, dataset_id)
    with pytest.raises(UserError, match="data_format: expected one of hdf5, arrow, found 'zarr'"):
        export_minari(dataset, "damorl/mine-v0", "zarr")
    next_obs = np.array(dataset.transitions.next_obs)
    next_obs[3] += 1.0
    transitions = Transition(*dataset.transitions)._replace(next_obs=cast(Array, next_obs))
    with pytest.raises(UserError, match=r"hopper-mine: expected each row .*found another after row 3 \(1 such rows\)"):
        export_minari(replace(dataset, transitions=transitions), "damorl/mine-v0")
    monkeypatch.setattr(MinariStorage, "update_metadata", lambda *_: (_ for _ in ()).throw(OSError(28, "No space")))
    with pytest.raises(UserError, match=r"cannot write .*damorl/mine-v0: .*found 'No space'"):
        export_minari(dataset, "damorl/mine-v0")
    monkeypatch.undo()
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(store))
    assert [path.name for path in (store / "damorl").iterdir()] == ["namespace_metadata.json"]
    export_minari(dataset, "damorl/mine-v0")
    with pytest.raises(UserError, match=r"expected an id that is free, found .*damorl/mine-v0; choose another version"):
        export_minari(dataset, "damorl/mine-v0")


@pytest.mark.parametrize("data_format", FORMATS)
def test_an_exported_set_is_checked_against_its_hash(store: Path, data_format: str) -> None:
    export_minari(played(), "damorl/hopper/mine-v0", data_format)
    stored = minari.load_dataset("damorl/hopper/mine-v0").storage
    read = load_dataset("damorl/hopper/mine-v0")
    assert stored.metadata["damorl_sha256"] == read.sha256
    halves = load_dataset("damorl/hopper/mine-v0", action_bounds=(-2, 2))  # other units, other numbers: not compared
    np.testing.assert_array_equal(halves.transitions.action, np.asarray(read.transitions.action) / 2)
    part = minari.load_dataset("damorl/hopper/mine-v0").filter_episodes(lambda episode: episode.id < 2)
    assert load_dataset(part).num_transitions < read.num_transitions
    stored.update_metadata({"damorl_sha256": "0" * 64})
    with pytest.raises(UserError, match=r"metadata/damorl_sha256: expected arrays that hash to 0000"):
        load_dataset("damorl/hopper/mine-v0")
    stored.update_metadata({"damorl_rows": 3})  # it was continued since
    assert load_dataset("damorl/hopper/mine-v0").sha256 == read.sha256
