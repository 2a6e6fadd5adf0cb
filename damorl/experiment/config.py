"""What a run is made of: loop settings and algorithm settings, resolved once from defaults, presets and the user.

The presets live in `overrides.toml`, one table per (preset, algorithm, dataset); `tuned.toml` has what was tuned per
dataset for every preset. Each value has its source.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from damorl import plugins
from damorl.algos.base import Algorithm
from damorl.errors import UserError
from damorl.experiment.algorithms import find_algorithm, is_built_in
from damorl.parts.model_data import ModelSettings
from damorl.record import seal
from damorl.record.members import Member, members_of

PRESETS = ("smoke", "quick", "standard", "paper")
BEGINS_AS = {"standard": "quick"}
"""Presets that change another one's values, not the defaults."""
Overrides = dict[str, tuple[Any, str]]
"""Dotted field name to (value, source)."""
REMOVED = (("critic_warmup", None),)
"""Settings that are gone, each with the value at which it did nothing."""


@dataclass(frozen=True)
class LoopConfig:
    """The clock of a run. All intervals count gradient updates and are multiples of `refresh_interval`."""

    total_updates: int = 3_000_000
    """Gradient updates in all (paper Table 3)."""
    refresh_interval: int = 1000
    """Updates between two blocks of model rollouts; this many run in one compiled call."""
    eval_interval: int = 10_000
    """Updates between two evaluations in the simulator."""
    eval_episodes: int = 10
    """Episodes per evaluation, deterministic actions. Each evaluation has fresh starts, the same for every run."""
    keep_policy_every: int = 10
    """Every how many evaluations a policy is kept, for `damorl select` and `damorl export --step`."""
    checkpoint_interval: int = 50_000
    """Updates between two checkpoints of the whole state."""
    dataset_steps: int = 200_000
    """Transitions per part of a built-in dataset."""
    standardise_observations: bool = False
    """Whether the algorithm sees states of zero mean and unit deviation over the data. Saved policies and written
    metrics are in the data's own units all the same. Algorithms that plan see the data as they are."""
    reward_factor: float | Literal["auto"] = 1.0
    """What the rewards that the algorithm sees are multiplied by; its weights in units of reward are too. `auto`: so
    that the data's mean absolute reward is 0.3."""

    def __post_init__(self) -> None:
        """Refuse a clock that cannot tick and a factor that is none, with the reason."""
        check_numbers(self)
        if self.reward_factor == 0.0:
            raise UserError("reward_factor must be above 0, found 0.0: 1 leaves the rewards as they are")
        for name in ("total_updates", "eval_interval", "checkpoint_interval"):
            if getattr(self, name) % self.refresh_interval:
                raise UserError(
                    f"{name} must be a multiple of refresh_interval ({self.refresh_interval}), "
                    f"found {getattr(self, name)}: change one of the two"
                )


def check_numbers(config: Any) -> None:
    """Refuse negative or non-finite numbers, and sizes below 1, naming the field."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            check_numbers(value)
            continue
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, bool) or not isinstance(number, int | float):
                continue
            if isinstance(number, int) and number < 1 and "int" in str(field.type) and "float" not in str(field.type):
                raise UserError(f"{field.name} must be at least 1, found {number}: give a positive whole number")
            if not math.isfinite(number) or number < 0:
                raise UserError(f"{field.name} must be a finite number of at least 0, found {number}")


@dataclass(frozen=True)
class RunConfig:
    """A run, resolved: nothing writes to it later, and it is stored as it is."""

    algo: str
    dataset: str
    """Built-in name, D4RL name, path or Minari id."""
    task: str | None
    """Task name where the dataset's name does not tell it."""
    preset: str
    seeds: tuple[int, ...]
    loop: LoopConfig
    algo_config: Any
    columns: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What arrays or columns are called in the user's file, see `load_dataset`."""
    action_bounds: tuple[float, float] | None = None
    """Lowest and highest action where neither the task nor the data tell."""
    population: Mapping[str, tuple[float, ...]] = dataclasses.field(default_factory=dict)
    """Settings that vary within the run, with their values: see `experiment.population`."""
    resident_rows: int | None = None
    """Rows of the data in memory at a time, others in every epoch: see `experiment.resident`. None: all."""

    def __post_init__(self) -> None:
        """Refuse seeds that cannot be run, with the reason."""
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise UserError(f"seeds must be different whole numbers of at least 0, found {list(self.seeds)}")
        check_numbers(self.algo_config)

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm's record."""
        return find_algorithm(self.algo)

    @property
    def members(self) -> list[Member]:
        """What is trained: the seeds, in a population with every combination of its values."""
        return members_of(vars(self))

    def as_dict(self) -> dict[str, Any]:
        """JSON-able form, as stored in the run directory; of `population` and `resident_rows` only what is given."""
        return {n: v for n, v in dataclasses.asdict(self).items() if v or n not in ("population", "resident_rows")}

    def digest(self) -> str:
        """Eight hex digits that change with any setting."""
        return seal.digest(self.as_dict())[:8]

    def name(self) -> str:
        """Directory name of the run."""
        return f"{self.algo}-{dataset_stem(self.dataset)}-{self.preset}-{self.digest()}"


