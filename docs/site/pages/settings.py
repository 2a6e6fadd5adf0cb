"""Pages of settings: every option of `damorl train ALGORITHM` with type, default, symbol and the values of the presets.

Defaults and texts come from the dataclasses, values and their sources from the tables that training reads
(damorl/experiment/overrides.toml, tuned.toml), symbols from the table on the algorithm's page.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from sphinx.pycode import ModuleAnalyzer

from damorl.algos import BUILT_IN
from damorl.experiment.algorithms import find_algorithm
from damorl.experiment.config import BEGINS_AS, PRESETS, LoopConfig, load_overrides, read_table
from pages.api import heading
from pages.docstrings import to_rst

Overrides = dict[tuple[str, Any, str], list[str]]
"""What changes a setting: (preset, value, source) to the data sets, none of which means all."""
OTHER = "another"
"""A data set that no table names."""


class Setting(NamedTuple):
    """One setting of an algorithm or of the loop."""

    name: str
    """With dots."""
    type: str
    default: Any
    text: list[str]
    """Its docstring."""
    home: str
    """Class that declares it."""


def pages(docs: Path) -> Iterator[tuple[str, str]]:
    """The list of algorithms, and a page for each."""
    names = sorted(BUILT_IN)
    yield "settings/index.rst", "\n".join([*heading("Settings", "="), *INTRODUCTION, *names_tree(names)])
    for name in names:
        table = docs / "algorithms" / f"{name}.md"
        yield f"settings/{name}.rst", "\n".join(page(name, symbols(table.read_text(encoding="utf-8"))))


def names_tree(names: list[str]) -> list[str]:
    """The table of contents below the introduction."""
    return [".. toctree::", "   :maxdepth: 1", "", *(f"   {name}" for name in names), ""]


begins = "; ".join(f"``{name}`` begins with the values of ``{first}``" for name, first in BEGINS_AS.items())
INTRODUCTION = [
    "Every option of ``damorl train ALGORITHM``, by algorithm. Under each stand its type, its default in the code, the",
    "symbol that the algorithm's page gives it, and the values that presets and data sets put in its place, with their",
    f"sources. A value for one data set wins over one for all; {begins}.",
    "What you set yourself wins over everything.",
    "",
    "The same names are keyword arguments of :py:func:`damorl.train` (a dot is written as two underscores) and keys of",
    "a sweep's grid. On the command line an underscore is a hyphen: ``dynamics.max_batches`` is",
    "``--dynamics.max-batches``.",
    "",
]


def page(algo: str, symbol_of: dict[str, str]) -> list[str]:
    """The page of one algorithm."""
    config = find_algorithm(algo).config_type
    found = [*settings_of(config()), *settings_of(LoopConfig())]
    overrides = overrides_of(algo)
    lines = [f".. _settings-{algo}:", "", *heading(algo, "="), f"The algorithm: :doc:`/algorithms/{algo}`.", ""]
    home = ""
    for setting in found:
        if setting.home != home:
            home = setting.home
            lines += heading(home, "-")
        lines += entry(algo, setting, symbol_of.get(setting.name), overrides.get(setting.name, {}))
    return lines


def entry(algo: str, setting: Setting, symbol: str | None, overrides: Overrides) -> list[str]:
    """One setting."""
    lines = [f".. _{algo}-{setting.name}:", "", f".. confval:: {setting.name}", "   :no-index:"]
    lines += [f"   :type: ``{setting.type}``", f"   :default: ``{shown(setting.default)}``", ""]
    lines += [f"   {line}".rstrip() for line in to_rst(setting.text)]
    lines += [f"   :Symbol: {symbol}"] * bool(symbol)
    return [*lines, *(f"   :In {presets}: {values}" for presets, values in by_presets(overrides)), ""]


def by_presets(overrides: Overrides) -> Iterator[tuple[str, str]]:
    """The values of a setting with data sets and sources, for all presets that have the same ones."""
    found: dict[str, list[str]] = {}
    for (preset, value, source), datasets in overrides.items():
        where = f" on {', '.join(datasets)}" if datasets else ""
        reason = f" ({to_rst([source])[0]})" if source else ""
        found.setdefault(preset, []).append(f"``{shown(value)}``{where}{reason}")
    alike: dict[str, list[str]] = {}
    for preset, values in found.items():
        alike.setdefault("; ".join(values), []).append(preset)
    yield from ((", ".join(presets), values) for values, presets in alike.items())


def settings_of(config: Any, prefix: str = "") -> Iterator[Setting]:
    """The settings of a config, its own before inherited ones; those of a config inside it have dotted names."""
    order, own = homes(type(config)), {field.name: home_of(config, field.name) for field in dataclasses.fields(config)}
    for field in sorted(dataclasses.fields(config), key=lambda field: order.index(own[field.name])):
        home, value = own[field.name], getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from settings_of(value, f"{prefix}{field.name}.")
            continue
        text = documentation(home.__module__).get((home.__qualname__, field.name), [])
        label = f"{home.__module__}.{home.__qualname__}"
        yield Setting(f"{prefix}{field.name}", str(field.type), value, list(text), label)


def homes(config_type: type) -> list[type]:
    """The classes that declare a config's fields, its own first."""
    return [base for base in config_type.__mro__ if dataclasses.is_dataclass(base)]


def home_of(config: Any, name: str) -> type:
    """The class whose body has the field."""
    return next(base for base in homes(type(config)) if name in inspect.get_annotations(base))


@cache
def documentation(module: str) -> dict[tuple[str, str], list[str]]:
    """The docstrings that follow the fields of a module's classes, by class and field."""
    return ModuleAnalyzer.for_module(module).find_attr_docs()


def overrides_of(algo: str) -> dict[str, Overrides]:
    """For each setting, what changes it."""
    found: dict[str, Overrides] = {}
    for preset in PRESETS:
        everywhere = load_overrides(algo, preset, OTHER)
        for name, (value, source) in everywhere.items():
            found.setdefault(name, {})[preset, frozen(value), source] = []
        for dataset in datasets_of(algo):
            for name, (value, source) in load_overrides(algo, preset, dataset).items():
                if (value, source) != everywhere.get(name):
                    found.setdefault(name, {}).setdefault((preset, frozen(value), source), []).append(dataset)
    return found


def datasets_of(algo: str) -> list[str]:
    """Every data set that a table names for the algorithm."""
    named = dict.fromkeys(read_table("tuned.toml").get(algo, {}))
    for tables in read_table("overrides.toml").values():
        named |= dict.fromkeys(name for part in tables.values() for name in part if name != "any")
    return list(named)


def symbols(page: str) -> dict[str, str]:
    """The symbol of each setting that the table `symbol | in the code | meaning` of an algorithm's page has."""
    found: dict[str, str] = {}
    table = re.search(r"^\| symbol \| in the code \|.*\n\|[-|]+\n((?:\|.*\n)+)", page, re.MULTILINE)
    for row in (table[1] if table else "").splitlines():
        symbol, code = (cell.strip() for cell in row.strip("|").split("|")[:2])
        if symbol:
            found |= {name: to_rst([symbol])[0] for name in re.findall(r"`([\w.]+)`", code)}
    return found


def frozen(value: Any) -> Any:
    """A value of TOML as one that can be a key."""
    return tuple(value) if isinstance(value, list) else value


def shown(value: Any) -> str:
    """A value as TOML and the reader write it."""
    return repr(list(value)) if isinstance(value, tuple) else str(value)
