"""Tasks in a user's own file."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from damorl.errors import UserError
from damorl.world.tasks import Task, find_task, make_env, register_task

REACTOR = """
from dataclasses import dataclass

import jax.numpy as jnp
from damorl import Task


@dataclass
class Limits:
    too_hot: float = 80.0


def ended(obs, action, next_obs):
    return next_obs[..., 0] > Limits().too_hot


reactor = Task("reactor", None, 4, 2, ended, action_low=0.0, action_high=(1.0, 5.0))
swing = Task("swing", "Pendulum-v1", 3, 1, lambda o, a, n: n[..., 0] > 2.0, -1200.0, -150.0, 200, -2.0, 2.0)
number = 7
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mytasks.py"
    path.write_text(REACTOR)
    return path


def test_a_task_is_found_in_a_file(file: Path) -> None:
    task = find_task("mytasks.py:reactor")
    assert isinstance(task, Task)
    assert task.name == f"{file.resolve()}:reactor"
    assert task.short_name == "reactor"
    assert (task.env_id, task.spec, task.action_high) == (None, (4, 2), (1.0, 5.0))
    hot = np.zeros((2, 4), np.float32)
    hot[1, 0] = 81.0
    np.testing.assert_array_equal(task.termination(hot, hot[:, :2], hot), [False, True])  # pyright: ignore
    assert make_env(find_task("mytasks.py:swing")).action_space.shape == (1,)


def test_its_name_finds_it_again_from_anywhere(
    file: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = find_task("mytasks.py:reactor")
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert find_task(task.name) == task
    assert not (file.parent / "__pycache__").exists()


def test_an_edited_file_is_run_again(file: Path) -> None:
    before = find_task("mytasks.py:reactor")
    file.write_text(REACTOR.replace("80.0", "90.0").replace("None, 4, 2", "None, 5, 2"))
    after = find_task("mytasks.py:reactor")
    assert (before.obs_dim, after.obs_dim) == (4, 5)


def test_two_files_of_one_name_do_not_meet(file: Path) -> None:
    other = file.parent / "other" / "mytasks.py"
    other.parent.mkdir()
    other.write_text(REACTOR.replace("None, 4, 2", "None, 6, 2"))
    assert find_task("mytasks.py:reactor").obs_dim == 4
    assert find_task("other/mytasks.py:reactor").obs_dim == 6
    assert find_task("mytasks.py:reactor").obs_dim == 4


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.py:reactor", r"cannot read .*nowhere.py \(No such file or directory\); give the path"),
        (".py:reactor", "cannot read"),
        ("folder.py:reactor", r"cannot read .*folder.py \(Is a directory\)"),
        ("mytasks.py:reaktor", r"named 'reaktor', found nothing of that name in .*; choose one of: reactor, swing"),
        ("mytasks.py:number", "named 'number', found an object of type int in .*; choose one of: reactor, swing"),
        ("mytasks.py:", "expected the name of a Task after a colon in .*; choose one of: reactor, swing"),
        ("mytasks.py", "expected the name of a Task after a colon in .*; choose one of: reactor, swing"),
    ],
)
def test_a_name_that_leads_nowhere_is_one_sentence(file: Path, name: str, message: str) -> None:
    (file.parent / "folder.py").mkdir()
    with pytest.raises(UserError, match=f"^task '{name}': .*{message}") as caught:
        find_task(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1\ny = 1 / 0\n", r"line 2: the file fails \(ZeroDivisionError: division by zero\)"),
        ("def f():\n    g()\n\ndef g():\n    raise KeyError('k')\n\nf()\n", r"line 5: .*\(KeyError: 'k'\)"),
        ("x = (\n", r"line 1: .*\(SyntaxError"),
        ("import nothing_of_that_name\n", r"line 1: .*\(ModuleNotFoundError: No module named"),
        ("import json\njson.loads('{')\n", r"line 2: .*\(JSONDecodeError"),
        ("raise SystemExit\n", r"line 1: the file fails \(SystemExit\)"),
        ("\0", r"the file fails \(\w+Error.*null bytes"),
        (REACTOR.replace("4, 2, ended", "0, 2, ended"), "line 17: .*UserError: task 'reactor': expected obs_dim"),
    ],
)
def test_a_file_that_fails_is_named_with_its_line(file: Path, source: str, message: str) -> None:
    file.write_text(source)
    modules = set(sys.modules)
    with pytest.raises(UserError, match=f"^task file .*mytasks.py(, |: ){message}.*correct it$") as caught:
        find_task("mytasks.py:reactor")
    assert "\n" not in str(caught.value)
    assert not [name for name in set(sys.modules) - modules if name.startswith("damorl_tasks")]


def test_a_termination_function_that_jax_cannot_use_is_refused(file: Path) -> None:
    file.write_text(REACTOR.replace("next_obs[..., 0] > Limits().too_hot", "bool(next_obs[0, 0] > 80)"))
    with pytest.raises(UserError, match=r"mytasks.py:reactor': its termination function fails under JAX"):
        find_task("mytasks.py:reactor")


def test_a_file_without_tasks_says_what_to_write(file: Path) -> None:
    file.write_text("")
    with pytest.raises(UserError, match=r"found nothing of that name in .*; write one into the file: `reactor = Task"):
        find_task("mytasks.py:reactor")


def test_a_task_of_a_file_has_no_place_in_the_table(file: Path) -> None:
    with pytest.raises(UserError, match="expected lower-case letters"):
        register_task(find_task("mytasks.py:reactor"))
