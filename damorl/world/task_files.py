"""Tasks in a user's own Python file, named `path/to/mytasks.py:reactor`."""

from __future__ import annotations

import re
import sys
import traceback
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType

from damorl.errors import UserError
from damorl.world.task import Task, check_termination, describe


def is_task_file(name: str) -> bool:
    """Whether a task's name points into a Python file."""
    return name.endswith(".py") or name.rpartition(":")[0].endswith(".py")


def task_of_file(name: str) -> Task:
    """Run the file and take the `Task` of that name. The task is renamed to the file's full path and that name.

    The file may do whatever Python may, for example register an environment of its own with Gymnasium. It runs once
    in a process unless its text changes. UserError if there is no such file or no such task in it, if the file raises
    anything, or if the task's termination function is unusable.
    """
    file, _, attribute = name.rpartition(":") if not name.endswith(".py") else (name, "", "")
    path = Path(file).expanduser().resolve()
    try:
        source = path.read_bytes()
    except OSError as reason:
        raise UserError(
            f"task {name!r}: cannot read {path} ({reason.strerror}); give the path of a Python file and the name of a "
            "Task in it, as in mytasks.py:reactor"
        ) from reason
    found = vars(_run(path, source)).get(attribute)
    if not isinstance(found, Task):
        raise UserError(f"task {name!r}: {_expected(path, source, attribute, found)}")
    task = replace(found, name=f"{path}:{attribute}")
    check_termination(task)
    return task


def _expected(path: Path, source: bytes, attribute: str, found: object) -> str:
    tasks = [key for key, value in vars(_run(path, source)).items() if isinstance(value, Task)]
    what = "nothing of that name" if found is None else f"an object of type {type(found).__name__}"
    wanted = f"a damorl.Task named {attribute!r}, found {what}" if attribute else "the name of a Task after a colon"
    choice = f"choose one of: {', '.join(tasks)}" if tasks else "write one into the file: `reactor = Task(...)`"
    return f"expected {wanted} in {path}; {choice}"


@cache
def _run(path: Path, source: bytes) -> ModuleType:
    """The module that the text makes; kept by its text, so that the same task found twice is the same."""
    module = ModuleType("damorl_tasks" + re.sub(r"\W", "_", str(path)))
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses and others look their module up
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as reason:
        del sys.modules[module.__name__]
        raise UserError(
            f"task file {path}{_line(path, reason)}: the file fails ({describe(reason)}); correct it"
        ) from reason
    return module


def _line(path: Path, reason: BaseException) -> str:
    """Where in the file it happened: the deepest of its lines."""
    if isinstance(reason, SyntaxError) and reason.filename == str(path):
        return f", line {reason.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(reason.__traceback__) if frame.filename == str(path)]
    return f", line {lines[-1]}" if lines else ""
