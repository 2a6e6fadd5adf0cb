"""The picture of one task under changed physics, from the rows of `damorl eval --vary`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from damorl.files import atomic_file
from damorl.report.curves import COLOURS, GREY, NICE, STYLE

Row = Mapping[str, Any]


def draw_varied(rows: Sequence[Row], name: str, path: Path) -> Path:
    """Draw the rows of the run `name` into `path` as PNG, atomically. UserError if it cannot be written."""
    with rc_context(STYLE), atomic_file(path) as temporary:
        varied_figure(rows, name).savefig(temporary, format="png", dpi=130)
    return path


def varied_figure(rows: Sequence[Row], name: str) -> Figure:
    """One line per world from top to bottom, a dot and its interval for each policy."""
    worlds = list(dict.fromkeys(row["world"] for row in rows))
    policies = list(dict.fromkeys(name_of(row) for row in rows))
    share = 0.2 + 0.1 * len(policies)
    figure = Figure(figsize=(7.6, 1.9 + share * len(worlds)), layout=ConstrainedLayoutEngine(h_pad=0.08, w_pad=0.1))
    axes = figure.add_subplot()
    for number, policy in enumerate(policies):
        own = [row for row in rows if name_of(row) == policy]
        offset = 0.0 if len(policies) == 1 else 0.5 * (number / (len(policies) - 1) - 0.5)
        draw_policy(axes, own, [worlds.index(row["world"]) + offset for row in own], COLOURS[number % len(COLOURS)])
    decorate(axes, rows, worlds)
    if len(policies) > 1:
        figure.legend(loc="outside lower center", ncols=min(4, len(policies)))
    figure.suptitle(name, x=0.02, ha="left", fontsize=12, fontweight="bold", parse_math=False)
    axes.set_title(f"mean and 95 % interval over {rows[0]['episodes']} episodes in each world", loc="left")
    return figure


def name_of(row: Row) -> str:
    """What the legend calls a policy."""
    return f"seed {row['seed']}" + (f", {row['label']}" if "label" in row else "")


def draw_policy(axes: Axes, rows: Sequence[Row], heights: Sequence[float], colour: str) -> None:
    """The dots of one policy, and a dashed line through its unchanged world."""
    key = "score" if "score" in rows[0] else "return"
    means = np.array([row["score" if key == "score" else "return_mean"] for row in rows])
    bounds = [row[f"{key}_interval"] or (np.nan, np.nan) for row in rows]
    low, high = np.array(bounds, float).T
    axes.axvline(means[0], color=colour, linewidth=1.0, linestyle="--", alpha=0.6)
    apart = np.maximum([means - low, high - means], 0.0)
    style: Any = {"fmt": "o", "markersize": 4, "elinewidth": 1.8, "capsize": 3.5, "color": colour}
    axes.errorbar(means, heights, xerr=apart, label=name_of(rows[0]), **style)


def decorate(axes: Axes, rows: Sequence[Row], worlds: Sequence[str]) -> None:
    """Names of the worlds, and a thin rule between factors."""
    factors = [next(row["factor"] for row in rows if row["world"] == world) for world in worlds]
    for number in range(1, len(worlds)):
        if factors[number] != factors[number - 1]:
            axes.axhline(number - 0.5, color=GREY, linewidth=0.5, alpha=0.35)
    axes.set_yticks(range(len(worlds)), [world.replace(" x ", " \u00d7 ") for world in worlds])
    axes.set_ylim(len(worlds) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(7, steps=NICE))
    axes.set_xlabel("normalised score" if "score" in rows[0] else "return")
