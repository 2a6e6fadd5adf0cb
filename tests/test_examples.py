"""The examples run, and the pages show them as they are."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_the_model_as_an_environment(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(ROOT / "examples/model_env.py"))
    step, still, steered = capsys.readouterr().out.splitlines()
    assert step.startswith("one step: state [")
    assert float(steered.split()[-1]) > float(still.split()[-1])  # steering towards 0 earns more than letting go


def test_the_page_shows_the_example_as_it_is() -> None:
    page = (ROOT / "docs/model.md").read_text(encoding="utf-8")
    assert f"```python\n{(ROOT / 'examples/model_env.py').read_text(encoding='utf-8')}```\n" in page
