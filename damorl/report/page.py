"""The report: one page that opens from disk and asks the network for nothing, and its tables as other files."""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from damorl.bars import Bar
from damorl.errors import UserError
from damorl.files import atomic_file, writing
from damorl.record.store import plain
from damorl.report.collect import Run
from damorl.report.compare import Comparison, cautions, compare, replication
from damorl.report.curves import PANELS, Panel, references
from damorl.report.figures import Line, histogram_svg, panel_svg, profile_svg
from damorl.report.html import render, require_html
from damorl.report.numbers import Bands, numbers
from damorl.report.results import DataSet, Result
from damorl.report.series import Band, result_band
from damorl.report.statistics import AGGREGATE_REPS, PAIR_REPS
from damorl.report.stores import read_runs
from damorl.report.tables import (
    aggregate_table,
    difference_tables,
    grid_table,
    lack_table,
    pair_table,
    score_table,
    seed_table,
    selection_table,
)
from damorl.report.text import latex, markdown

FACTS = {"started": "Started", "device_kind": "Device", "cpu_count": "CPU cores", "python": "Python"}
CARD_FACTS = {
    "transitions": "Transitions",
    "episodes": "Episodes",
    "terminals": "Terminals",
    "truncations": "Truncations",
    "obs_dim": "State dimensions",
    "action_dim": "Action dimensions",
    "task": "Task",
    "return": "Return",
    "return_mean": "Mean return",
    "return_max": "Highest return",
    "best_discounted_return": "Best discounted return",
    "score": "Normalised score",
    "episode_length": "Episode length",
    "sha256": "SHA-256",
}
PANEL_HELP = {
    "Value estimate (mean Q)": "Far above the best return in the data, the critic believes in what cannot be.",
    "Classifier accuracy": "At one half, real and synthetic rows look alike.",
    "Log-ratio, real against synthetic": "Solid: real rows. Dashed: synthetic rows.",
    "Cross-entropy of a token": "Solid: states. Dashed: actions. In nats.",
}


class FigureCard(NamedTuple):
    """A figure with its heading and a sentence below."""

    title: str
    svg: Markup
    help: str = ""


def write_report(
    run_dirs: Sequence[Path],
    out: Path = Path("report.html"),
    title: str | None = None,
    seed: int = 0,
    quiet: bool = True,
) -> dict[str, Any]:
    """Write the page `out` and, beside it, the same name with `.md`, `.tex` and `.json`; return what the last holds.

    `run_dirs` are run directories, records of runs, or directories of them (see `read_runs`), and all that is read; the
    same directories give the same bytes. `seed` decides every
    bootstrap. Unless `quiet`, a progress bar counts the data sets. Raises `UserError` for what is no run directory,
    for damaged files, and where nothing can be written.
    """
    require_html(out)
    runs = read_runs(run_dirs)
    if not runs:
        raise UserError("expected at least one run directory, found none: name some, for instance runs/*")
    comparison = compare(runs, seed)
    title = title or f"Report of {len(comparison.there)} run{'s' * (len(comparison.there) != 1)}"
    bands = gather_bands(comparison)
    content = plain(numbers(comparison, bands, title))
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    files = {
        ".md": markdown(comparison, title, method_note(comparison)),
        ".tex": latex(comparison),
        ".json": json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n",
        out.suffix: page(comparison, bands, title, quiet),
    }
    for suffix, text in files.items():
        with atomic_file(out.with_suffix(suffix)) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return content


def gather_bands(comparison: Comparison) -> Bands:
    """Every curve of every panel that was recorded."""
    keys = [key for panel in PANELS for key in panel.curves]
    return {
        (result.method.label, result.data.label): {
            key: band for key in keys if (band := result_band(result, key, comparison.seed)) is not None
        }
        for result in comparison.results
    }


