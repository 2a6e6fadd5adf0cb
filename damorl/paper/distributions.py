"""Where offline, synthetic and real transitions lie (Figs. 1 and 3), and how far from each other, in numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from damorl.data.datasets import Dataset
from damorl.paper.embedding import Plane, fit_plane
from damorl.paper.measure import Grouped, Support, fit_support, share, two_sample_accuracy
from damorl.paper.trained import Samples, Trained, at_most, offline_halves, real, synthetic

POINTS = 2000
"""Of each sample, for numbers and picture."""
REFERENCE = 100_000
"""Rows that a support is fitted to at most."""
EPISODES = 10
"""Real episodes per policy, sampled actions."""


class Offline(NamedTuple):
    """What runs on one data set are compared with."""

    dataset: Dataset
    shown: Samples
    """Rows of the odd episodes; supports are fitted to the even ones."""
    seen: Samples
    states: Support
    pairs: Support
    state_plane: Plane
    pair_plane: Plane
    triple_plane: Plane


def study(dataset: Dataset) -> Offline:
    """Supports and planes of the data's states, pairs and triples."""
    even, odd = offline_halves(dataset)
    even, shown = at_most(even, REFERENCE, 0), at_most(odd, POINTS, 1)
    unseen = at_most(odd, 2 * POINTS, 2)
    return Offline(
        dataset=dataset,
        shown=shown,
        seen=even,
        states=fit_support(even.obs, unseen.obs),
        pairs=fit_support(even.pairs().points, unseen.pairs().points),
        state_plane=fit_plane(even.obs),
        pair_plane=fit_plane(even.pairs().points),
        triple_plane=fit_plane(even.triples().points),
    )


class Clouds(NamedTuple):
    """One policy's samples."""

    synthetic: Samples
    real: Samples


def sample_clouds(trained: Trained, index: int) -> Clouds:
    """`POINTS` synthetic transitions, and as many of `EPISODES` real episodes."""
    drawn = synthetic(trained, index, POINTS)
    return Clouds(at_most(drawn, POINTS, 3), at_most(real(trained, index, EPISODES), POINTS, 4))


def compare(offline: Offline, clouds: Clouds) -> dict[str, Any]:
    """The numbers beside the picture."""
    made, lived, seen = clouds.synthetic, clouds.real, offline.shown
    return {
        "real_rows": len(lived.obs),
        "real_states_outside": share(offline.states.outside(lived.obs)),
        "synthetic_states_outside": share(offline.states.outside(made.obs)),
        "synthetic_pairs_outside": share(offline.pairs.outside(made.pairs().points)),
        "real_pairs_outside": share(offline.pairs.outside(lived.pairs().points)),
        "accuracy_offline_synthetic_pairs": accuracy(seen.pairs(), made.pairs()),
        "accuracy_real_synthetic_states": accuracy(lived.states(), made.states()),
        "accuracy_real_synthetic_triples": accuracy(lived.triples(), made.triples()),
        "accuracy_offline_real_triples": accuracy(seen.triples(), lived.triples()),
    }


def accuracy(first: Grouped, second: Grouped) -> float | None:
    """`two_sample_accuracy`, or None where a sample is too small to tell anything."""
    if min(len(first.points), len(second.points)) < 40:
        return None
    return two_sample_accuracy(first, second)


def baseline(offline: Offline) -> dict[str, Any]:
    """What the numbers are for data against other episodes of the same data: what no policy can beat."""
    other = at_most(offline.seen, POINTS, 5)
    return {
        "states_outside": share(offline.states.outside(offline.shown.obs)),
        "pairs_outside": share(offline.pairs.outside(offline.shown.pairs().points)),
        "accuracy_pairs": accuracy(other.pairs(), offline.shown.pairs()),
        "accuracy_states": accuracy(other.states(), offline.shown.states()),
        "accuracy_triples": accuracy(other.triples(), offline.shown.triples()),
    }


def compare_runs(
    runs: Sequence[tuple[str, Trained]], offline: Offline, on_seed: Callable[[], object]
) -> tuple[dict[str, Any], dict[str, Clouds]]:
    """Numbers of every seed of every run, by label; and the first seed's clouds, which are drawn."""
    measured: dict[str, Any] = {}
    drawn: dict[str, Clouds] = {}
    for label, trained in runs:
        measured[label] = {}
        for index, seed in enumerate(trained.config.seeds):
            clouds = sample_clouds(trained, index)
            drawn.setdefault(label, clouds)
            measured[label][str(seed)] = compare(offline, clouds)
            on_seed()
    return measured, drawn
