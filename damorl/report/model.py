"""The picture of how well a learned model predicts, from model.json alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from damorl.files import atomic_file
from damorl.report.curves import BLUE, GREY, NICE, RED, STYLE

Report = Mapping[str, Any]
LEAST = 1e-6
"""Of an error on a logarithmic axis: less is exact."""
CALIBRATED = (0.683, 0.954)
"""Shares of a Gaussian within one and two deviations."""


def draw_model(report: Report, path: Path) -> Path:
    """Draw a report of `damorl model` into `path` as PNG, atomically. UserError if it cannot be written."""
    with rc_context(STYLE), atomic_file(path) as temporary:
        model_figure(report).savefig(temporary, format="png", dpi=130)
    return path


def model_figure(report: Report) -> Figure:
    """The figure itself: all features above, each of them below."""
    rows = [own for own in report["features"] if own["within_1"] is not None]
    height = 1.3 + 0.2 * len(rows)
    figure = Figure(figsize=(12.0, 4.3 + height), layout=ConstrainedLayoutEngine(h_pad=0.1, w_pad=0.12))
    plain: Any = {"ha": "left", "parse_math": False}
    figure.suptitle(heading(report), x=0.012, fontsize=12.5, fontweight="bold", **plain)
    grid = figure.add_gridspec(2, 1, height_ratios=(3.2, height))
    above, below = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
    steps, reliability, doubt = above.subplots(1, 3)
    draw_steps(steps, report["k_step"])
    draw_reliability(reliability, report["calibration"])
    draw_doubt(doubt, report["disagreement"])
    each, shares, ranks = below.subplots(1, 3, sharey=True)
    draw_features(each, rows)
    draw_shares(shares, rows)
    draw_ranks(ranks, rows)
    for axes in (shares, ranks):
        axes.tick_params(axis="y", length=0)
    return figure


def heading(report: Report) -> str:
    """What was judged, by what."""
    held, name = report["held_out"], report["run"] or report["dataset"]
    kind = {"episodes": "rows of held-out episodes", "rows": "held-out rows"}
    told = f"{held['rows']:,} {kind.get(held['kind'], 'rows of ' + held['data'])}"
    return f"Model of {name}, seed {report['seed']}  \u00b7  {told}"


def draw_steps(axes: Axes, k_step: Report) -> None:
    """The error after each number of steps, its spread over paths, and what standing still would give."""
    at = np.arange(1, k_step["horizon"] + 1)
    known = ("q10", "median", "q90", "error", "no_change")
    values = {name: np.maximum(_numbers(k_step[name]), LEAST) for name in known}
    marker = "o" if len(at) == 1 else None
    axes.fill_between(at, values["q10"], values["q90"], color=BLUE, alpha=0.15, linewidth=0, label="80 % of the paths")
    axes.plot(at, values["median"], color=BLUE, linewidth=1.2, linestyle=":", marker=marker, label="median path")
    axes.plot(at, values["error"], color=BLUE, linewidth=2.0, marker=marker, label="mean, each at most 1")
    axes.plot(at, values["no_change"], color=GREY, linewidth=1.2, linestyle="--", label="if nothing changed")
    axes.set_yscale("log")
    few_ticks(axes.yaxis)
    axes.set_xlabel("steps")
    axes.set_ylabel("squared error / variance")
    axes.set_title("Error after k steps", loc="left")
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=NICE, integer=True))
    axes.legend(loc="best")


def draw_reliability(axes: Axes, calibration: Report) -> None:
    """The share that predicted intervals hold against what they should; the transform's histogram in a corner."""
    axes.plot((0, 1), (0, 1), color=GREY, linewidth=1.2, linestyle="--", label="calibrated")
    axes.plot(calibration["level"], calibration["observed"], color=BLUE, linewidth=2.0, marker="o", markersize=3)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xlabel("probability of the predicted interval")
    axes.set_ylabel("share of targets in it")
    axes.set_title("Calibration of one step", loc="left")
    inset = axes.inset_axes((0.6, 0.08, 0.37, 0.28))
    counts = np.asarray(calibration["pit"])
    inset.stairs(counts, np.linspace(0.0, 1.0, len(counts) + 1), fill=True, color=BLUE, alpha=0.6)
    inset.axhline(1.0 / len(counts), color=GREY, linewidth=1.0, linestyle="--")
    inset.set_title("quantile of the target", fontsize=8, fontweight="normal")
    inset.set_yticks([])
    inset.set_xticks([0, 0.5, 1])
    inset.tick_params(labelsize=7.5)
    inset.grid(False)


