"""The tasks by name: a table that a program extends, any Gymnasium environment, and tasks in a user's own file."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from damorl import plugins
from damorl.errors import UserError
from damorl.world import feature_names as names
from damorl.world.simulators import make_env as make_env
from damorl.world.simulators import simulator_of as simulator_of
from damorl.world.simulators import task_of_env
from damorl.world.task import Task as Task
from damorl.world.task import check_termination
from damorl.world.task import from_unit as from_unit
from damorl.world.task import normalised_score as normalised_score
from damorl.world.task import normalised_std as normalised_std
from damorl.world.task import to_unit as to_unit
from damorl.world.task_files import is_task_file, task_of_file
from damorl.world.terminations import Termination as Termination
from damorl.world.terminations import ant_ended as ant_ended
from damorl.world.terminations import halfcheetah_ended as halfcheetah_ended
from damorl.world.terminations import hopper_ended as hopper_ended
from damorl.world.terminations import inverted_double_pendulum_ended as inverted_double_pendulum_ended
from damorl.world.terminations import never_ended as never_ended
from damorl.world.terminations import walker2d_ended as walker2d_ended

TASKS: dict[str, Task] = {
    task.name: task
    for task in (  # reference returns: D4RL's d4rl/infos.py
        Task("hopper", "Hopper-v4", 11, 3, hopper_ended, -20.272305, 3234.3, obs_names=names.HOPPER),
        Task(
            "halfcheetah",
            "HalfCheetah-v4",
            17,
            6,
            halfcheetah_ended,
            -280.178953,
            12135.0,
            obs_names=names.HALFCHEETAH,
        ),
        Task("walker2d", "Walker2d-v4", 17, 6, walker2d_ended, 1.629008, 4592.3, obs_names=names.WALKER2D),
        # D4RL's own ant data sets have 84 columns more, contact forces that Ant-v4 leaves out unless asked for.
        Task("ant", "Ant-v4", 27, 8, ant_ended, -325.6, 3879.7, obs_names=names.ANT),
        # D4RL does not have the next two, so their references are ours. The lower one is the mean of 100 uniformly
        # random episodes (reset seeds 0 to 99). The upper one of the double pendulum is the bound
        # 1000 * (10 - (1.2 - 2)^2) that standing still and upright comes close to.
        Task(
            "inverted_double_pendulum",
            "InvertedDoublePendulum-v4",
            11,
            1,
            inverted_double_pendulum_ended,
            60.1,
            9360.0,
            obs_names=names.INVERTED_DOUBLE_PENDULUM,
        ),
        # That of the pendulum is the same mean for a controller that pumps energy until it can balance (it is written
        # out in tests/world/test_references.py); value iteration on a fine grid reaches -134.
        Task("pendulum", "Pendulum-v1", 3, 1, never_ended, -1197.2, -144.8, 200, -2.0, 2.0, obs_names=names.PENDULUM),
    )
}
"""Every known task by name; `register_task` adds one. Those of plug-ins are found by `find_task` alone."""
BUILT_IN = frozenset(TASKS)
"""The names that no plug-in may have."""


def register_task(task: Task) -> None:
    """Make a task known by name in this process.

    UserError if the name is ill-formed or already means another task, or if its termination function is unusable.
    """
    check_name(task.name)
    check_termination(task)
    if TASKS.setdefault(task.name, task) != task:
        known = TASKS[task.name].env_id or "a task without simulator"
        raise UserError(f"task name {task.name!r} already means {known}; choose another name")


def check_name(name: str) -> None:
    """UserError for a name that no task of the table may have."""
    if not re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)*", name):
        raise UserError(
            f"task name {name!r}: expected lower-case letters and digits joined by single underscores; rename it"
        )


def find_task(name: str) -> Task:
    """The task of that name. Its own `name` finds it again.

    - A name of `TASKS`, or of a plug-in's task.
    - A Gymnasium id, `Reacher-v5` or `module:Env-v0` where importing `module` registers the environment. If a task of
      the table has that very id, it is that task. Otherwise sizes, action bounds and time limit are read from the
      environment. It ends as the table's task of the same environment in another version does, if the sizes are the
      same too (`Hopper-v5` as `hopper`; Ant-v5 observes more than Ant-v4), and else never, which
      `termination_known` then says. It has no reference returns, hence no normalised score: they belong to one
      version's physics and rewards (Walker2d-v5 walks with more friction than v4).
    - `path/to/mytasks.py:reactor`, the `Task` of that name in a file, which is run.

    UserError, with the nearest name or what is wrong with the environment, the file or the plug-in, if there is no
    such task.
    """
    if name in TASKS and name not in BUILT_IN:
        return TASKS[name]
    found = plugins.find(plugins.TASKS, name, Task, BUILT_IN, partial(check_plugin, name))
    if found is not None or name in TASKS:
        return TASKS[name] if found is None else found
    if is_task_file(name):
        return task_of_file(name)
    if re.search(r"[:/]|-v\d+$", name):
        return _find_env(name)
    other = "a Gymnasium id (as Reacher-v5), or a Task in a file of yours (as mytasks.py:reactor)"
    raise UserError(f"unknown task {name!r}: {_suggestion(name, [*TASKS, *plugins.offers(plugins.TASKS)], other)}")


def check_plugin(name: str, task: Task) -> None:
    """UserError unless a plug-in's task can be known by `name` and its termination function is usable."""
    check_name(task.name)
    if task.name != name:
        raise UserError(f"expected the Task's own name, found {task.name!r}; give entry point and Task the same name")
    check_termination(task)


