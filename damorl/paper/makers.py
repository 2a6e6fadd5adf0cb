"""How each experiment is made from its finished runs: measured, drawn, and told in a few lines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from damorl.bars import Bar
from damorl.data.datasets import Dataset
from damorl.experiment.config import RunConfig
from damorl.experiment.sources import load_dataset
from damorl.paper import draw
from damorl.paper.distributions import Offline, baseline, compare_runs, study
from damorl.paper.draw import by_seed
from damorl.paper.draw_roads import draw_roads
from damorl.paper.draw_scores import draw_scores
from damorl.paper.measure import NEIGHBOUR, QUANTILE
from damorl.paper.plan import FREE_WEIGHT, FULL, INCONSISTENT, SEEN_IN_FIGURE_1, WEIGHTS, Planned, Request, weight_label
from damorl.paper.roads import METHODS, RoadConfig, travel
from damorl.paper.scores import table_rows, text_table
from damorl.paper.trained import Trained, restore
from damorl.paper.training import describe
from damorl.paper.values import measure_pairs, summarise
from damorl.record import store
from damorl.theory.printed import printed_table

PAIRS = {"smoke": 10, "quick": 100, "full": 400}
"""State-action pairs on each side of the support that are played in the simulator, for each seed."""


@dataclass(frozen=True)
class Work:
    """An experiment whose runs are finished, as far as they will be."""

    request: Request
    planned: Sequence[Planned]
    out: Path
    quiet: bool = False
    given: tuple[Path, ...] = ()
    """Run directories that table2 lists as they are."""
    make: bool = True
    """Whether built-in data sets that are not on this machine are made."""
    datasets: dict[str, Dataset] = field(default_factory=dict)
    studies: dict[str, Offline] = field(default_factory=dict)

    def dataset(self, config: RunConfig) -> Dataset:
        """The data of a run, loaded once."""
        if config.dataset not in self.datasets:
            self.datasets[config.dataset] = load_dataset(
                config.dataset, config.task, config.loop.dataset_steps, make=self.make, quiet=self.quiet
            )
        return self.datasets[config.dataset]

    def offline(self, config: RunConfig) -> Offline:
        """What runs on the same data are compared with, worked out once."""
        if config.dataset not in self.studies:
            self.studies[config.dataset] = study(self.dataset(config))
        return self.studies[config.dataset]

    def trained(self, planned: Planned) -> Trained:
        """A finished run, restored."""
        return restore(planned.config, planned.directory(self.out), self.dataset(planned.config), tqdm.write)

    def bar(self, name: str, total: int) -> Any:
        """A progress bar."""
        return Bar(total=total, desc=name, disable=self.quiet)


class Made(NamedTuple):
    """What an experiment gave."""

    measured: dict[str, Any]
    """Goes to the JSON file."""
    figure: Figure
    lines: list[str]
    """For the terminal."""
    printed: dict[str, Any] | None = None
    """What the paper prints, kept apart."""


Make = Callable[[Work], Made]


def heading(work: Work, what: str) -> str:
    """A picture's title: what it shows, of what, and how large the runs were."""
    config, sizes = work.planned[0].config, {each.config.loop.total_updates for each in work.planned}
    count, updates = len(config.seeds), " to ".join(f"{size:,}" for size in sorted({min(sizes), max(sizes)}))
    return f"{what}  \u00b7  {config.dataset}, {updates} updates, {count} seed{'s' * (count != 1)}"


def drawn_seed(work: Work) -> str:
    """Which seed's points are drawn, where there are several."""
    first, *others = work.planned[0].config.seeds
    return f" (points: seed {first}; numbers: each)" if others else ""


def method_of_measurement() -> dict[str, Any]:
    """What the numbers beside the pictures mean."""
    return {
        "outside": f"distance to the {NEIGHBOUR}-th nearest neighbour in the data's even episodes (standardised) above "
        f"the {QUANTILE:.0%} quantile of that of its odd episodes",
        "accuracy": f"{NEIGHBOUR}-nearest-neighbour vote, halves split by episode; 0.5 is chance",
        "policy": "the scored policy, actions sampled; synthetic rollouts as in training, from dataset states",
    }


def fig2(work: Work) -> Made:
    """No runs: exact."""
    seeds = (0, 1, 2, 3) if work.request.seeds is None else work.request.seeds
    config = RoadConfig()
    found = [travel(config, seed) for seed in seeds]
    lines = []
    for name in METHODS:
        roads = [each["methods"][name]["roads_in_truth"] for each in found]
        text = ", ".join(f"{road} {np.mean([r[road] for r in roads]):.1%}" for road in roads[0])
        reward = np.mean([each["methods"][name]["reward_in_truth"] for each in found])
        lines.append(f"{name:<10} in truth: {text}; mean reward {reward:.2f}")
    title = "Three roads: which one is taken, in the learned model and in truth"
    return Made({"settings": vars(config), "seeds": found}, draw_roads(found[0]["methods"], title), lines)


def fig3(work: Work) -> Made:
    """Distributions of the ablations."""
    offline = work.offline(work.planned[0].config)
    runs = [(each.label, work.trained(each)) for each in work.planned]
    with work.bar("sampling", sum(len(run.config.seeds) for _, run in runs)) as bar:
        measured, drawn = compare_runs(runs, offline, bar.update)
    figure = draw.draw_ablations(offline, drawn, measured, heading(work, "Fig. 3") + drawn_seed(work))
    return Made(
        {"method": method_of_measurement(), "data_against_itself": baseline(offline), "by_seed": measured},
        figure,
        [
            f"{label:<8} by seed: synthetic pairs outside {by_seed(found, 'synthetic_pairs_outside')}, "
            f"real states outside {by_seed(found, 'real_states_outside')}"
            for label, found in measured.items()
        ],
    )


