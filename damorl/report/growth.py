"""The picture of `damorl bench --growth`, from its figures alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import EngFormatter, FixedLocator, LogLocator, NullLocator

from damorl.files import atomic_file, writing
from damorl.report.curves import BLUE, GREY, RED, STYLE

LABELS = {
    "rows": "rows of data",
    "buffer": "rows of the rollout buffer",
    "seeds": "seeds trained together",
    "members": "ensemble members",
    "width": "width of the networks",
}
RATES = {"updates_per_second": ("updates alone", "o-"), "updates_per_second_with_refresh": ("with refreshes", "s--")}
MEMORY = {
    "peak_bytes": ("process, peak", "^-", RED),
    "state_bytes": ("state", "o-", BLUE),
    "data_bytes": ("data", "s--", GREY),
}
MIB = 2**20


def draw_growth(figures: Mapping[str, Any], path: Path) -> Path:
    """Draw the figures of `run_growth_bench` into `path` as PNG, atomically; folders are made as needed.

    Raises UserError if the picture cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with rc_context(STYLE), atomic_file(path) as temporary:
        growth_figure(figures).savefig(temporary, format="png", dpi=150)
    return path


def growth_figure(figures: Mapping[str, Any]) -> Figure:
    """Updates per second above, memory below, a column for each quantity that grew; both scales are logarithmic."""
    axes_of = {
        axis: [row for row in figures["growth"] if row["axis"] == axis]
        for axis in dict.fromkeys(row["axis"] for row in figures["growth"])
    }
    count = max(1, len(axes_of))
    figure = Figure(figsize=(3.1 * count + 0.6, 5.6), layout=ConstrainedLayoutEngine(h_pad=0.08, w_pad=0.08))
    figure.suptitle(
        f"{figures['algo']}, preset {figures['preset']}, {figures['device_kind']}, {figures['usable_cpus']} CPUs",
        x=0.012,
        ha="left",
        fontsize=12,
        fontweight="bold",
    )
    panels = figure.subplots(2, count, sharex="col", sharey="row", squeeze=False)
    for (axis, rows), above, below in zip(axes_of.items(), panels[0], panels[1], strict=False):
        draw_rates(above, rows)
        draw_memory(below, rows)
        below.set_xlabel(LABELS[axis])
        scale_quantity(below, rows)
    panels[0][0].set_ylabel("updates per second")
    panels[1][0].set_ylabel("MiB")
    if axes_of:
        panels[0][0].legend(loc="lower left")  # the rows, of which the largest may not fit: all labels are there
        panels[1][-1].legend(loc="best")
    return figure


def measured(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[list[int], list[float]]:
    """The values at which the figure `name` is known, and the figure."""
    known = [row for row in rows if row.get(name)]
    return [row["value"] for row in known], [row[name] for row in known]


def draw_rates(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """Both rates; a cross at the bottom where a size did not fit."""
    axes.set_yscale("log")
    for name, (label, style) in RATES.items():
        axes.plot(*measured(rows, name), style, color=BLUE, markersize=4, label=label)
    large = [row["value"] for row in rows if row["outcome"] == "does not fit"]
    if large:
        bottom = axes.get_xaxis_transform()
        axes.plot(large, [0.04] * len(large), "x", color=RED, transform=bottom, label="does not fit")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(EngFormatter(sep=""))
    axes.yaxis.set_minor_locator(NullLocator())


def draw_memory(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """What the process, the state and the data took."""
    axes.set_yscale("log")
    for name, (label, style, colour) in MEMORY.items():
        values, sizes = measured(rows, name)
        axes.plot(values, [size / MIB for size in sizes], style, color=colour, markersize=4, label=label)
    axes.yaxis.set_major_locator(LogLocator())
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())


def scale_quantity(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """A logarithmic scale with a tick at every value, or at a few where they would touch."""
    axes.set_xscale("log")
    values = sorted({row["value"] for row in rows})
    axes.xaxis.set_major_locator(FixedLocator(values if len(values) <= 5 else values[::2]))
    short = EngFormatter(sep="")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}" if value < 10_000 else short(value))
    axes.xaxis.set_minor_locator(NullLocator())