def method_note(comparison: Comparison) -> str:
    """How the numbers were made, in one paragraph."""
    return (
        f"A seed's score is the mean of its last 10 evaluations. {replication(comparison)} "
        "Std, and what follows a ±, is the sample standard "
        "deviation over seeds (n - 1). Intervals are 95 % percentile intervals of the stratified bootstrap over seeds, "
        f"not over data sets ({AGGREGATE_REPS:,} draws, {PAIR_REPS:,} for pairs, profiles and curves, from seed "
        f"{comparison.seed}). With three seeds such an interval holds the true mean only about three times in four, "
        "with five about five times in six. Best is the best single evaluation: it was picked with the simulator and "
        "is not to be quoted."
    )


def page(comparison: Comparison, bands: Bands, title: str, quiet: bool = True) -> str:
    """The whole page as text."""
    data_sets = Bar(comparison.data, desc="figures", unit="data set", disable=quiet)
    return render(
        "page.html.j2",
        title=title,
        note=method_note(comparison),
        cautions=cautions(comparison),
        comparison=comparison,
        num_seeds=sum(len(result.seeds) for result in comparison.results),
        grid=grid_table(comparison),
        scores=score_table(comparison),
        seeds=seed_table(comparison),
        lacks=lack_table(comparison),
        overall=overall(comparison),
        sections=[section(comparison, bands, data, f"d{i}") for i, data in enumerate(data_sets)],
        selections=[(run, selection_table(run)) for run in comparison.runs if run.selection],
        differences=difference_tables(comparison.there),
        runs=[run_facts(run, comparison) for run in comparison.there],
    )


def overall(comparison: Comparison) -> dict[str, Any] | None:
    """The tables and the figure over all data sets, and what they had to leave out."""
    found = comparison.aggregate
    if found is None:
        return None
    profiles = [(comparison.methods.index(method), profile) for method, profile in found.profiles.items()]
    words = "; ".join(f"{m.label}: half of its runs score more than {middle(p)}" for m, p in found.profiles.items())
    return {
        "data": [data.label for data in found.data],
        "methods": [(comparison.methods.index(method), method) for method in found.methods],
        "left_out": [
            *(method.label for method in comparison.methods if method not in found.methods),
            *(data.label for data in comparison.data if data not in found.data),
        ],
        "table": aggregate_table(comparison, found),
        "pairs": pair_table(comparison, found),
        "profile": Markup(profile_svg("profile", profiles, words)),
    }


def middle(profile: Any) -> str:
    """The score that half of the runs exceed, as text."""
    return f"{profile.thresholds[int(abs(profile.values - 0.5).argmin())]:.0f}"


def section(comparison: Comparison, bands: Bands, data: DataSet, slug: str) -> dict[str, Any]:
    """One data set: curves, and what is known of the data."""
    results = [result for result in comparison.results if result.data == data]
    run = max((run for result in results for run in result.runs), key=lambda run: run.card is not None)
    card = run.card or {}
    return {
        "slug": slug,
        "label": data.label,
        "methods": [(comparison.methods.index(result.method), result.method) for result in results],
        "figures": list(panels(comparison, bands, results, slug)),
        "facts": list(card_facts(run)),
        "histogram": histogram(card, slug),
        "picture": run.picture and f"data:image/png;base64,{base64.b64encode(run.picture).decode()}",
    }


def panels(comparison: Comparison, bands: Bands, results: Sequence[Result], slug: str) -> Iterator[FigureCard]:
    """The panels that have data, all methods of a data set in each."""
    levels: dict[str, dict[str, float]] = {}
    for run in (run for result in results for run in result.runs):
        for name, values in references(run.config).items():
            levels.setdefault(name, {}).update(values)
    for number, panel in enumerate(PANELS):
        lines = []
        for result in results:
            found = bands[result.method.label, result.data.label]
            curves = {label: found[key] for key, label in panel.curves.items() if key in found}
            if curves:
                lines.append(Line(comparison.methods.index(result.method), curves))
        if lines:
            words = describe_lines(comparison, lines)
            svg = panel_svg(f"{slug}-p{number}", panel, lines, levels.get(panel.reference or "", {}), words)
            yield FigureCard(panel.title, Markup(svg), panel_help(panel, lines))