def _find_env(env_id: str) -> Task:
    for task in TASKS.values():
        if task.env_id == env_id:
            return task
    described = task_of_env(env_id)
    for task in TASKS.values():
        if task.termination_known and _env_stem(task) == _env_stem(described) and task.spec == described.spec:
            return replace(described, termination=task.termination, termination_known=True, obs_names=task.obs_names)
    return described


QUALITIES = ("random", "medium", "medium-replay", "medium-expert")


class DatasetName(NamedTuple):
    """A built-in data set: which task, played how well. `str()` gives `hopper-medium-expert`."""

    task: str
    quality: str

    def __str__(self) -> str:
        return f"{self.task}-{self.quality}"

    @classmethod
    def parse(cls, name: str) -> DatasetName:
        """Read a name of `DATASET_NAMES`. UserError with the nearest name if it is none of them."""
        if name not in DATASET_NAMES:
            other = "the path of a D4RL-layout HDF5 file"
            raise UserError(f"unknown data set {name!r}: {_suggestion(name, DATASET_NAMES, other)}")
        return cls(*name.split("-", 1))


_WITH_DATA = ("hopper", "halfcheetah", "walker2d", "inverted_double_pendulum")
DATASET_NAMES: tuple[str, ...] = tuple(str(DatasetName(task, quality)) for task in _WITH_DATA for quality in QUALITIES)
"""The data sets that `damorl data make` can build."""


def infer_task(name_or_path: str | Path) -> Task | None:
    """The task that a data set's name or file name begins with (`hopper-medium-v2`, `/x/Walker2d_random.hdf5`).

    No plug-in's task is that of a built-in data set's name. UserError if it is a plug-in's that cannot be used.
    """
    stem = re.sub(r"[^a-z0-9]+", "_", Path(name_or_path).name.lower()) + "_"
    is_ours = re.sub(r"-v\d+$", "", str(name_or_path)) in DATASET_NAMES
    spellings: dict[str, Task | None] = dict.fromkeys([*_OTHERS, *(() if is_ours else plugins.offers(plugins.TASKS))])
    spellings |= {_env_stem(task): task for task in reversed(TASKS.values())}  # of two with one simulator, the first
    spellings |= TASKS
    matching = [name for name in spellings if stem.startswith(name + "_")]
    if not matching:
        return None
    name = max(matching, key=len)
    return find_task(name) if spellings[name] is None and name not in _OTHERS else spellings[name]


_OTHERS = ("ant_maze", "hopper_hop", "hopper_stand", "pendulum_swingup")
"""Tasks of D4RL and of the DeepMind control suite that we do not have, but whose names begin as one of ours does."""


def _env_stem(task: Task) -> str:
    """The environment's name without its version, as names of data sets are compared."""
    return re.sub(r"[^a-z0-9]+", "_", re.sub(r"-v\d+$", "", (task.env_id or task.name).lower()))


def _suggestion(name: str, known: Iterable[str], other: str) -> str:
    known = list(known)
    close = difflib.get_close_matches(name.lower(), known, n=1)
    return f"did you mean {close[0]!r}, or {other}?" if close else f"expected one of {', '.join(known)}, or {other}"
