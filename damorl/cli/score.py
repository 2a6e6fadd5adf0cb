"""`damorl eval`: what a policy is worth in the simulator, as it is or changed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import tyro

from damorl.cli.base import parse, print_json
from damorl.errors import UserError


@dataclasses.dataclass(frozen=True)
class EvalArgs:
    """Score the policies of a run, an exported policy, or one of the zoo, in the real simulator.

    examples:
      damorl eval runs/damo-hopper-medium-expert-quick-1a2b3c4d --episodes 100
      damorl eval runs/damo-hopper-medium-expert-quick-1a2b3c4d --noise 0.05 --step 50000
      damorl eval runs/damo-hopper-medium-expert-quick-1a2b3c4d --vary friction=0.8,1.2 mass=0.5,1.5 --episodes 50
      damorl eval policy.onnx --episodes 20
      damorl eval zoo:walker2d-medium-expert --episodes 20
    """

    path: tyro.conf.Positional[Path]
    """Run directory, a file that `damorl export` wrote, or zoo:NAME."""
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
    vary: tuple[str, ...] = ()
    """Play the task under changed physics too, one change at a time: factors of the task's own friction, mass, gravity,
    actuator (strength) and damping (of joints), and deviations of action_noise (of actions in [-1, 1]) and
    observation_noise (as --noise), as friction=0.8,1.2 mass=0.5,1.5."""
    picture: Path | None = None
    """PNG file that --vary is drawn into."""
    json: bool = False
    """Print JSON."""


def eval_verb(argv: list[str]) -> int:
    """`damorl eval`."""
    args = parse(EvalArgs, "eval", argv)
    from damorl.api import evaluate

    how = args.episodes, args.noise, args.stochastic, args.step, args.task
    if args.vary:
        return vary(args, how)
    if args.picture is not None:
        raise UserError(f"--picture {args.picture}: expected --vary with it, found none; name what to vary")
    rows = evaluate(args.path, *how)
    if args.json:
        print_json(rows)
        return 0
    for row in rows:
        print(line(row))
    return 0


def vary(args: EvalArgs, how: tuple[Any, ...]) -> int:
    """The table of changed worlds, and the picture."""
    from damorl.api import evaluate
    from damorl.experiment.command import parse_values
    from damorl.experiment.varied import format_varied

    if args.picture is not None and args.picture.suffix != ".png":
        raise UserError(f"--picture {args.picture}: expected a name that ends in .png; choose another")
    rows = evaluate(args.path, *how, vary=parse_values("--vary", "a factor", "friction=0.8,1.2", args.vary))
    if args.picture is not None:
        from damorl.report.varied import draw_varied

        draw_varied(rows, args.path.resolve().name, args.picture)
    if args.json:
        print_json(rows)
        return 0
    print(f"{args.path}\n{format_varied(rows)}")
    if args.picture is not None:
        print(f"picture: {args.picture}")
    return 0


def line(row: dict[str, Any]) -> str:
    """One seed's result."""
    score = f"score {row['score']:6.1f} +- {row['score_std']:.1f}   " if "score" in row else ""
    setting = f"setting {row['setting']}: {row['label']}   " if "setting" in row else ""
    return (
        f"{setting}seed {row['seed']}   {score}return {row['return_mean']:8.1f} +- {row['return_std']:.1f}   "
        f"length {row['length_mean']:6.1f}   falls {row['falls']}/{row['episodes']}"
    )
