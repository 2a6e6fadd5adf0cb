"""The grid of a sweep: a small TOML file, checked as a whole before anything starts, and the runs that it asks for.

    algorithms = ["damo", "mopo"]
    datasets = ["hopper-medium", "halfcheetah-medium"]
    preset = "quick"
    seeds = [0, 1, 2]
    [settings]                         # for every run
    gamma = 0.99
    [cross]                            # every combination of the lists' values
    real_ratio = [0.05, 0.5]
    [algorithm.damo]                   # for one algorithm, settings that go together; {} is the preset itself
    variants = [{}, { log_ratio = "joint", trust = "fixed" }]
    [algorithm.damo.cross]             # and [algorithm.damo.settings]
    divergence_weight = [0.1, 0.5, 3.0]

A data set is a name or a path, or a table with `name` and what `damorl train` would need to read it (`task`, `columns`,
`action_bounds`). Settings have the (dotted) names of `damorl train`'s options.
"""

from __future__ import annotations

import difflib
import itertools
import json
import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from damorl.errors import UserError
from damorl.experiment.config import PRESETS, RunConfig, dotted, find_algorithm, resolve

MAX_RUNS = 100_000
"""A grid with more runs than this is a slip of the pen."""
OWN_KEYS, DATASET_KEYS = ("settings", "cross", "variants"), ("name", "task", "columns", "action_bounds")
KEYS = ("algorithms", "datasets", "preset", "seeds", *OWN_KEYS, "algorithm")
Values = dict[str, Any]


@dataclass(frozen=True)
class Source:
    """A data set of the grid, and how to read it."""

    name: str
    task: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)
    action_bounds: tuple[float, float] | None = None


@dataclass(frozen=True)
class Grid:
    """What a sweep is asked for; `expand` makes the runs of it."""

    algorithms: tuple[str, ...]
    datasets: tuple[Source, ...]
    preset: str
    seeds: tuple[int, ...]
    settings: Values = field(default_factory=dict)
    """Fixed settings by dotted name."""
    cross: Values = field(default_factory=dict)
    """Lists of values by dotted name."""
    own_settings: Mapping[str, Values] = field(default_factory=dict)
    """Those of one algorithm, which win over everyone's."""
    own_cross: Mapping[str, Values] = field(default_factory=dict)
    variants: tuple[Values, ...] = ()
    """Settings that go together, by dotted name: each variant is run for every combination."""
    own_variants: Mapping[str, tuple[Values, ...]] = field(default_factory=dict)


def read_grid(source: Path | str | Mapping[str, Any]) -> tuple[Grid, dict[str, Any]]:
    """The grid of a TOML file or of the same keys as a dictionary, and those keys as read.

    UserError with the first mistake: what is no TOML, and all that `make_grid` refuses.
    """
    if isinstance(source, Mapping):
        return make_grid(source, "grid"), dict(source)
    path = Path(source)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UserError(f"cannot read {path}: expected a grid in TOML, found '{reason}'; correct the file") from error
    return make_grid(content, str(path)), content


def make_grid(content: Mapping[str, Any], label: str) -> Grid:
    """Check every key. UserError naming `label` and the key for one that is unknown, empty, twice or of another type.

    Whether settings exist and have sensible values is checked by `expand`.
    """
    known_keys(content, KEYS, label)
    algorithms = string_list(content, "algorithms", label)
    for name in algorithms:
        find_algorithm(name)
    preset = content.get("preset", "quick")
    if preset not in PRESETS:
        raise UserError(f"{label}: preset: expected one of {', '.join(PRESETS)}, found {preset!r}; choose one of them")
    own = table(content, "algorithm", label)
    for name, block in own.items():
        if name not in algorithms:
            raise UserError(
                f"{label}: algorithm.{name}: expected one of the grid's algorithms ({', '.join(algorithms)}), "
                f"found '{name}'; add it to algorithms or remove the table"
            )
        known_keys(as_table(block, f"algorithm.{name}", label), OWN_KEYS, f"{label}: algorithm.{name}")
    part = lambda key, where: {name: named_values(block, key, f"{where}.{name}", label) for name, block in own.items()}
    return Grid(
        algorithms=tuple(algorithms),
        datasets=tuple(data_sources(content, label)),
        preset=preset,
        seeds=tuple(seed_list(content, label)),
        settings=named_values(content, "settings", "", label),
        cross=checked_cross(named_values(content, "cross", "", label), "cross", label),
        own_settings=part("settings", "algorithm"),
        own_cross={
            name: checked_cross(values, f"algorithm.{name}.cross", label)
            for name, values in part("cross", "algorithm").items()
        },
        variants=variant_list(content, label),
        own_variants={name: variant_list(block, f"{label}: algorithm.{name}") for name, block in own.items()},
    )