def dataset_key(dataset: str) -> str:
    """`/data/hopper_medium_expert-v2.hdf5` and `hopper-medium-expert` alike become `hopper-medium-expert`."""
    return re.sub(r"-v\d+$", "", dataset_stem(dataset)).replace("_", "-").lower()


def dataset_stem(dataset: str) -> str:
    """What a run's directory calls its data: a file's name without suffix, a Minari id without slashes."""
    path = Path(dataset)
    endings = {"hdf5", "h5", "npz", "csv", "parquet", *plugins.offers(plugins.DATASETS)}
    if path.suffix[1:].lower() in endings or path.exists():
        return path.stem
    return dataset.removeprefix("minari:").strip("/").replace("/", "-")


def table_parts(algo: str) -> tuple[str, ...]:
    """The tables that an algorithm reads: everyone's, that of all with a model if it has one, and its own."""
    with_model = issubclass(find_algorithm(algo).config_type, ModelSettings)
    return ("all", "model_based", algo) if with_model else ("all", algo)


def load_overrides(algo: str, preset: str, dataset: str) -> Overrides:
    """Every value that (preset, algorithm, dataset) changes, later tables winning over earlier ones; those that were
    tuned per dataset, for any preset, come first, then those of the preset that this one begins as."""
    if preset not in PRESETS:
        raise UserError(f"unknown preset '{preset}': choose one of {', '.join(PRESETS)}")
    tuned = dict(read_table("tuned.toml").get(algo, {}).get(dataset_key(dataset), {}))
    source = tuned.pop("source", "")
    found: Overrides = {name: (value, source) for name, value in tuned.items()}
    tables = read_table("overrides.toml")
    for step in filter(None, (BEGINS_AS.get(preset), preset)):
        for part in table_parts(algo):
            block = tables.get(step, {}).get(part, {})
            for name, entry in [*block.get("any", {}).items(), *block.get(dataset_key(dataset), {}).items()]:
                if part != "model_based" or has_setting(algo, name):
                    found[name] = (entry["value"], entry["source"])
    return found


def has_setting(algo: str, name: str) -> bool:
    """Whether an algorithm has that (dotted) setting, or is built in and so must: a plug-in may lack SAC's."""
    return is_built_in(algo) or name.partition(".")[0] in type_hints(find_algorithm(algo).config_type)


@cache
def read_table(name: str) -> Mapping[str, Any]:
    """A TOML file beside this one, read once: a grid asks for every run."""
    return tomllib.loads(resources.files("damorl.experiment").joinpath(name).read_text(encoding="utf-8"))


def defaults(algo: str, preset: str, dataset: str) -> tuple[LoopConfig, Any]:
    """The settings of a preset before the user has a say."""
    overrides = {name: value for name, (value, _) in load_overrides(algo, preset, dataset).items()}
    loop = {name: overrides.pop(name) for name in type_hints(LoopConfig) if name in overrides}
    return replace(LoopConfig(), loop), replace(find_algorithm(algo).config_type(), overrides)


