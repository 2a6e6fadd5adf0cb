"""The command line that makes a run: what it was made with, in the words a person would type."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from damorl.errors import UserError
from damorl.experiment.config import RunConfig, defaults, dotted


def train_command(config: RunConfig) -> list[str]:
    """`damorl train ...` with every setting that differs from the preset's."""
    words = ["damorl", "train", config.algo, "--dataset", config.dataset, "--preset", config.preset, "--seeds"]
    words += [str(seed) for seed in config.seeds]
    if config.task is not None:
        words += ["--task", config.task]
    if config.columns:
        words += ["--columns", *(f"{key}={spread(names)}" for key, names in config.columns.items())]
    if config.action_bounds is not None:
        words += ["--action-bounds", *(str(bound) for bound in config.action_bounds)]
    if config.resident_rows is not None:
        words += ["--resident-rows", str(config.resident_rows)]
    for name, values in config.population.items():
        words += ["--population", f"{name}={','.join(str(value) for value in values)}"]
    for name, value in changed_settings(config).items():
        words += [f"--{name.replace('_', '-')}", *argument(value)]
    return words


def changed_settings(config: RunConfig) -> dict[str, Any]:
    """The settings that differ from the preset's, by dotted name, but for those that vary in a population."""
    loop, algo_config = defaults(config.algo, config.preset, config.dataset)
    found = {}
    for own, default in ((config.loop, loop), (config.algo_config, algo_config)):
        found |= {name: value for name, value in differences(default, own).items() if name not in config.population}
    return found


def differences(before: Any, after: Any) -> dict[str, Any]:
    """The settings, by dotted name, that one config has otherwise than another of its kind."""
    old = dict(dotted(dataclasses.asdict(before)))
    return {name: value for name, value in dotted(dataclasses.asdict(after)) if value != old[name]}


def argument(value: Any) -> Iterator[str]:
    """A setting's value as command-line words."""
    yield from (str(item) for item in (value if isinstance(value, tuple | list) else (value,)))


def spread(names: Any) -> str:
    """`["angle", "speed"]` as `angle,speed`."""
    return names if isinstance(names, str) else ",".join(names)


def parse_values(option: str, kind: str, example: str, words: Sequence[str]) -> dict[str, list[float]]:
    """`["name=0.3,1"]` as `{"name": [0.3, 1.0]}`. UserError, with the option, what it names and an example, for
    anything else and for a name that comes twice."""
    found: dict[str, list[float]] = {}
    for word in words:
        name, _, values = word.partition("=")
        try:
            numbers = [float(value) for value in values.split(",")]
        except ValueError as error:
            raise UserError(
                f"{option}: expected {kind} and its values, as {example}, found '{word}': correct it"
            ) from error
        if name in found:
            raise UserError(f"{option}: expected each {kind[2:]} once, found {name} twice: join its values by commas")
        found[name] = numbers
    return found
