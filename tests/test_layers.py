"""The architecture: which package may use which, read from the sources themselves."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import damorl

PACKAGE = Path(damorl.__path__[0])

# A package is a module or folder right under `damorl`. It may use itself and what stands here; "package.module" lets
# one module of a package through. A package that is missing here may not exist: draw its arrow first.
_CORE = {"types", "errors", "files", "bars", "core"}
_LEARN = _CORE | {"parts", "algos"}
_LIVE = _CORE | {"plugins", "parts", "world", "data", "behaviour"}
_ALL_BUT_TOP = _LEARN | _LIVE | {"_version", "record", "report", "experiment", "theory"}
ALLOWED: dict[str, set[str]] = {
    "_version": set(),
    "types": set(),
    "errors": set(),
    "files": {"errors"},
    "bars": set(),
    "plugins": {"errors"},
    "core": {"types", "errors"},
    "parts": _CORE,
    "algos": _CORE | {"parts"},
    "theory": _CORE,
    "world": _CORE | {"plugins"},
    "data": _CORE | {"plugins", "world"},
    "behaviour": _CORE | {"parts", "world", "data"},
    "record": {"types", "errors", "files", "_version"},
    "report": _CORE | {"record"},
    "experiment": _LEARN | _LIVE | {"_version", "record", "report"},
    "bench": _LEARN | _LIVE | {"_version", "record", "report", "experiment"},
    "loggers": {"errors", "record", "experiment"},
    "api": _ALL_BUT_TOP,
    "sweeps": _ALL_BUT_TOP | {"api"},
    "testing": _ALL_BUT_TOP | {"api"},
    "": _ALL_BUT_TOP | {"loggers", "api", "sweeps"},  # damorl/__init__.py
    "paper": _ALL_BUT_TOP | {"api", "sweeps"},
    "cli": _ALL_BUT_TOP | {"bench", "loggers", "api", "", "paper", "sweeps"},
    "__main__": {"cli"},
}
# Inside `algos` only these see the algorithms; an algorithm sees these and no other algorithm.
ALGO_HUBS = {"algos", "algos.base"}

HEAVY = ["jax", "gymnasium", "mujoco", "matplotlib"]


def module_name(path: Path) -> str:
    """`damorl/core/nets.py` -> `core.nets`; a folder's `__init__.py` -> the folder; the package's own -> ``""``."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(source: str, module: str, is_folder: bool) -> Iterator[str]:
    """The modules of the package that `source` imports, anywhere in it, without their leading `damorl.`."""
    package = ["damorl", *filter(None, module.split("."))]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            up = node.level - is_folder
            base = package[: len(package) - up] if node.level else []
            origin = ".".join([*base, *filter(None, [node.module])])
            names = [f"{origin}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (_module_part(name) for name in names if name.split(".")[0] == "damorl")


def _module_part(name: str) -> str:
    """`damorl.core.nets.MLP` -> `core.nets`: the longest front that is a module, or a package's name as it stands."""
    parts = name.split(".")[1:]
    fronts = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((front for front in fronts if front in MODULES or front in ALLOWED), "")


def violations(source: str, module: str, is_folder: bool = False) -> list[str]:
    """One sentence for each import in `source` that goes against the arrows, were it the text of `module`."""
    package = module.split(".")[0]
    if package not in ALLOWED:
        return [f"damorl/{package} has no arrows in ALLOWED"]
    targets = sorted(set(imports(source, module, is_folder)))
    return [f"{module or 'damorl'} imports {target or 'damorl'}" for target in targets if not _may(module, target)]


def _may(module: str, target: str) -> bool:
    package, target_package = module.split(".")[0], target.split(".")[0]
    if package == target_package == "algos":
        return module in ALGO_HUBS or target in ALGO_HUBS or module == target
    return package == target_package or bool({target_package, target} & ALLOWED[package])


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module or "damorl")
def test_imports_follow_the_arrows(module: str) -> None:
    path = MODULES[module]
    assert violations(path.read_text(encoding="utf-8"), module, path.name == "__init__.py") == []


def test_the_arrows_have_no_circle() -> None:
    reached = {package: set(allowed) for package, allowed in ALLOWED.items()}
    for _ in ALLOWED:
        for package, below in reached.items():
            reached[package] = below.union(*(reached.get(other.split(".")[0], set()) for other in below))
    assert [package for package, below in reached.items() if package in below] == []
    assert [package for package, below in reached.items() if "cli" in below] == ["__main__"]


@pytest.mark.parametrize(
    ("module", "source", "found"),
    [
        ("core.nets", "from damorl.parts.actor import act", "core.nets imports parts"),
        ("core.nets", "import damorl.world.tasks as tasks", "core.nets imports world"),
        ("core.nets", "from damorl import algos", "core.nets imports algos"),
        ("core.nets", "from ..parts import actor", "core.nets imports parts"),
        ("core.nets", "def late():\n    from damorl.experiment import train", "core.nets imports experiment"),
        ("types", "from damorl.core import nets", "types imports core"),
        ("parts.actor", "if TYPE_CHECKING:\n    import damorl.algos", "parts.actor imports algos"),
        ("world.tasks", "from damorl.parts.rollout import rollout", "world.tasks imports parts"),
        ("behaviour.sac", "from damorl.algos import base", "behaviour.sac imports algos"),
        ("report.plots", "from damorl.experiment.train import run", "report.plots imports experiment"),
        ("experiment.train", "from damorl import cli", "experiment.train imports cli"),
        ("world.tasks", "from damorl.api import train", "world.tasks imports api"),
        ("algos.damo", "from damorl.algos.mopo import Config", "algos.damo imports algos.mopo"),
        ("algos.damo", "from . import mopo", "algos.damo imports algos.mopo"),
        ("algos.damo", "import damorl", "algos.damo imports damorl"),
        ("attic.old", "", "damorl/attic has no arrows"),
    ],
)
def test_a_wrong_import_is_found(module: str, source: str, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("algos.mopo", "algos.base", "record", "experiment.train"):
        monkeypatch.setitem(MODULES, name, PACKAGE)
    assert [sentence for sentence in violations(source, module) if sentence.startswith(found)]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("core.nets", "import jax\nfrom damorl.types import Key\nfrom damorl.core.optim import Learner"),
        ("core.nets", "from .optim import Learner\nfrom . import buffer\nfrom ..types import Key"),
        ("parts.actor", "from damorl.errors import UserError\nfrom damorl.core import nets"),
        ("report.plots", "import matplotlib\nfrom damorl.record.store import read_metrics"),
        ("report.plots", "from damorl.record import store"),
        ("algos.damo", "from damorl.algos.base import Algorithm\nfrom damorl.parts import critic"),
        ("algos.base", "from damorl.algos import mopo"),
        ("cli", "import damorl\nfrom damorl import __version__\nfrom damorl.report import plots"),
        ("__main__", "from damorl.cli import main"),
    ],
)
def test_a_right_import_passes(module: str, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("algos.mopo", "algos.base", "record"):
        monkeypatch.setitem(MODULES, name, PACKAGE)
    assert violations(source, module) == []


def test_import_damorl_is_cheap() -> None:
    code = f"import sys, json, damorl; print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent
    )
    assert json.loads(result.stdout) == []
