"""The picture of a data set's card, from plain numbers alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import EngFormatter, MaxNLocator, NullLocator

from damorl.files import atomic_file, writing
from damorl.report.curves import BLUE, GREY, NICE, RED, STYLE

Card = Mapping[str, Any]
Arrays = Mapping[str, np.ndarray]
Draw = Callable[[Axes, Card, Arrays], None]

MAX_BINS = 40
ACTION_BINS = 40
LONGEST_NAME = 60


def draw_card(card: Card, arrays: Arrays, path: Path) -> Path:
    """Draw a data set's card into `path` as PNG, atomically; folders are made as needed.

    `card` and `arrays` are those of `world.card.card_and_arrays`. Raises `UserError` if the picture cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with rc_context(STYLE), atomic_file(path) as temporary:
        card_figure(card, arrays).savefig(temporary, format="png", dpi=130)
    return path


def card_figure(card: Card, arrays: Arrays) -> Figure:
    """The figure itself: distributions above, as many as are known, state-action space and actions below."""
    draws: list[Draw] = [draw_returns] * bool(len(arrays["returns"]))
    draws += [draw_lengths] * bool(len(np.unique(arrays["lengths"])) > 1)
    draws += [draw_rewards]
    figure = Figure(figsize=(11.5, 7.4), layout=ConstrainedLayoutEngine(h_pad=0.1, w_pad=0.12))
    name, sizes = heading(card)
    plain: Any = {"ha": "left", "va": "top", "parse_math": False}  # a file's name may hold a dollar
    figure.suptitle(f"{name}\n\n", x=0.012, fontsize=13, fontweight="bold", linespacing=0.85, **plain)
    figure.text(0.012, 0.945, sizes, fontsize=10.5, **plain)
    grid = figure.add_gridspec(2, 1, height_ratios=(1, 1.35))
    above, below = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
    for axes, draw in zip(above.subplots(1, len(draws), squeeze=False)[0], draws, strict=True):
        draw(axes, card, arrays)
    space, actions = below.subplots(1, 2, width_ratios=(2.2, 1))
    draw_embedding(space, card, arrays)
    draw_actions(actions, card, arrays)
    return figure


def heading(card: Card) -> tuple[str, str]:
    """Two lines: the name, and the sizes."""
    name = str(card["name"]).encode(errors="replace").decode()  # a file's name may hold bytes that are no text
    complete, incomplete = card["complete_episodes"], card["incomplete_episodes"]
    sizes = (
        f"{card['transitions']:,} transitions",
        f"{complete:,} complete episode{'s' * (complete != 1)}" + f", {incomplete:,} incomplete" * bool(incomplete),
        f"{card['obs_dim']}-d states, {card['action_dim']}-d actions",
        f"sha256 {card['sha256'][:8]}",
    )
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}\u2026", "  \u00b7  ".join(sizes)


def draw_returns(axes: Axes, card: Card, arrays: Arrays) -> None:
    """How many episodes had which return, with the normalised score above where it is known."""
    returns = arrays["returns"]
    draw_histogram(axes, returns, "Episode returns", "episodes")
    axes.axvline(returns.mean(), color=RED, linestyle="--", linewidth=1.4, label=f"mean {returns.mean():,.4g}")
    axes.legend(loc="best")
    low, high = card["reference_min"], card["reference_max"]
    if low is not None and high is not None:
        scale = (high - low) / 100
        score = axes.secondary_xaxis("top", functions=(lambda x: (x - low) / scale, lambda x: x * scale + low))
        score.set_xlabel("normalised score")
        score.xaxis.set_major_locator(MaxNLocator(5, steps=NICE))


def draw_lengths(axes: Axes, card: Card, arrays: Arrays) -> None:
    """How many episodes lasted how long."""
    draw_histogram(axes, arrays["lengths"], "Episode lengths", "episodes")
    axes.set_xlim(left=0)


def draw_rewards(axes: Axes, card: Card, arrays: Arrays) -> None:
    """How many rows had which reward."""
    draw_histogram(axes, arrays["rewards"], "Rewards", "rows")


def draw_histogram(axes: Axes, values: np.ndarray, title: str, unit: str) -> None:
    """Counts of `values` `[N]` in equal bins, few for few values; logarithmic where the usual bin could not be seen."""
    bins = int(np.clip(2 * np.sqrt(len(values)), 5, MAX_BINS))
    counts, edges = np.histogram(values.astype(np.float64), bins)
    axes.stairs(counts, edges, fill=True, color=BLUE, alpha=0.75)
    axes.set_title(title, loc="left")
    axes.set_ylabel(unit)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=NICE))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=NICE, integer=True))
    if counts.max() > 100 * np.median(counts[counts > 0]):
        axes.set_yscale("log")
        axes.set_ylabel(f"{unit} (log scale)")
        axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(EngFormatter(sep=""))


def draw_embedding(axes: Axes, card: Card, arrays: Arrays) -> None:
    """The rows in the plane of their two principal components, coloured by their episode's return or, where no
    episode is complete, by the time since its start. Rows of unknown return are grey."""
    points, colours, label = arrays["embedding"], arrays["embedding_return"], "return of the episode"
    if not np.isfinite(colours).any():
        colours, label = arrays["embedding_step"].astype(np.float64), "step of the episode"
    order = np.random.default_rng(0).permutation(len(points))  # else the last episodes would cover the first
    known, unknown = (order[mask[order]] for mask in (np.isfinite(colours), ~np.isfinite(colours)))
    style: Any = {"s": float(np.clip(20_000 / len(points), 3, 40)), "linewidths": 0}
    low, high = np.quantile(colours[known], (0.01, 0.99))  # a few extremes would leave one colour to all others
    axes.scatter(*points[unknown].T, color=GREY, **style)
    dots = axes.scatter(*points[known].T, c=colours[known], cmap="viridis", vmin=low, vmax=high, **style)
    bar = axes.figure.colorbar(dots, ax=axes, pad=0.01, aspect=30, label=label, extend="both", extendfrac=0.02)
    bar.outline.set_visible(False)
    axes.set_title("State-action space, two principal components", loc="left")
    first, second = arrays["embedding_share"]
    axes.set_xlabel(f"first ({first:.0%} of the variance)")
    axes.set_ylabel(f"second ({second:.0%})")


def draw_actions(axes: Axes, card: Card, arrays: Arrays) -> None:
    """One histogram per action dimension, each as high as its row allows, the first at the top."""
    actions = arrays["actions"]
    edges = np.linspace(-1, 1, ACTION_BINS + 1)
    for row, column in enumerate(actions.T):
        counts = np.histogram(column, edges)[0] / len(column)
        height = 0.85 * counts / counts.max()
        axes.stairs(height - row, edges, baseline=-row, fill=True, color=BLUE, alpha=0.75)
    num_dims = actions.shape[1]
    labelled = range(0, num_dims, -(-num_dims // 10))
    axes.set_yticks([0.42 - row for row in labelled], [str(row) for row in labelled])
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    axes.set_title("Actions", loc="left")
    axes.set_xlim(-1, 1)
    axes.set_ylim(1 - num_dims, 1)
    axes.set_ylabel("dimension")
