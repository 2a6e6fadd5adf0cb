"""Arrays by name: whatever they are called, they are the same data set, or it is said what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import jax.numpy as jnp
import numpy as np
import pytest

from damorl.data.check import find_problems
from damorl.data.datasets import Dataset, load_dataset, write_dataset
from damorl.data.names import NAMES
from damorl.errors import UserError
from damorl.world.task import Task, to_unit
from damorl.world.tasks import TASKS
from damorl.world.terminations import never_ended
from damorl.world.units import from_metadata, from_unit

Arrays = dict[str, Any]


def sound(num_rows: int = 8) -> Arrays:
    """Arrays of one unbroken episode, every number different."""
    rng = np.random.default_rng(num_rows)
    states = rng.normal(size=(num_rows + 1, 3)).astype(np.float32)
    return {
        "observations": states[:-1],
        "actions": rng.uniform(-0.9, 0.9, (num_rows, 2)).astype(np.float32),
        "rewards": rng.normal(size=num_rows).astype(np.float32),
        "next_observations": states[1:],
        "terminals": np.zeros(num_rows, bool),
        "timeouts": np.zeros(num_rows, bool),
    }


def without(*keys: str) -> Arrays:
    return {key: array for key, array in sound().items() if key not in keys}


def refusal(source: Any, **options: Any) -> str:
    """The one sentence that loader and checker agree on."""
    with pytest.raises(UserError) as error:
        load_dataset(source, **options)
    first = find_problems(source, **options)[0]
    assert (first.severity, first.message) == ("error", str(error.value))
    assert "\n" not in first.message
    return first.message


def warnings_of(dataset: Arrays) -> dict[str, str]:
    return {problem.key: problem.message for problem in find_problems(dataset)}


def test_a_dictionary_is_a_data_set() -> None:
    arrays = sound()
    dataset = load_dataset(arrays)
    assert (dataset.name, dataset.path, dataset.task) == ("arrays", None, None)
    named = load_dataset({**arrays, "notes": "ignored"}, name="reactor")
    assert (named.name, named.sha256) == ("reactor", dataset.sha256)
    others = {**arrays, "observations": jnp.asarray(arrays["observations"]), "rewards": arrays["rewards"].tolist()}
    assert load_dataset(others).sha256 == dataset.sha256
    arrays["observations"][:] = 7.0
    assert (np.asarray(dataset.transitions.obs) != 7.0).all()  # the user's array is not ours


@pytest.mark.parametrize("key", sorted(sound()))
def test_every_name_in_the_table_means_the_same(key: str) -> None:
    sha256 = load_dataset(sound()).sha256
    for name in NAMES[key]:
        assert load_dataset({**without(key), name: sound()[key]}).sha256 == sha256
    for name in NAMES[key][1:]:
        message = refusal({**sound(), name: sound()[key]})
        assert f"arrays: {key}: expected one array, found both {key} and {name}; remove one, or say" in message
        assert load_dataset({**sound(), name: np.zeros(3)}, columns={key: key}).sha256 == sha256


def test_vectors_may_be_spread_over_numbered_columns() -> None:
    arrays = without("observations")
    columns = dict(enumerate(sound()["observations"].T))
    spread = {f"obs_{i}": columns[i] for i in (2, 0, 1)}
    assert load_dataset(arrays | spread).sha256 == load_dataset(sound()).sha256
    gap = refusal(arrays | {"obs_0": columns[0], "obs_2": columns[1]})
    assert "observations: expected obs_0, obs_1, ... without a gap, found obs_0, obs_2;" in gap
    both = refusal({**sound(), **spread})
    assert "observations: expected one array, found both observations and obs_0" in both
    episodes = refusal(arrays | {f"observations_{i}": np.zeros((8, 3)) for i in range(2)})
    assert "found float64 of shape (8, 3) in observations_0" in episodes
    lengths = refusal(arrays | {"obs_0": columns[0], "obs_1": columns[1][:4]})
    assert "found 8 rows in obs_0, 4 rows in obs_1" in lengths


def test_columns_says_which_array_is_which(tmp_path: Path) -> None:
    arrays = without("observations", "rewards") | {"r": sound()["rewards"], "reward": np.ones(8)}
    arrays |= {"angle": sound()["observations"][:, 0], "rest": sound()["observations"][:, 1:]}
    columns = {"obs": ["angle", "rest"], "rewards": "r"}
    sha256 = load_dataset(sound()).sha256
    assert load_dataset(arrays, columns=columns).sha256 == sha256
    np.savez(tmp_path / "data.npz", **arrays)
    assert load_dataset(tmp_path / "data.npz", columns=columns).sha256 == sha256
    with h5py.File(tmp_path / "data.hdf5", "w") as file:
        for key, value in arrays.items():
            file[f"deep/{key}"] = value
    deep: Any = {key: f"deep/{key}" for key in ("actions", "next_observations", "terminals", "timeouts")}
    deep |= {"obs": ["deep/angle", "deep/rest"], "rewards": "deep/r"}
    assert load_dataset(tmp_path / "data.hdf5", columns=deep).sha256 == sha256
    over = {**without("timeouts"), "done": np.arange(8) == 3}  # named as timeouts, it is not the terminals as well
    np.testing.assert_array_equal(load_dataset(over, columns={"timeouts": "done"}).truncated, over["done"])
    wrong = refusal(arrays, columns={**columns, "rewards": "gain"})
    assert "rewards: expected what `columns` names, found no 'gain' among " in wrong
    assert "rewards: expected this array, found only" in refusal(without("rewards") | {"r": sound()["rewards"]})
    for bad in ({"reward": "r", "rewards": "r"}, {"obs": []}):
        with pytest.raises(UserError, match=r"columns: expected each of observations, actions, .* at most once"):
            load_dataset(arrays, columns=bad)


def neorl() -> Arrays:
    """Trajectories of 3, 4 and 1 steps in NeoRL's layout; the second falls."""
    short = {"observations": "obs", "actions": "action", "rewards": "reward", "next_observations": "next_obs"}
    arrays = {short[key]: array for key, array in sound().items() if key in short}
    done = (np.arange(8) == 6)[:, None].astype(np.float32)
    return {**arrays, "reward": arrays["reward"][:, None], "done": done, "index": np.array([0, 3, 7])}


