"""Learning curves of one run as a picture, from its files alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullLocator

from damorl.files import atomic_file
from damorl.record.members import describe, settings_of
from damorl.record.store import CONFIG, DYNAMICS, NOT_FINITE, Row, read_json, read_metrics

BLUE, RED, GREY, INK = "#1f5fa8", "#c8553d", "#8a8f98", "#22262b"
COLOURS = (BLUE, RED, "#3c8d5a", "#8a5fa8", "#b8892b", "#3f9bb0", "#7a5c48", "#c0508c")
NICE = (1, 2, 2.5, 5, 10)  # tick steps
STYLE: dict[Any, Any] = {
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": "#b9bec6",
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#eceef1",
    "xtick.color": "#6a707a",
    "ytick.color": "#6a707a",
    "legend.edgecolor": "none",
    "legend.framealpha": 0.85,
    "legend.fontsize": 8.5,
}


@dataclass(frozen=True)
class Panel:
    """One picture: the metrics drawn in it (key to label; no label, no legend) and where its lines across come from."""

    title: str
    curves: Mapping[str, str]
    reference: str | None = None
    """The entry of `references` whose values become dashed lines."""
    limits: tuple[float | None, float | None] = (None, None)
    log: bool = False


PANELS = (
    Panel("Normalised score", {"eval/score": ""}, reference="score"),
    Panel("Value estimate (mean Q)", {"critic/q_mean": ""}, reference="value"),
    Panel("Episode length", {"eval/episode_length": ""}, limits=(0, None)),
    Panel("Classifier accuracy", {"classifier/accuracy": ""}, reference="accuracy"),
    Panel(
        "Log-ratio, real against synthetic",
        {"classifier/log_ratio_real": "real rows", "classifier/log_ratio_synthetic": "synthetic rows"},
        reference="log_ratio",
    ),
    Panel("Temperature", {"actor/temperature": ""}, log=True),
    Panel(
        "Return in the model",
        {"validation/value": "policy", "validation/bound": "its lower bound", "validation/best": "bound to beat"},
    ),
    Panel("KL from the reference (nats)", {"actor/kl": "policy", "trust/kl_target": "target"}, log=True),
    Panel(
        "Real return while fine-tuned",
        {"online/incumbent_return": "policy that acts", "online/offline_return": "offline policy"},
    ),
    Panel("Cross-entropy of a token", {"model/obs_nll": "states", "model/action_nll": "actions"}, limits=(0, None)),
)


@dataclass(frozen=True)
class Curve:
    """One metric of all seeds: `values[seed, step]`, NaN where a seed has no value at that step."""

    steps: np.ndarray
    values: np.ndarray = field(repr=False)


def draw_curves(run_dir: Path, path: Path | None = None) -> Path:
    """Draw the learning curves of `run_dir` into `path` (default `curves.png` in it) as PNG, atomically.

    Thin lines are single seeds, the bold one is their mean. Panels whose metrics were not recorded are left out.
    Raises `UserError` if the run's config or metrics are missing, one of its files is damaged, or the picture cannot be
    written.
    """
    path = run_dir / "curves.png" if path is None else path
    config, rows = read_json(run_dir / CONFIG), read_metrics(run_dir)
    fits = read_json(run_dir / DYNAMICS) if (run_dir / DYNAMICS).exists() else {}
    with rc_context(STYLE):
        figure = curves_figure(rows, config, fits)
        with atomic_file(path) as temporary:
            figure.savefig(temporary, format="png", dpi=150)
    return path


def curves_figure(rows: Sequence[Row], config: Mapping[str, Any], fits: Mapping[str, Any] | None = None) -> Figure:
    """The figure itself: a grid, three panels wide, of those panels that have data. `fits` is dynamics.json."""
    settings = [describe(values) for values in settings_of(config)] if config.get("population") else []
    fit_rows, fitted = rows_of_fits(fits or {}), fit_panel(fits or {})
    drawn = [
        (panel, curves, rows, "gradient updates") for panel in PANELS if (curves := panel_curves(rows, panel, settings))
    ]
    if curves := panel_curves(fit_rows, fitted):
        drawn.append((fitted, curves, fit_rows, "batches"))
    columns = max(1, min(3, len(drawn)))
    lines = max(1, -(-len(drawn) // columns))
    figure = Figure(
        figsize=(max(5.5, 4.1 * columns), 2.75 * lines + 0.5), layout=ConstrainedLayoutEngine(h_pad=0.1, w_pad=0.12)
    )
    figure.suptitle(title(rows, config), x=0.012, ha="left", fontsize=12, fontweight="bold")
    levels = references(config)
    for index, (panel, curves, source, unit) in enumerate(drawn):
        axes = figure.add_subplot(lines, columns, index + 1)
        draw_panel(axes, panel, curves, levels.get(panel.reference or "", {}))
        axes.set_xlim(0, max(row["step"] for row in source))
        axes.set_xlabel(unit if index >= len(drawn) - columns else "")
    return figure


def fit_panel(fits: Mapping[str, Any]) -> Panel:
    """The panel of the model's fit; dynamics.json says how many steps were followed."""
    steps = fits.get("settings", {}).get("early_stop_steps")
    curves = {"holdout_error": "one step", "k_step_error": f"after {steps} step{'s' * (steps != 1)}"}
    return Panel("Model's error on held-out rows", curves, log=True)


