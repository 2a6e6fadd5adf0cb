"""The pictures of the paper's experiments, from plain numbers and points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from damorl.files import atomic_file
from damorl.paper.distributions import Clouds, Offline
from damorl.paper.embedding import Plane
from damorl.report.curves import BLUE, GREY, INK, RED

GREEN, PURPLE, YELLOW = "#2f8f6b", "#7b5ea7", "#d9a441"
SERIES = (BLUE, RED, GREEN, PURPLE, YELLOW, GREY)
VERSIONS = {"consistent": BLUE, "inconsistent": RED}
"""Table 1's actors."""
HUGE = 30.0
"""A value axis is logarithmic where the highest curve is this many times the reference."""
OUTER = 0.002
"""Share of points on each side that a picture's frame may leave out."""


def save(figure: Figure, path: Path) -> None:
    """As PNG, atomically, and without a stamp of version or time: the same numbers give the same file."""
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120, metadata={"Software": None})


def new_figure(columns: int, lines: int, size: tuple[float, float], title: str) -> tuple[Figure, np.ndarray]:
    """A grid of axes `[lines, columns]` under a title; `size` is one axes' in inches."""
    figure = Figure(figsize=(size[0] * columns, size[1] * lines + 0.6), layout="constrained")
    figure.suptitle(title, x=0.012, ha="left", fontsize=12, fontweight="bold")
    return figure, figure.subplots(lines, columns, squeeze=False)


def frame(axes: Axes, clouds: Sequence[np.ndarray]) -> None:
    """Limits that hold nearly all points, and no ticks: principal axes have no units."""
    points = np.concatenate([cloud[np.isfinite(cloud).all(axis=1)] for cloud in clouds])
    low, high = np.quantile(points, [OUTER, 1.0 - OUTER], axis=0)
    margin = 0.06 * (high - low)
    axes.set(xlim=(low[0] - margin[0], high[0] + margin[0]), ylim=(low[1] - margin[1], high[1] + margin[1]))
    axes.set(xticks=[], yticks=[])


def scatter(axes: Axes, clouds: Mapping[str, tuple[np.ndarray, str]]) -> None:
    """Clouds over each other, the first one largest and palest."""
    for order, (label, (points, colour)) in enumerate(clouds.items()):
        size, alpha = (9.0, 0.25) if order == 0 else (5.0, 0.45)
        axes.scatter(*points.T, s=size, color=colour, alpha=alpha, linewidths=0, label=label, rasterized=True)


def note(axes: Axes, text: str) -> None:
    """Numbers below a panel."""
    axes.set_xlabel(text, fontsize=9, color=INK, loc="left")


def by_seed(found: Mapping[str, Any], key: str) -> str:
    """Each seed's share, the drawn one first: `5% | 99%`."""
    values = [row[key] for row in found.values()]
    return " | ".join("unknown" if value is None else f"{value:.0%}" for value in values)


def draw_ablations(offline: Offline, drawn: Mapping[str, Clouds], measured: Mapping[str, Any], title: str) -> Figure:
    """Fig. 3: above (s, a) of data and model, below s of world and model; a column for each variant."""
    figure, axes = new_figure(len(drawn), 2, (3.9, 3.5), title)
    planes = (offline.pair_plane, offline.state_plane)
    for column, (label, clouds) in enumerate(drawn.items()):
        found, (above, below) = measured[label], axes[:, column]
        scatter(
            above,
            {
                "offline data": (planes[0].project(offline.shown.pairs().points), GREY),
                "synthetic": (planes[0].project(clouds.synthetic.pairs().points), RED),
            },
        )
        scatter(
            below,
            {
                "offline data": (planes[1].project(offline.shown.obs), "#d3d6da"),
                "real": (planes[1].project(clouds.real.obs), BLUE),
                "synthetic": (planes[1].project(clouds.synthetic.obs), RED),
            },
        )
        above.set_title(f"{label}: state-action pairs", loc="left")
        below.set_title(f"{label}: states", loc="left")
        pairs = ("synthetic_pairs_outside", "accuracy_offline_synthetic_pairs")
        states = ("real_states_outside", "accuracy_real_synthetic_states")
        note(
            above, "synthetic outside the data: {}\ntold from the data: {}".format(*(by_seed(found, k) for k in pairs))
        )
        note(below, "real outside the data: {}\ntold from synthetic: {}".format(*(by_seed(found, k) for k in states)))
    share_frames(axes, planes, offline, drawn)
    return figure


