"""Which task a data set belongs to: the one that is named, or the one that it was recorded in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from damorl.data.contents import Contents, Source
from damorl.errors import UserError
from damorl.world.task import Task
from damorl.world.tasks import find_task, infer_task

if TYPE_CHECKING:
    from gymnasium.envs.registration import EnvSpec

NO_TASK = "none"
"""Named as a task, it keeps the name or the environment of a data set from being taken for one."""
ONLY_SEEN = ("render_mode", "width", "height", "camera_id", "camera_name", "default_camera_config")
"""Options of environments that change pictures, not what is recorded."""


def resolve_task(source: Source, task: str | None) -> tuple[Task | None, str | None]:
    """The task of that name, or of the environment that the data were recorded in, or of the data set's name; with the
    reference returns that come with the data. Then a remark, if the environment is no task and nothing can be scored.
    """
    if task == NO_TASK:
        return None, None
    if task is not None:
        return _with_references(find_task(task), source), None
    if source.env_spec is None:
        return _with_references(infer_task(source.name), source), None
    try:
        return _with_references(_recorded_in(source.env_spec, source), source), None
    except UserError as reason:
        spec = source.env_spec.id
        remark = (
            f"{source.label}: recorded in {spec}, where policies cannot be scored, so training goes without: {reason}"
        )
        return None, remark


def _recorded_in(spec: EnvSpec, source: Source) -> Task:
    """The task of an environment. UserError if the environment is not the one that the data were recorded in."""
    import gymnasium

    task = find_task(spec.id)
    ours = gymnasium.spec(spec.id)
    wrappers = [wrapper.name for wrapper in spec.additional_wrappers if not wrapper.name.startswith("Record")]
    if wrappers or _options(spec.kwargs) != _options(ours.kwargs):
        options = ", ".join([*wrappers, *(f"{key}={value!r}" for key, value in _options(spec.kwargs).items())])
        raise UserError(f"it had options of its own ({options}); name the task {spec.id} to score without them")
    if (found := _sizes(source)) not in (None, task.spec):
        raise UserError(f"expected {tuple(task.spec)} observations and actions, found {found}; name the task")
    return task


def _options(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in kwargs.items() if key not in ONLY_SEEN}


def _sizes(source: Source) -> tuple[int, ...] | None:
    columns = source.contents.columns if isinstance(source.contents, Contents) else {}
    arrays = (columns.get("observations"), columns.get("actions"))
    sizes = tuple(array.shape[-1] for array in arrays if isinstance(array, np.ndarray))
    return sizes if len(sizes) == 2 else None


def _with_references(task: Task | None, source: Source) -> Task | None:
    """The task, scored by the reference returns that are in the data's metadata, if there are any."""
    metadata = source.contents.metadata if isinstance(source.contents, Contents) else {}
    low, high = (metadata.get(f"ref_{side}_score") for side in ("min", "max"))
    if task is None or not (isinstance(low, int | float) and isinstance(high, int | float) and low < high):
        return task
    return replace(task, reference_min=float(low), reference_max=float(high))
