"""Write docs/datasets.md and docs/datasets/ from the built-in sets in the cache: python docs/collect_cards.py.

For each set NAME that is made, docs/datasets/NAME.json is its card and docs/datasets/NAME.png the card's picture.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from damorl.data.card import card_and_arrays, statistics
from damorl.data.datasets import DEFAULT_NUM_STEPS, Dataset, dataset_path, load_dataset
from damorl.report.card import draw_card
from damorl.world.tasks import DATASET_NAMES, TASKS, DatasetName, normalised_score

DOCS = Path(__file__).resolve().parent
CARDS = DOCS / "datasets"


class Theirs(NamedTuple):
    """Episode returns of a D4RL v2 data set, as published at `source`."""

    episodes: int
    mean: float
    std: float
    max: float
    source: str


# Of [1] and [2] each number was read at its source; episodes are the examples of [3], the unfinished last one included.
D4RL = {
    "hopper-random": Theirs(45240, 18.40, 17.45, 292.55, "[2]"),
    "hopper-medium": Theirs(2187, 1422.06, 378.95, 3222.36, "[1] [2]"),
    "hopper-medium-replay": Theirs(2041, 467.30, 511.03, 3192.93, "[1]"),
    "hopper-expert": Theirs(1028, 3511.36, 328.59, 3759.08, "[1] [2]"),
    "halfcheetah-random": Theirs(1000, -288.80, 80.43, -85.36, "[2]"),
    "halfcheetah-medium": Theirs(1000, 4770.33, 355.75, 5309.38, "[1] [2]"),
    "halfcheetah-medium-replay": Theirs(202, 3093.29, 1680.69, 4985.14, "[1]"),
    "halfcheetah-expert": Theirs(1000, 10656.43, 441.68, 11252.04, "[1] [2]"),
    "walker2d-random": Theirs(48908, 1.87, 5.81, 75.03, "[2]"),
    "walker2d-medium": Theirs(1191, 2852.09, 1095.44, 4226.94, "[1] [2]"),
    "walker2d-medium-replay": Theirs(1093, 682.70, 895.96, 4132.00, "[1]"),
    "walker2d-expert": Theirs(1001, 4920.51, 136.39, 5011.69, "[1] [2]"),
}

HEAD = """# The built-in data sets

Whatever first needs one of these (`damorl train`, `sweep`, `paper`, `select`, `data info`, `damorl.load_dataset`) makes
it on your machine, once: {steps:,} transitions per part, on all cores, by policies that come with the package.
`--no-make` (in Python `make=False`) refuses instead; `damorl data make --all` makes all of them in advance, and
`damorl data make NAME --steps N --seed S` other sizes. `damorl data info NAME` prints a card and draws the picture that
is shown here. The same recipe gives the same hash on the same machine.

**They are not D4RL.** They follow D4RL's recipe with Gymnasium's v4 physics and our own policies, so they resemble the
D4RL v2 set of the same name and are not it: a score on one says nothing about a score on the other. For D4RL's own
files there is `damorl data download`. The tables set each of ours beside the D4RL v2 set it imitates. Returns are those
of complete episodes, undiscounted; scores are normalised with D4RL's reference returns (for `inverted_double_pendulum`,
which D4RL does not have, with ours, see [tasks.py](../damorl/world/tasks.py)).

`expert part` is the second half of medium-expert, the part beside which D4RL's expert set stands. The returns of D4RL's
medium-expert are computed from its halves, weighted by their episodes. Our policies were trained for less and most are
weaker than D4RL's: compare the two columns `score`.
"""
SOURCES = """## Sources of D4RL's numbers

