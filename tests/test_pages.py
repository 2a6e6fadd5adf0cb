"""Pages whose numbers are made from records say what the records say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("script", ["docs/draw_leaderboard.py", "docs/draw_speed.py"])
def test_the_page_says_what_its_records_say(script: str) -> None:
    found = subprocess.run([sys.executable, ROOT / script, "--check"], capture_output=True, text=True, check=False)
    assert found.returncode == 0, (
        f"{found.stdout}{found.stderr}run: python {script} (--collect for new records of speed)"
    )
