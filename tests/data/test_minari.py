"""Minari: real stores in both formats are read, or refused with the reason."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import gymnasium
import h5py
import minari
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, Space
from minari import MinariDataset
from minari.data_collector import EpisodeBuffer
from minari.dataset.minari_storage import MinariStorage
from minari.storage import get_dataset_path

from damorl.data.check import find_problems
from damorl.data.datasets import load_dataset
from damorl.errors import UserError
from damorl.world.tasks import TASKS

STATES, ACTIONS = Box(-np.inf, np.inf, (3,), np.float64), Box(-1, 1, (2,), np.float32)
FORMATS = ["hdf5", "arrow"]


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Minari store."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return tmp_path / "minari"


def episode(length: int, end: str, spaces: tuple[Space[Any], Space[Any]] = (STATES, ACTIONS)) -> EpisodeBuffer:
    """`end` is `fell`, `cut` or `just stops`."""
    for i, space in enumerate(spaces):
        space.seed(length + i)
    last = np.arange(length) == length - 1
    columns: dict[str, Any] = {
        "observations": np.array([spaces[0].sample() for _ in range(length + 1)]),
        "actions": np.array([spaces[1].sample() for _ in range(length)]),
        "rewards": np.arange(length) / 8,
        "terminations": last & (end == "fell"),
        "truncations": last & (end == "cut"),
    }
    return EpisodeBuffer(**columns)


def make_store(
    dataset_id: str,
    data_format: str = "hdf5",
    spaces: tuple[Space[Any], Space[Any]] = (STATES, ACTIONS),
    env_spec: Any = None,
    episodes: list[EpisodeBuffer] | None = None,
    **metadata: Any,
) -> list[EpisodeBuffer]:
    """A data set in Minari's store, written by Minari."""
    folder = Path(get_dataset_path(dataset_id)) / "data"
    folder.mkdir(parents=True)
    storage = MinariStorage.new(folder, *spaces, env_spec=env_spec, data_format=data_format)
    storage.update_metadata({"dataset_id": dataset_id, "minari_version": minari.__version__, **metadata})
    if episodes is None:
        episodes = [episode(3, "fell", spaces), episode(1, "cut", spaces), episode(4, "just stops", spaces)]
    if episodes:
        storage.update_episodes(episodes)
    return episodes