1. Average, deviation, maximum and minimum of the episode returns, noted for each v2 file in
   [gym/config/ of RamiRibat/decision-transformer-ammi](https://github.com/RamiRibat/decision-transformer-ammi/tree/main/gym/config).
2. The same statistics for random, medium and expert in the training script of a port of Decision Transformer to
   Gymnasium (a comment headed "Reward statistics of the offline datasets used in Decision Transformer"); where both
   have a number they agree to two decimals. Nothing else was found for the random sets.
3. Numbers of episodes: the TensorFlow Datasets catalogue,
   [hopper](https://www.tensorflow.org/datasets/catalog/d4rl_mujoco_hopper),
   [halfcheetah](https://www.tensorflow.org/datasets/catalog/d4rl_mujoco_halfcheetah) and
   [walker2d](https://www.tensorflow.org/datasets/catalog/d4rl_mujoco_walker2d), configurations v2.
"""
COLUMNS = ("", "rows", "episodes", "return", "best", "score", "sha256", "D4RL: episodes [3]")
COLUMNS += ("return", "best", "score", "from")


def main() -> None:
    """All cards, pictures and the page."""
    CARDS.mkdir(exist_ok=True)
    lines = [HEAD.format(steps=DEFAULT_NUM_STEPS)]
    for task in dict.fromkeys(DatasetName.parse(name).task for name in DATASET_NAMES):
        lines += [f"## {task}\n", table_row(COLUMNS), "|" + "---|" * len(COLUMNS)]
        names = [name for name in DATASET_NAMES if DatasetName.parse(name).task == task]
        lines += [table_row(cells) for name in names for cells in rows_of(name)]
        lines += ["", *(f"![{name}](datasets/{name}.png)\n" for name in names if dataset_path(name).exists())]
    (DOCS / "datasets.md").write_text("\n".join([*lines, SOURCES]), encoding="utf-8")


def table_row(cells: Sequence[str]) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def rows_of(name: str) -> Iterator[list[str]]:
    """The cells of the data set's row and, for medium-expert, of one for its expert part."""
    task, quality = DatasetName.parse(name)
    if not dataset_path(name).exists():
        yield [quality, f"missing: `damorl data make {name}`", *[""] * 5, *their_cells(task, quality)]
        return
    card = write_card(name)
    link = f"[{quality}](datasets/{name}.json)"
    yield [link, *our_cells(task, card), f"`{card['sha256'][:8]}`", *their_cells(task, quality)]
    if "expert_part" in card:
        yield ["expert part", *our_cells(task, card["expert_part"]), "", *their_cells(task, "expert")]


def write_card(name: str) -> dict[str, Any]:
    """The card of a data set that is made, written with its picture. Its path would tell nobody else anything."""
    dataset = load_dataset(name)
    card, arrays = card_and_arrays(dataset)
    del card["path"]
    if DatasetName.parse(name).quality == "medium-expert":
        card["expert_part"] = expert_part(dataset)
    picture = draw_card(card, arrays, CARDS / f"{name}.png")
    Image.open(picture).convert("RGB").quantize().save(picture, optimize=True)  # a third of the bytes to keep
    (CARDS / f"{name}.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    return card


def expert_part(dataset: Dataset) -> dict[str, Any]:
    """The sizes and returns of what follows the first episode that ends in the second half."""
    starts = np.flatnonzero(dataset.episode_start)
    first = int(np.searchsorted(starts, DEFAULT_NUM_STEPS))
    returns = dataset.episode_returns()[first:]
    rows = dataset.num_transitions - int(starts[first])
    return {"transitions": rows, "complete_episodes": len(returns), "return": statistics(returns)}


def our_cells(task: str, facts: Mapping[str, Any]) -> list[str]:
    """Rows, episodes, return, best and score of a card, or of a part of one."""
    sizes = [f"{facts['transitions']:,}", f"{facts['complete_episodes']:,}"]
    return sizes + (return_cells(task, facts["return"]) if facts["return"] else ["unknown"] * 3)


def their_cells(task: str, quality: str) -> list[str]:
    """Episodes, return, best, score and source of D4RL's set of that name."""
    theirs = D4RL.get(f"{task}-{quality}")
    if theirs is None:
        return ["not in D4RL", *[""] * 4]
    return [f"{theirs.episodes:,}", *return_cells(task, theirs._asdict()), theirs.source]


def return_cells(task: str, returns: Mapping[str, float]) -> list[str]:
    """Mean and deviation, maximum, and the mean as a score."""
    score = round(normalised_score(TASKS[task], returns["mean"]), 1) + 0.0  # -0.0 becomes 0.0
    return [f"{returns['mean']:,.0f} +- {returns['std']:,.0f}", f"{returns['max']:,.0f}", f"{score:.1f}"]


def mixture(task: str, episodes: int) -> Theirs:
    """D4RL's medium-expert: its medium file, then its expert file."""
    parts = [D4RL[f"{task}-medium"], D4RL[f"{task}-expert"]]
    weights = np.array([part.episodes for part in parts]) / sum(part.episodes for part in parts)
    mean = float(weights @ [part.mean for part in parts])
    square = float(weights @ [part.std**2 + part.mean**2 for part in parts])
    return Theirs(episodes, mean, math.sqrt(square - mean**2), max(part.max for part in parts), "its halves")


for _task, _episodes in (("hopper", 3214), ("halfcheetah", 2000), ("walker2d", 2191)):
    D4RL[f"{_task}-medium-expert"] = mixture(_task, _episodes)

if __name__ == "__main__":
    main()
