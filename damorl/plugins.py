"""What other installed packages add: algorithms, tasks and readers of data files, found by their entry points.

Nothing is imported until its name is asked for, and the list of installed packages is read when a name is first looked
up. A name belongs to one thing: one that a plug-in shares with the library, or with another package, is refused.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, NamedTuple

from damorl.errors import UserError

ALGORITHMS, TASKS, DATASETS = GROUPS = ("damorl.algorithms", "damorl.tasks", "damorl.datasets")
"""The groups of entry points."""


class Origin(NamedTuple):
    """Where a plug-in comes from."""

    package: str
    version: str | None
    entry_point: str
    """`module:object`."""


def origin_of(point: EntryPoint) -> Origin:
    """The package of an entry point; one whose metadata are damaged is called `?`."""
    try:
        assert point.dist is not None
        return Origin(str(point.dist.name), str(point.dist.version), point.value)
    except Exception:  # somebody else's files
        return Origin("?", None, point.value)


def describe(point: EntryPoint) -> str:
    """An entry point as messages call it."""
    package, version, value = origin_of(point)
    return f"plug-in {point.name!r} of {point.group} (package {package} {version or 'of no version'}, {value})"


def offers(group: str) -> Mapping[str, tuple[EntryPoint, ...]]:
    """The entry points of a group by name. Nothing is imported. Empty, with a warning, if they cannot be read."""
    return _scan(tuple(sys.path)).get(group, {})


@lru_cache(maxsize=4)
def _scan(path: tuple[str, ...]) -> dict[str, dict[str, tuple[EntryPoint, ...]]]:
    """All groups, for what is installed on `path`, which is `sys.path`."""
    found: dict[str, dict[str, tuple[EntryPoint, ...]]] = {group: {} for group in GROUPS}
    try:
        every = entry_points()
        points = [point for group in GROUPS for point in every.select(group=group)]
    except Exception as reason:  # one damaged file of any package is enough
        warnings.warn(
            f"plug-ins are left out, for the entry points of the installed packages cannot be read: {reason}",
            stacklevel=4,
        )
        return found
    for point in points:
        found[point.group][point.name] = (*found[point.group].get(point.name, ()), point)
    return found


def find(
    group: str, name: str, kind: type, built_in: Collection[str] = (), check: Callable[[Any], None] = lambda _: None
) -> Any | None:
    """The object of type `kind` that a plug-in offers under `name`, imported; None if no package offers the name.

    UserError, naming package, entry point and reason, if the name is also in `built_in`, if two packages offer it, if
    the import fails, if the object is of another type, or if `check` raises a UserError on it.
    """
    points = list(offers(group).get(name, ()))
    if not points:
        return None
    if name in built_in:
        raise refusal(points[0], f"expected a name of its own, found {name!r}, which is built in; rename it")
    if len(points) > 1:
        others = ", ".join(describe(point) for point in points[1:])
        raise refusal(points[0], f"expected a name of its own, found the same one in {others}; keep one of them")
    found = _load(points[0])
    if not isinstance(found, kind):
        expected = f"{kind.__module__}.{kind.__name__}"
        raise refusal(points[0], f"expected a {expected}, found an object of type {type(found).__name__}; correct it")
    try:
        check(found)
    except UserError as reason:
        raise refusal(points[0], str(reason)) from reason
    return found


@lru_cache
def _load(point: EntryPoint) -> Any:
    """Import what an entry point names. UserError for whatever goes wrong in that."""
    try:
        return point.load()
    except (Exception, SystemExit) as reason:  # somebody else's code
        text = str(reason).strip().partition("\n")[0]
        raise refusal(
            point, f"cannot be imported ({type(reason).__name__}: {text}); repair or uninstall the package"
        ) from reason


def refusal(point: EntryPoint, reason: str) -> UserError:
    """The sentence on a plug-in that cannot be used."""
    return UserError(f"{describe(point)}: {reason}")


def origin(group: str, name: str) -> Origin | None:
    """Where the plug-in of that name comes from; None if there is no such plug-in. Nothing is imported."""
    points = offers(group).get(name, ())
    return origin_of(points[0]) if points else None
