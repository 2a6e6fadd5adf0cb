"""The tutorials: every command parses, grids are read, and in the slow tests all of it is run at small size."""

from __future__ import annotations

import glob
import re
import runpy
import shlex
import shutil
import sys
import tomllib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tyro

from damorl.cli import main
from damorl.parts.critic import init_critic, q_values
from damorl.sweeps.grid import expand, read_grid
from damorl.testing import check_algorithm
from damorl.types import Transition

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples/new_algorithm.py"
TEXTS = {page.stem: page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs/tutorials").glob("*.md"))}
SMALL = {
    "select": "--fqe-updates 1000 --fqe-hidden 8 --model-batches 20 --model-hidden 8 --starts 2 --horizon 5",
    "model": "--horizon 5",
    "eval": "--episodes 2",
}
"""What makes a command take seconds."""


def commands(text: str) -> list[list[str]]:
    """The commands of a page that call damorl or one of the page's own programs."""
    lines = re.findall(r"^ {4,6}((?:damorl|python \w+\.py).*)$", text, re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


def files(text: str) -> dict[str, str]:
    """The blocks of code that say in their first line what file they are; a block of TOML without one goes on."""
    found: dict[str, str] = {}
    for name, body in re.findall(r"```(?:toml|python)\n(?:# (\S+\.\w+)\n)?(.*?)```", text, re.DOTALL):
        if name:
            found[name] = body
        elif found and body.startswith("["):
            found[list(found)[-1]] += body
    return found


class Parsed(Exception):
    """The command line was read."""


@pytest.mark.parametrize("page", TEXTS)
def test_every_command_is_one(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read = tyro.cli

    def only_read(*given: Any, **options: Any) -> None:
        read(*given, **options)
        raise Parsed

    monkeypatch.setattr(tyro, "cli", only_read)
    for program, *words in commands(TEXTS[page]):
        if program == "damorl":
            with pytest.raises(Parsed):
                main(words)


@pytest.mark.parametrize(("page", "runs"), [("compare", 20), ("sweep-on-ray", 9)])
def test_the_grids_ask_for_what_the_page_says(page: str, runs: int) -> None:
    (text,) = files(TEXTS[page]).values()
    assert sum(len(config.seeds) for config in expand(read_grid(tomllib.loads(text))[0])) == runs


def test_the_page_shows_the_new_algorithm() -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    assert f"```python\n{text}```\n" in TEXTS["new-algorithm"]
    assert sum(1 for line in text.splitlines() if line) <= 60  # as its title says


def test_the_critic_of_the_new_algorithm_by_hand() -> None:
    critic_loss = runpy.run_path(str(EXAMPLE))["critic_loss"]
    critic, obs, action = init_critic(jax.random.key(0), 3, 1, (4,)), jnp.ones((2, 3)), jnp.ones((2, 1))
    first, second = np.asarray(q_values(critic, obs, action))
    loss, _ = critic_loss(critic, Transition(obs, action, jnp.ones(2), obs, jnp.zeros(2)), first + 2.0)
    assert float(loss) == pytest.approx(np.mean([np.full(2, 4.0), np.square(second - first - 2.0)]), rel=1e-5)


@pytest.mark.slow
def test_the_new_algorithm_keeps_the_contract() -> None:
    check_algorithm(runpy.run_path(str(EXAMPLE))["CRR"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")  # Ray starts its server from this process
@pytest.mark.parametrize("page", ["first-run", "own-log", "compare", "choose-policy", "sweep-on-ray"])
def test_the_commands_run(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, body in files(TEXTS[page]).items():
        small = body.replace("range(100)", "range(6)").replace('"quick"', '"smoke"')
        (tmp_path / name).write_text(re.sub(r"^seeds = .*$", "seeds = [0]", small, flags=re.MULTILINE))
    for program, *words in commands(TEXTS[page]):
        words = shlex.split(shlex.join(words).replace("quick", "smoke").replace("--seeds 0 1 2", "--seeds 0"))
        words = [name for word in words for name in (sorted(glob.glob(word)) if "*" in word else [word])]
        if program == "python":
            monkeypatch.setattr(sys, "argv", words)
            runpy.run_path(words[0], run_name="__main__")
            continue
        if words[:2] == ["leaderboard", "compare"]:
            shutil.copytree("sweeps/compare", "sweeps/before")
        assert main([*words, *SMALL.get(words[0], "").split()]) == 0, capsys.readouterr().err
    if page == "own-log":
        action = float(re.findall(r"\[\[\s*([-\d.e]+)\s*\]\]", capsys.readouterr().out)[-1])
        assert np.abs(action) <= 2.0
