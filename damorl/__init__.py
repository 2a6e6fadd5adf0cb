"""damorl: offline model-based reinforcement learning in JAX, around DAMO (arXiv 2502.00850).

import damorl
result = damorl.train(dataset="hopper-medium-expert", preset="quick", seeds=(0, 1, 2))
policy = damorl.load_policy(result.run_dir)  # obs [*B, obs_dim] -> action [*B, action_dim], NumPy
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from damorl._version import __version__

if TYPE_CHECKING:
    from damorl import loggers
    from damorl.api import evaluate, finetune, ope, select, train
    from damorl.data.datasets import Dataset
    from damorl.data.minari_export import export_minari
    from damorl.errors import UserError
    from damorl.experiment.callbacks import Callback, EndEvent, Event, StartEvent, Stop
    from damorl.experiment.export import export_policy
    from damorl.experiment.exported import load_exported
    from damorl.experiment.film import Film, film
    from damorl.experiment.model_env import model_env
    from damorl.experiment.policy import Policy, load_policy
    from damorl.experiment.result import Result, list_policies
    from damorl.experiment.sources import find_problems, load_dataset
    from damorl.experiment.stopping import EarlyStop, TimeBudget
    from damorl.report.paired import compare
    from damorl.sweeps.run import sweep
    from damorl.world.tasks import Task, find_task, register_task

__all__ = [
    "Callback",
    "Dataset",
    "EarlyStop",
    "EndEvent",
    "Event",
    "Film",
    "Policy",
    "Result",
    "StartEvent",
    "Stop",
    "Task",
    "TimeBudget",
    "UserError",
    "__version__",
    "compare",
    "evaluate",
    "export_minari",
    "export_policy",
    "film",
    "find_problems",
    "find_task",
    "finetune",
    "list_policies",
    "load_dataset",
    "load_exported",
    "load_policy",
    "loggers",
    "model_env",
    "ope",
    "register_task",
    "select",
    "sweep",
    "train",
]

_HOMES = {
    "Callback": "damorl.experiment.callbacks",
    "Dataset": "damorl.data.datasets",
    "EarlyStop": "damorl.experiment.stopping",
    "EndEvent": "damorl.experiment.callbacks",
    "Event": "damorl.experiment.callbacks",
    "Film": "damorl.experiment.film",
    "Policy": "damorl.experiment.policy",
    "Result": "damorl.experiment.result",
    "StartEvent": "damorl.experiment.callbacks",
    "Stop": "damorl.experiment.callbacks",
    "Task": "damorl.world.tasks",
    "TimeBudget": "damorl.experiment.stopping",
    "UserError": "damorl.errors",
    "compare": "damorl.report.paired",
    "evaluate": "damorl.api",
    "export_minari": "damorl.data.minari_export",
    "find_problems": "damorl.experiment.sources",
    "export_policy": "damorl.experiment.export",
    "film": "damorl.experiment.film",
    "find_task": "damorl.world.tasks",
    "finetune": "damorl.api",
    "list_policies": "damorl.experiment.result",
    "load_exported": "damorl.experiment.exported",
    "select": "damorl.api",
    "load_dataset": "damorl.experiment.sources",
    "load_policy": "damorl.experiment.policy",
    "model_env": "damorl.experiment.model_env",
    "ope": "damorl.api",
    "register_task": "damorl.world.tasks",
    "sweep": "damorl.sweeps.run",
    "train": "damorl.api",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import damorl` costs nothing."""
    from importlib import import_module

    if name == "loggers":
        return import_module("damorl.loggers")
    if name not in _HOMES:
        raise AttributeError(f"module 'damorl' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)
