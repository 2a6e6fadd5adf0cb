"""The picture of Table 2: our scores and the paper's in panels of their own."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from damorl.paper.draw import new_figure
from damorl.paper.scores import MISSING, Row
from damorl.report.curves import BLUE, GREY, INK


def draw_scores(rows: Sequence[Row], title: str) -> Figure:
    """A line of two panels for each data set: ours with seeds and intervals, and what the paper prints."""
    datasets = list(dict.fromkeys(row.dataset for row in rows))
    tallest = max(sum(row.dataset == dataset for row in rows) for dataset in datasets)
    figure, axes = new_figure(2, len(datasets), (5.0, 0.6 + 0.24 * tallest), title)
    for line, dataset in enumerate(datasets):
        here = [row for row in rows if row.dataset == dataset]
        draw_ours(axes[line, 0], here, f"{dataset}: ours")
        draw_printed(axes[line, 1], here, "the paper prints (D4RL data)")
    return figure


def finish(axes: Axes, rows: Sequence[Row], title: str) -> None:
    """Names down the side, the first one on top."""
    axes.set_yticks(range(len(rows)), [row.method for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(-8, 120)
    axes.set_title(title, loc="left")
    axes.set_xlabel("normalised score")


def draw_ours(axes: Axes, rows: Sequence[Row], title: str) -> None:
    """Seeds as dots, the mean as a bar with its interval; a word where there is nothing."""
    for place, row in enumerate(rows):
        found = row.as_dict()
        if not row.scores:
            axes.text(0, place, MISSING if row.algo else "not in this version", va="center", color=GREY, fontsize=8.5)
            continue
        if found["interval"] is not None:
            axes.plot(found["interval"], [place, place], color=BLUE, linewidth=2.0, alpha=0.5)
        axes.scatter(list(row.scores.values()), [place] * len(row.scores), s=14, color=BLUE, zorder=3)
        axes.scatter([found["mean"]], [place], marker="|", s=140, color=INK, zorder=4)
    finish(axes, rows, title)


def draw_printed(axes: Axes, rows: Sequence[Row], title: str) -> None:
    """The printed score; a dash where there is none."""
    for place, row in enumerate(rows):
        if row.printed is None:
            axes.text(0, place, "-", va="center", color=GREY)
        else:
            axes.scatter(row.printed, place, marker="D", s=18, color=GREY, zorder=3)
    finish(axes, rows, title)
