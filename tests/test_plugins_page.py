"""The example package of docs/plugins.md: its commands, as they are written there, and its own tests."""

from __future__ import annotations

import glob
import json
import re
import runpy
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import damorl
from damorl import plugins
from damorl.cli import main
from damorl.record.compact import make_record
from damorl.sweeps.grid import expand, read_grid
from tests.packages import EXAMPLE, install_example

PAGE = (EXAMPLE.parents[1] / "docs/plugins.md").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is installed, and the working directory is empty."""
    install_example(monkeypatch, tmp_path / "site")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


def test_the_page_shows_the_entry_points() -> None:
    (shown,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert shown in (EXAMPLE / "pyproject.toml").read_text(encoding="utf-8")


def test_the_commands_of_the_page(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [shlex.split(line, comments=True) for line in re.findall(r"^    (\S.*)$", PAGE, re.MULTILINE)]
    lines = [line for line in lines if line[0] in ("damorl", "python")]  # it is installed already
    assert [line[1] for line in lines] == ["plugins", "-m", "data", "train", "eval"]
    for program, *words in lines:
        words = [name for word in words for name in (sorted(glob.glob(word)) if "*" in word else [word])]
        words = [word.replace("quick", "smoke") for word in words]  # seconds instead of minutes
        if program == "python":
            monkeypatch.setattr(sys, "argv", words[1:])
            sys.modules.pop(words[1], None)  # it may have been imported, but not run
            runpy.run_module(words[1], run_name="__main__")
        else:
            assert main(words) == 0, capsys.readouterr().err
    (run_dir,) = Path("runs").iterdir()
    config, provenance = (json.loads((run_dir / f"{name}.json").read_text()) for name in ("config", "provenance"))
    assert run_dir.name.startswith("awc-corridor-random-smoke-")
    assert (config["data"]["task"], config["algo_config"]["temperature"]) == ("corridor", 0.5)
    origin = provenance["algorithm"]
    git = origin.pop("git")
    assert git is None or git.keys() == {"revision", "dirty"}  # this checkout's, where there is one
    assert origin == {
        "name": "awc",
        "package": "damorl-example",
        "version": "0.1.0",
        "entry_point": "damorl_example.awc:ALGORITHM",
    }
    assert make_record(run_dir)["provenance"]["algorithm"]["package"] == "damorl-example"
    monkeypatch.setattr(plugins, "offers", lambda group: {})  # uninstalled
    assert damorl.load_policy(run_dir)(np.zeros((3, 2), np.float32)).shape == (3, 1)


def test_a_sweep_may_ask_for_it() -> None:
    grid, _ = read_grid({"algorithms": ["bc", "awc"], "datasets": ["corridor-random.steps"], "preset": "smoke"})
    assert [config.name()[:19] for config in expand(grid)] == ["bc-corridor-random-", "awc-corridor-random"]


def example_tests() -> dict[str, Callable[..., Any]]:
    """The functions of the example's own test module."""
    module = runpy.run_path(str(EXAMPLE / "tests/test_plugin.py"))
    return {name: value for name, value in module.items() if name.startswith("test_")}


def test_its_own_fast_tests(tmp_path: Path) -> None:
    own = example_tests()
    own["test_the_task_keeps_the_contract"]()
    own["test_weights_by_hand"]()
    own["test_the_reference_return"]()
    own["test_a_file_is_read"](tmp_path)
    assert len(own) == 5


@pytest.mark.slow
def test_its_algorithm_keeps_the_contract() -> None:
    example_tests()["test_the_algorithm_keeps_the_contract"]()
