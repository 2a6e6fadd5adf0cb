"""The program in examples/finetune.py runs, and docs/finetune.md shows it and names every setting."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from damorl.experiment.config import type_hints
from damorl.experiment.finetune_settings import FinetuneSettings

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE, PAGE = ROOT / "examples/finetune.py", ROOT / "docs/finetune.md"


def test_the_page_shows_the_example_and_every_setting() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert f"```python\n{EXAMPLE.read_text(encoding='utf-8')}```\n" in page
    told = {
        name for line in page.splitlines() if line.startswith("| `") for name in line.split("|")[1].split("`")[1::2]
    }
    assert told >= set(type_hints(FinetuneSettings))


@pytest.mark.slow
def test_the_example_ends_no_worse_than_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLE))
    before, after, pushes = capsys.readouterr().out.splitlines()
    assert float(after.split()[-1]) >= float(before.split()[-1]) - 1.0
    assert pushes.startswith("pushes    [")
