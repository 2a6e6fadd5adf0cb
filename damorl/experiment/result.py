"""What is left of a run: its policies, its scores, and the table that is printed at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from damorl.behaviour.host_policy import NumpyPolicy, from_arrays, to_arrays
from damorl.errors import UserError
from damorl.files import atomic_file, writing
from damorl.record import ending, safe, store
from damorl.record.members import Member, describe, find_member, members_of, settings_of

POLICIES = "policies.safetensors"
KEPT = "policies"  # folder of earlier policies, one file per kept step
LAST = 10  # evaluations averaged for the score to quote, as OfflineRL-Kit, MOBILE and ADMPO do


@dataclass(frozen=True)
class Result:
    """Scores of a run that is finished, or was stopped by a callback."""

    run_dir: Path
    summary: dict[str, Any]
    """As stored in result.json."""

    @property
    def stopped(self) -> ending.Stopped | None:
        """Which callback stopped the run, and why; None if it made all its updates."""
        told = self.summary.get(ending.STOPPED)
        return None if told is None else ending.Stopped(told["by"], told["reason"])

    @property
    def curves(self) -> Path:
        """The picture of the learning curves."""
        return self.run_dir / "curves.png"


def save_policies(path: Path, actors: list[Any], members: Sequence[Member]) -> None:
    """Write every member's actor into one file, atomically. Its folder is made if needed."""
    arrays = {
        name: np.ascontiguousarray(array)
        for member, layers in zip(members, actors, strict=True)
        for name, array in actor_arrays(layers, f"{member.key}/").items()
    }
    with writing(path.parent):
        path.parent.mkdir(exist_ok=True)
    with atomic_file(path) as temporary:
        safe.save(temporary, arrays, {"format": "damorl-policies-1"})


def actor_arrays(actor: Any, prefix: str) -> dict[str, np.ndarray]:
    """An actor network's layers as `to_arrays` names them; what a planner acts with, by the paths of its leaves."""
    from damorl.core.nets import Dense
    from damorl.record.checkpoint import named_leaves

    if all(isinstance(layer, Dense) for layer in actor):
        return to_arrays(tuple(actor), prefix)
    return {f"{prefix}{name}": np.asarray(leaf) for name, leaf in named_leaves(actor).items()}


def kept_policy_path(run_dir: Path, step: int) -> Path:
    """Where the policies of `step` are kept."""
    return run_dir / KEPT / f"step_{step:09d}.safetensors"


def list_policies(run_dir: Path | str) -> dict[int, Path]:
    """The files of the kept policies by their step, ascending; the last one of a run that ended is among them."""
    run_dir = Path(run_dir)
    kept = {int(path.stem.removeprefix("step_")): path for path in (run_dir / KEPT).glob("step_*.safetensors")}
    last = ending.final_step(run_dir)
    if last is not None and (run_dir / POLICIES).exists():
        kept.setdefault(last, run_dir / POLICIES)
    return dict(sorted(kept.items()))


def plans(config: Mapping[str, Any]) -> bool:
    """Whether the algorithm of a stored run config acts by planning, not by a network alone. One that is not here, or
    is a plug-in that cannot be used, is taken not to."""
    from damorl.experiment.algorithms import find_algorithm

    try:
        return find_algorithm(config.get("algo", "")).planner is not None
    except UserError:
        return False


def run_dirs_in(paths: Sequence[Path]) -> list[Path]:
    """The run directories among `paths`, and the finished ones with a policy network right under those that are none.

    UserError for a directory that holds no such run.
    """
    found: list[Path] = []
    for path in paths:
        own = [path]
        if not (path / store.CONFIG).exists() and path.is_dir():
            inside = filter(ending.finished, sorted(result.parent for result in path.glob(f"*/{store.RESULT}")))
            own = [run_dir for run_dir in inside if not plans(store.read_json(run_dir / store.CONFIG))]
            if not own:
                raise UserError(
                    f"{path}: expected finished runs, found none; finish the sweep, or name run directories"
                )
        found += own
    return list(dict.fromkeys(found))


def require_network(run_dir: Path) -> None:
    """UserError for a run whose policy is no function of the state alone."""
    config = store.read_json(run_dir / store.CONFIG)
    if plans(config):
        raise UserError(
            f"{run_dir}: expected a policy that is a function of the state, found {config['algo']}, which plans from "
            "what it remembers: it can be scored (`damorl eval`), but not exported or selected"
        )


def load_layers(
    run_dir: Path | str, seed: int | None = None, step: int | None = None, setting: int | None = None
) -> NumpyPolicy:
    """The actor of one seed and one setting of a population (the first ones by default), of the last evaluation or of
    a kept `step`.

    UserError if there is none, also for an algorithm that plans.
    """
    require_network(Path(run_dir))
    arrays, chosen = load_arrays(run_dir, seed, step, setting)
    return from_arrays(arrays, f"{chosen.key}/")