def known_keys(block: Mapping[str, Any], known: Sequence[str], label: str) -> None:
    """UserError for a key that means nothing, with the nearest one that does."""
    for key in block:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean '{near[0]}'?" if near else f"the keys are {', '.join(known)}"
            raise UserError(f"{label}: unknown key '{key}': {hint}")


def as_table(value: Any, key: str, label: str) -> Mapping[str, Any]:
    """`value`, which must be a table."""
    if not isinstance(value, Mapping):
        raise UserError(f"{label}: {key}: expected a table, found {value!r}; write [{key}]")
    return value


def table(content: Mapping[str, Any], key: str, label: str) -> Mapping[str, Any]:
    """The table under `key`; an empty one if it is not there."""
    return as_table(content.get(key, {}), key, label)


def named_values(content: Mapping[str, Any], key: str, where: str, label: str) -> Values:
    """The settings under `key`, nested tables and dotted names alike, by dotted name."""
    full = f"{where}.{key}" if where else key
    return dict(dotted(as_table(content.get(key, {}), full, label)))


def distinct_list(content: Mapping[str, Any], key: str, label: str, example: str) -> list[Any]:
    """The list under `key`: there, not empty, and nothing twice."""
    values = content.get(key)
    if not isinstance(values, list | tuple) or not values:
        found = "nothing" if values is None else repr(values)
        raise UserError(f"{label}: {key}: expected a list with at least one entry, found {found}; write {example}")
    refuse_twice(values, key, label)
    return list(values)


def refuse_twice(values: Sequence[Any], key: str, label: str) -> None:
    """UserError if two entries are the same."""
    texts = [json.dumps(value, sort_keys=True, default=str) for value in values]
    for index, text in enumerate(texts):
        if text in texts[:index]:
            raise UserError(f"{label}: {key}: expected each entry once, found {text} twice; remove one")


def string_list(content: Mapping[str, Any], key: str, label: str) -> list[str]:
    """A list of words."""
    values = distinct_list(content, key, label, f'{key} = ["..."]')
    for value in values:
        if not isinstance(value, str):
            raise UserError(f"{label}: {key}: expected names in quotes, found {value!r}; write it as text")
    return values


def seed_list(content: Mapping[str, Any], label: str) -> list[int]:
    """Whole numbers from 0 on; one of them if the grid says nothing."""
    values = distinct_list(content, "seeds", label, "seeds = [0, 1, 2]") if "seeds" in content else [0]
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise UserError(f"{label}: seeds: expected whole numbers of at least 0, found {value!r}; correct it")
    return values


def data_sources(content: Mapping[str, Any], label: str) -> Iterator[Source]:
    """The data sets: names, paths, or tables."""
    for value in distinct_list(content, "datasets", label, 'datasets = ["hopper-medium"]'):
        if isinstance(value, str):
            yield Source(value)
            continue
        entry = as_table(value, "datasets", label)
        known_keys(entry, DATASET_KEYS, f"{label}: datasets")
        if not isinstance(entry.get("name"), str):
            raise UserError(
                f"{label}: datasets: expected a name or path as 'name', found {entry.get('name')!r}; add it"
            )
        columns = as_table(entry.get("columns", {}), "datasets.columns", label)
        yield Source(entry["name"], entry.get("task"), columns, checked_bounds(entry.get("action_bounds"), label))


