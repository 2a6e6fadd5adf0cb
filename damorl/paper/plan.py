"""Which runs each of the paper's experiments needs. Runs are ordinary run directories, shared between experiments.

Two experiments that name the same settings name the same directory: a run is made once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from damorl.algos import ALGORITHMS
from damorl.errors import UserError
from damorl.experiment.config import RunConfig, defaults, find_algorithm, resolve
from damorl.record import ending
from damorl.theory.printed import printed_table

HOPPER, HALFCHEETAH = "hopper-medium-expert", "halfcheetah-medium-expert"
MEDIUM_EXPERT = (HALFCHEETAH, HOPPER, "walker2d-medium-expert")

FULL, WITHOUT_DATA, WITHOUT_BEHAVIOUR, INCONSISTENT = "DAMO", "w/o er", "w/o ir", "inconsistent"
FREE_WEIGHT = "actor weight = critic's"
VARIANTS: dict[str, dict[str, Any]] = {
    FULL: {},
    WITHOUT_DATA: {"data_alignment": False},
    WITHOUT_BEHAVIOUR: {"behaviour_alignment": False},
    INCONSISTENT: {"actor_objective": "sac"},
    FREE_WEIGHT: {"actor_divergence_weight": None},
}
"""The paper's names and what they change of DAMO; er is the explicit regulariser, the data alignment."""
AS_PRINTED: dict[str, Any] = {
    "log_ratio": "joint",
    "data_alignment": True,
    "behaviour_alignment": True,
    "kl_target": None,
    "trust": "fixed",
    "keep": "last",
    "divergence_weight": 3.0,
    "log_ratio_floor": 0.0,
    "actor_objective": "consistent",
    "rollout_occupancy": 0.0,
    "refresh_interval": 1000,
    "eval_interval": 1000,
    "total_updates": 21_000,
    "actor_lr_decay": 21_000,
}
"""What makes quick DAMO the paper's own, as the other scales have it: tables and figures are about both alignments and
the last policy; in about the same minute. The weight is Table 4's for hopper-medium-expert; the floor's reason is in
docs/earlier-leaderboard.md."""
RIVAL_AS_PRINTED: dict[str, Any] = {"keep": "last", "rollout_occupancy": 0.0}
"""The same of every other method with a model: otherwise a figure would show the clone that it falls back on."""
ABLATIONS = (WITHOUT_DATA, WITHOUT_BEHAVIOUR, FULL)
WEIGHTS = (0.5, 1.0, 3.0, 5.0, 8.0)
"""Divergence weights of Fig. 5a; the paper tunes over 0.1 to 5."""
SEEN_IN_FIGURE_1 = ("mopo", "mobile", "damo")


class Scale(NamedTuple):
    """A preset and how many seeds go with it."""

    preset: str
    seeds: tuple[int, ...]
    cost: str
    """Of one DAMO run with these seeds."""


SCALES = {
    "smoke": Scale("smoke", (0,), "under a minute; the numbers mean nothing"),
    "quick": Scale("quick", (0, 1), "2 to 4 minutes of one core on hopper"),
    "full": Scale("paper", (0, 1, 2, 3), "the paper's 3 M updates: hours of a GPU"),
}


@dataclass(frozen=True)
class Request:
    """What the user wants of an experiment; None stands for the experiment's own choice."""

    scale: str = "quick"
    seeds: tuple[int, ...] | None = None
    datasets: tuple[str, ...] | None = None
    algos: tuple[str, ...] | None = None
    updates: int | None = None
    """Another number of updates than the preset's; a rate that decays over the preset's decays over these."""

    def __post_init__(self) -> None:
        """Refuse a scale that is none."""
        if self.scale not in SCALES:
            raise UserError(f"unknown scale '{self.scale}': choose one of {', '.join(SCALES)}")

    def run(self, algo: str, dataset: str, changes: dict[str, Any]) -> RunConfig:
        """One run at this scale, of the algorithm as printed."""
        scale = SCALES[self.scale]
        if self.scale == "quick" and hasattr(find_algorithm(algo).config_type, "keep"):
            changes = (AS_PRINTED if algo == "damo" else RIVAL_AS_PRINTED) | changes
        seeds = scale.seeds if self.seeds is None else self.seeds
        if self.updates is not None:
            _, settings = defaults(algo, scale.preset, dataset)
            decays = getattr(settings, "actor_lr_decay", None) is not None
            changes = changes | {"total_updates": self.updates} | ({"actor_lr_decay": self.updates} if decays else {})
        return resolve(algo, dataset, scale.preset, seeds, changes)


class Planned(NamedTuple):
    """One run of an experiment."""

    label: str
    """What the experiment calls it: a variant, a divergence weight, or an algorithm's name."""
    config: RunConfig

    def directory(self, out: Path) -> Path:
        """Where it is, or will be."""
        return out / self.config.name()

    def finished(self, out: Path) -> bool:
        """Whether it ran to its end."""
        return ending.finished(self.directory(out))


def variants(request: Request, labels: Sequence[str], datasets: Sequence[str]) -> list[Planned]:
    """DAMO in some of its `VARIANTS` on each data set."""
    chosen = request.datasets or datasets
    return [Planned(label, request.run("damo", data, VARIANTS[label])) for data in chosen for label in labels]


def one_dataset(request: Request, name: str) -> str:
    """The data set of a figure that shows one. UserError if more were asked for."""
    datasets = request.datasets or (HOPPER,)
    if len(datasets) != 1:
        raise UserError(f"{name} shows one data set, found {len(datasets)}: give one with --datasets")
    return datasets[0]


def table1(request: Request) -> list[Planned]:
    """The consistent and the inconsistent actor."""
    return variants(request, (FULL, INCONSISTENT), MEDIUM_EXPERT if request.scale == "full" else (HOPPER,))


def ablations(request: Request) -> list[Planned]:
    """The runs of Figs. 3 and 4."""
    return variants(request, ABLATIONS, (one_dataset(request, "an ablation's figure"),))


def weight_label(weight: float) -> str:
    """What Fig. 5a calls a run."""
    return f"divergence weight {weight:g}"


def fig5(request: Request) -> list[Planned]:
    """(a) the sweep of the divergence weight, (b) the actor's weight fixed to 1 or the critic's own.

    (b) is on halfcheetah in the paper, and here at full scale.
    """
    swept = one_dataset(request, "fig5")
    compared = HALFCHEETAH if request.scale == "full" and request.datasets is None else swept
    sweep = [
        Planned(weight_label(weight), request.run("damo", swept, {"divergence_weight": weight})) for weight in WEIGHTS
    ]
    return sweep + variants(request, (FULL, FREE_WEIGHT), (compared,))


def table2(request: Request) -> list[Planned]:
    """Every registered algorithm on every data set: the paper's twelve at full scale, else hopper-medium-expert."""
    default = tuple(printed_table(2)["rows"]) if request.scale == "full" else (HOPPER,)
    algos = tuple(ALGORITHMS) if request.algos is None else request.algos
    for algo in algos:
        find_algorithm(algo)
    datasets = request.datasets or default
    return [Planned(algo, request.run(algo, data, {})) for data in datasets for algo in algos]


def fig1(request: Request) -> list[Planned]:
    """MOPO, MOBILE and DAMO, as far as they are registered."""
    data = one_dataset(request, "fig1")
    chosen = [algo for algo in request.algos or SEEN_IN_FIGURE_1 if algo in ALGORITHMS]
    if not chosen:
        raise UserError(f"fig1 needs an algorithm of this version, found none: choose among {', '.join(ALGORITHMS)}")
    return [Planned(algo, request.run(algo, data, {})) for algo in chosen]
