"""The program in examples/callbacks.py runs, and docs/callbacks.md shows what is in it."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from damorl.record import store

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples/callbacks.py"


def test_the_page_shows_the_example() -> None:
    first = re.findall(r"```python\n(.*?)```", (ROOT / "docs/callbacks.md").read_text(encoding="utf-8"), re.DOTALL)[0]
    assert first.startswith("class Target(damorl.Callback)")
    assert first in EXAMPLE.read_text(encoding="utf-8")


def test_the_example_keeps_the_best_and_stops(
    hopper_toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main = runpy.run_path(str(EXAMPLE))["main"]
    data = ["--algo", "bc", "--dataset", str(hopper_toy), "--preset", "smoke", "--out", str(tmp_path)]
    result = main([*data, "--target", "-100"])
    assert (result.stopped.by, result.run_dir.parent) == ("Target", tmp_path)
    assert result.stopped.reason.startswith("the mean score reached")
    updates = store.read_json(result.run_dir / "config.json")["loop"]["eval_interval"]
    assert capsys.readouterr().out.startswith(f"stopped after {updates:,} updates; best mean score ")
    best, last = (result.run_dir / name for name in ("best.safetensors", "policies.safetensors"))
    assert best.read_bytes() == last.read_bytes()