def checked_bounds(value: Any, label: str) -> tuple[float, float] | None:
    """Lowest and highest action, if they are given."""
    if value is None:
        return None
    if not isinstance(value, list | tuple) or len(value) != 2 or not all(isinstance(v, int | float) for v in value):
        raise UserError(f"{label}: datasets: action_bounds: expected two numbers, found {value!r}; write [low, high]")
    return float(value[0]), float(value[1])


def variant_list(content: Mapping[str, Any], label: str) -> tuple[Values, ...]:
    """The tables under `variants`, each by dotted name."""
    if "variants" not in content:
        return ()
    values = distinct_list(content, "variants", label, "variants = [{}, { gamma = 0.9 }]")
    return tuple(dict(dotted(as_table(value, "variants", label))) for value in values)


def checked_cross(values: Values, key: str, label: str) -> Values:
    """Every value of a `cross` table must be a list with entries that differ."""
    for name, entries in values.items():
        if not isinstance(entries, list | tuple) or not entries:
            raise UserError(
                f"{label}: {key}.{name}: expected a list with at least one value, found {entries!r}; "
                f"write {name} = [...], or move it to settings"
            )
        refuse_twice(entries, f"{key}.{name}", label)
    return values


def count_runs(grid: Grid) -> int:
    """Runs of the grid, each seed counted, without making them."""
    shared = math.prod(len(values) for values in grid.cross.values())
    crossed = {
        name: math.prod(len(v) for v in {**grid.cross, **grid.own_cross.get(name, {})}.values())
        if grid.own_cross.get(name)
        else shared
        for name in grid.algorithms
    }
    runs = sum(count * len(variants_of(grid, name)) for name, count in crossed.items())
    return runs * len(grid.datasets) * len(grid.seeds)


def variants_of(grid: Grid, algo: str) -> tuple[Values, ...]:
    """The variants of one algorithm: its own, everyone's, or the preset alone."""
    return grid.own_variants.get(algo) or grid.variants or ({},)


def expand(grid: Grid, label: str = "grid") -> list[RunConfig]:
    """One run config, with all the grid's seeds, for each algorithm, data set, variant and combination of lists.

    UserError for more than `MAX_RUNS` runs, a setting that an algorithm lacks or whose value it refuses, and for two
    combinations that come to the same run.
    """
    total = count_runs(grid)
    if total > MAX_RUNS:
        raise UserError(
            f"{label}: expected at most {MAX_RUNS:,} runs, found {total:,}; shorten the lists under cross, or "
            "split the grid"
        )
    found: dict[str, RunConfig] = {}
    for algo, source in itertools.product(grid.algorithms, grid.datasets):
        for changes in combinations(grid, algo):
            config = make_config(grid, algo, source, changes, label)
            if config.digest() in found:
                raise UserError(
                    f"{label}: two runs are one: {algo} on {source.name} with {describe(changes)} has the same "
                    "settings as another combination; remove one of them"
                )
            found[config.digest()] = config
    return list(found.values())


def combinations(grid: Grid, algo: str) -> Iterator[Values]:
    """Every assignment of the settings of one algorithm."""
    fixed = grid.settings | grid.own_settings.get(algo, {})
    crossed = grid.cross | grid.own_cross.get(algo, {})
    for variant in variants_of(grid, algo):
        for values in itertools.product(*crossed.values()):
            yield fixed | variant | dict(zip(crossed, values, strict=True))


def make_config(grid: Grid, algo: str, source: Source, changes: Values, label: str) -> RunConfig:
    """The run of one combination; UserError that names the grid if the algorithm refuses it."""
    try:
        config = resolve(algo, source.name, grid.preset, grid.seeds, changes, source.task)
    except UserError as error:
        raise UserError(f"{label}: {algo} on {source.name}: {error}") from error
    if source.columns or source.action_bounds:
        config = replace(config, columns=dict(source.columns), action_bounds=source.action_bounds)
    return config


def describe(changes: Values) -> str:
    """`gamma=0.99, real_ratio=0.5`."""
    return ", ".join(f"{name}={value}" for name, value in changes.items()) or "the preset's settings"
