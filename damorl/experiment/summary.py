"""What a store of runs scored, as a list that other programs read: one entry per preset, data set, algorithm and
variant, complete over all of them."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from damorl.errors import UserError
from damorl.experiment.config import defaults, dotted
from damorl.record.store import plain, write_json
from damorl.report.collect import SCORE, Run, SeedScore, Status, seed_score
from damorl.report.paired import NO_SCORE, UNKNOWN
from damorl.report.stores import read_runs


class Key(NamedTuple):
    """What an entry is of."""

    preset: str
    dataset: str
    algorithm: str
    variant: str
    """`key=value, ...` of what differs from the preset's settings; nothing for the preset's own."""


def summary(paths: Sequence[Path], references: Sequence[Path] = ()) -> list[dict[str, Any]]:
    """The entries of the runs and records in `paths`, in the order of their keys.

    `scores` has the last-10 mean of each of `seeds`, or is empty where not all of them are finished and scored. A data
    set on which an algorithm of the store was not run with the preset's own settings has an entry without scores.
    `reference_scores` are those of cloning the same share of the data, for a method that starts from such a clone; with
    stores `references`, those of the same entry there. Left out where there are none. UserError if one name stands for
    several files, and for what `read_runs` refuses.
    """
    own, others = gather(read_runs(paths)), gather(read_runs(references)) if references else {}
    hashes: dict[str, str] = {}
    for runs in (*own.values(), *others.values()):
        for run in runs:
            check_data(hashes, run)
    entries = []
    for key in sorted({*own, *absent_keys(own)}):
        runs = own.get(key, [])
        seeds, scores = scores_of(runs) if runs else (seeds_of(own, key.preset), [])
        entry = key._asdict() | {"seeds": seeds, "scores": scores}
        clone = clone_of(key, runs)
        found = others.get(key, []) if references else own.get(clone, []) if clone else []
        reference = scores_of(found)[1]
        entries.append(entry | ({"reference_scores": reference} if reference else {}))
    return plain(entries)


def write_summary(paths: Sequence[Path], out: Path, references: Sequence[Path] = ()) -> list[dict[str, Any]]:
    """Write the summary as JSON, atomically; return it."""
    entries = summary(paths, references)
    write_json(out, entries)
    return entries


def gather(runs: Sequence[Run]) -> dict[Key, list[Run]]:
    """The runs of each entry."""
    found: dict[Key, list[Run]] = {}
    for run in runs:
        key = Key(str(run.config.get("preset")), str(run.data["name"]), run.algo, variant_of(run.config))
        found.setdefault(key, []).append(run)
    return found


def variant_of(config: Mapping[str, Any]) -> str:
    """What a run's settings change of its preset. Settings that the run's version did not have are passed over."""
    loop, settings = defaults(config["algo"], config["preset"], config["dataset"])
    usual = json.loads(json.dumps(dict(dotted(dataclasses.asdict(loop) | dataclasses.asdict(settings)))))
    own = dict(dotted({**config["loop"], **config["algo_config"]}))
    missing = object()
    changed = [key for key, value in own.items() if key not in NO_SCORE and usual.get(key, missing) != value]
    return ", ".join(f"{key}={value_text(own[key])}" for key in changed)


def clone_of(key: Key, runs: Sequence[Run]) -> Key | None:
    """The entry of the clone that these runs start from; None where they start from none."""
    settings = runs[0].config["algo_config"] if runs else {}
    if settings.get("cloning_updates") is None:
        return None
    share = settings["reference_share"]
    changed = share != defaults("bc", key.preset, key.dataset)[1].reference_share
    return Key(key.preset, key.dataset, "bc", f"reference_share={value_text(share)}" if changed else "")


def value_text(value: Any) -> str:
    """A value as a flag has it, without spaces."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def scores_of(runs: Sequence[Run]) -> tuple[list[int], list[float]]:
    """All seeds that were asked for and their scores, none if any lacks its score."""
    best: dict[int, SeedScore] = {}
    for run in runs:
        for seed in run.config["seeds"]:
            score = seed_score(run, int(seed), SCORE)
            if int(seed) not in best or score.updates > best[int(seed)].updates:
                best[int(seed)] = score
    ordered = [best[seed] for seed in sorted(best)]
    values = [s.last_10_mean for s in ordered if s.status is Status.FINISHED and s.last_10_mean is not None]
    return sorted(best), values if len(values) == len(ordered) else []


def absent_keys(own: Mapping[Key, Any]) -> Iterator[Key]:
    """Every algorithm's own settings on every data set of the store, preset by preset."""
    for preset in {key.preset for key in own}:
        keys = [key for key in own if key.preset == preset]
        pairs = itertools.product({key.dataset for key in keys}, {key.algorithm for key in keys})
        yield from (Key(preset, dataset, algorithm, "") for dataset, algorithm in pairs)


def seeds_of(own: Mapping[Key, Sequence[Run]], preset: str) -> list[int]:
    """All seeds of a preset's runs."""
    runs = [run for key, found in own.items() if key.preset == preset for run in found]
    return sorted({int(seed) for run in runs for seed in run.config["seeds"]})


def check_data(hashes: dict[str, str], run: Run) -> None:
    """UserError if the run's data set was another file elsewhere; adds it otherwise."""
    name, sha256 = run.data_key
    if sha256 != UNKNOWN and hashes.setdefault(name, sha256) != sha256:
        raise UserError(
            f"cannot sum up {run.path}: expected {name} to be one file, found sha256 {hashes[name][:8]} and "
            f"{sha256[:8]}; leave out the runs on one of them"
        )
