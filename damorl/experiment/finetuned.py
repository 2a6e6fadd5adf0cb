"""What became of the score while a run was fine-tuned: whether it dropped, for how long, and where it ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from damorl.experiment.result import LAST
from damorl.record import store
from damorl.record.members import members_of

DROP = 0.1
"""Share of the offline score that a score may lie below it."""


def read_drops(run_dir: Path) -> dict[str, dict[str, Any]]:
    """For each seed of a fine-tuned run what `drop_of` finds in its evaluations; empty where there are none.

    With real steps also `changes`, how often another policy came to act: without any, all scores are those of the
    offline policy.
    """
    config, rows = store.read_json(run_dir / store.CONFIG), store.read_metrics(run_dir)
    key = "eval/score" if any("eval/score" in row for row in rows) else "eval/return_mean"
    found = {}
    for member in members_of(config):
        own = [row for row in rows if member.marks.items() <= row.items()]
        scores = [row[key] for row in own if key in row]
        if len(scores) > 1:
            acted = {"changes": int(own[-1]["online/changes"])} if "online/changes" in own[-1] else {}
            found[str(member.seed)] = drop_of(scores) | acted
    return found


def drop_of(scores: Sequence[float]) -> dict[str, Any]:
    """Of the scores of one seed, the first of which is the offline policy's:

    - `offline`: that one;
    - `lowest`: the lowest after it;
    - `evaluations_below`: the longest stretch of evaluations below 90 % of it (below it by a tenth of its size);
    - `final`: the mean of the last ten, without the first.
    """
    offline, later = scores[0], np.asarray(scores[1:])
    below = later < offline - DROP * abs(offline)
    longest = running = 0
    for is_below in below:
        running = running + 1 if is_below else 0
        longest = max(longest, running)
    return {
        "offline": float(offline),
        "lowest": float(later.min()),
        "evaluations_below": longest,
        "final": float(later[-LAST:].mean()),
    }


def format_drops(drops: Mapping[str, Mapping[str, Any]]) -> str:
    """One line for each seed."""
    return "\n".join(f"seed {seed}: {format_drop(own)}" for seed, own in drops.items())


def format_drop(own: Mapping[str, Any]) -> str:
    """What became of one seed's score, in words."""
    changes = own.get("changes")
    acted = "" if changes is None else f"; another policy came to act {changes} time{'' if changes == 1 else 's'}"
    return (
        f"{own['offline']:.1f} before, {own['final']:.1f} after; lowest {own['lowest']:.1f}, at most "
        f"{own['evaluations_below']} evaluations in a row below 90 % of the first{acted}"
    )
