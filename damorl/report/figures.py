"""Figures as SVG that lives inside a page: its colours are the page's, so it is light and dark as the page is."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import EngFormatter, MaxNLocator

from damorl.report.curves import NICE, STYLE, Curve, Panel, scale_values
from damorl.report.series import Band
from damorl.report.statistics import Profile

SIZE = (4.6, 2.8)  # inches: 331 wide in the units of the page, which fits a phone
# Colours that no figure would use by chance, each to be replaced by a variable of the page.
INK, MUTED, EDGE, GRID = "#0d0a01", "#0d0a02", "#0d0a03", "#0d0a04"
SERIES = tuple(f"#0d0b{index:02x}" for index in range(8))
VARIABLES = {INK: "ink", MUTED: "muted", EDGE: "edge", GRID: "grid"} | {
    colour: f"series-{index}" for index, colour in enumerate(SERIES)
}
MARKERS = "os^DvPX*"
INLINE: dict[Any, Any] = STYLE | {
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": EDGE,
    "axes.labelcolor": MUTED,
    "grid.color": GRID,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "svg.fonttype": "none",
    "text.parse_math": False,  # a name may hold a dollar
    "svg.hashsalt": "damorl",
}


class Line(NamedTuple):
    """The curves of one method in a panel, by label; its number decides its colour and marker all over the page."""

    method: int
    bands: Mapping[str, Band]


def panel_svg(slug: str, panel: Panel, lines: Sequence[Line], levels: Mapping[str, float], words: str) -> str:
    """One panel of learning curves: a band and a mean per method, seeds thin, levels dashed. `words` describe it."""

    def draw(axes: Axes) -> None:
        for line in lines:
            for dash, band in zip(("-", (0, (3, 1.5))), line.bands.values(), strict=False):
                draw_band(axes, band, line.method, dash)
        draw_levels(axes, levels)
        axes.margins(x=0.03, y=0.1)
        curves = {f"{i}": Curve(band.steps, band.seeds) for i, line in enumerate(lines) for band in line.bands.values()}
        scale_values(axes, panel, curves)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=NICE))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.set_xlabel("gradient updates")

    return inline_svg(slug, draw, panel.title, words)


def draw_band(axes: Axes, band: Band, method: int, dash: Any) -> None:
    """The mean with an end marker, the band around it, and each seed."""
    colour = SERIES[method % len(SERIES)]
    axes.fill_between(band.steps, band.low, band.high, color=colour, alpha=0.16, linewidth=0)
    if len(band.seeds) > 1:
        for values in band.seeds:
            seen = np.isfinite(values)
            axes.plot(band.steps[seen], values[seen], color=colour, alpha=0.4, linewidth=0.6)
    seen = np.isfinite(band.mean)
    steps, values = band.steps[seen], band.mean[seen]
    axes.plot(steps, values, color=colour, linewidth=1.8, linestyle=dash)
    axes.plot(steps[-1:], values[-1:], color=colour, marker=MARKERS[method % len(MARKERS)], markersize=5)


def draw_levels(axes: Axes, levels: Mapping[str, float]) -> None:
    """Dashed lines across, each named at its right end."""
    for label, level in levels.items():
        axes.axhline(level, color=MUTED, linewidth=1.0, linestyle=(0, (4, 3)), zorder=1.5)
        place: Any = axes.get_yaxis_transform()
        style: Any = {"xycoords": place, "textcoords": "offset points", "ha": "right", "va": "bottom"}
        axes.annotate(label, (0.99, level), (0, 2), fontsize=8, color=MUTED, **style)


def profile_svg(slug: str, profiles: Sequence[tuple[int, Profile]], words: str) -> str:
    """Performance profiles, the share of runs above each score; each with the number of its method."""

    def draw(axes: Axes) -> None:
        for method, profile in profiles:
            colour = SERIES[method % len(SERIES)]
            if profile.low is not None and profile.high is not None:
                ends = profile.low, profile.high
                axes.fill_between(profile.thresholds, *ends, step="post", color=colour, alpha=0.16, linewidth=0)
            axes.plot(profile.thresholds, profile.values, color=colour, linewidth=1.8, drawstyle="steps-post")
            middle = int(np.argmin(np.abs(profile.values - 0.5)))
            marker = MARKERS[method % len(MARKERS)]
            axes.plot(profile.thresholds[middle], profile.values[middle], color=colour, marker=marker, markersize=5)
        axes.set_ylim(-0.02, 1.02)
        axes.set_xlabel("normalised score")
        axes.set_ylabel("share of seeds above it")

    return inline_svg(slug, draw, "Performance profiles", words)


def histogram_svg(slug: str, edges: Sequence[float], counts: Sequence[float], mean: float | None, words: str) -> str:
    """How many episodes of a data set had which return."""

    def draw(axes: Axes) -> None:
        axes.stairs(counts, edges, fill=True, color=SERIES[0], alpha=0.6)
        if mean is not None:
            axes.axvline(mean, color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)))
        axes.set_xlabel("return of an episode")
        axes.set_ylabel("episodes")
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=NICE))

    return inline_svg(slug, draw, "Returns in the data", words)


def inline_svg(slug: str, draw: Callable[[Axes], None], name: str, words: str) -> str:
    """Draw into fresh axes and return an `<svg>` element, the same for the same drawing.

    `slug` makes its ids unique on the page; `name` and `words` are what a screen reader says.
    """
    buffer = io.StringIO()
    with rc_context(INLINE):
        figure = Figure(figsize=SIZE, layout=ConstrainedLayoutEngine(h_pad=0.03, w_pad=0.03))
        draw(figure.add_subplot())
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    return for_page(buffer.getvalue(), slug, name, words)


def for_page(svg: str, slug: str, name: str, words: str) -> str:
    """Make a file's SVG an element of a page: own ids, the page's colours and font, a name and a description."""
    body = svg[re.search(r"<svg\b[^>]*>", svg).end() : svg.rindex("</svg>")]  # pyright: ignore[reportOptionalMemberAccess]
    view = re.search(r'viewBox="[^"]*"', svg).group()  # pyright: ignore[reportOptionalMemberAccess]
    body = re.sub(r"<(metadata|style)\b.*?</\1>|<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>{slug}-", body)
    body = re.sub(r" font-family: [^;]*;", "", body)
    body = re.sub(r' (?:d|x|y)="[^"]*"', lambda place: _rounded(place.group()), body)
    body = re.sub("#0d0[ab][0-9a-f]{2}", lambda colour: f"var(--{VARIABLES[colour.group()]})", body)
    body = re.sub(r"\s+", " ", body).replace("> <", "><")
    label = f'role="img" aria-label="{escape(name)}" aria-describedby="{slug}-words"'
    return f'<svg {view} {label}><desc id="{slug}-words">{escape(words)}</desc>{body}</svg>'


def _rounded(text: str) -> str:
    """Tenths of a unit are finer than any screen."""
    return re.sub(r"-?\d+\.\d+", lambda number: f"{float(number.group()):.1f}".removesuffix(".0"), text)
