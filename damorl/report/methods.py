"""Which runs are the same method.

A method is an algorithm with its settings. Runs of one algorithm are one method, unless two of them differ on the same
data set: then the fewest settings that tell them apart become part of the method's name, on every data set.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from damorl.report.collect import Run

ABSENT = "absent"


class Method(NamedTuple):
    """An algorithm, and the settings that tell it from its variants."""

    algo: str
    variant: tuple[tuple[str, str], ...] = ()

    @property
    def settings(self) -> str:
        """`key=value, ...`; nothing for an algorithm without variants."""
        return ", ".join(f"{key}={value}" for key, value in self.variant)

    @property
    def label(self) -> str:
        """The name in tables."""
        return f"{self.algo} ({self.settings})" if self.variant else self.algo


def name_methods(runs: Sequence[Run]) -> list[Method]:
    """The method of each run."""
    settings = [flat_settings(run) for run in runs]
    keys = {algo: telling_keys(runs, settings, algo) for algo in {run.algo for run in runs}}
    return [
        Method(run.algo, tuple((key, own.get(key, ABSENT)) for key in keys[run.algo]))
        for run, own in zip(runs, settings, strict=True)
    ]


def telling_keys(runs: Sequence[Run], settings: Sequence[Mapping[str, str]], algo: str) -> list[str]:
    """The fewest settings, chosen greedily, that tell an algorithm's different runs on one data set apart."""
    groups: dict[tuple[str, str], list[Mapping[str, str]]] = {}
    for run, own in zip(runs, settings, strict=True):
        if run.algo == algo:
            groups.setdefault(run.data_key, []).append(own)
    classes = lambda keys: sum(len({tuple(own.get(k) for k in keys) for own in group}) for group in groups.values())
    every = list(dict.fromkeys(key for group in groups.values() for own in group for key in own))
    chosen: list[str] = []
    while classes(chosen) < classes(every):
        chosen.append(max(every, key=lambda key: classes([*chosen, key])))
    return [key for key in every if key in chosen]


def flat_settings(run: Run) -> dict[str, str]:
    """What makes a run's method: the settings of algorithm and fine-tuning by dotted name, and the budget, as text."""
    loop = {key: run.config["loop"][key] for key in ("total_updates", "refresh_interval") if key in run.config["loop"]}
    tuned = (run.config.get("finetune") or {}).get("settings", {})
    return flatten(run.config["algo_config"]) | flatten(loop) | flatten(tuned, "finetune.")


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings by dotted name, values as text."""
    found = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        found |= flatten(value, f"{name}.") if isinstance(value, Mapping) else {name: as_text(value)}
    return found


def as_text(value: Any) -> str:
    """A setting as one would type it."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value if isinstance(value, str) else json.dumps(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"