def share_frames(axes: np.ndarray, planes: Sequence[Plane], offline: Offline, drawn: Mapping[str, Clouds]) -> None:
    """One frame for each line of panels, so that columns can be compared; a legend in each line's first."""
    pairs = [planes[0].project(s.pairs().points) for s in (offline.shown, *(c.synthetic for c in drawn.values()))]
    states = [planes[1].project(s.obs) for s in (offline.shown, *(c for both in drawn.values() for c in both))]
    for line, clouds in zip(axes, (pairs, states), strict=True):
        for panel in line:
            frame(panel, clouds)
        legend = line[0].legend(loc="upper left", markerscale=2.5, handletextpad=0.2)
        for handle in legend.legend_handles:
            handle.set_alpha(1.0)


def draw_triples(
    offline: Offline, drawn: Mapping[str, Clouds | None], measured: Mapping[str, Any], title: str
) -> Figure:
    """Fig. 1: (s, a, s') of data, model and world, a column for each algorithm; empty where there is no run."""
    figure, axes = new_figure(max(len(drawn), 1), 1, (3.9, 3.7), title)
    plane, shown = offline.triple_plane, []
    for panel, (label, clouds) in zip(axes[0], drawn.items(), strict=True):
        panel.set_title(label.upper(), loc="left")
        if clouds is None:
            panel.text(0.5, 0.5, "no run", ha="center", va="center", color=GREY, transform=panel.transAxes)
            panel.set(xticks=[], yticks=[])
            continue
        samples = {"offline data": offline.shown, "synthetic": clouds.synthetic, "real": clouds.real}
        points = {name: plane.project(each.triples().points) for name, each in samples.items()}
        scatter(panel, {name: (points[name], c) for name, c in zip(points, (GREY, RED, BLUE), strict=True)})
        shown += [(panel, list(points.values()))]
        found = measured[label]
        outside, told = (by_seed(found, k) for k in ("real_states_outside", "accuracy_real_synthetic_triples"))
        note(panel, f"real states outside the data: {outside}\nreal and synthetic told apart: {told}")
    for panel, _ in shown:
        frame(panel, [points for _, both in shown for points in both])
        panel.legend(loc="upper left", markerscale=2.5, handletextpad=0.2)
    return figure


Shown = Literal["mean and seeds", "mean", "seeds"]


def draw_lines(axes: Axes, curves: Mapping[str, tuple[Any, Any]], title: str, shown: Shown = "mean and seeds") -> None:
    """Curves over updates; `curves` maps a label to steps and `[seed, step]`. Beside their mean, seeds are thin."""
    for (label, (steps, values)), colour in zip(curves.items(), SERIES, strict=False):
        values = np.asarray(values, float)
        for number, row in enumerate(values if shown != "mean" else ()):
            width, alpha = (1.5, 0.85) if shown == "seeds" else (0.8, 0.35)
            name = f"{label}, by seed" if shown == "seeds" and number == 0 else None
            axes.plot(steps, row, color=colour, linewidth=width, alpha=alpha, label=name)
        if shown != "seeds":
            axes.plot(steps, values.mean(axis=0), color=colour, linewidth=1.8, label=label)
    axes.set_title(title, loc="left")
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel("gradient updates")
    axes.legend(loc="upper left", bbox_to_anchor=(0.0, -0.17), ncols=5, columnspacing=1.2)


def scale_values(axes: Axes, highest: float, reference: float) -> None:
    """A logarithmic axis from 1 on where values explode."""
    if highest > HUGE * reference:
        axes.set_yscale("log")
        axes.set_ylim(bottom=1.0)
    axes.axhline(reference, color=INK, linestyle="--", linewidth=1.1, zorder=1.5)
    axes.annotate(
        f"dashed: best real discounted return in the data, {reference:.0f}",
        (0.98, 0.02),
        xycoords="axes fraction",
        ha="right",
        fontsize=8,
    )