def rows_of_fits(fits: Mapping[str, Any]) -> list[Row]:
    """The epochs of all fits in dynamics.json as rows of metrics, at batches instead of updates."""
    return [
        {"step": epoch["batches"], "seed": seed}
        | {name: NOT_FINITE.get(str(value), value) for name, value in epoch.items() if value is not None}
        for seed, figures in fits.get("seeds", {}).items()
        for epoch in figures.get("epochs", [])
    ]


def panel_curves(rows: Sequence[Row], panel: Panel, settings: Sequence[str] = ()) -> dict[str, Curve]:
    """The panel's metrics that were recorded, by label; in a population those of each of its `settings`."""
    found = {label: curve(rows, key) for key, label in panel.curves.items()}
    for number, name in enumerate(settings):
        own, found = [row for row in rows if row["setting"] == number], found if number else {}
        found |= {f"{name}, {label}" if label else name: curve(own, key) for key, label in panel.curves.items()}
    return {label: data for label, data in found.items() if data.steps.size}


def curve(rows: Sequence[Row], key: str) -> Curve:
    """All values of one metric. Infinities are kept out of the picture like missing values."""
    points = {(row["seed"], row["step"]): float(row[key]) for row in rows if key in row}
    seeds = sorted({seed for seed, _ in points})
    steps = sorted({step for _, step in points})
    values = np.array([[points.get((seed, step), np.nan) for step in steps] for seed in seeds])
    return Curve(np.array(steps), np.where(np.isfinite(values), values, np.nan))


def references(config: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """The lines across, by panel: scores to compare with, the data's real returns, and what a coin toss would give.

    The config may hold `references`, names to scores, and in `data` the discounted returns of the dataset's episodes.
    """
    returns = {"best in the data": "best_discounted_return", "mean in the data": "mean_discounted_return"}
    data = config.get("data", {})
    return {
        "score": dict(config.get("references", {})),
        "value": {label: data[key] for label, key in returns.items() if data.get(key) is not None},
        "accuracy": {"chance": 0.5},
        "log_ratio": {"": 0.0},
    }


def title(rows: Sequence[Row], config: Mapping[str, Any]) -> str:
    """What was run, on how many seeds, and the score: each seed's mean of its last 10, then mean and deviation."""
    num_seeds, settings = len({row["seed"] for row in rows}), settings_of(config)
    parts = [
        str(config.get("algo", "")).upper(),
        str(config.get("data", {}).get("name", "")),
        f"{num_seeds} seed{'s' * (num_seeds != 1)}",
    ]
    if config.get("population"):
        parts.append(f"{len(settings)} settings of {', '.join(config['population'])}")
        return "  \u00b7  ".join(part for part in parts if part)
    scores = [values[np.isfinite(values)][-10:] for values in curve(rows, "eval/score").values]
    finals = [seed_scores.mean() for seed_scores in scores if seed_scores.size]
    if finals:
        spread = f" \u00b1 {np.std(finals, ddof=1):.1f}" if len(finals) > 1 else ""
        parts.append(f"score {np.mean(finals):.1f}{spread}")
    return "  \u00b7  ".join(part for part in parts if part)


def draw_panel(axes: Axes, panel: Panel, curves: Mapping[str, Curve], levels: Mapping[str, float]) -> None:
    """Seeds thin, their mean bold, levels dashed."""
    for (label, data), colour in zip(curves.items(), COLOURS * len(curves), strict=False):
        draw_curve(axes, data, colour, label)
    for (label, level), dash in zip(levels.items(), ("--", ":", "-.") * len(levels), strict=False):
        axes.axhline(level, color=GREY, linewidth=1.2, linestyle=dash, label=label, zorder=1.5)
    axes.set_title(panel.title, loc="left")
    axes.margins(y=0.1)
    scale_values(axes, panel, curves)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=NICE))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    if any(axes.get_legend_handles_labels()[1]):
        axes.legend(loc="best")


def scale_values(axes: Axes, panel: Panel, curves: Mapping[str, Curve]) -> None:
    """The vertical axis: logarithmic where the panel wishes it and the values allow it, with few and round ticks."""
    positive = all(np.nanmin(data.values, initial=np.inf) > 0 for data in curves.values())
    if not (panel.log and positive):
        axes.set_ylim(*panel.limits)
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=NICE))
        return
    axes.set_yscale("log")
    decades = np.ptp(np.log10(axes.get_ylim()))
    close = MaxNLocator(5, steps=NICE)  # within a factor of 5 the powers and their halves are too few
    axes.yaxis.set_major_locator(close if decades < 0.7 else LogLocator(subs=(1, 2, 5) if decades < 2.7 else (1,)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())


def draw_curve(axes: Axes, data: Curve, colour: str, label: str) -> None:
    """One line per seed and the mean, each over the steps where it has values."""
    seen = np.isfinite(data.values)
    for values, has_value in zip(data.values, seen, strict=True):
        axes.plot(data.steps[has_value], values[has_value], color=colour, alpha=0.35, linewidth=0.8)
    steps, values = data.steps[seen.any(0)], data.values[:, seen.any(0)]
    marker = "o" if len(steps) == 1 else None  # a single point has no line
    axes.plot(steps, np.nanmean(values, axis=0), color=colour, linewidth=2.0, marker=marker, label=label)
