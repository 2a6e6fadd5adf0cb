"""What is left of a run: its policies, its scores, and the table that is printed at the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from damorl.behaviour.host_policy import NumpyPolicy, act, from_arrays, to_arrays
from damorl.errors import UserError
from damorl.files import atomic_file
from damorl.record import store

POLICIES = "policies.safetensors"
LAST = 5  # evaluations averaged for the score to quote


@dataclass(frozen=True)
class Result:
    """Scores of a finished run."""

    run_dir: Path
    summary: dict[str, Any]
    """As stored in result.json."""

    @property
    def curves(self) -> Path:
        """The picture of the learning curves."""
        return self.run_dir / "curves.png"


def save_policies(run_dir: Path, actors: list[Any], seeds: tuple[int, ...]) -> None:
    """Write every seed's actor, atomically."""
    from safetensors.numpy import save_file

    arrays = {
        name: np.ascontiguousarray(array)
        for seed, layers in zip(seeds, actors, strict=True)
        for name, array in to_arrays(tuple((d[0], d[1]) for d in layers), f"{seed}/").items()
    }
    with atomic_file(run_dir / POLICIES) as temporary:
        save_file(arrays, temporary)


def load_layers(run_dir: Path | str, seed: int | None = None) -> NumpyPolicy:
    """The actor of one seed (the first one by default). UserError if there is none."""
    from safetensors.numpy import load_file

    path = Path(run_dir) / POLICIES
    seeds = store.read_json(Path(run_dir) / store.CONFIG)["seeds"]
    if not path.exists():
        raise UserError(f"{path}: expected a trained policy, found no file: finish the run first (--resume)")
    chosen = seeds[0] if seed is None else seed
    if chosen not in seeds:
        raise UserError(f"{path}: expected one of the seeds {seeds}, found {chosen}: choose one of them")
    return from_arrays(load_file(path), f"{chosen}/")


def load_policy(run_dir: Path | str, seed: int | None = None) -> Callable[[np.ndarray], np.ndarray]:
    """The trained policy as a function `[*B, obs_dim] -> [*B, action_dim]` on NumPy arrays, deterministic."""
    layers = load_layers(run_dir, seed)
    return lambda obs: act(layers, np.asarray(obs, np.float32), None)


def summarise(run_dir: Path) -> Result:
    """Read the metrics back and write result.json: last evaluation, mean of the last five, best (not to be quoted)."""
    config = store.read_json(run_dir / store.CONFIG)
    rows = [row for row in store.read_metrics(run_dir) if "eval/return_mean" in row]
    key = "eval/score" if rows and "eval/score" in rows[0] else "eval/return_mean"
    per_seed = {}
    for seed in config["seeds"]:
        values = [row[key] for row in rows if row["seed"] == seed]
        if values:
            per_seed[str(seed)] = {
                "last": values[-1],
                "last_5_mean": float(np.mean(values[-LAST:])),
                "best": max(values),
            }
    means = [entry["last_5_mean"] for entry in per_seed.values()]
    summary = {
        "algo": config["algo"],
        "dataset": config["data"]["name"],
        "dataset_sha256": config["data"]["sha256"],
        "metric": key,
        "updates": config["loop"]["total_updates"],
        "num_seeds": len(config["seeds"]),
        "per_seed": per_seed,
        "last_5_mean": float(np.mean(means)) if means else None,
        "last_5_std": float(np.std(means)) if means else None,
        "provenance": store.read_json(run_dir / store.PROVENANCE),
    }
    store.write_json(run_dir / store.RESULT, summary)
    return Result(run_dir, summary)


def format_table(result: Result) -> str:
    """The score table, as plain text."""
    summary = result.summary
    unit = "normalised score" if summary["metric"] == "eval/score" else "return"
    lines = [
        f"{summary['algo']} on {summary['dataset']}, {summary['updates']:,} updates ({unit})",
        "",
        f"{'seed':>8} {'mean of last 5':>16} {'last':>8} {'best (do not quote)':>21}",
    ]
    for seed, entry in summary["per_seed"].items():
        lines.append(f"{seed:>8} {entry['last_5_mean']:>16.1f} {entry['last']:>8.1f} {entry['best']:>21.1f}")
    if not summary["per_seed"]:
        lines.append("no simulator is known for this data: not evaluated")
    elif summary["num_seeds"] > 1:
        mean, spread = summary["last_5_mean"], summary["last_5_std"]
        lines.append(f"{'mean':>8} {mean:>16.1f} +- {spread:.1f} over {summary['num_seeds']} seeds")
    return "\n".join([*lines, "", f"run:    {result.run_dir}", f"curves: {result.curves}"])
