"""Data sets: what is read is what was recorded, and episodes never run into each other."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from damorl.core.returns import discounted_returns
from damorl.data.datasets import (
    Dataset,
    cache_dir,
    dataset_path,
    load_dataset,
    write_dataset,
)
from damorl.data.store import hash_columns
from damorl.errors import UserError
from damorl.types import Spec
from damorl.world.tasks import TASKS, make_env

Arrays = dict[str, Any]
SIX = ("observations", "actions", "rewards", "next_observations", "terminals", "timeouts")


def sound(num_rows: int = 8, obs_dim: int = 3, action_dim: int = 2) -> Arrays:
    """Arrays of one unbroken episode, every number different."""
    rng = np.random.default_rng(num_rows)
    states = rng.normal(size=(num_rows + 1, obs_dim)).astype(np.float32)
    return {
        "observations": states[:-1],
        "actions": rng.uniform(-1, 1, (num_rows, action_dim)).astype(np.float32),
        "rewards": rng.normal(size=num_rows).astype(np.float32),
        "next_observations": states[1:],
        "terminals": np.zeros(num_rows, bool),
        "timeouts": np.zeros(num_rows, bool),
    }


def store(path: Path, arrays: Arrays) -> Path:
    """Write by h5py itself, whatever it is; a key with the value None is left out."""
    with h5py.File(path, "w") as file:
        for key, value in arrays.items():
            if value is not None:
                file[key] = value
    return path


def marked(num_rows: int, *rows: int) -> np.ndarray:
    return np.isin(np.arange(num_rows), rows)


def dataset_of(tmp_path: Path, **changes: Any) -> Dataset:
    return load_dataset(store(tmp_path / "data.hdf5", {**sound(), **changes}))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    arrays = {**sound(), "terminals": marked(8, 3), "timeouts": marked(8, 5)}
    extras = {"infos/qpos": np.ones((8, 2)), "infos/action_log_probs": np.arange(8.0)}
    path = tmp_path / "new" / "mine.hdf5"
    sha256 = write_dataset(path, {**arrays, **extras}, {"algorithm": "SAC", "seed": 3, "policy/score": 0.5})
    dataset = load_dataset(path)
    obs, action, reward, next_obs, terminal = dataset.transitions
    np.testing.assert_array_equal(obs, arrays["observations"])
    np.testing.assert_array_equal(action, arrays["actions"])
    np.testing.assert_array_equal(reward, arrays["rewards"])
    np.testing.assert_array_equal(next_obs, arrays["next_observations"])
    np.testing.assert_array_equal(terminal, [0, 0, 0, 1, 0, 0, 0, 0])
    np.testing.assert_array_equal(dataset.truncated, arrays["timeouts"])
    assert {np.asarray(column).dtype for column in dataset.transitions} == {np.dtype(np.float32)}
    assert all(isinstance(column, np.ndarray) for column in dataset.transitions)
    assert dataset.sha256 == sha256 == hash_columns(arrays)
    assert dataset.metadata == {"algorithm": "SAC", "seed": 3, "policy/score": 0.5, "sha256": sha256}
    assert (dataset.name, dataset.task, dataset.path) == ("mine", None, path)
    assert (dataset.num_transitions, dataset.spec) == (8, Spec(3, 2))
    with h5py.File(path) as file:
        contents: Any = file
        np.testing.assert_array_equal(contents["infos/qpos"], np.ones((8, 2)))
        assert contents["terminals"].dtype == bool
    assert list(path.parent.iterdir()) == [path]


def test_the_hash_is_of_types_shapes_and_values_only(tmp_path: Path) -> None:
    arrays = sound()
    sha256 = hash_columns(arrays)
    doubles = {key: value.astype(np.float64) for key, value in arrays.items()}
    assert (
        dataset_of(tmp_path).sha256 == hash_columns(doubles) == hash_columns(dict(reversed(arrays.items()))) == sha256
    )
    for key in SIX:
        changed = arrays[key].copy()
        changed.flat[-1] = 1 - changed.flat[-1]
        assert hash_columns({**arrays, key: changed}) != sha256
    wide, narrow = (np.zeros(shape, np.float32) for shape in ((2, 3), (3, 2)))
    assert hash_columns({**arrays, "actions": wide}) != hash_columns({**arrays, "actions": narrow})


def test_doubles_are_rounded_once_and_actions_a_hair_too_large_are_clipped(tmp_path: Path) -> None:
    obs = np.random.default_rng(0).normal(size=(8, 3))
    actions = np.full((8, 2), 0.5)
    actions[2] = 1.00009, -1.00009
    dataset = dataset_of(tmp_path, observations=obs, actions=actions, terminals=np.eye(8)[3])
    np.testing.assert_array_equal(dataset.transitions.obs, obs.astype(np.float32))
    np.testing.assert_array_equal(dataset.transitions.action[2], [1.0, -1.0])
    np.testing.assert_array_equal(dataset.transitions.terminal, np.eye(8)[3])


def test_episodes_by_hand(tmp_path: Path) -> None:
    rewards = np.array([1, 2, 4, 8, 16, 32, 64, 128.0])
    flags = {"terminals": marked(8, 1, 5), "timeouts": marked(8, 2, 5)}  # row 5 carries both flags and keeps both
    dataset = dataset_of(tmp_path, rewards=rewards, **flags)
    assert dataset.transitions.terminal[5] == 1.0
    assert dataset.truncated[5]
    np.testing.assert_array_equal(dataset.episode_start, marked(8, 0, 2, 3, 6))
    np.testing.assert_array_equal(dataset.episode, [0, 0, 1, 2, 2, 2, 3, 3])
    np.testing.assert_array_equal(dataset.initial_obs(), sound()["observations"][[0, 2, 3, 6]])
    np.testing.assert_array_equal(dataset.episode_returns(), [3, 4, 56])  # the last episode is not complete
    np.testing.assert_array_equal(dataset.episode_lengths(), [2, 1, 3])
    np.testing.assert_allclose(
        discounted_returns(rewards, dataset.episode_end, 0.5), [2, 2, 4, 24, 32, 32, 128, 128], rtol=0
    )
    assert dataset.best_discounted_return(0.5) == 32


def test_no_complete_episode(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path)
    assert dataset.episode_returns().shape == dataset.episode_lengths().shape == (0,)
    np.testing.assert_array_equal(dataset.episode_start, marked(8, 0))
    assert np.isnan(dataset.best_discounted_return(0.9))
    assert dataset.best_discounted_return(0.3) == pytest.approx(
        max(sum(0.3**t * r for t, r in enumerate(sound()["rewards"][i:])) for i in range(5))  # 0.3^4 < 1 % < 0.3^3
    )


def test_the_best_return_ignores_the_cut_tails_of_episodes(tmp_path: Path) -> None:
    """Always -1, for ever: its value is -1 / (1 - gamma), though the last rows of the record see but one -1."""
    rewards, flags = np.full(8, -1.0), marked(8, 7)
    cut = dataset_of(tmp_path, rewards=rewards, timeouts=flags)
    assert cut.best_discounted_return(0.5) == pytest.approx(-2, rel=0.01)
    fallen = dataset_of(tmp_path, rewards=rewards, terminals=flags)
    assert fallen.best_discounted_return(0.5) == -1.0


def test_rebuilt_next_observations_never_cross_an_episodes_end(tmp_path: Path) -> None:
    flags = {"terminals": marked(8, 2), "timeouts": marked(8, 3, 6)}
    dataset = dataset_of(tmp_path, next_observations=None, **flags)
    obs, kept = sound()["observations"], [0, 1, 4, 5]  # rows 2, 3 and 6 end episodes; nothing follows row 7
    np.testing.assert_array_equal(dataset.transitions.obs, obs[kept])
    np.testing.assert_array_equal(dataset.transitions.next_obs, obs[np.add(kept, 1)])
    np.testing.assert_array_equal(dataset.transitions.terminal, [0, 0, 0, 0])
    np.testing.assert_array_equal(dataset.truncated, [False, True, False, True])
    assert dataset.metadata["next_observations"] == "rebuilt"


def test_missing_timeouts_are_seen_where_the_states_jump(tmp_path: Path) -> None:
    arrays = sound()
    arrays["next_observations"] = arrays["next_observations"] + 1e-6  # rounding is no jump
    arrays["next_observations"][[2, 5, 7]] += 1.0
    dataset = dataset_of(tmp_path, **{**arrays, "timeouts": None, "terminals": marked(8, 5)})
    np.testing.assert_array_equal(dataset.truncated, marked(8, 2))  # 5 is terminal, and nothing follows 7


def test_rebuilt_states_are_those_of_the_simulator(tmp_path: Path) -> None:
    env: Any = make_env(TASKS["hopper"])
    env.action_space.seed(0)
    obs, arrays = env.reset(seed=0)[0], {key: [] for key in SIX}
    for step in range(400):
        action = env.action_space.sample()
        next_obs, reward, terminal, *_ = env.step(action)
        timeout = step % 7 == 6
        for key, value in zip(SIX, (obs, action, reward, next_obs, terminal, timeout), strict=True):
            arrays[key].append(value)
        obs = env.reset()[0] if terminal or timeout else next_obs
    path = store(tmp_path / "hopper_random-v2.hdf5", arrays)
    true = load_dataset(path)
    assert true.task is TASKS["hopper"]
    rebuilt = load_dataset(store(path, {**arrays, "next_observations": None})).transitions
    inside = np.flatnonzero(~true.episode_end[:-1])
    for built, recorded in zip(rebuilt, true.transitions, strict=True):
        np.testing.assert_array_equal(built, np.asarray(recorded)[inside])
    inferred = load_dataset(store(path, {**arrays, "timeouts": None}))
    np.testing.assert_array_equal(inferred.episode_start, true.episode_start)


def test_built_in_sets_lie_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAMORL_HOME", str(tmp_path))
    path = dataset_path("hopper-medium", 5000, seed=2)
    assert path == tmp_path / "datasets" / "hopper-medium-5000-seed2.hdf5"
    with pytest.raises(UserError, match=r"not made yet \(.*\): run `damorl data make hopper-medium --steps 5000`$"):
        load_dataset("hopper-medium", num_steps=5000, seed=2)
    with pytest.raises(UserError, match=r"run `damorl data make walker2d-random`$"):
        load_dataset("walker2d-random")
    write_dataset(path, sound(9, 11, 3), {})
    dataset = load_dataset("hopper-medium", num_steps=5000, seed=2)
    assert (dataset.name, dataset.task, dataset.path) == ("hopper-medium", TASKS["hopper"], path)
    monkeypatch.delenv("DAMORL_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert cache_dir().name == "damorl"


def test_the_task_comes_from_the_name_or_the_caller(tmp_path: Path) -> None:
    path = store(tmp_path / "walker2d_medium-v2.hdf5", sound(4, 17, 6))
    assert load_dataset(path).task is TASKS["walker2d"]
    assert load_dataset(str(path), task="halfcheetah").task is TASKS["halfcheetah"]
    assert load_dataset(store(tmp_path / "x", sound(4, 17, 6))).task is None


@pytest.mark.parametrize("source", ["hopper-medim", "hopper-mediun-v2", "D4RL"])
def test_an_unknown_name_is_not_mistaken_for_a_path(source: str) -> None:
    with pytest.raises(
        UserError, match=rf"unknown data set '{source}': (did you mean 'hopper-medium'|expected one of)"
    ):
        load_dataset(source)


def test_a_folder_that_is_a_file_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*file/data.hdf5: .*choose another place"):
        write_dataset(tmp_path / "file" / "data.hdf5", sound(), {})


@pytest.mark.parametrize("full", ["really", "simulated"])
def test_a_full_disk_keeps_the_old_file_and_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: str
) -> None:
    path = tmp_path / "data.hdf5"
    sha256 = write_dataset(path, sound(), {})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    if full == "simulated":
        reason = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(reason))
    try:
        if full == "really":  # the kernel refuses to let any file grow beyond this many bytes
            resource.setrlimit(resource.RLIMIT_FSIZE, (16_384, limits[1]))
        with pytest.raises(
            UserError, match=r"No space left.*free some space" if full == "simulated" else r"found 'File too large'"
        ):
            write_dataset(path, sound(10_000), {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == [path]
    assert load_dataset(path).sha256 == sha256


def test_an_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_dataset(tmp_path / "data.hdf5", sound(), {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "changes",
    [{"timeouts": None}, {"reward": np.zeros(8)}, {"rewards": np.zeros(7)}, {"actions": np.full((8, 2), 1.1)}],
)
def test_only_whole_sets_are_written(tmp_path: Path, changes: Arrays) -> None:
    arrays = {key: value for key, value in {**sound(), **changes}.items() if value is not None}
    with pytest.raises(ValueError, match="not a data set"):
        write_dataset(tmp_path / "data.hdf5", arrays, {})


def test_bytes_that_rotted_on_disk_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "data.hdf5"
    write_dataset(path, sound(500), {})
    with h5py.File(path) as file:
        offset = file["observations"].id.get_chunk_info(0).byte_offset
    rotten = bytearray(path.read_bytes())
    rotten[offset + 40] ^= 1
    path.write_bytes(rotten)
    with pytest.raises(UserError, match=r"data.hdf5: observations: .*found damaged"):
        load_dataset(path)
