"""Pages of the Python API: what `damorl` exports, and every module of the rooms that others build on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import damorl

PACKAGE = Path(damorl.__path__[0])
GROUPS = {
    "Train and score": ("train", "finetune", "Result", "evaluate", "list_policies", "compare", "sweep"),
    "Choose without a simulator": ("select", "ope"),
    "Data and tasks": (
        "load_dataset",
        "Dataset",
        "find_problems",
        "export_minari",
        "Task",
        "find_task",
        "register_task",
    ),
    "Policies and models": ("load_policy", "Policy", "film", "Film", "export_policy", "load_exported", "model_env"),
    "Callbacks": ("Callback", "StartEvent", "Event", "EndEvent", "Stop", "TimeBudget", "EarlyStop"),
    "Errors": ("UserError",),
}
ROOMS = {
    "types": "The records that travel between the rooms",
    "algos": "The algorithms",
    "parts": "The learned pieces",
    "core": "The mathematics",
    "world": "Tasks and simulators",
    "data": "Data sets",
    "record": "The run directory",
    "experiment": "Presets, loop, results, selection, export",
    "sweeps": "Sweeps",
    "loggers": "Weights & Biases and MLflow",
    "testing": "Contracts for algorithms and tasks of other packages",
    "theory": "The paper's claims on finite MDPs",
}
"""The other rooms serve these and are not for use from outside."""


def pages() -> Iterator[tuple[str, str]]:
    """The page of what is public, and one for each room."""
    yield "api/damorl.rst", public()
    for room, title in ROOMS.items():
        yield f"api/{room}.rst", "\n".join([*heading(f"damorl.{room}: {title}", "="), *modules(room)])


def public() -> str:
    """Everything that `damorl` exports, group by group. ValueError if a name has no group, or a group no such name."""
    grouped = {name for names in GROUPS.values() for name in names} | {"__version__", "loggers"}
    if grouped != set(damorl.__all__):
        raise ValueError(f"docs/site/pages/api.py: GROUPS and damorl.__all__ differ in {grouped ^ set(damorl.__all__)}")
    lines = [*heading("damorl: the Python API", "="), ".. py:module:: damorl", ""]
    for title, names in GROUPS.items():
        lines += heading(title, "-")
        for name in names:
            kind = "class" if isinstance(getattr(damorl, name), type) else "function"
            options = {"class": ("members",), "function": ()}[kind]
            lines += [*auto(kind, f"damorl.{name}", *options), ""]
    lines += [
        *heading("What it stands on", "-"),
        ".. toctree::",
        "   :maxdepth: 1",
        "",
        *(f"   {room}" for room in ROOMS),
    ]
    return "\n".join(lines)


def modules(room: str) -> Iterator[str]:
    """A section for each module of a room."""
    for path in sorted([*PACKAGE.glob(f"{room}.py"), *(PACKAGE / room).rglob("*.py")]):
        names = path.relative_to(PACKAGE.parent).with_suffix("").parts
        name = ".".join(names[:-1] if names[-1] == "__init__" else names)
        if path.stat().st_size:
            yield from heading(name, "-")
            yield from [*auto("module", name, "members"), ""]


def auto(kind: str, name: str, *options: str) -> list[str]:
    """A directive of autodoc."""
    return [f".. auto{kind}:: {name}", *(f"   :{option}:" for option in options)]


def heading(text: str, line: str) -> list[str]:
    """A title, underlined."""
    return [text, line * len(text), ""]
