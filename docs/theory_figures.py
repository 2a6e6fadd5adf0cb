"""Tabulate and draw the exact theory: python docs/theory_figures.py NAME ...

tabular, paper_scale, linear, network: write docs/theory/gradients_NAME.json and print its table in Markdown;
push: writes docs/theory/gradients_push.json, each gradient's push on the exact answer and where it leads in the end;
exact: writes docs/theory/exact.json and prints its table; figures: draws docs/theory/*.png from those files.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from damorl.files import atomic_file
from damorl.theory.exact_study import Score, compare
from damorl.theory.generators import GENERATORS
from damorl.theory.gradient_study import (
    Case,
    OptimiserName,
    Row,
    Setup,
    course,
    exact_q,
    line_problem,
    linear_setup,
    network_setup,
    push,
    table,
    tabular_setup,
)
from damorl.theory.gradients import CRITIC_GRADIENTS

FOLDER = Path(__file__).resolve().parent / "theory"
ALL = tuple(GENERATORS)
How = tuple[OptimiserName, float, int]
LINE = {"cells": 40, "gamma": 0.95, "weight": 1.0}
SEEDS = 3  # of features and networks

STUDIES: dict[str, tuple[list[Callable[[], Setup]], list[How], tuple[str, ...]]] = {
    "tabular": (
        [lambda: tabular_setup(0, 40, 0.9, 1.0)],
        [("descent", 0.5, 100_000), ("adam", 5e-2, 50_000)],
        ALL,
    ),
    "paper_scale": ([lambda: tabular_setup(0, 20, 0.99, 3.0)], [("adam", 0.2, 100_000)], ALL),
    "linear": (
        [lambda seed=seed: linear_setup(seed, line_problem(**LINE), 8) for seed in range(SEEDS)],
        [("adam", 5e-2, 40_000)],
        ALL,
    ),
    "network": (
        [lambda seed=seed: network_setup(seed, line_problem(**LINE), (32, 32)) for seed in range(SEEDS)],
        [("adam", 1e-3, 5_000)],
        ("cubic_symmetric", "chi_square", "kl"),
    ),
}


def study(name: str) -> None:
    """Run one study over its setups, write the mean rows, print them."""
    setups, hows, divergences = STUDIES[name]
    runs = [list(table(make, hows, divergences)) for make in setups]
    rows = [mean_row(same) for same in zip(*runs, strict=True)]
    write_json(FOLDER / f"gradients_{name}.json", [row._asdict() for row in rows])
    print("\n".join(markdown(rows)))


def push_and_course() -> None:
    """What each gradient does to the exact answer, and where it leads in the long run."""
    with jax.enable_x64(True):
        tabular, linear = tabular_setup(0, 40, 0.9, 1.0), linear_setup(0, line_problem(**LINE), 8)
        pushes = {name: {kind: push(tabular, name, kind) for kind in CRITIC_GRADIENTS} for name in ALL}
        courses = {
            f"{name}, {kind}": course(linear, Case(name, kind, "adam", 1e-2, 200_000))
            for name in ("cubic_symmetric", "chi_square")
            for kind in CRITIC_GRADIENTS
        }
        answers = {name: float(np.mean(exact_q(linear.problem, name))) for name in ("cubic_symmetric", "chi_square")}
    write_json(FOLDER / "gradients_push.json", {"push": pushes, "mean_q": courses, "exact_mean_q": answers})
    for name, own in pushes.items():
        print(f"| {name} | " + " | ".join(number(own[kind]) for kind in CRITIC_GRADIENTS) + " |")
    for name, means in courses.items():
        print(f"| {name} | " + " | ".join(f"{mean:.1f}" for mean in means) + " |")
    print(answers)


def mean_row(rows: Iterable[Row]) -> Row:
    """The mean over seeds; of `growth` and `largest_q` the maximum."""
    first, *_ = rows = list(rows)
    means = {key: float(np.mean([getattr(row, key) for row in rows])) for key in Row._fields[3:]}
    most = {key: max(getattr(row, key) for row in rows) for key in ("growth", "largest_q")}
    return first._replace(**means | most)


def markdown(rows: Iterable[Row]) -> list[str]:
    """The rows as a table."""
    lines = [
        "| divergence | gradient | optimiser | settled | still moving | E[Q - Q*] | max \\|Q\\| | J - J* | mass "
        "| ratio error | to the truth |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        figures = [f"{row.settled:.0%}".replace("%", " %"), *map(number, row[4:])]
        lines.append("| " + " | ".join([row.divergence, row.gradient, row.optimiser, *figures]) + " |")
    return lines


def number(x: float) -> str:
    """Three digits, and 0 for what rounding left."""
    return "0" if abs(x) < 1e-6 else f"{x:.3g}"


def write_json(path: Path, content: Any) -> None:
    """Whole or not at all."""
    path.parent.mkdir(exist_ok=True)
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")


def exact() -> None:
    """Run the comparison over 60 random MDPs, write every score, print means and intervals."""
    scores = list(compare(seed=0, count=60))
    write_json(FOLDER / "exact.json", [score._asdict() for score in scores])
    errors = sorted({score.error for score in scores})
    print("| model | method | " + " | ".join(f"{error:.0%}".replace("%", " %") for error in errors) + " |")
    print("|---" * (len(errors) + 2) + "|")
    for family, method in dict.fromkeys((score.family, score.method) for score in scores):
        own = [score for score in scores if (score.family, score.method) == (family, method)]
        cells = (f"{mean:.0f} +- {half:.0f}" for mean, half in map(interval, own))
        print(f"| {family} | {method} | " + " | ".join(cells) + " |")


def interval(score: Score) -> tuple[float, float]:
    """Mean over MDPs and half the width of its 95 % interval (normal)."""
    values = np.asarray(score.scores)
    return float(np.mean(values)), float(1.96 * np.std(values, ddof=1) / np.sqrt(len(values)))


def draw_exact(path: Path) -> None:
    """True return against model error, one panel for each kind of error."""
    scores = [Score(**row) for row in json.loads((FOLDER / "exact.json").read_text())]
    figure, panels = plt.subplots(1, 2, figsize=(11, 4.2), sharey=True, layout="constrained")
    titles = {"noise": "the model is mixed with noise", "promise": "the model promises too much for rare actions"}
    for panel, (family, title) in zip(panels, titles.items(), strict=True):
        for method in dict.fromkeys(score.method for score in scores):
            own = [score for score in scores if (score.family, score.method) == (family, method)]
            errors = [score.error for score in own]
            mean, half = np.array([interval(score) for score in own]).T
            dashes = "-" if method.startswith("DAMO") else "--"
            (line,) = panel.plot(errors, mean, dashes, marker="o", markersize=3, label=method)
            panel.fill_between(errors, mean - half, mean + half, color=line.get_color(), alpha=0.12, linewidth=0)
        panel.set(title=title, xlabel="share of the model that is wrong")
    panels[0].set_ylabel("true return (0 random, 100 best)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    save(figure, path)


def draw_gradients(path: Path) -> None:
    """Bias of Q under each gradient: tabular, linear, network."""
    names = ("tabular", "linear", "network")
    figure, panels = plt.subplots(1, 3, figsize=(12, 3.8), layout="constrained")
    for panel, name in zip(panels, names, strict=True):
        rows = [Row(**row) for row in json.loads((FOLDER / f"gradients_{name}.json").read_text())]
        rows = [row for row in rows if row.optimiser == "adam"]
        divergences, kinds = (
            list(dict.fromkeys(getattr(row, key) for row in rows)) for key in ("divergence", "gradient")
        )
        for shift, kind in enumerate(kinds):
            bias = [row.bias for row in rows if row.gradient == kind]
            panel.bar(np.arange(len(divergences)) + 0.16 * (shift - 2), bias, 0.16, label=kind)
        panel.set_xticks(range(len(divergences)), [name.replace("_", "\n") for name in divergences], fontsize=7)
        panel.set_yscale("symlog", linthresh=1.0)
        panel.set_title(name)
    panels[0].set_ylabel("E[Q - Q*]")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    save(figure, path)


def save(figure: Any, path: Path) -> None:
    """As a PNG without a date in it, so that equal pictures are equal files."""
    path.parent.mkdir(exist_ok=True)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120, metadata={"Software": None})
    plt.close(figure)


def figures() -> None:
    """All pictures whose data are there."""
    draw_exact(FOLDER / "exact.png")
    draw_gradients(FOLDER / "critic-gradients.png")


if __name__ == "__main__":
    own = {"exact": exact, "figures": figures, "push": push_and_course}
    for wanted in sys.argv[1:]:
        own[wanted]() if wanted in own else study(wanted)
