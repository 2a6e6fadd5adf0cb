"""The members of a run: its seeds or, of a population, its seeds with each combination of the settings that vary.

A config holds a population as `{"population": {"divergence_weight": [0.3, 1.0]}}`. A *setting* is the number of one
combination, the last name varying fastest; what belongs to a member is marked with its seed and, in a population, its
setting: rows of metrics, policies, event files.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

from damorl.errors import UserError


class Member(NamedTuple):
    """One training within a run."""

    seed: int
    setting: int | None = None
    """None where the run is no population."""
    values: tuple[tuple[str, float], ...] = ()
    """The settings that vary, with this member's values."""

    @property
    def marks(self) -> dict[str, int]:
        """What a row of its metrics says of it."""
        return {"seed": self.seed} if self.setting is None else {"seed": self.seed, "setting": self.setting}

    @property
    def key(self) -> str:
        """What its arrays are filed under."""
        return str(self.seed) if self.setting is None else f"setting{self.setting}/{self.seed}"

    @property
    def folder(self) -> str:
        """Where its events go."""
        own = f"seed_{self.seed}"
        return own if self.setting is None else f"{describe(self.values).replace(', ', ',')}/{own}"

    @property
    def label(self) -> str:
        """What people call it."""
        own = f"seed {self.seed}"
        return own if self.setting is None else f"{own} with {describe(self.values)}"


def describe(values: Mapping[str, float] | tuple[tuple[str, float], ...]) -> str:
    """`divergence_weight=0.3, actor_lr=0.0001`."""
    return ", ".join(f"{name}={value:g}" for name, value in dict(values).items())


def settings_of(config: Mapping[str, Any]) -> list[dict[str, float]]:
    """The combinations of a stored config's population; of any other run the one that changes nothing."""
    varied = config.get("population") or {}
    return [dict(zip(varied, values, strict=True)) for values in itertools.product(*varied.values())]


def members_of(config: Mapping[str, Any]) -> list[Member]:
    """All members of a stored config: setting by setting, in each the seeds in order."""
    plain = not config.get("population")
    return [
        Member(seed, None if plain else number, tuple(values.items()))
        for number, values in enumerate(settings_of(config))
        for seed in config["seeds"]
    ]


def find_member(config: Mapping[str, Any], seed: int | None, setting: int | None, place: object) -> Member:
    """The member with this seed and setting, the first of each by default. UserError, naming `place`, if none is."""
    seeds, settings = config["seeds"], settings_of(config)
    seed = seeds[0] if seed is None else seed
    if seed not in seeds:
        raise UserError(f"{place}: expected one of the seeds {seeds}, found {seed}: choose one of them")
    if setting is not None and not config.get("population"):
        raise UserError(f"{place}: expected no setting, for this run is no population, found {setting}: leave it out")
    if setting is not None and not 0 <= setting < len(settings):
        known = "; ".join(f"{number}: {describe(values)}" for number, values in enumerate(settings))
        raise UserError(f"{place}: expected one of the settings {known}, found {setting}: choose one of the numbers")
    return members_of(config)[(setting or 0) * len(seeds) + list(seeds).index(seed)]


def setting_config(config: Mapping[str, Any], setting: int) -> dict[str, Any]:
    """The stored config of one setting of a population, as if it were a run of its own."""
    own = {name: value for name, value in config.items() if name != "population"}
    return own | {"algo_config": {**config["algo_config"], **settings_of(config)[setting]}}
