"""`damorl export`: a policy as one file, for wherever it is to act."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import tyro

from damorl.cli.base import parse, print_json


@dataclasses.dataclass(frozen=True)
class ExportArgs:
    """Write one policy of a run as ONNX or as a JAX program, with a card inside it and beside it.

    It maps the environment's observations to the environment's actions; all scaling is inside.

    examples:
      damorl export runs/damo-hopper-medium-expert-quick-1a2b3c4d --format onnx
      damorl export runs/damo-hopper-medium-expert-quick-1a2b3c4d --format jax --seed 1 --step 100000
      damorl export runs/damo-hopper-medium-expert-quick-1a2b3c4d --out hopper.onnx --distribution
    """

    run_dir: tyro.conf.Positional[Path]
    """Run directory."""
    format: Literal["onnx", "jax"] = "onnx"
    """onnx (for onnxruntime and others; needs the extra damorl[export]) or jax (StableHLO, for JAX on CPU or CUDA)."""
    seed: int | None = None
    """Which seed's policy; the first one by default."""
    step: int | None = None
    """An earlier policy, kept at this update; the last one by default."""
    setting: int | None = None
    """Which setting of a population, by its number; the first one by default."""
    out: Path | None = None
    """The file, ending in .onnx or .jaxpolicy; in RUN_DIR/export by default."""
    distribution: bool = False
    """Also give mean and log_std, so that actions can be sampled (onnx only)."""
    json: bool = False
    """Print the path and the card as JSON."""


def export_verb(argv: list[str]) -> int:
    """`damorl export`."""
    args = parse(ExportArgs, "export", argv)
    from damorl.experiment.export import card_paths, export_policy
    from damorl.experiment.policy_card import score_sentence

    chosen = args.seed, args.step, args.out, args.setting, args.distribution
    path, card = export_policy(args.run_dir, args.format, *chosen)
    if args.json:
        print_json({"path": path, "card": card})
        return 0
    print(f"{card['algorithm']} on {card['dataset']['name']}, seed {card['seed']}: {score_sentence(card['score'])}")
    print(f"obs [batch, {card['obs_dim']}] -> action [batch, {card['action_dim']}], in the environment's own units")
    if args.distribution:
        print("and mean, log_std of the Gaussian before the tanh")
    print("\n".join(f"  {line}" for line in card["usage"]))
    for name, file in zip(("policy", "card", "card"), (path, *card_paths(path)), strict=True):
        print(f"{name + ':':<8}{file}")
    return 0
