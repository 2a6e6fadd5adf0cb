"""`damorl plugins`: what other installed packages add."""

from __future__ import annotations

import dataclasses
from typing import Any

from damorl.cli.base import parse, print_json


@dataclasses.dataclass(frozen=True)
class PluginsArgs:
    """List the algorithms, tasks and readers of data files that other installed packages add, and import each.

    The exit code is 2 if one cannot be used; the reason stands in its line. docs/plugins.md says how to write one.

    examples:
      damorl plugins
      damorl plugins --json
    """

    json: bool = False
    """Print JSON."""


def plugins_verb(argv: list[str]) -> int:
    """`damorl plugins`."""
    args = parse(PluginsArgs, "plugins", argv)
    found = list_plugins()
    if args.json:
        print_json(found)
    else:
        print("\n".join(map(line, found)) or "no installed package has plug-ins for damorl")
    return 2 if any(each["problem"] for each in found) else 0


def line(entry: dict[str, Any]) -> str:
    """One plug-in in words."""
    text = f"{entry['group']:<18} {entry['name']:<20} {entry['package']} {entry['version']}  {entry['entry_point']}"
    return f"{text}\n    {entry['problem']}" if entry["problem"] else text


def list_plugins() -> list[dict[str, Any]]:
    """Group, name, package, version, entry point and problem (None: it can be used) of each plug-in."""
    from pathlib import Path

    from damorl import plugins
    from damorl.data.formats import format_of
    from damorl.errors import UserError
    from damorl.experiment.algorithms import find_algorithm
    from damorl.world.tasks import find_task

    finders = {
        plugins.ALGORITHMS: find_algorithm,
        plugins.TASKS: find_task,
        plugins.DATASETS: lambda ending: format_of(Path(f"data.{ending}")),
    }
    found = []
    for group, find in finders.items():
        for name, points in sorted(plugins.offers(group).items()):
            problem = None
            try:
                find(name)
            except UserError as error:
                problem = str(error)
            found += [
                {"group": group, "name": name, **plugins.origin_of(point)._asdict(), "problem": problem}
                for point in points
            ]
    return found