def draw_doubt(axes: Axes, disagreement: Report) -> None:
    """The mean error in bins of the elites' disagreement."""
    bins, correlation = disagreement["bins"], disagreement["rank_correlation"]
    apart, error = (np.maximum(_numbers(bins[name]), LEAST) for name in ("disagreement", "error"))
    axes.plot(apart, error, color=BLUE, linewidth=2.0, marker="o", markersize=4)
    if np.ptp(apart) > 0.0 and np.isfinite(apart).all():
        axes.set_xscale("log")
        axes.set_yscale("log")
        few_ticks(axes.xaxis)
        few_ticks(axes.yaxis)
    told = "not known" if correlation is None else f"{correlation:.2f}"
    axes.text(0.03, 0.95, f"rank correlation {told}", transform=axes.transAxes, va="top", fontsize=8.5)
    axes.set_title("Error against doubt", loc="left")
    axes.set_xlabel("disagreement of the elites")
    axes.set_ylabel("error (deviations of the change)")


def few_ticks(axis: Axis) -> None:
    """Plain numbers at few places of a logarithmic axis."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 300 * low else (1,)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())


def draw_features(axes: Axes, rows: list[Report]) -> None:
    """The error of each feature after each number of steps, as colour."""
    values = np.maximum([_numbers(own["k_step_error"]) for own in rows], LEAST)
    steps = values.shape[1]
    low = max(LEAST, float(np.nanmin(values)))
    norm = LogNorm(min(low, 0.5), 1.0)
    image = axes.imshow(
        values, aspect="auto", cmap="viridis", norm=norm, extent=(0.5, steps + 0.5, len(rows) - 0.5, -0.5)
    )
    bar = axes.figure.colorbar(image, ax=axes, pad=0.02, aspect=25, format="{x:g}")
    bar.outline.set_visible(False)
    bar.minorticks_off()
    axes.set_yticks(range(len(rows)), [label(own) for own in rows])
    axes.grid(False)
    axes.set_xlabel("steps")
    axes.set_title("Error of each feature", loc="left")
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=NICE, integer=True))


def draw_shares(axes: Axes, rows: list[Report]) -> None:
    """The shares within one and two predicted deviations, beside those of a calibrated model."""
    for times, share, colour in zip((1, 2), CALIBRATED, (BLUE, RED), strict=True):
        axes.axvline(share, color=colour, linewidth=1.0, linestyle="--")
        found = [own[f"within_{times}"] for own in rows]
        axes.plot(found, range(len(rows)), "o", color=colour, markersize=5, label=f"within {times} std")
    axes.set_xlim(0, 1.02)
    axes.set_xlabel("share of targets (dashed: calibrated)")
    axes.set_title("Within the predicted spread", loc="left")
    axes.legend(loc="lower left")


def draw_ranks(axes: Axes, rows: list[Report]) -> None:
    """The rank correlation of each feature's error with the elites' spread in it."""
    found = [np.nan if own["rank_correlation"] is None else own["rank_correlation"] for own in rows]
    axes.barh(range(len(rows)), found, height=0.62, color=BLUE, alpha=0.75)
    axes.axvline(0.0, color=GREY, linewidth=1.0)
    axes.set_xlim(min(-0.1, float(np.nanmin(found, initial=0.0)) * 1.1), 1)
    axes.set_xlabel("rank correlation")
    axes.set_title("Does doubt tell the error?", loc="left")


def label(feature: Report) -> str:
    """`3 leg`, or `reward`."""
    return " ".join(str(part) for part in (feature["index"], feature["name"]) if part is not None)


def _numbers(values: Any) -> np.ndarray:
    """Numbers from JSON; None and what stands for infinity are gaps."""
    return np.array([value if isinstance(value, int | float) else np.nan for value in values], float)
