"""The same policy under changed physics: one row per changed world, the unchanged one first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from damorl.experiment.describe import describe_episodes
from damorl.experiment.scoring import Scoring, find_players, row_marks
from damorl.world.evaluate import Episodes, Evaluator
from damorl.world.physics import ACTION_NOISE, OBSERVATION_NOISE, World, change_of, make_worlds
from damorl.world.tasks import Task, normalised_score, normalised_std

Row = Mapping[str, Any]
CONFIDENCE = 0.95
NOTE = (
    "Intervals: 95 %, Student's t over the episodes of one policy, the same starts in every world.\n"
    "They say nothing of policies from other training seeds."
)


def score_varied(path: Path, task: Task | None, how: Scoring, varied: Mapping[str, Sequence[float]]) -> list[Any]:
    """Rows as `damorl.evaluate` gives them, of every policy in every world, the policies of one world together.

    `varied` has the values of each factor, as `damorl.world.physics.make_worlds` explains. A row also says `world`
    (its label), `factor` and `value` (None and 1 in the unchanged world), `return_interval`, and against the same
    policy in the unchanged world `change`, the mean difference of returns from the same starts, and `change_interval`;
    `score_interval` where the task has a score. Intervals are None for a single episode. UserError for an unknown
    factor or value, and for physics of a task that MuJoCo does not simulate.
    """
    worlds = make_worlds(varied)
    task, players = find_players(path, task, how)
    rows: list[dict[str, Any]] = []
    plain: list[Episodes] = []
    for world in worlds:
        change, noise = change_of(task, world), world.noise(OBSERVATION_NOISE) or how.noise
        with closing(Evaluator(task, players[0].spec, change, world.noise(ACTION_NOISE))) as evaluator:
            played = [player.play(evaluator, noise) for player in players]
        plain = plain or played
        for player, own, unchanged in zip(players, played, plain, strict=True):
            marks = row_marks(player, how) | {"noise": noise}
            rows.append(marks | describe_world(world) | describe_episodes(task, own) | intervals(task, own, unchanged))
    return rows


def describe_world(world: World) -> dict[str, Any]:
    """The keys of a row that name its world."""
    return {"world": world.label, "factor": world.factor, "value": world.value}


def intervals(task: Task, played: Episodes, unchanged: Episodes) -> dict[str, Any]:
    """Intervals of the mean return, of the score, and of the change from the unchanged world."""
    mean, half = float(played.returns.mean()), half_width(played.returns)
    change = played.returns - unchanged.returns
    found = {
        "return_interval": around(mean, half),
        "change": float(change.mean()),
        "change_interval": around(float(change.mean()), half_width(change)),
    }
    if task.reference_min is not None:
        width = None if half is None else normalised_std(task, half)
        found["score_interval"] = around(normalised_score(task, mean), width)
    return found


def half_width(values: np.ndarray) -> float | None:
    """Half of Student's 95 % interval of the mean of `[N]` values; None for one value."""
    if len(values) < 2:
        return None
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    return float(stats.t.ppf((1.0 + CONFIDENCE) / 2.0, len(values) - 1) * error)


def around(centre: float, half: float | None) -> list[float] | None:
    """`[low, high]`."""
    return None if half is None else [centre - half, centre + half]


def format_varied(rows: Sequence[Row]) -> str:
    """A table for each policy, as plain text."""
    blocks = []
    for name in dict.fromkeys(policy_name(row) for row in rows):
        own = [row for row in rows if policy_name(row) == name]
        scored = "score" in own[0]
        head = f"{'world':<22}{'score' if scored else 'return':>9}  {'95 % interval':<20}"
        head += f"{'return':>9}  " * scored + f"{'change':>9}  {'95 % interval':<22}{'length':>7}  {'falls':>7}"
        title = f"{name}, {own[0]['episodes']} episodes in each world"
        blocks.append("\n".join([title, "", head.rstrip(), *(line(row) for row in own)]))
    return "\n\n".join([*blocks, NOTE])


def policy_name(row: Row) -> str:
    """`seed 0`, in a population with its setting."""
    setting = f"setting {row['setting']}: {row['label']}, " if "setting" in row else ""
    return f"{setting}seed {row['seed']}"


def line(row: Row) -> str:
    """One world of one policy."""
    scored = "score" in row
    main = row["score" if scored else "return_mean"], row["score_interval" if scored else "return_interval"]
    first = f"{row['world']:<22}{main[0]:>9.1f}  {interval(main[1]):<20}"
    second = f"{row['return_mean']:>9.1f}  " if scored else ""
    plain = row["factor"] is None
    change = "" if plain else f"{row['change']:+.1f}"
    third = f"{change:>9}  {'' if plain else interval(row['change_interval']):<22}"
    return f"{first}{second}{third}{row['length_mean']:>7.1f}  {row['falls']:>3}/{row['episodes']}"


def interval(bounds: Sequence[float] | None) -> str:
    """`[1.0, 2.0]`."""
    return "" if bounds is None else f"[{bounds[0]:.1f}, {bounds[1]:.1f}]"
