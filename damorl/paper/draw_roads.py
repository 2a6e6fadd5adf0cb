"""The picture of the three roads (Fig. 2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from damorl.paper.draw import new_figure
from damorl.report.curves import BLUE, GREY, INK, RED

HEIGHTS = {"top": 1.0, "middle": 0.0, "bottom": -1.0}
COLOURS = {"top": BLUE, "middle": RED, "bottom": "#7b5ea7"}
NEVER = 0.002
"""Chances below this are the example's floor, and drawn as never."""


def draw_roads(method_rows: Mapping[str, Any], title: str) -> Figure:
    """A column for each method: above where it goes in the model, below in truth."""
    figure, axes = new_figure(len(method_rows), 2, (3.3, 2.5), title)
    for column, (name, found) in enumerate(method_rows.items()):
        for line, where in enumerate(("model", "truth")):
            draw_fork(axes[line, column], found[f"roads_in_{where}"], where == "truth")
            heading = f"{name}, in the model" if where == "model" else f"{name}, in truth"
            axes[line, column].set_title(heading, loc="left")
            words = f"mean reward {found[f'reward_in_{where}']:.2f}"
            if where == "model":
                words = "up {:.0%}, straight {:.0%}, down {:.0%}; ".format(*found["actions"]) + words
            axes[line, column].text(1.15, -1.75, words, ha="center", color=INK, fontsize=8.5)
    return figure


def draw_fork(axes: Axes, chances: Mapping[str, float], truth: bool) -> None:
    """Roads as wide as they are likely; the middle one ends in a ditch, and only the truth has it."""
    along = np.linspace(0.0, 1.0, 50)
    for road, height in HEIGHTS.items():
        chance = chances[road]
        if road == "middle" and not truth:
            axes.text(1.15, 0.0, "no such road", ha="center", va="center", color=GREY, fontsize=8.5, style="italic")
            continue
        length = 1.5 if road == "middle" else 2.3
        curve = height * np.sin(np.pi * along) ** 0.6
        taken = chance > NEVER
        axes.plot(
            length * along,
            curve,
            color=COLOURS[road] if taken else "#dfe2e6",
            linewidth=1.5 + 9.0 * chance * taken,
            linestyle="-" if taken else (0, (4, 3)),
            solid_capstyle="round",
            zorder=2,
        )
        label = f"{chance:.1%}" if taken else "never"
        axes.text(1.15 if height else 0.75, height + 0.17, label, ha="center", va="bottom", fontsize=9, zorder=4)
    if truth:
        axes.scatter(1.5, 0.0, marker="X", s=110, color=INK, zorder=5)
        axes.text(1.62, -0.08, "ditch", fontsize=8.5, va="center")
    axes.scatter([0.0, 2.3], [0.0, 0.0], s=[60, 60], color=["white", "white"], edgecolors=INK, zorder=5)
    axes.text(-0.1, 0.0, "fork", ha="right", va="center", fontsize=8.5)
    axes.text(2.42, 0.0, "goal", ha="left", va="center", fontsize=8.5)
    axes.set(xlim=(-0.5, 2.9), ylim=(-2.0, 1.5))
    axes.axis("off")