def panel_help(panel: Panel, lines: Sequence[Line]) -> str:
    """What to look for, and whether points were averaged."""
    thin = any(band.averaged > 1 for line in lines for band in line.bands.values())
    return f"{PANEL_HELP.get(panel.title, '')} {'Neighbouring points are averaged.' if thin else ''}".strip()


def describe_lines(comparison: Comparison, lines: Sequence[Line]) -> str:
    """Where each curve ends, for those who cannot see it."""
    return "; ".join(
        f"{' '.join(filter(None, (comparison.methods[line.method].label, label)))} {describe_end(band)}"
        for line in lines
        for label, band in line.bands.items()
    )


def describe_end(band: Band) -> str:
    """The last point of a mean curve with its band."""
    known = [i for i, value in enumerate(band.mean) if value == value]
    if not known:
        return "has no finite value"
    last = known[-1]
    ends = f", band {band.low[last]:.4g} to {band.high[last]:.4g}" if band.low[last] == band.low[last] else ""
    return f"ends at {band.mean[last]:.4g}{ends} after {band.steps[last]:,.0f} updates"


def card_facts(run: Run) -> Iterator[tuple[str, str]]:
    """What is known of the data: from its card or, without one, from the run's config."""
    known = {key: value for key, value in {**run.data, **(run.card or {})}.items() if value is not None}
    known.setdefault("transitions", known.get("num_transitions"))
    if isinstance(known.get("return"), Mapping):
        known = {key: value for key, value in known.items() if key not in ("return_mean", "return_max")}
    for key, name in CARD_FACTS.items():
        value = known.get(key)
        if isinstance(value, Mapping):
            yield name, f"{value['mean']:,.1f} ± {value['std']:,.1f} ({value['min']:,.1f} to {value['max']:,.1f})"
        elif isinstance(value, int | float):
            yield name, f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"
        elif value is not None:
            yield name, str(value)


def histogram(card: Mapping[str, Any], slug: str) -> FigureCard | None:
    """The returns of the data set's episodes, if its card has them."""
    found = card.get("return_histogram")
    if not found or not found.get("counts"):
        return None
    mean = (card.get("return") or {}).get("mean")
    words = f"{sum(found['counts']):,} episodes between {found['edges'][0]:,.1f} and {found['edges'][-1]:,.1f}"
    svg = histogram_svg(f"{slug}-returns", found["edges"], found["counts"], mean, words)
    return FigureCard("Returns in the data", Markup(svg), "Dashed: the mean.")


def run_facts(run: Run, comparison: Comparison) -> dict[str, Any]:
    """How a run was made."""
    source = run.provenance.get("git") or {}
    facts = {label: str(run.provenance[key]) for key, label in FACTS.items() if run.provenance.get(key) is not None}
    if source.get("revision"):
        facts["Revision"] = source["revision"] + (" with changes" if source.get("dirty") else "")
    algorithm = run.provenance.get("algorithm") or {}
    if algorithm.get("package") not in (None, "damorl"):
        facts["Plug-in"] = f"{algorithm['package']} {algorithm['version']}"
    facts["Data"] = f"{run.data['name']}, sha256 {run.data['sha256']}"
    facts["Seeds"] = ", ".join(str(seed) for seed in run.config["seeds"])
    facts["Platform"] = str(run.provenance.get("platform", "not recorded"))
    versions = run.provenance.get("versions") or {}
    facts["Versions"] = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    method = comparison.method_of[run.place]
    return {
        "name": run.name,
        "method": (comparison.methods.index(method), method),
        "command": shlex.join(run.command) if run.command else "not recorded",
        "facts": {name: value for name, value in facts.items() if value},
        "config": json.dumps(plain(run.config), indent=2, ensure_ascii=False),
    }