def test_neorl_trajectories_end_where_the_next_one_starts() -> None:
    dataset = load_dataset(neorl())
    np.testing.assert_array_equal(dataset.transitions.terminal, np.arange(8) == 6)
    np.testing.assert_array_equal(dataset.truncated, np.isin(np.arange(8), [2, 7]))
    np.testing.assert_array_equal(dataset.episode_lengths(), [3, 4, 1])
    assert "terminals" not in warnings_of(neorl())
    as_stored = load_dataset({**neorl(), "index": np.array([3, 7])})  # the files leave the first 0 out
    np.testing.assert_array_equal(as_stored.truncated, dataset.truncated)
    row_numbers = load_dataset({**neorl(), "index": np.arange(8)})  # as data frames have
    assert not row_numbers.truncated.any()
    for starts in ([3, 3], [7, 3], [-1], [9], [0.5]):
        message = refusal({**neorl(), "index": np.array(starts)})
        assert "arrays: starts: expected ascending row numbers from 0 to 8" in message


def test_an_episode_column_cuts_where_it_changes() -> None:
    arrays = without("timeouts") | {"terminals": np.arange(8) == 2}
    dataset = load_dataset({**arrays, "episode": np.array([5, 5, 5, 1, 1, 2, 2, 2])})
    np.testing.assert_array_equal(dataset.truncated, np.arange(8) == 4)  # row 2 is terminal, and nothing follows row 7
    both = load_dataset({**arrays, "episode_id": np.arange(8) // 5, "truncated": np.arange(8) == 7})
    np.testing.assert_array_equal(both.truncated, np.isin(np.arange(8), [4, 7]))
    message = refusal({**arrays, "episode": np.array([0, 1, 0, 1, 2, 2, 2, 2])})
    assert "episodes: expected the rows of each episode one after another, found 0 again in row 2 (2" not in message
    assert "found 0 again in row 2; sort the rows by episode and time" in message
    large = load_dataset({**arrays, "episode": 2**53 + np.arange(8) // 4})  # beyond what float32 tells apart
    np.testing.assert_array_equal(large.truncated, np.arange(8) == 3)


def test_done_is_taken_as_terminal_and_said_so() -> None:
    done = without("terminals", "timeouts") | {"done": np.arange(8) == 7}
    dataset = load_dataset(done)
    np.testing.assert_array_equal(dataset.transitions.terminal, np.arange(8) == 7)
    assert "taken from done, and no timeouts are there to tell" in warnings_of(done)["terminals"]
    apart = {**done, "timeouts": np.arange(8) == 3}
    assert "terminals" not in warnings_of(apart)
    over = {**done, "done": np.isin(np.arange(8), [3, 7]), "timeouts": np.arange(8) == 3}
    assert "all 1 truncated rows are terminal as well, and count as both" in warnings_of(over)["terminals"]
    assert "both terminals and done" in refusal({**sound(), "done": np.zeros(8)})


def test_one_column_may_have_one_axis_or_two() -> None:
    one = without("observations", "next_observations", "actions")
    states = np.linspace(0, 1, 9)
    flat = {**one, "obs": states[:-1], "next_obs": states[1:], "action": np.linspace(-0.5, 0.5, 8)}
    tall = {key: array[:, None] for key, array in flat.items()}
    assert load_dataset(flat).sha256 == load_dataset(tall).sha256
    assert load_dataset(flat).spec == (1, 1)


def test_the_stored_types_are_kept_as_a_remark() -> None:
    arrays = sound()
    dataset = load_dataset({**arrays, "observations": arrays["observations"].astype(np.float64)})
    assert dataset.sha256 == load_dataset(arrays).sha256
    assert dataset.dtypes["observations"] == "float64"
    assert (dataset.dtypes["actions"], dataset.dtypes["timeouts"]) == ("float32", "bool")
    assert dataset.non_finite_rows == 0


def test_arrays_that_numpy_cannot_make_are_refused(tmp_path: Path) -> None:
    ragged = [[1.0], [1.0, 2.0]]
    assert "rewards: expected numbers of shape [rows], found no array" in refusal({**sound(), "rewards": ragged})
    np.savez(tmp_path / "data.npz", **{**sound(), "rewards": np.array([None] * 8)})
    message = refusal(tmp_path / "data.npz")
    assert (
        "data.npz: rewards: expected numbers of shape [rows], found no array that can be read (Object arrays" in message
    )
    np.save(tmp_path / "single.npy", np.zeros(3))
    (tmp_path / "single.npy").rename(tmp_path / "single.npz")
    assert "found something else (a single array without a name)" in refusal(tmp_path / "single.npz")


def in_units(bounds: tuple[Any, Any]) -> tuple[Dataset, Arrays]:
    unit = sound()["actions"].astype(np.float64)
    low, high = np.asarray(bounds[0], float), np.asarray(bounds[1], float)
    return load_dataset(sound()), {**sound(), "actions": low + (unit + 1) / 2 * (high - low)}


@pytest.mark.parametrize("bounds", [(-2.0, 2.0), (0.0, 10.0), ([-0.4, 5.0], [0.4, 6.0])])
def test_action_bounds_bring_actions_to_unit_range(
    tmp_path: Path, bounds: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, arrays = in_units(bounds)
    dataset = load_dataset(arrays, action_bounds=bounds)
    np.testing.assert_allclose(dataset.transitions.action, expected.transitions.action, rtol=0, atol=1e-7)
    units = from_metadata(dataset.metadata)
    assert (units.low.tolist(), units.high.tolist()) == tuple(np.broadcast_to(b, 2).tolist() for b in bounds)
    np.testing.assert_allclose(from_unit(units, dataset.transitions.action), arrays["actions"], rtol=0, atol=1e-6)
    low, high = (tuple(np.broadcast_to(bound, 2).tolist()) for bound in bounds)
    task = Task("arm", None, 3, 2, never_ended, action_low=low, action_high=high)
    np.testing.assert_allclose(dataset.transitions.action, to_unit(task, arrays["actions"]), rtol=0, atol=1e-7)
    rows = [np.asarray(column) for column in (*dataset.transitions, dataset.truncated)]
    write_dataset(tmp_path / "ours.hdf5", dict(zip(sound(), rows, strict=True)), dataset.metadata)
    again = load_dataset(tmp_path / "ours.hdf5")  # what we write is in [-1, 1] and stays so
    assert again.sha256 == dataset.sha256
    np.testing.assert_array_equal(from_metadata(again.metadata), units)
    monkeypatch.setitem(TASKS, "arm", task)
    assert load_dataset(tmp_path / "ours.hdf5", task="arm").sha256 == dataset.sha256
    assert load_dataset(arrays, task="arm").sha256 == dataset.sha256


def test_actions_out_of_range_are_spoken_of_in_the_simulators_units(monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = sound()
    arrays["actions"][3, 1] = 2.5
    message = refusal(arrays)
    assert "actions: expected values in [-1, 1], found 2.5 in row 3, column 1 (1 such row); divide them" in message
    assert message.endswith("or state the bounds: action_bounds=(low, high)")
    assert "expected values in [-2, 2], found 2.5 in row 3" in refusal(arrays, action_bounds=(-2, 2))
    per_action = refusal(arrays, action_bounds=([-1, -2], [1, 2]))
    assert "expected values in [-1, -2] to [1, 2], found 2.5" in per_action
    monkeypatch.setitem(TASKS, "arm", Task("arm", None, 3, 2, never_ended, action_low=-2.0, action_high=2.0))
    assert "expected values in [-2, 2], found 2.5 in row 3" in refusal(arrays, task="arm")
    arrays["actions"][3, 1] = 2.0001
    dataset = load_dataset(arrays, task="arm")
    assert dataset.transitions.action[3, 1] == 1.0
    np.testing.assert_array_equal(dataset.transitions.action[0], sound()["actions"][0] / 2)
    assert (
        load_dataset(arrays, task="arm", action_bounds=(-4, 4)).transitions.action[0, 0] == arrays["actions"][0, 0] / 4
    )


def test_action_bounds_that_are_none_are_refused() -> None:
    for bounds in ((1, 1), (2, -2), (-np.inf, 1), ("low", 1), ([[0]], [[1]]), (np.nan, 1)):
        with pytest.raises(UserError, match="action_bounds: expected finite numbers"):
            load_dataset(sound(), action_bounds=bounds)
    message = refusal(sound(), action_bounds=([0, 0, 0], [1, 1, 1]))
    assert "actions: expected 3 columns as there are action bounds, found 2 columns" in message


def test_the_name_none_keeps_a_data_set_from_being_taken_for_a_task() -> None:
    assert "expected 11 and 3 columns as in task hopper, found 3 and 2" in refusal(sound(), name="hopper-mine")
    assert load_dataset(sound(), task="none", name="hopper-mine").task is None
