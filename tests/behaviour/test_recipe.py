"""Data sets by the recipe: the same from the same seed, in the right order, never made twice."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from damorl.behaviour import recipe
from damorl.behaviour.collect import Rows, collect_shard
from damorl.behaviour.policies import Behaviours
from damorl.behaviour.recipe import make_dataset, plan
from damorl.data.datasets import load_dataset
from damorl.data.store import COLUMNS, EXTRAS
from damorl.errors import UserError


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch, behaviours: Behaviours) -> None:
    """The stand-in policies instead of the shipped ones, and small shards."""
    monkeypatch.setattr(recipe, "load_policies", lambda task_name: behaviours)
    monkeypatch.setattr(recipe, "SHARD_STEPS", 100)


@pytest.fixture
def one_process(monkeypatch: pytest.MonkeyPatch, stand_ins: None) -> None:
    """Collect right here: only the test of the pool needs the pool."""
    monkeypatch.setattr(recipe, "run_shards", lambda shards, workers: map(collect_shard, shards))


def make(name: str, num_steps: int, path: Path, seed: int = 0, workers: int = 1) -> Rows:
    make_dataset(name, num_steps, seed, path, workers, progress=False)
    with h5py.File(path) as file:
        return {key: np.asarray(file[key]) for key in (*COLUMNS, *EXTRAS)}


@pytest.mark.usefixtures("stand_ins")
def test_any_number_of_workers_makes_the_same_rows_and_another_seed_others(tmp_path: Path):
    one = make("hopper-medium-expert", 150, tmp_path / "one.hdf5", workers=1)
    two = make("hopper-medium-expert", 150, tmp_path / "two.hdf5", workers=2)
    other = make("hopper-medium-expert", 150, tmp_path / "other.hdf5", seed=1, workers=2)
    for key in one:
        np.testing.assert_array_equal(one[key], two[key])
    assert not np.isin(other["observations"][:, 0], one["observations"][:, 0]).any()


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize("quality", ["random", "medium", "medium-replay", "medium-expert"])
def test_size_and_boundaries(quality: str, tmp_path: Path):
    rows = make(f"hopper-{quality}", 601, tmp_path / "set.hdf5")
    obs, next_obs, ends = rows["observations"], rows["next_observations"], rows["terminals"] | rows["timeouts"]
    assert len(obs) == (1202 if quality == "medium-expert" else 601)
    continued = (obs[1:] == next_obs[:-1]).all(axis=1)
    np.testing.assert_array_equal(continued, ~ends[:-1])  # episodes meet at a flag, and nowhere else


@pytest.mark.usefixtures("one_process")
def test_medium_expert_is_medium_then_expert_and_begins_as_medium_does(tmp_path: Path):
    both, medium = (
        make("hopper-medium-expert", 300, tmp_path / "a.hdf5"),
        make("hopper-medium", 300, tmp_path / "b.hdf5"),
    )
    by_expert = both["actions"][:, 0] > 0.7
    first = int(by_expert.argmax())
    np.testing.assert_array_equal(by_expert, np.arange(600) >= first)
    assert 300 <= first < 400  # the last medium episode is finished
    assert both["terminals"][first - 1]
    np.testing.assert_array_equal(both["observations"][:300], medium["observations"])


@pytest.mark.usefixtures("one_process")
def test_replay_goes_from_the_oldest_to_the_newest_in_equal_shares(tmp_path: Path):
    actions = make("hopper-medium-replay", 800, tmp_path / "set.hdf5")["actions"][:, 0]
    actor = np.rint((actions + 0.8) / 0.2).astype(int)
    assert (np.diff(actor) >= 0).all()
    np.testing.assert_allclose(np.searchsorted(actor, [1, 2, 3]), [200, 400, 600], atol=100)
    assert (np.searchsorted(actor, [1, 2, 3]) >= [200, 400, 600]).all()


def test_shares_smaller_than_a_step_are_left_out(behaviours: Behaviours):
    assert [(part.label, part.start, part.end) for part in plan("medium-replay", 2, behaviours)] == [
        ("replay/1", 0, 1),
        ("replay/3", 1, 2),
    ]


@pytest.mark.usefixtures("one_process")
def test_the_loader_reads_it_by_name_and_the_metadata_tells_whose_it_is(tmp_path: Path, behaviours: Behaviours):
    path = make_dataset("hopper-medium", 250, seed=3, progress=False)
    data = load_dataset("hopper-medium", num_steps=250, seed=3)
    assert data.path == path
    assert data.num_transitions == 250
    assert data.metadata["sha256"] == data.sha256
    assert data.metadata["origin"] == "damorl"
    assert "mujoco" in json.loads(str(data.metadata["versions"]))
    assert json.loads(str(data.metadata["behaviours"])) == behaviours.card
    assert not data.truncated.any()
    assert not data.episode_end[-1]  # cut, not ended


@pytest.mark.usefixtures("one_process")
def test_the_same_request_is_not_made_twice_but_new_policies_are_a_new_request(
    monkeypatch: pytest.MonkeyPatch, behaviours: Behaviours
):
    path = make_dataset("hopper-medium", 120, seed=4, progress=False)
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(recipe, "collect", None)
        assert make_dataset("hopper-medium", 120, seed=4, workers=7) == path
    monkeypatch.setattr(recipe, "load_policies", lambda name: behaviours._replace(medium=behaviours.expert, sha256="x"))
    assert make_dataset("hopper-medium", 120, seed=4, progress=False) == path
    assert path.read_bytes() != before


@pytest.mark.usefixtures("one_process")
def test_a_damaged_file_in_the_cache_is_made_again():
    path = make_dataset("hopper-random", 120, seed=5, progress=False)
    path.write_bytes(path.read_bytes()[:1000])
    make_dataset("hopper-random", 120, seed=5, progress=False)
    assert load_dataset(path).num_transitions == 120


@pytest.mark.usefixtures("one_process")
def test_a_file_of_the_users_is_never_overwritten(tmp_path: Path):
    path = tmp_path / "mine.hdf5"
    path.write_text("precious")
    with pytest.raises(UserError, match=r"mine\.hdf5: expected no file, or hopper-random of 50 steps and seed 0"):
        make_dataset("hopper-random", 50, path=path, progress=False)
    assert path.read_text() == "precious"


@pytest.mark.usefixtures("one_process")
def test_an_interrupted_collection_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def interrupted(shard: object) -> Rows:
        raise KeyboardInterrupt

    monkeypatch.setattr(recipe, "run_shards", lambda shards, workers: map(interrupted, shards))
    with pytest.raises(KeyboardInterrupt):
        make_dataset("hopper-random", 50, path=tmp_path / "set.hdf5", progress=False)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("DAMORL_HOME", str(tmp_path))
    half, other = (tmp_path / "datasets" / f".hopper-random-{n}-seed0.hdf5.77.tmp" for n in (50, 60))
    half.parent.mkdir()
    half.touch()
    other.touch()

    def look(*_: object) -> Rows:
        assert (half.exists(), other.exists()) == (False, True)
        raise KeyboardInterrupt

    monkeypatch.setattr(recipe, "collect", look)
    with pytest.raises(KeyboardInterrupt):
        make_dataset("hopper-random", 50, progress=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "hopper-medum"}, "did you mean 'hopper-medium'"),
        ({"name": "hopper-random", "num_steps": 0}, "num_steps: expected at least 1, found 0"),
        ({"name": "hopper-random", "seed": -1}, "seed: expected at least 0, found -1"),
        ({"name": "hopper-random", "workers": 0}, "workers: expected at least 1, found 0"),
    ],
)
def test_impossible_requests_are_refused(arguments: dict, message: str):
    with pytest.raises(UserError, match=message):
        make_dataset(**arguments)