def refusal(source: Any, **options: Any) -> str:
    with pytest.raises(UserError) as error:
        load_dataset(source, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("data_format", FORMATS)
def test_states_are_one_more_than_actions_and_flags_stay_apart(store: Path, data_format: str) -> None:
    first, second, third = make_store("lab/arm/wave-v0", data_format, author={"Ada", "Bo"}, algorithm_name="SAC")
    dataset = load_dataset("lab/arm/wave-v0")
    states = [np.asarray(part.observations) for part in (first, second, third)]
    np.testing.assert_array_equal(dataset.transitions.obs, np.concatenate([s[:-1] for s in states]).astype(np.float32))
    np.testing.assert_array_equal(
        dataset.transitions.next_obs, np.concatenate([s[1:] for s in states]).astype(np.float32)
    )
    np.testing.assert_array_equal(dataset.transitions.reward, [0, 0.125, 0.25, 0, 0, 0.125, 0.25, 0.375])
    np.testing.assert_array_equal(dataset.transitions.terminal, [0, 0, 1, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(dataset.truncated, np.isin(np.arange(8), [3, 7]))  # the last one just stops
    assert (dataset.dtypes["observations"], dataset.dtypes["actions"]) == ("float64", "float32")
    assert (dataset.name, dataset.task, dataset.path) == ("lab/arm/wave-v0", None, store / "lab/arm/wave-v0/data")
    expected = {"dataset_id": "lab/arm/wave-v0", "author": "Ada, Bo", "algorithm_name": "SAC"}
    assert expected.items() <= dataset.metadata.items()
    assert [problem.message.split(": ")[-1] for problem in find_problems("lab/arm/wave-v0")] == [
        "episodes last 2.7 steps on average"
    ]


@pytest.mark.parametrize("data_format", FORMATS)
def test_by_id_by_prefixed_id_and_by_object(data_format: str) -> None:
    make_store("wave-v1", data_format)
    dataset = load_dataset("minari:wave-v1")
    assert dataset.name == "minari:wave-v1"  # by which it is found again
    whole = minari.load_dataset("wave-v1")
    assert load_dataset(whole).sha256 == dataset.sha256
    part = load_dataset(whole.filter_episodes(lambda episode: len(episode) > 1))
    np.testing.assert_array_equal(part.episode_lengths(), [3, 4])
    assert "columns: expected none for a Minari data set" in refusal(whole, columns={"obs": "states"})


def test_a_data_set_that_is_not_here_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_store("mujoco/hopper/medium-v1")
    message = refusal("mujoco/hopper/medium-v0")
    assert "run `minari download mujoco/hopper/medium-v0`; on this machine there are mujoco/hopper/medium-v1" in message
    assert "found neither; run `minari download some/other-v3`" in refusal("some/other-v3")
    with pytest.raises(UserError, match="minari download door-v0"):
        find_problems("minari:door-v0")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "data-v0").write_text("a file comes before an id")
    assert "found a file that is not HDF5" in refusal("folder/data-v0")


@pytest.mark.parametrize(
    ("spaces", "found"),
    [
        ((Dict({"goal": STATES}), ACTIONS), "found observations in Dict('goal': Box(-inf, inf, (3,), float64));"),
        ((Box(0, 255, (4, 4, 3), np.uint8), ACTIONS), "found observations in Box(0, 255, (4, 4, 3), uint8);"),
        ((Box(0, 255, (3,), np.uint8), ACTIONS), "found observations in Box(0, 255, (3,), uint8);"),
        ((STATES, Discrete(4)), "found actions in Discrete(4); damorl takes neither images"),
        ((STATES, Box(0, 5, (2,), np.int64)), "found actions in Box(0, 5, (2,), int64);"),
    ],
)
def test_spaces_that_are_no_vectors_are_named_and_refused(spaces: Any, found: str) -> None:
    make_store("lab/other-v0", spaces=spaces, episodes=[])
    message = refusal("lab/other-v0")
    assert message.startswith("minari:lab/other-v0: expected a Minari data set of state vectors and continuous actions")
    assert found in message
    assert [problem.message for problem in find_problems("lab/other-v0")] == [message]


def broken_episode() -> EpisodeBuffer:
    return replace(episode(3, "fell"), observations=cast(Any, np.zeros((3, 3))))


def cut_file(folder: Path) -> None:
    path = folder / "main_data.hdf5"
    path.write_bytes(path.read_bytes()[:-200])


def other_version(folder: Path) -> None:
    path = folder / "metadata.json"
    path.write_text(path.read_text().replace(minari.__version__, "0.1.0"))


def wrong_total(folder: Path) -> None:
    path = folder / "metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"total_steps": 9}))


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (cut_file, "episodes that cannot be read (Unable to"),
        (other_version, "one that Minari cannot open (The installed Minari version"),
        (wrong_total, r"episodes that cannot be read (8 of 9 steps)"),
        (lambda folder: (folder / "metadata.json").write_text("{"), "one that Minari cannot open ("),
        (lambda folder: (folder / "metadata.json").unlink(), "one that Minari cannot open (No data found"),
        (lambda folder: (folder / "main_data.hdf5").unlink(), "one that Minari cannot open (No data found"),
    ],
)
def test_damaged_stores_are_refused(store: Path, spoil: Callable[[Path], None], found: str) -> None:
    make_store("lab/wave-v0")
    spoil(store / "lab/wave-v0/data")
    message = refusal("lab/wave-v0")
    assert f"found {found}" in message
    assert message.endswith("make it again, or `minari download lab/wave-v0 --force`")
    assert [problem.severity for problem in find_problems("lab/wave-v0")] == ["error"]


def test_episodes_without_their_last_state_are_refused() -> None:
    make_store("lab/wave-v0", episodes=[episode(2, "cut"), broken_episode()])
    assert "(episode 1 has 3 observations and 3 actions)" in refusal("lab/wave-v0")
    make_store("lab/none-v0", episodes=[])
    assert "found no episodes; give a larger data set" in refusal("lab/none-v0")


