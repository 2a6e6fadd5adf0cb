"""The picture of a card shows the numbers it was given, whatever data they are of."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.patches import StepPatch

from damorl.errors import UserError
from damorl.report.card import card_figure, draw_card, heading


def card(**changes: Any) -> dict[str, Any]:
    facts = {
        "name": "mine",
        "reference_min": None,
        "reference_max": None,
        "sha256": "0123456789",
        "transitions": 3000,
        "obs_dim": 4,
        "action_dim": 2,
        "complete_episodes": 3,
        "incomplete_episodes": 1,
    }
    return {**facts, **changes}


def arrays(num_rows: int = 3000, action_dim: int = 2, **changes: Any) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    kept = min(num_rows, 10_000)
    values = {
        "returns": np.array([10.0, 20.0, 60.0]),
        "lengths": np.array([5, 9, 9]),
        "rewards": rng.normal(size=num_rows),
        "actions": np.tanh(rng.normal(size=(num_rows, action_dim))),
        "embedding": rng.normal(size=(kept, 2)),
        "embedding_share": np.array([0.5, 0.25]),
        "embedding_return": np.where(np.arange(kept) < kept / 2, 10.0, np.nan),
        "embedding_step": np.arange(kept),
    }
    return {**values, **changes}


NOTHING_COMPLETE = {
    "returns": np.array([]),
    "lengths": np.array([], int),
    "embedding_return": np.full(3000, np.nan),
}


def panels(figure: Any) -> dict[str, Any]:
    return {axes.get_title(loc="left"): axes for axes in figure.findobj(Axes)}


def bars(axes: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    return [patch.get_data()[:2] for patch in axes.patches if isinstance(patch, StepPatch)]


def test_the_panels_are_those_that_have_something_to_show() -> None:
    space = "State-action space, two principal components"
    titles = {"Episode returns", "Episode lengths", "Rewards", "Actions", space}
    assert panels(card_figure(card(), arrays())).keys() - {""} == titles
    same_length = arrays(lengths=np.full(3, 1000))
    assert panels(card_figure(card(), same_length)).keys() - {""} == titles - {"Episode lengths"}
    nothing = panels(card_figure(card(complete_episodes=0), arrays(**NOTHING_COMPLETE)))
    assert nothing.keys() - {""} == titles - {"Episode lengths", "Episode returns"}


def test_the_histogram_counts_every_episode_and_marks_their_mean() -> None:
    axes = panels(card_figure(card(), arrays()))["Episode returns"]
    [(counts, edges)] = bars(axes)
    assert counts.tolist() == [1, 1, 0, 0, 1]
    assert edges.tolist() == [10, 20, 30, 40, 50, 60]
    [line] = axes.get_lines()
    assert line.get_xdata() == [30, 30]
    assert axes.get_legend_handles_labels()[1] == ["mean 30"]


def test_the_axis_above_the_returns_is_the_normalised_score() -> None:
    axes = panels(card_figure(card(reference_min=-10.0, reference_max=90.0), arrays()))["Episode returns"]
    [score] = axes.child_axes
    assert score.get_xlabel() == "normalised score"
    axes.figure.figure.draw_without_rendering()
    assert score.get_xlim() == pytest.approx([limit + 10 for limit in axes.get_xlim()])
    assert panels(card_figure(card(), arrays()))["Episode returns"].child_axes == []


def test_counts_are_logarithmic_only_where_the_usual_bin_would_vanish() -> None:
    skewed = np.append(np.zeros(5000), np.arange(100.0))
    figure = panels(card_figure(card(), arrays(rewards=skewed, lengths=np.arange(100))))
    assert figure["Rewards"].get_yscale() == "log"
    assert figure["Rewards"].get_ylabel() == "rows (log scale)"
    assert figure["Episode lengths"].get_yscale() == "linear"
    assert bars(figure["Rewards"])[0][0].sum() == 5100


def test_each_action_dimension_has_its_row() -> None:
    axes = panels(card_figure(card(), arrays(action_dim=3, actions=np.array([[-1, 0, 1]] * 9))))["Actions"]
    peaks = [edges[:-1][values == values.max()][0] for values, edges in bars(axes)]
    assert peaks == pytest.approx([-1, 0, 0.95])
    assert [values.max() for values, _ in bars(axes)] == pytest.approx([0.85, -0.15, -1.15])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0", "1", "2"]
    many = panels(card_figure(card(), arrays(action_dim=40)))["Actions"]
    assert [label.get_text() for label in many.get_yticklabels()] == [str(row) for row in range(0, 40, 4)]


def test_rows_are_coloured_by_return_and_by_time_where_no_return_is_known() -> None:
    def coloured(data: dict[str, np.ndarray]) -> tuple[int, np.ndarray]:
        unknown, known = panels(card_figure(card(), data))["State-action space, two principal components"].collections
        return len(unknown.get_offsets()), known.get_array()

    grey, colours = coloured(arrays())
    assert grey == 1500
    assert colours.tolist() == [10.0] * 1500
    grey, colours = coloured(arrays(**NOTHING_COMPLETE))
    assert grey == 0
    assert sorted(colours.tolist()) == list(range(3000))


def test_the_heading_says_what_it_is() -> None:
    name, sizes = heading(card())
    assert name == "mine"
    assert sizes.split("  \u00b7  ") == [
        "3,000 transitions",
        "3 complete episodes, 1 incomplete",
        "4-d states, 2-d actions",
        "sha256 01234567",
    ]
    assert "1 complete episode  " in heading(card(complete_episodes=1, incomplete_episodes=0))[1]
    assert heading(card(name="x" * 61))[0] == "x" * 59 + "\u2026"


@pytest.mark.parametrize(
    "values",
    [
        arrays(2, embedding=np.zeros((2, 2)), embedding_share=np.zeros(2)),
        arrays(20, 1, returns=np.array([3.0]), lengths=np.array([20])),
        arrays(rewards=np.zeros(3000, np.float32), returns=np.zeros(3), lengths=np.array([1, 1, 1])),
        arrays(rewards=np.array([-3e38, 3e38], np.float32), returns=np.array([-1e300, 0, 1e300])),
        arrays(**NOTHING_COMPLETE),
    ],
    ids=["two rows at one point", "one episode", "all the same", "enormous", "no complete episode"],
)
def test_any_data_can_be_drawn(values: dict[str, np.ndarray], tmp_path: Path) -> None:
    name = "$x_ {^ \udcff & " + "long " * 20
    path = draw_card(card(name=name, reference_min=0.0, reference_max=1.0), values, tmp_path / "new" / "card.png")
    assert path == tmp_path / "new" / "card.png"
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert [entry.name for entry in path.parent.iterdir()] == ["card.png"]


@pytest.mark.slow  # its measure is time, which a busy machine does not have
def test_a_large_data_set_takes_no_longer_than_one_waits(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = arrays(400_000, 6, returns=rng.normal(size=3000), lengths=rng.integers(1, 1000, 3000))
    draw_card(card(), values, tmp_path / "first.png")  # fonts are found once per process
    started = time.process_time()
    draw_card(card(), values, tmp_path / "card.png")
    assert time.process_time() - started < 2


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*card\.png"):
        draw_card(card(), arrays(), tmp_path / "file" / "card.png")


def test_drawing_loads_neither_jax_nor_a_window_system() -> None:
    script = "import sys, damorl.report.card; assert not {'jax', 'matplotlib.pyplot'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", script], check=True)