def resolve(
    algo: str, dataset: str, preset: str, seeds: Sequence[int], changes: Mapping[str, Any], task: str | None = None
) -> RunConfig:
    """The run of a preset with `changes`: fields of the loop's or the algorithm's config by their dotted names."""
    loop, algo_config = defaults(algo, preset, dataset)
    loop_names = {field.name for field in dataclasses.fields(LoopConfig)}
    loop = replace(loop, {name: value for name, value in changes.items() if name in loop_names})
    algo_config = replace(algo_config, {name: value for name, value in changes.items() if name not in loop_names})
    return RunConfig(algo, dataset, task, preset, tuple(seeds), loop, algo_config)


def replace(config: Any, changes: dict[str, Any]) -> Any:
    """`dataclasses.replace` for dotted names; lists become tuples. UserError for an unknown field or a wrong type."""
    nested: dict[str, dict[str, Any]] = {}
    flat: dict[str, Any] = {}
    hints = type_hints(type(config))
    for name, value in changes.items():
        head, _, tail = name.partition(".")
        if head not in hints or (tail and not dataclasses.is_dataclass(getattr(config, head))):
            raise UserError(
                f"unknown setting '{name}' of {type(config).__module__.split('.')[-1]}{nearest(head, hints)}"
            )
        if tail:
            nested.setdefault(head, {})[tail] = value
        else:
            flat[head] = checked_value(head, tuple(value) if isinstance(value, list) else value, hints[head])
    for head, inner in nested.items():
        flat[head] = replace(getattr(config, head), inner)
    return dataclasses.replace(config, **flat)


@cache
def type_hints(config_type: type) -> dict[str, Any]:
    """The type of each field."""
    return get_type_hints(config_type)


def nearest(name: str, known: Iterable[str]) -> str:
    """A remedy for a name that is not known."""
    near = difflib.get_close_matches(name, known, 1)
    return f": did you mean '{near[0]}'?" if near else ": see --help"


def checked_value(name: str, value: Any, hint: Any) -> Any:
    """`value`; UserError unless it is of the type. A whole number will do for a float, and becomes one; a truth value
    will do for neither; "none" is None where that is a value."""
    kinds = {hint, *get_args(hint)}
    if isinstance(value, str) and value.lower() == "none" and type(None) in kinds and str not in kinds:
        return None  # TOML has no word of its own for it
    if type(value) is int and float in kinds and int not in kinds:
        return float(value)
    try:
        from typeguard import TypeCheckError, check_type
    except ImportError:  # the GPU kit does without
        return value
    try:
        check_type(value, hint)
        wrong = isinstance(value, bool) and bool not in kinds
    except TypeCheckError:
        wrong = True
    if wrong:
        expected = hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
        raise UserError(f"{name} must be {expected}, found {value!r}: correct the value")
    return value


def from_dict(config_type: type, stored: Mapping[str, Any]) -> Any:
    """The config that `dataclasses.asdict` and JSON made `stored` of, less what was removed since and was off."""
    return replace(config_type(), {name: value for name, value in dotted(stored) if (name, value) not in REMOVED})


def dotted(stored: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """`{"a": {"b": 1}}` as `("a.b", 1)`."""
    for name, value in stored.items():
        if isinstance(value, Mapping):
            yield from dotted(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def run_config_from_dict(stored: Mapping[str, Any]) -> RunConfig:
    """The run config that `RunConfig.as_dict` and JSON made `stored` of; other keys are passed over.

    Fields that `stored` lacks, for an older version wrote it, have their defaults. UserError for a field that this
    version lacks.
    """
    bounds = stored.get("action_bounds")
    return RunConfig(
        stored["algo"],
        stored["dataset"],
        stored.get("task"),
        stored["preset"],
        tuple(stored["seeds"]),
        from_dict(LoopConfig, stored["loop"]),
        from_dict(find_algorithm(stored["algo"]).config_type, stored["algo_config"]),
        dict(stored.get("columns") or {}),
        None if bounds is None else (bounds[0], bounds[1]),
        {name: tuple(values) for name, values in (stored.get("population") or {}).items()},
        stored.get("resident_rows"),
    )