def hopper_store(dataset_id: str, env_id: str, spec_changes: dict[str, Any] | None = None, **metadata: Any) -> None:
    spec = gymnasium.spec(env_id)
    for key, value in (spec_changes or {}).items():
        setattr(spec, key, value)
    spaces = (Box(-np.inf, np.inf, (11,), np.float64), Box(-1, 1, (3,), np.float32))
    make_store(dataset_id, spaces=spaces, env_spec=spec, **metadata)


def test_data_are_scored_where_and_as_they_were_recorded() -> None:
    hopper_store("mujoco/hopper/medium-v0", "Hopper-v5", ref_min_score=10.0, ref_max_score=3000.0)
    task = load_dataset("mujoco/hopper/medium-v0").task
    assert task is not None
    assert (task.env_id, task.reference_min, task.reference_max) == ("Hopper-v5", 10.0, 3000.0)
    dataset = load_dataset("mujoco/hopper/medium-v0", task="hopper")
    assert dataset.task == replace(TASKS["hopper"], reference_min=10.0, reference_max=3000.0)
    assert (dataset.metadata["ref_min_score"], dataset.metadata["ref_max_score"]) == (10.0, 3000.0)
    assert load_dataset("mujoco/hopper/medium-v0", task="none").task is None
    hopper_store("mujoco/hopper/old-v0", "Hopper-v4")
    assert load_dataset("mujoco/hopper/old-v0").task is TASKS["hopper"]
    hopper_store("mujoco/hopper/seen-v0", "Hopper-v4", {"kwargs": {"render_mode": "rgb_array"}})
    assert load_dataset("mujoco/hopper/seen-v0").task is TASKS["hopper"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"id": "Hoper-v4"}, "cannot open its simulator 'Hoper-v4'"),
        ({"kwargs": {"terminate_when_unhealthy": False}}, r"options of its own \(terminate_when_unhealthy=False\)"),
        ({"id": "HalfCheetah-v4"}, r"expected \(17, 6\) observations and actions, found \(11, 3\)"),
    ],
)
def test_an_environment_that_cannot_be_had_is_done_without(changes: dict[str, Any], reason: str) -> None:
    hopper_store("mujoco/hopper/medium-v0", "Hopper-v4")
    path = Path(get_dataset_path("mujoco/hopper/medium-v0")) / "data" / "metadata.json"
    metadata = json.loads(path.read_text())
    path.write_text(json.dumps(metadata | {"env_spec": json.dumps(json.loads(metadata["env_spec"]) | changes)}))
    with pytest.warns(UserWarning, match=f"recorded in .*, so training goes without: .*{reason}") as remarks:
        dataset = load_dataset("mujoco/hopper/medium-v0")
    assert len(remarks) == 1
    assert dataset.task is None
    (problem,) = (problem for problem in find_problems("mujoco/hopper/medium-v0") if problem.key == "env_spec")
    assert (problem.severity, problem.message) == ("warning", str(remarks[0].message))
    assert load_dataset("mujoco/hopper/medium-v0", task="hopper").task is TASKS["hopper"]


@pytest.mark.parametrize("data_format", FORMATS)
def test_no_steps_are_told_in_one_sentence(data_format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make_store("lab/none-v0", data_format, episodes=[])
    assert "found no episodes; give a larger data set" in refusal("lab/none-v0")
    make_store("lab/short-v0", data_format)
    empty = cast(Any, SimpleNamespace(id=4, rewards=[], observations=[[0.0]], actions=[]))
    monkeypatch.setattr(MinariDataset, "iterate_episodes", lambda self: iter([empty]))
    assert "found episodes that cannot be read (episode 4 has no steps)" in refusal("lab/short-v0")


def test_a_folder_that_leads_out_of_itself_is_refused(store: Path, tmp_path: Path) -> None:
    make_store("lab/linked-v0", "hdf5")
    os.mkfifo(tmp_path / "pipe")
    main = store / "lab/linked-v0/data/main_data.hdf5"
    with h5py.File(main, "a") as file:
        del file["episode_1/rewards"]
        file["episode_1/rewards"] = h5py.ExternalLink(tmp_path / "pipe", "x")
    assert "main_data.hdf5 holds a link at /episode_1/rewards" in refusal("lab/linked-v0")
    main.unlink()
    os.mkfifo(main)
    assert "main_data.hdf5 is no file but a directory, a pipe or a device" in refusal("lab/linked-v0")
