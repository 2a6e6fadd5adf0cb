"""An algorithm by its name: built in, of the program that runs, or of a plug-in; and where it comes from."""

from __future__ import annotations

import dataclasses
import re
import sys
from functools import partial
from pathlib import Path
from typing import Any

from damorl import plugins
from damorl._version import __version__
from damorl.algos import ALGORITHMS, BUILT_IN
from damorl.algos.base import Algorithm
from damorl.errors import UserError
from damorl.record import store


def find_algorithm(name: str) -> Algorithm:
    """The algorithm of that name, built in or of a plug-in.

    UserError with the known names if there is none, or if a plug-in that has the name cannot be used.
    """
    if name in ALGORITHMS and not is_built_in(name):
        return ALGORITHMS[name]
    found = plugins.find(plugins.ALGORITHMS, name, Algorithm, BUILT_IN, partial(check_record, name))
    if found is None and name not in ALGORITHMS:
        known = sorted({*ALGORITHMS, *plugins.offers(plugins.ALGORITHMS)})
        raise UserError(f"unknown algorithm '{name}': choose one of {', '.join(known)}")
    return ALGORITHMS[name] if found is None else found


def is_built_in(name: str) -> bool:
    """Whether the library itself has an algorithm of that name."""
    return name in BUILT_IN


def check_record(name: str, algorithm: Algorithm) -> None:
    """UserError unless the record can be known by `name`: that name, and settings that have defaults and are frozen."""
    if algorithm.name != name or not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) or name == "all":
        raise UserError(
            f"expected the Algorithm's own name, lower-case letters and digits joined by single hyphens and not 'all', "
            f"found {algorithm.name!r}; give entry point and Algorithm one such name"
        )
    kind = algorithm.config_type
    try:
        frozen = dataclasses.is_dataclass(kind) and hash(kind()) is not None
    except Exception:  # somebody else's code
        frozen = False
    if not frozen:
        raise UserError(f"expected config_type to be a frozen dataclass with defaults, found {kind!r}; make it one")


def origin_of_algorithm(name: str) -> dict[str, Any]:
    """Package, version and entry point of an algorithm, as provenance.json has it; of a plug-in in a checkout also the
    checkout's revision. One that a program has put into the table itself has no package."""
    if is_built_in(name):
        return {"name": name, "package": "damorl", "version": __version__, "entry_point": None}
    found = None if name in ALGORITHMS else plugins.origin(plugins.ALGORITHMS, name)
    if found is None:
        return {"name": name, "package": None, "version": None, "entry_point": None}
    module = sys.modules.get(found.entry_point.partition(":")[0])
    file = getattr(module, "__file__", None)
    return {"name": name, **found._asdict(), "git": store.git_revision(Path(file)) if file else None}
