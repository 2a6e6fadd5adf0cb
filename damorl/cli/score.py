"""`damorl eval`: what a policy is worth in the simulator."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import tyro

from damorl.cli.base import parse, print_json


@dataclasses.dataclass(frozen=True)
class EvalArgs:
    """Score the policies of a run, or an exported policy, in the real simulator.

    examples:
      damorl eval runs/damo-hopper-medium-expert-quick-1a2b3c4d --episodes 100
      damorl eval runs/damo-hopper-medium-expert-quick-1a2b3c4d --noise 0.05 --step 50000
      damorl eval policy.onnx --episodes 20
    """

    path: tyro.conf.Positional[Path]
    """Run directory, or a file that `damorl export` wrote."""
    episodes: int = 10
    """Episodes per seed, one per simulator: short ones do not count more often than long ones."""
    noise: float = 0.0
    """Noise on the measured state, as a share of each feature's standard deviation in the data."""
    stochastic: bool = False
    """Sample actions instead of taking the deterministic one."""
    step: int | None = None
    """Earlier policies of the run, kept at this update; the last ones by default."""
    task: str | None = None
    """Task to play, for an exported policy that does not tell."""
    json: bool = False
    """Print JSON."""


def eval_verb(argv: list[str]) -> int:
    """`damorl eval`."""
    args = parse(EvalArgs, "eval", argv)
    from damorl.api import evaluate

    rows = evaluate(args.path, args.episodes, args.noise, args.stochastic, args.step, args.task)
    if args.json:
        print_json(rows)
        return 0
    for row in rows:
        print(line(row))
    return 0


def line(row: dict[str, Any]) -> str:
    """One seed's result."""
    score = f"score {row['score']:6.1f} +- {row['score_std']:.1f}   " if "score" in row else ""
    setting = f"setting {row['setting']}: {row['label']}   " if "setting" in row else ""
    return (
        f"{setting}seed {row['seed']}   {score}return {row['return_mean']:8.1f} +- {row['return_std']:.1f}   "
        f"length {row['length_mean']:6.1f}   falls {row['falls']}/{row['episodes']}"
    )
