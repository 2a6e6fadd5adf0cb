"""The program in examples/evaluate.py runs on a real run, and docs/evaluation.md shows it and names every factor."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

from damorl.world.physics import FACTORS

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE, PAGE = ROOT / "examples/evaluate.py", ROOT / "docs/evaluation.md"


def test_the_page_shows_the_example_and_every_factor() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert f"```python\n{EXAMPLE.read_text(encoding='utf-8')}```\n" in page
    assert [line.split("`")[1] for line in page.splitlines() if line.startswith("| `")][: len(FACTORS)] == list(FACTORS)


def test_the_example_scores_a_run(
    make_run: Callable[[Path, str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, measured = runpy.run_path(str(EXAMPLE))["main"](make_run(tmp_path / "run", "hopper"), 2)
    assert [row["env"] for row in rows[::2]] == ["no wind", "wind of 2 N", "wind of 5 N", "four at once"]
    assert rows[0]["return_mean"] == pytest.approx(rows[6]["return_mean"], rel=1e-3)
    assert rows[0]["return_mean"] != pytest.approx(rows[4]["return_mean"], rel=1e-3)
    assert 0.0 < measured[0]["action_change"] < measured[0]["largest_action"] <= 1.0
    assert capsys.readouterr().out.startswith("seed 0   no wind        return ")
