"""Pages whose numbers are made from records say what the records say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_the_leaderboard_says_what_its_records_say() -> None:
    found = subprocess.run(
        [sys.executable, ROOT / "docs/draw_leaderboard.py", "--check"], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout + found.stderr + "run: python docs/draw_leaderboard.py"
