"""The picture shows the numbers of the files, and only those that are there."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import numpy as np
import pytest

from damorl.errors import UserError
from damorl.record.store import append_metrics, write_json
from damorl.report import curves

CONFIG = {
    "algo": "damo",
    "references": {"behaviour cloning": 45.2},
    "data": {"name": "hopper-medium-expert", "best_discounted_return": 318.0, "mean_discounted_return": None},
}
ROWS = [
    {"step": 1000, "seed": 0, "critic/q_mean": 10.0, "classifier/accuracy": 0.9, "actor/temperature": 1.0},
    {"step": 1000, "seed": 3, "critic/q_mean": 30.0, "classifier/accuracy": 0.8, "actor/temperature": 0.5},
    {"step": 2000, "seed": 0, "critic/q_mean": math.nan, "eval/score": 20.0, "actor/temperature": 0.1},
    {"step": 2000, "seed": 3, "critic/q_mean": 50.0, "eval/score": 40.0, "actor/temperature": 0.1},
]


def axes_by_title(figure):
    return {axes.get_title(loc="left"): axes for axes in figure.axes}


def line_points(axes, width):
    lines = [line for line in axes.get_lines() if line.get_linewidth() == width]
    return [list(zip(line.get_xdata(), line.get_ydata(), strict=True)) for line in lines]


def test_panels_without_metrics_are_left_out():
    figure = curves.curves_figure(ROWS, CONFIG)
    assert list(axes_by_title(figure)) == [
        "Normalised score",
        "Value estimate (mean Q)",
        "Classifier accuracy",
        "Temperature",
    ]


def test_thin_lines_are_the_seeds_and_the_bold_one_their_mean_over_those_that_have_a_value():
    axes = axes_by_title(curves.curves_figure(ROWS, CONFIG))["Value estimate (mean Q)"]
    assert line_points(axes, 0.8) == [[(1000, 10.0)], [(1000, 30.0), (2000, 50.0)]]
    assert line_points(axes, 2.0) == [[(1000, 20.0), (2000, 50.0)]]


def test_dashed_lines_are_the_references_and_the_real_returns_that_are_known():
    axes = axes_by_title(curves.curves_figure(ROWS, CONFIG))
    assert [line[0][1] for line in line_points(axes["Normalised score"], 1.2)] == [45.2]
    assert [line[0][1] for line in line_points(axes["Value estimate (mean Q)"], 1.2)] == [318.0]
    assert line_points(axes_by_title(curves.curves_figure(ROWS, {}))["Normalised score"], 1.2) == []


def test_the_title_says_what_it_is_and_how_well_it_went():
    rows = [{"step": step, "seed": seed, "eval/score": 10.0 * step + seed} for step in range(1, 14) for seed in (0, 2)]
    words = curves.title(rows, CONFIG)
    assert words.split("  \u00b7  ") == ["DAMO", "hopper-medium-expert", "2 seeds", "score 86.0 \u00b1 1.4"]
    assert curves.title(ROWS[:1], {}) == "1 seed"


def test_infinite_values_do_not_stretch_the_picture():
    data = curves.curve([{"step": 1, "seed": 0, "x": math.inf}, {"step": 2, "seed": 0, "x": 3.0}], "x")
    assert np.array_equal(data.values, [[np.nan, 3.0]], equal_nan=True)


def test_a_temperature_of_zero_is_drawn_on_a_linear_axis():
    assert axes_by_title(curves.curves_figure(ROWS, {}))["Temperature"].get_yscale() == "log"
    rows = [*ROWS, {"step": 3000, "seed": 0, "actor/temperature": 0.0}]
    assert axes_by_title(curves.curves_figure(rows, {}))["Temperature"].get_yscale() == "linear"


FITS = {
    "settings": {"early_stop_steps": 3},
    "seeds": {
        "0": {
            "epochs": [
                {"batches": 50, "nll": -1.0, "holdout_error": 0.2, "k_step_error": 0.8},
                {"batches": 100, "nll": -2.0, "holdout_error": 0.1, "k_step_error": 0.4},
            ]
        },
        "3": {"epochs": [{"batches": 50, "nll": "nan", "holdout_error": "nan", "k_step_error": 0.6}]},
        "4": {"missing": "no figures were kept"},
    },
}
FIT = "Model's error on held-out rows"


def test_the_course_of_the_fit_is_a_panel_over_its_batches():
    axes = curves.curves_figure(ROWS, CONFIG, FITS).axes[-1]
    assert (axes.get_title(loc="left"), axes.get_xlabel(), axes.get_yscale()) == (FIT, "batches", "log")
    assert axes.get_xlim() == (0.0, 100.0)
    assert line_points(axes, 2.0) == [[(50, 0.2), (100, 0.1)], [(50, pytest.approx(0.7)), (100, 0.4)]]
    assert axes.get_legend_handles_labels()[1] == ["one step", "after 3 steps"]


def test_a_fit_without_k_steps_or_without_figures_shows_what_it_has():
    epochs = [epoch | {"k_step_error": None} for epoch in FITS["seeds"]["0"]["epochs"]]
    axes = axes_by_title(curves.curves_figure(ROWS, CONFIG, FITS | {"seeds": {"0": {"epochs": epochs}}}))[FIT]
    assert line_points(axes, 2.0) == [[(50, 0.2), (100, 0.1)]]
    assert FIT not in axes_by_title(curves.curves_figure(ROWS, CONFIG, FITS | {"seeds": {"4": FITS["seeds"]["4"]}}))


@pytest.mark.parametrize("values", [(0.13, 0.051), (0.0965, 0.092), (5.0, 0.02), (300.0, 1e-4)])
def test_a_logarithmic_axis_has_some_ticks_whatever_it_spans(values):
    rows = [{"step": step, "seed": 0, "actor/temperature": value} for step, value in enumerate(values, 1)]
    axes = axes_by_title(curves.curves_figure(rows, {}))["Temperature"]
    low, high = axes.get_ylim()
    assert 2 <= sum(low <= tick <= high for tick in axes.get_yticks()) <= 9


def test_the_picture_is_a_png_beside_the_metrics_or_where_one_wants_it(tmp_path):
    write_json(tmp_path / "config.json", CONFIG)
    append_metrics(tmp_path, ROWS)
    assert curves.draw_curves(tmp_path) == tmp_path / "curves.png"
    without = (tmp_path / "curves.png").read_bytes()
    write_json(tmp_path / "dynamics.json", FITS)
    assert curves.draw_curves(tmp_path).read_bytes() != without
    (tmp_path / "docs").mkdir()
    elsewhere = curves.draw_curves(tmp_path, tmp_path / "docs" / "a.png")
    assert elsewhere.read_bytes()[:8] == (tmp_path / "curves.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    written = ["config.json", "curves.png", "docs", "dynamics.json", "metrics.crc", "metrics.jsonl"]
    assert sorted(os.listdir(tmp_path)) == written


def test_a_run_that_has_logged_nothing_yet_can_be_drawn(tmp_path):
    write_json(tmp_path / "config.json", CONFIG)
    append_metrics(tmp_path, [])
    assert curves.draw_curves(tmp_path).exists()


def test_what_is_no_run_directory_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"config\.json.*run directory"):
        curves.draw_curves(tmp_path)


def test_drawing_loads_neither_jax_nor_a_window_system():
    script = "import sys, damorl.report.curves; assert not {'jax', 'matplotlib.pyplot'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", script], check=True)
