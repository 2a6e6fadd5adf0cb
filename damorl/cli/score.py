"""`damorl eval`: what a run is worth."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import tyro

from damorl.cli.base import parse, print_json


@dataclasses.dataclass(frozen=True)
class EvalArgs:
    """Score the policies of a run in the real simulator.

    examples:
      damorl eval runs/damo-hopper-medium-expert-quick-1a2b3c4d --episodes 100
      damorl eval runs/damo-hopper-medium-expert-quick-1a2b3c4d --noise 0.05
    """

    run_dir: tyro.conf.Positional[Path]
    """Run directory."""
    episodes: int = 10
    """Episodes per seed."""
    noise: float = 0.0
    """Noise on the measured state, as a share of each feature's standard deviation."""
    json: bool = False
    """Print JSON."""


def eval_verb(argv: list[str]) -> int:
    """`damorl eval`."""
    args = parse(EvalArgs, "eval", argv)
    from damorl.api import evaluate

    rows = evaluate(args.run_dir, args.episodes, args.noise)
    if args.json:
        print_json(rows)
        return 0
    for row in rows:
        score = f"score {row['score']:6.1f} +- {row['score_std']:.1f}   " if "score" in row else ""
        print(
            f"seed {row['seed']}   {score}return {row['return_mean']:8.1f} +- {row['return_std']:.1f}   "
            f"length {row['length_mean']:6.1f}   falls {row['falls']}/{row['episodes']}"
        )
    return 0
