"""The card of a data set: every number by hand, and the arrays of its picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from damorl.data.card import card_and_arrays, duplicate_share, embed, picture_arrays, statistics, summary
from damorl.data.datasets import Dataset
from damorl.types import Array, Transition
from damorl.world.tasks import TASKS, Task


def make(num_rows: int, obs_dim: int = 3, action_dim: int = 2, task: Task | None = None, **changes: Any) -> Dataset:
    """A data set of one unbroken episode, every number different; `changes` are columns of it."""
    rng = np.random.default_rng(num_rows)
    states = rng.normal(size=(num_rows + 1, obs_dim))
    columns = {
        "obs": states[:-1],
        "action": rng.uniform(-0.9, 0.9, (num_rows, action_dim)),
        "reward": rng.normal(size=num_rows),
        "next_obs": states[1:],
        "terminal": np.zeros(num_rows),
        "truncated": np.zeros(num_rows, bool),
        **changes,
    }
    truncated = columns.pop("truncated")
    transitions = Transition(**{key: cast(Array, np.float32(column)) for key, column in columns.items()})
    path, types = Path("/data/few.hdf5"), {"rewards": "float64"}
    return Dataset("few", task, transitions, truncated, path, "a" * 64, {"seed": 1}, types)


def marked(num_rows: int, *rows: int) -> np.ndarray:
    return np.isin(np.arange(num_rows), rows)


def test_statistics_by_hand() -> None:
    expected = {"mean": 3.0, "std": np.sqrt(3.5), "min": 1.0, "q25": 1.75, "median": 2.5, "q75": 3.75, "max": 6.0}
    assert statistics(np.array([6, 1, 2, 3])) == pytest.approx(expected)
    assert statistics(np.array([5.0], np.float32)) == dict.fromkeys(expected, 5.0) | {"std": 0.0}
    assert statistics(np.array([])) is None


def test_the_card_by_hand() -> None:
    flags = {"terminal": marked(6, 4), "truncated": marked(6, 1)}
    action = np.linspace(-1, 1, 6)[:, None] * [1.0, 0.5, 0.0]
    dataset = make(6, 11, 3, TASKS["hopper"], reward=[1, 2, 3, 4, 5, 6], action=action, **flags)
    facts = json.loads(json.dumps(summary(dataset), allow_nan=False))
    scale = (3234.3 + 20.272305) / 100
    returns = {"mean": 7.5, "std": 4.5, "min": 3.0, "q25": 5.25, "median": 7.5, "q75": 9.75, "max": 12.0}
    assert facts.pop("return") == returns
    scores = {name: (value + 20.272305) / scale for name, value in returns.items()}
    assert facts.pop("score") == pytest.approx(scores | {"std": 4.5 / scale})
    lengths = {"mean": 2.5, "std": 0.5, "min": 2.0, "q25": 2.25, "median": 2.5, "q75": 2.75, "max": 3.0}
    assert facts.pop("episode_length") == lengths
    assert facts.pop("reward") == pytest.approx(
        {"mean": 3.5, "std": np.sqrt(35 / 12), "min": 1, "q25": 2.25, "median": 3.5, "q75": 4.75, "max": 6}
    )
    assert facts.pop("action_coverage_per_dim") == pytest.approx([6 / 20, 6 / 20, 1 / 20])
    assert facts.pop("action_coverage") == pytest.approx(13 / 60)
    assert facts.pop("action_saturation_per_dim") == pytest.approx([2 / 6, 0, 0])
    assert facts.pop("action_saturation") == pytest.approx(2 / 18)
    assert facts == {
        "name": "few",
        "path": "/data/few.hdf5",
        "task": "hopper",
        "reference_min": -20.272305,
        "reference_max": 3234.3,
        "sha256": "a" * 64,
        "dtypes": {"rewards": "float64"},
        "non_finite_rows": 0,
        "transitions": 6,
        "obs_dim": 11,
        "action_dim": 3,
        "episodes": 3,
        "complete_episodes": 2,
        "incomplete_episodes": 1,
        "terminals": 1,
        "truncations": 1,
        "duplicates": 0.0,
        "metadata": {"seed": 1},
    }


def test_the_card_leaves_open_what_nobody_knows() -> None:
    facts = summary(make(8))
    unknown = ("task", "reference_min", "reference_max", "return", "score", "episode_length")
    assert [facts[key] for key in unknown] == [None] * 6
    assert (facts["episodes"], facts["incomplete_episodes"]) == (1, 1)
    json.dumps(facts, allow_nan=False)


def test_duplicates_are_rows_that_an_earlier_one_equals_in_every_number() -> None:
    transitions = make(10).transitions
    assert duplicate_share(transitions) == 0
    rows = np.array([0, 1, 2, 0, 0, 1, 3, 4, 5, 6])
    repeated = Transition(*(column[rows] for column in transitions))
    assert duplicate_share(repeated) == pytest.approx(3 / 10)
    nearly = np.asarray(repeated.next_obs).copy()
    nearly[3, -1] = np.nextafter(nearly[3, -1], np.float32(9))
    assert duplicate_share(repeated._replace(next_obs=nearly)) == pytest.approx(2 / 10)


def test_no_row_of_many_is_taken_for_another() -> None:
    grid = np.stack(np.meshgrid(*[np.arange(9.0)] * 5), -1).reshape(-1, 5)  # 59049 rows of the same few bits
    dataset = make(len(grid), obs=grid[:, :3], action=grid[:, 3:] / 9, next_obs=np.zeros((len(grid), 3)))
    assert duplicate_share(dataset.transitions) == 0


def test_the_embedding_keeps_the_two_directions_of_most_variance() -> None:
    rng = np.random.default_rng(0)
    along, across, noise = rng.normal(size=(3, 2000))
    points = np.stack([along, along * 50 + 7, across, across / 9, noise, np.full(2000, 3.0)], 1)
    embedded, share = embed(points)
    assert share == pytest.approx([2 / 5, 2 / 5], abs=0.02)
    assert embedded.shape == (2000, 2)
    assert embedded.mean(0) == pytest.approx([0, 0], abs=1e-9)
    assert np.corrcoef(embedded.T)[0, 1] == pytest.approx(0, abs=1e-9)
    coordinates = np.stack([along, across], 1)
    fit = np.linalg.lstsq(np.hstack([embedded, np.ones((2000, 1))]), coordinates, rcond=None)[0]
    rebuilt = np.hstack([embedded, np.ones((2000, 1))]) @ fit
    assert np.var(rebuilt - coordinates) < 0.01
    with_rows_turned, _ = embed(points[::-1])
    assert with_rows_turned[::-1] == pytest.approx(embedded, abs=1e-6)


def test_points_that_do_not_vary_are_all_at_the_origin() -> None:
    embedded, share = embed(np.full((5, 3), 4.0))
    assert np.array_equal(embedded, np.zeros((5, 2)))
    assert np.array_equal(share, [0, 0])


def test_the_colours_of_the_picture_are_those_of_each_row_s_episode() -> None:
    dataset = make(7, reward=[1, 2, 4, 8, 16, 32, 64], terminal=marked(7, 1), truncated=marked(7, 4))
    arrays = picture_arrays(dataset)
    assert arrays["returns"].tolist() == [3, 28]
    assert arrays["lengths"].tolist() == [2, 3]
    np.testing.assert_array_equal(arrays["embedding_return"], [3, 3, 28, 28, 28, np.nan, np.nan])
    assert arrays["embedding_step"].tolist() == [0, 1, 0, 1, 2, 0, 1]
    both = np.hstack([dataset.transitions.obs, dataset.transitions.action])
    np.testing.assert_array_equal(arrays["embedding"], embed(both)[0])


def test_of_many_rows_ten_thousand_are_embedded_at_all_phases_of_an_episode() -> None:
    dataset = make(100_000, 1, 1, truncated=np.arange(100_000) % 1000 == 999)
    card, arrays = card_and_arrays(dataset)
    assert card["complete_episodes"] == len(arrays["lengths"]) == 100
    assert len(arrays["embedding"]) == len(arrays["embedding_step"]) == 10_000
    assert np.all(np.unique(arrays["embedding_step"] // 10, return_counts=True)[1] > 50)