def fig1(work: Work) -> Made:
    """Transitions of MOPO, MOBILE and DAMO, of those that have a run."""
    finished = [each for each in work.planned if each.finished(work.out)]
    offline = work.offline(work.planned[0].config)
    runs = [(each.label, work.trained(each)) for each in finished]
    with work.bar("sampling", sum(len(run.config.seeds) for _, run in runs)) as bar:
        measured, drawn = compare_runs(runs, offline, bar.update)
    wanted = work.request.algos or SEEN_IN_FIGURE_1
    missing = [algo for algo in wanted if algo not in drawn]
    panels = {algo: drawn.get(algo) for algo in wanted}
    figure = draw.draw_triples(offline, panels, measured, heading(work, "Fig. 1") + drawn_seed(work))
    lines = [
        f"{label:<8} by seed: real states outside {by_seed(found, 'real_states_outside')}"
        for label, found in measured.items()
    ]
    numbers = {"method": method_of_measurement(), "data_against_itself": baseline(offline), "by_seed": measured}
    return Made(numbers | {"missing": missing}, figure, lines + [f"{algo:<8} missing: no run" for algo in missing])


def pair_values(work: Work, planned: Sequence[Planned]) -> dict[str, Any]:
    """Critic and simulator on the policy's own pairs, by run's label and seed."""
    count, found = PAIRS[work.request.scale], {}
    total = 2 * count * sum(len(each.config.seeds) for each in planned)
    with work.bar("pairs played", total) as bar:
        for each in planned:
            run = work.trained(each)
            offline = work.offline(each.config)
            rows = found.setdefault(each.config.dataset, {}).setdefault(each.label, {})
            for index, seed in enumerate(run.config.seeds):
                rows[str(seed)] = summarise(*measure_pairs(run, index, offline.pairs, offline.shown, count, bar.update))
    return found


def table1(work: Work) -> Made:
    """Values of out-of-distribution pairs."""
    found = pair_values(work, work.planned)
    names = {FULL: "consistent", INCONSISTENT: "inconsistent"}
    measured = {
        dataset.split("-")[0]: {names[label]: rows for label, rows in by_label.items()}
        for dataset, by_label in found.items()
    }
    lines = []
    for task, by_name in measured.items():
        for name, rows in by_name.items():
            for seed, row in rows.items():
                values = {key: "none" if x is None else f"{x:.4g}" for key, x in row["outside"].items()}
                lines.append(
                    f"{task} {name}, seed {seed}: {values['pairs']} pairs outside the data, Q {values['q']}, "
                    f"real value {values['real']} +- {values['standard_error']}"
                )
    printed = printed_table(1)
    figure = draw.draw_values(measured, printed, heading(work, "Table 1"))
    return Made({"method": method_of_measurement(), "by_task": measured}, figure, lines, printed)


def fig4(work: Work) -> Made:
    """Training of the ablations."""
    described = {each.label: describe(each.directory(work.out)) for each in work.planned}
    config = store.read_json(work.planned[0].directory(work.out) / store.CONFIG)
    reference = float(config["data"]["best_discounted_return"])
    (values,) = pair_values(work, work.planned).values()
    figure = draw.draw_training(described, reference, heading(work, "Fig. 4"))
    measured = {"curves": described, "best_real_discounted_return": reference, "pairs_by_seed": values}
    return Made(measured, figure, [*score_lines(described), *over_lines(values)])


def score_lines(described: dict[str, Any]) -> list[str]:
    """One line per run."""
    lines = []
    for label, found in described.items():
        scores = ", ".join(f"{score:.1f}" for score in found["last_10_mean"])
        values = ", ".join(f"{value:.4g}" for value in found["last_mean_q"])
        lines.append(f"{label:<24} mean of the last 10 scores by seed: {scores}; mean Q at the end: {values}")
    return lines


def over_lines(values: dict[str, Any]) -> list[str]:
    """Overestimation, one line per run."""
    lines = []
    for label, rows in values.items():
        text = ", ".join(f"{row['overestimation']:+.4g}" for row in rows.values())
        lines.append(f"{label:<24} Q less the real value of the policy's pairs, by seed: {text}")
    return lines


def fig5(work: Work) -> Made:
    """The two studies of the divergence weight, of the runs that are finished."""
    finished = [each for each in work.planned if each.finished(work.out)]
    described = {each.label: describe(each.directory(work.out)) for each in finished}
    missing = [each.label for each in work.planned if each.label not in described]
    sweep = {weight: described[weight_label(weight)] for weight in WEIGHTS if weight_label(weight) in described}
    names = {FULL: "fixed to 1", FREE_WEIGHT: "the critic's own"}
    compared = {name: described[label] for label, name in names.items() if label in described}
    titles = ("(a) mean score, by divergence weight", "(b) score, by the actor's weight")
    figure = draw.draw_weights(sweep, compared, titles, heading(work, "Fig. 5"))
    datasets = {"a": work.planned[0].config.dataset, "b": work.planned[-1].config.dataset}
    lines = score_lines(described) + [f"{label:<24} missing: no run" for label in missing]
    return Made({"datasets": datasets, "curves": described, "missing": missing}, figure, lines)


def table2(work: Work) -> Made:
    """All algorithms on all data sets."""
    rows = table_rows(work.planned, work.out, work.given)
    figure = draw_scores(rows, f"Table 2  \u00b7  scale {work.request.scale}")
    table = printed_table(2)
    printed = {"source": table["source"], "methods": table["methods"], "rows": table["rows"]}
    return Made({"rows": [row.as_dict() for row in rows]}, figure, text_table(rows).splitlines(), printed)
