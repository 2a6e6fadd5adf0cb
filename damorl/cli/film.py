"""`damorl film`: policies at work, side by side."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import tyro

from damorl.cli.base import parse, print_json


@dataclasses.dataclass(frozen=True)
class FilmArgs:
    """Film an episode of each policy, all from the same start, side by side, as an animated WebP or GIF below 2 MB.

    MuJoCo draws without a display, by EGL or OSMesa, whichever works; MUJOCO_GL chooses one. A panel whose episode has
    ended stands still and says so. Below each panel stands what its whole episode earned.

    examples:
      damorl film runs/damo-hopper-medium-replay-quick-1a2b3c4d
      damorl film runs/bc-* runs/mopo-* runs/damo-* --behaviour --names behaviour clone MOPO DAMO --out hopper.webp
      damorl film zoo:walker2d-medium-expert --seed 3 --out walker2d.gif
    """

    paths: tyro.conf.Positional[tuple[Path, ...]]
    """Run directories, files that `damorl export` wrote, or zoo:NAME; all of one task."""
    out: Path = Path("film.webp")
    """The file, ending in .webp or .gif."""
    seed: int = 0
    """What the episodes are reset with: all panels have the same start."""
    steps: int | None = None
    """Steps that are filmed; by default ten seconds of the simulated world."""
    names: tuple[str, ...] = ()
    """A name for each panel; by default the algorithm, and what its settings change."""
    behaviour: bool = False
    """Begin with the best of the policies that made the built-in data set."""
    policy_seed: int | None = None
    """Which seed's policy of each run; the first one by default."""
    json: bool = False
    """Print JSON."""


def film_verb(argv: list[str]) -> int:
    """`damorl film`."""
    args = parse(FilmArgs, "film", argv)
    from damorl.experiment.film import film

    made = film(args.paths, args.out, args.seed, args.steps, args.names, args.behaviour, args.policy_seed)
    if args.json:
        print_json(dataclasses.asdict(made))
        return 0
    for row in made.panels:
        print(line(row))
    width, height = made.size
    print(f"film: {made.path} ({made.num_bytes / 1e6:.2f} MB, {made.num_frames} frames of {width} x {height})")
    return 0


def line(row: dict[str, Any]) -> str:
    """One panel in words."""
    score = f"score {row['score']:6.1f}   " if "score" in row else ""
    end = "ended" if row["terminated"] else "lasted"
    return f"{row['name']:<24} {score}return {row['return']:8.1f}   {end} {row['length']} steps"
