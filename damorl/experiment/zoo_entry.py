"""Making entries of the model zoo from finished runs (`python docs/collect_zoo.py` calls it)."""

from __future__ import annotations

import dataclasses
import hashlib
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from damorl.behaviour.host_policy import to_arrays
from damorl.errors import UserError
from damorl.experiment import zoo
from damorl.experiment.choice import choose_setting
from damorl.experiment.command import changed_settings, train_command
from damorl.experiment.config import run_config_from_dict
from damorl.experiment.policy import load_policy
from damorl.experiment.policy_card import about
from damorl.experiment.result import load_layers
from damorl.experiment.select import SelectConfig, select
from damorl.files import atomic_file, writing
from damorl.record import safe, store
from damorl.record.ending import finished
from damorl.record.members import find_member
from damorl.report import statistics

LICENCE = "MIT"
MIN_SEEDS = 2
RULE = (
    "Of the seeds' last policies, the one with the highest value in a dynamics model that was fitted to the data anew "
    "(`damorl select --last-steps 1`). No score of the simulator was looked at, so it need not be the best seed."
)


def collect(run_dirs: Sequence[Path], folder: Path = zoo.FOLDER, settings: SelectConfig | None = None) -> list[str]:
    """An entry for each data set among the runs, chosen as `RULE` says; returns the names.

    Writes selection.json into each run directory. UserError for a run that is not finished, and for runs on one data
    set that differ in more than their seeds, share a seed, or are fewer than two seeds.
    """
    settings = dataclasses.replace(settings or SelectConfig(), last_steps=1)
    groups: dict[str, list[Path]] = {}
    for run_dir in run_dirs:
        if not finished(run_dir):
            raise UserError(f"{run_dir}: expected a finished run, found none; finish it first (--resume)")
        groups.setdefault(store.read_json(run_dir / store.CONFIG)["data"]["sha256"], []).append(run_dir)
    for group in groups.values():
        group.sort(key=lambda run_dir: store.read_json(run_dir / store.CONFIG)["seeds"])
        check_group(group)
    return [write_entry(group, select(group, settings), folder) for group in groups.values()]


def check_group(run_dirs: Sequence[Path]) -> None:
    """UserError unless the runs are one setting with different seeds, at least two."""
    configs = [run_config_from_dict(store.read_json(run_dir / store.CONFIG)) for run_dir in run_dirs]
    kinds = {dataclasses.replace(config, seeds=(0,)).digest() for config in configs}
    seeds = [seed for config in configs for seed in config.seeds]
    if len(kinds) > 1 or len(set(seeds)) < max(len(seeds), MIN_SEEDS) or configs[0].population:
        raise UserError(
            f"{run_dirs[0]}: expected runs of one setting on a data set, with at least {MIN_SEEDS} seeds, each once, "
            f"found {len(kinds)} settings and the seeds {seeds}; leave the others out"
        )


def write_entry(run_dirs: Sequence[Path], selections: Sequence[Mapping[str, Any]], folder: Path) -> str:
    """Write arrays and card of the policy that the selections prefer; returns its name."""
    configs = [store.read_json(run_dir / store.CONFIG) for run_dir in run_dirs]
    (choice,) = choose_setting(selections, configs)
    if choice["setting"] is None:
        raise UserError(
            f"{run_dirs[0]}: expected an estimate of every seed's value, found a diverged one; leave it out"
        )
    run_dir, seed = Path(choice["run_dir"]), choice["seed"]
    config = store.read_json(run_dir / store.CONFIG)
    name = entry_name(config)
    path, card_path = zoo.entry_paths(name, folder)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary:
        safe.save(temporary, to_arrays(load_layers(run_dir, seed)), {"format": f"{zoo.FORMAT}-1"})
    content = path.read_bytes()
    card = {
        "format": f"{zoo.FORMAT}-1",
        "name": name,
        "licence": LICENCE,
        "preset": config["preset"],
        **about(run_dir, find_member(config, seed, None, run_dir), None),
        **sizes(run_dir, seed, config),
        "seeds": seed_scores(run_dirs),
        "chosen": {"rule": RULE, "seed": seed, "estimates": estimates(selections)},
        "trained": origin(run_dir, configs),
        "file_bytes": len(content),
        "file_sha256": hashlib.sha256(content).hexdigest(),
    }
    store.write_json(card_path, card, seal=True)
    return name


def entry_name(config: Mapping[str, Any]) -> str:
    """The data set's name; behind it the algorithm, unless that is DAMO."""
    data = config["data"]["name"]
    return data if config["algo"] == "damo" else f"{data}-{config['algo']}"


def sizes(run_dir: Path, seed: int, config: Mapping[str, Any]) -> dict[str, Any]:
    """What goes in and out of the policy."""
    policy = load_policy(run_dir, seed)
    return {
        "obs_dim": policy.obs_dim,
        "action_dim": policy.action_dim,
        "action_low": policy.action_low,
        "action_high": policy.action_high,
        "policy": config.get("policy"),
    }


def seed_scores(run_dirs: Sequence[Path]) -> dict[str, Any]:
    """The mean score of the last evaluations of each seed, in the simulator, and their mean with its 95 % interval."""
    results = [store.read_json(run_dir / store.RESULT) for run_dir in run_dirs]
    scores = {seed: own["last_10_mean"] for result in results for seed, own in result["per_seed"].items()}
    if not scores:
        return {"metric": None, "scores": {}, "mean": None, "interval": None}
    found = statistics.estimate(statistics.mean, np.array(list(scores.values()))[:, None])
    metric = results[0]["metric"].removeprefix("eval/")
    return {"metric": metric, "scores": scores, "mean": found.value, "interval": found.interval}


def estimates(selections: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What was thought of each seed's policy, without the simulator."""
    rows = [row for selection in selections for row in selection["policies"]]
    return {str(row["seed"]): {key: row[key] for key in ("model_value", "model_std", "fqe")} for row in rows}


def origin(run_dir: Path, configs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The command that trains all seeds, and with what the chosen one was trained."""
    first, provenance = run_config_from_dict(configs[0]), store.read_json(run_dir / store.PROVENANCE)
    seeds = tuple(sorted(seed for config in configs for seed in config["seeds"]))
    return {
        "command": shlex.join(train_command(dataclasses.replace(first, seeds=seeds))),
        "changes": changed_settings(first),
        "git": provenance.get("git"),
        "versions": provenance.get("versions"),
    }
