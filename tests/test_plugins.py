"""What other packages add is found by its name alone, and one that cannot be used says why and harms nothing else."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import damorl
from damorl import plugins
from damorl.cli import main
from damorl.data.formats import format_of
from damorl.errors import UserError
from damorl.experiment.algorithms import find_algorithm, origin_of_algorithm
from damorl.experiment.config import LoopConfig, defaults, resolve
from damorl.world.tasks import TASKS, find_task, infer_task
from tests.packages import Install, install, install_example

MODULE = """
import dataclasses
from damorl.algos import bc
from damorl.algos.base import Algorithm
from damorl.data.formats import Format
from damorl.parts.model_data import ModelSettings
from damorl.world.tasks import TASKS

OTHER = dataclasses.replace(bc.ALGORITHM, name="other")
UPPER = dataclasses.replace(bc.ALGORITHM, name="Other")
@dataclasses.dataclass
class Thawed:
    pass
THAWED = dataclasses.replace(bc.ALGORITHM, name="thawed", config_type=Thawed)
class Lean(ModelSettings):
    pass
LEAN = dataclasses.replace(bc.ALGORITHM, name="lean", config_type=Lean)
TASK = dataclasses.replace(TASKS["hopper"], name="plant")
OPEN = dataclasses.replace(TASK, name="endless", termination=lambda obs, action, next_obs: obs)
FORMAT = Format("lines", lambda path, columns: None)
"""
USABLE = {
    plugins.ALGORITHMS: {"other": "added:OTHER", "lean": "added:LEAN"},
    plugins.TASKS: {"plant": "added:TASK"},
    plugins.DATASETS: {"lines": "added:FORMAT"},
}


@pytest.fixture
def add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Installs a package with the module `added`."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules/added.py").write_text(MODULE, encoding="utf-8")
    (tmp_path / "modules/broken.py").write_text("import json\nimport no_such_module\n", encoding="utf-8")
    (tmp_path / "modules/leaving.py").write_text("raise SystemExit(3)\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    for module in ("added", "broken", "leaving"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    plugins._load.cache_clear()
    return lambda package, groups: install(monkeypatch, tmp_path / package, package, groups)


def test_they_are_found_by_name(add: Install) -> None:
    add("package-a", USABLE)
    assert find_algorithm("other").name == "other"
    assert origin_of_algorithm("other") == {
        "name": "other",
        "package": "package-a",
        "version": "0.1.0",
        "entry_point": "added:OTHER",
        "git": None,  # its file is in no checkout
    }
    assert origin_of_algorithm("bc")["package"] == "damorl"
    assert find_task("plant").name == "plant"
    assert (found := infer_task("plant-run3.lines")) is find_task("plant")
    assert found not in TASKS.values()
    assert format_of(Path("x/data.LINES")).expected == "lines"
    with pytest.raises(UserError, match=r"unknown algorithm 'othe': choose one of .*damo.*other"):
        find_algorithm("othe")
    with pytest.raises(UserError, match="unknown task 'plan': did you mean 'plant'"):
        find_task("plan")


def test_a_plug_in_gets_no_built_in_data_set(add: Install) -> None:
    add("package-a", {plugins.TASKS: {"hopper_medium": "broken:TASK", "hopper_wide": "broken:TASK"}})
    for name in ("hopper-medium", "hopper-medium-v2", "hopper-medium-expert"):
        assert infer_task(name) is TASKS["hopper"]
    with pytest.raises(UserError, match=r"plug-in 'hopper_wide' .* cannot be imported"):
        infer_task("hopper-wide-random.hdf5")


def test_presets_have_the_algorithms_own_defaults_and_everyones_clock(add: Install) -> None:
    add("package-a", USABLE)
    bc, own = find_algorithm("bc").config_type(), {}
    for preset in ("smoke", "quick", "standard", "paper"):
        own[preset], settings = defaults("other", preset, "hopper-medium")
        assert settings == bc
    assert own["paper"] == LoopConfig(dataset_steps=1_000_000)
    assert (own["smoke"].total_updates, own["quick"].total_updates) == (200, 100_000)
    assert own["standard"].standardise_observations  # it begins as quick
    assert resolve("other", "a/b.lines", "smoke", (0,), {"hidden": [8]}).name().startswith("other-b-smoke-")
    _, lean = defaults("lean", "smoke", "hopper-medium")
    assert (lean.rollout_starts, lean.dynamics.hidden) == (50, (16, 16))  # SAC's settings it has not


WHERE = r"plug-in '{}' of damorl.{} \(package package-a 0.1.0, {}\): "
BROKEN = [
    (
        "algorithms",
        "wreck",
        "broken:X",
        r"cannot be imported \(ModuleNotFoundError: No module named 'no_such",
    ),
    ("algorithms", "wreck", "leaving:X", r"cannot be imported \(SystemExit: 3\)"),
    ("algorithms", "wreck", "added:NOTHING", r"cannot be imported \(AttributeError: .*NOTHING"),
    ("algorithms", "wreck", "added:TASK", r"expected a damorl.algos.base.Algorithm, found an object of type Task"),
    ("algorithms", "wreck", "added:OTHER", "expected the Algorithm's own name, .*, found 'other'"),
    ("algorithms", "Other", "added:UPPER", "expected the Algorithm's own name, lower-case"),
    ("algorithms", "thawed", "added:THAWED", "expected config_type to be a frozen dataclass"),
    ("algorithms", "bc", "added:OTHER", "expected a name of its own, found 'bc', which is built in"),
    ("tasks", "hopper", "added:TASK", "expected a name of its own, found 'hopper', which is built in"),
    ("tasks", "wreck", "added:TASK", "expected the Task's own name, found 'plant'"),
    ("tasks", "endless", "added:OPEN", "task 'endless': expected its termination function to give bool"),
    ("datasets", "csv", "added:FORMAT", "expected a name of its own, found 'csv', which is built in"),
    ("datasets", "wreck", "added", "expected a damorl.data.formats.Format, found an object of type module"),
]


@pytest.mark.parametrize(("group", "name", "value", "reason"), BROKEN)
def test_one_that_cannot_be_used_says_why_and_harms_nothing_else(
    group: str, name: str, value: str, reason: str, add: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    add("package-a", {f"damorl.{group}": {name: value}})
    find = {"algorithms": find_algorithm, "tasks": find_task, "datasets": lambda end: format_of(Path(f"a.{end}"))}
    with pytest.raises(UserError, match=WHERE.format(name, group, value) + reason) as caught:
        find[group](name)
    assert "\n" not in str(caught.value)
    assert (find_algorithm("damo").name, find_task("walker2d").name) == ("damo", "walker2d")
    assert format_of(Path("a.npz")).expected == "an archive of NumPy arrays"
    assert main(["plugins"]) == 2
    assert re.search(reason, capsys.readouterr().out)


def test_two_packages_with_one_name(add: Install) -> None:
    add("package-a", USABLE)
    add("package-b", {plugins.ALGORITHMS: {"other": "added:OTHER"}})
    both = r"plug-in 'other' of .* \(package package-\w .*, found the same one in plug-in 'other' of .*package-\w"
    with pytest.raises(UserError, match=both):
        find_algorithm("other")
    assert find_task("plant")


def test_the_command_line_tells_of_a_broken_one_in_one_sentence(
    add: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    add("package-a", {plugins.ALGORITHMS: {"wreck": "broken:X"}})
    assert main(["train", "wreck", "--preset", "smoke"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(
        "damorl: plug-in 'wreck' of damorl.algorithms (package package-a 0.1.0, broken:X): cannot be"
    )
    assert said.count("\n") == 1
    assert main(["train", "nothing"]) == 2
    assert "wreck" in capsys.readouterr().err


def test_damaged_metadata_of_any_package_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, tmp_path, "package-a", {})
    (tmp_path / "package_a-0.1.0.dist-info/entry_points.txt").write_bytes(b"\xff[")
    with pytest.warns(UserWarning, match="plug-ins are left out, for the entry points of the installed"):
        assert find_algorithm("bc").name == "bc"


@pytest.mark.parametrize("code", ["import damorl", "from damorl.cli import main; main(['--help'])"])
def test_nothing_is_looked_for_before_it_is_needed(code: str) -> None:
    code = (
        "import importlib.metadata as m; m.entry_points = m.distributions = lambda *a, **k: 1 / 0\n"
        f"{code}\nfrom damorl import plugins\nassert plugins._scan.cache_info().misses == 0"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=Path(damorl.__path__[0]).parent)


def test_listing_as_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins"]) == 0
    assert "no installed package" in capsys.readouterr().out
    install_example(monkeypatch, tmp_path)
    assert main(["plugins", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(each["name"], each["package"], each["problem"]) for each in found] == [
        (name, "damorl-example", None) for name in ("awc", "corridor", "steps")
    ]