def load_arrays(
    run_dir: Path | str, seed: int | None = None, step: int | None = None, setting: int | None = None
) -> tuple[dict[str, np.ndarray], Member]:
    """What `save_policies` wrote, of the last evaluation or of a kept `step`, and the member that is meant.

    UserError if there is none, if it is damaged, or if a newer version wrote it.
    """
    run_dir = Path(run_dir)
    config = store.read_json(run_dir / store.CONFIG)
    path, steps = run_dir / POLICIES, list_policies(run_dir)
    if step is not None and step not in steps:
        raise UserError(f"{run_dir}: expected one of the kept steps {list(steps)}, found {step}: choose one of them")
    path = path if step is None else steps[step]
    if not path.exists():
        raise UserError(f"{path}: expected a trained policy, found no file: finish the run first (--resume)")
    try:
        arrays, _ = safe.read(path, "damorl-policies", needs_digest=False)
    except safe.DAMAGED as error:
        raise UserError(
            f"cannot use {path}: expected the policies that damorl wrote, found a damaged file ({error}); restore it "
            "from a copy, choose another step, or remove result.json and --resume the run, which writes the last anew"
        ) from error
    return arrays, find_member(config, seed, setting, path)


def summarise(run_dir: Path, stop: ending.Stopped | None = None, step: int = 0) -> Result:
    """Read the metrics back and write result.json: last evaluation, mean of the last ten, best (not to be quoted).

    Of a run that a callback stopped after `step` updates it says `stop`, too, and the scores are those so far.
    """
    config = store.read_json(run_dir / store.CONFIG)
    rows = [row for row in store.read_metrics(run_dir) if "eval/return_mean" in row]
    key = "eval/score" if rows and "eval/score" in rows[0] else "eval/return_mean"
    summary = {
        "algo": config["algo"],
        "dataset": config["data"]["name"],
        "dataset_sha256": config["data"]["sha256"],
        "metric": key,
        "updates": config["loop"]["total_updates"] if stop is None else step,
        **({} if stop is None else {ending.STOPPED: stop._asdict()}),
        "num_seeds": len(config["seeds"]),
        **scores(config, rows, key),
        "eval_share": eval_share(store.read_metrics(run_dir)),
        "provenance": store.read_json(run_dir / store.PROVENANCE),
    }
    store.write_json(run_dir / store.RESULT, summary, seal=True)
    return Result(run_dir, summary)


def scores(config: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], key: str) -> dict[str, Any]:
    """The scores by seed, and over seeds; of a population a list of these under `per_setting`."""
    if not config.get("population"):
        return seed_scores(members_of(config), rows, key)
    found = []
    for number, values in enumerate(settings_of(config)):
        own = [member for member in members_of(config) if member.setting == number]
        found.append({"setting": number, "values": values} | seed_scores(own, rows, key))
    return {"per_setting": found}


def seed_scores(members: Sequence[Member], rows: Sequence[Mapping[str, Any]], key: str) -> dict[str, Any]:
    """Of members of one setting: `per_seed`, and mean and deviation over the seeds."""
    per_seed = {}
    for member in members:
        values = [row[key] for row in rows if member.marks.items() <= row.items()]
        if values:
            per_seed[str(member.seed)] = {
                "last": values[-1],
                "last_10_mean": float(np.mean(values[-LAST:])),
                "evaluations": len(values[-LAST:]),
                "best": max(values),
            }
    means = [entry["last_10_mean"] for entry in per_seed.values()]
    return {
        "per_seed": per_seed,
        "last_10_mean": float(np.mean(means)) if means else None,
        "last_10_std": float(np.std(means, ddof=1)) if len(means) > 1 else None,
    }


def eval_share(rows: list[dict[str, Any]]) -> float | None:
    """The share of the loop's wall-clock that went into the simulator; None where nothing was evaluated."""
    first = [row for row in rows if row["seed"] == rows[0]["seed"]]  # seeds run together: each row tells the same time
    seconds = {key: sum(row.get(f"time/{key}", 0.0) for row in first) for key in ("train_seconds", "eval_seconds")}
    return seconds["eval_seconds"] / sum(seconds.values()) if seconds["eval_seconds"] else None


def format_table(result: Result) -> str:
    """The score table, as plain text."""
    summary, stop = result.summary, result.stopped
    unit = "normalised score" if summary["metric"] == "eval/score" else "return"
    lines = [
        f"{summary['algo']} on {summary['dataset']}, {summary['updates']:,} updates ({unit})",
        *([] if stop is None else [f"stopped by {stop.by}: {stop.reason} (--resume continues)"]),
        "",
        f"{'seed':>8} {'mean of last 10':>16} {'last':>8} {'best (do not quote)':>21}",
    ]
    entries = []
    for own in summary.get("per_setting", [summary]):
        lines += [f"setting {own['setting']}: {describe(own['values'])}"] if "values" in own else []
        for seed, entry in own["per_seed"].items():
            lines.append(f"{seed:>8} {entry['last_10_mean']:>16.1f} {entry['last']:>8.1f} {entry['best']:>21.1f}")
            entries.append(entry)
        if summary["num_seeds"] > 1 and own["per_seed"]:
            mean, spread = own["last_10_mean"], own["last_10_std"]
            lines.append(f"{'mean':>8} {mean:>16.1f} +- {spread:.1f} over {summary['num_seeds']} seeds")
    if not entries:
        lines.append("not evaluated yet" if stop else "no simulator is known for this data: not evaluated")
    elif (count := min(entry["evaluations"] for entry in entries)) < LAST:
        lines.append(f"(only {count} evaluations so far are averaged, not {LAST})")
    return "\n".join([*lines, "", f"run:    {result.run_dir}", f"curves: {result.curves}"])