def draw_training(described: Mapping[str, Any], reference: float, title: str) -> Figure:
    """Fig. 4: score and mean Q while training."""
    figure, axes = new_figure(2, 1, (5.4, 3.6), title)
    draw_lines(axes[0, 0], {k: (d["updates"], d["score"]) for k, d in described.items()}, "(a) normalised score")
    draw_lines(axes[0, 1], {k: (d["updates"], d["mean_q"]) for k, d in described.items()}, "(b) value: mean Q", "seeds")
    scale_values(axes[0, 1], max(np.max(d["mean_q"]) for d in described.values()), reference)
    return figure


def draw_weights(
    sweep: Mapping[float, Any], compared: Mapping[str, Any], titles: tuple[str, str], title: str
) -> Figure:
    """Fig. 5: the sweep's curves and its last scores, and the actor's weight fixed or not."""
    figure, axes = new_figure(3, 1, (4.3, 3.6), title)
    curves = {f"{weight:g}": (d["updates"], d["score"]) for weight, d in sweep.items()}
    draw_lines(axes[0, 0], curves, titles[0], "mean")
    means = [float(np.mean(d["last_10_mean"])) for d in sweep.values()]
    for place, (colour, (_, d)) in enumerate(zip(SERIES, sweep.items(), strict=False)):
        axes[0, 1].scatter([place] * len(d["last_10_mean"]), d["last_10_mean"], color=colour, s=26, zorder=3)
    axes[0, 1].plot(range(len(means)), means, color=GREY, linewidth=1.2, marker="_", markersize=14, label="mean")
    axes[0, 1].set_xticks(range(len(means)), [f"{weight:g}" for weight in sweep])
    axes[0, 1].set(xlabel="divergence weight", ylim=(0, None))
    axes[0, 1].set_title("mean of the last 10 scores, by seed", loc="left")
    axes[0, 1].legend(loc="best")
    draw_lines(axes[0, 2], {k: (d["updates"], d["score"]) for k, d in compared.items()}, titles[1])
    return figure


def draw_values(measured: Mapping[str, Any], printed: Mapping[str, Any], title: str) -> Figure:
    """Table 1: ours on the left, each seed's Q beside the real value of the same pairs; the paper's on the right."""
    groups = [(task, name) for task in measured for name in VERSIONS]
    figure, axes = new_figure(2, 1, (1.2 + 1.8 * len(groups), 3.7), title)
    ours = {
        place: [(row["outside"]["q"], row["outside"]["real"]) for row in measured[task][name].values()]
        for place, (task, name) in enumerate(groups)
    }
    rows = printed["rows"]
    theirs = {
        place: [(rows[f"{name.capitalize()} Version"].get(task), rows["Real value"].get(task))]
        for place, (task, name) in enumerate(groups)
    }
    draw_groups(axes[0, 0], groups, ours, "ours: pairs outside the data, by seed")
    draw_groups(axes[0, 1], groups, theirs, "the paper prints (D4RL data, 3 M updates)")
    return figure


def draw_groups(
    axes: Axes, groups: Sequence[tuple[str, str]], values: Mapping[int, Sequence[tuple[Any, Any]]], title: str
) -> None:
    """Dots for Q, bars for real values; a Q beyond the frame, or printed as infinite, is written at its top."""
    real = [value for pairs in values.values() for _, value in pairs if value is not None]
    top = 1.6 * max(real, default=1.0)
    for place, pairs in values.items():
        colour = VERSIONS[groups[place][1]]
        for number, (q, value) in enumerate(pairs):
            x = place + 0.3 * (number - (len(pairs) - 1) / 2)
            if value is not None:
                axes.scatter(x, value, color=INK, marker="_", s=160, linewidths=2.0, zorder=2)
            if q is not None and (isinstance(q, str) or q > top):
                text = "\u221e" if isinstance(q, str) else f"{q:.1e}"
                axes.text(x, 0.98 * top, f"\u2191\n{text}", ha="center", va="top", color=colour, fontsize=9)
            elif q is not None:
                axes.scatter(x, q, color=colour, s=34, zorder=3)
    axes.set_xticks(range(len(groups)), [f"{name}\n{task}" for task, name in groups])
    axes.set(xlim=(-0.6, len(groups) - 0.4), ylim=(0.0, top))
    axes.set_title(title, loc="left")
    axes.scatter([], [], color=GREY, s=34, label="critic's Q")
    axes.scatter([], [], color=INK, marker="_", s=160, linewidths=2.0, label="real value")
    axes.legend(loc="lower left")
