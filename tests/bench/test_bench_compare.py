"""Two checkouts in turns, or saved figures: ratios by hand, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from damorl.bench import compare
from damorl.cli import main
from damorl.errors import UserError


def test_a_checkout_against_itself() -> None:
    found = compare.compare_checkouts(compare.HERE, ["bc"], 0.02, "smoke", quiet=True, rows=300, updates=3)
    (row,) = found["compared"]
    assert row["speedup"] == pytest.approx(row["updates_per_second"][0] / row["updates_per_second"][1])
    assert all(rate > row["updates_per_second_with_refresh"][n] > 0 for n, rate in enumerate(row["updates_per_second"]))
    assert "bc" in compare.format_comparison(found)


def test_the_figures_by_hand() -> None:
    told = [{"interval": 10, "compile_seconds": 1.0}, {"interval": 10, "compile_seconds": 2.0}]
    medians = {(0, "update sac"): 2.0, (0, "refresh sac"): 5.0, (1, "update sac"): 6.0, (1, "refresh sac"): 5.0}
    row = compare.figures("sac", told, medians, updates=4)
    assert row["updates_per_second"] == pytest.approx([2.0, 4 / 6])
    assert row["updates_per_second_with_refresh"] == pytest.approx([10 / (5 + 5), 10 / (15 + 5)])
    assert (row["speedup"], row["speedup_with_refresh"]) == pytest.approx((3.0, 2.0))


def test_a_bench_that_fails_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "damorl").mkdir()
    (tmp_path / "damorl" / "__init__.py").write_text("raise RuntimeError('an old one')\n")
    with pytest.raises(UserError, match="ended early: RuntimeError: an old one"):
        compare.Side(tmp_path, {"algorithms": ["bc"], "preset": "smoke", "rows": 300, "updates": 3})


def test_a_side_may_write_as_many_warnings_as_it_likes(tmp_path: Path) -> None:
    """More than the 64 KiB that a pipe holds."""
    (tmp_path / "damorl").mkdir()
    text = "import sys\nsys.stderr.write('warning\\n' * 100_000)\nraise RuntimeError('the last line')\n"
    (tmp_path / "damorl" / "__init__.py").write_text(text)
    with pytest.raises(UserError, match="ended early: RuntimeError: the last line"):
        compare.Side(tmp_path, {"algorithms": ["bc"], "preset": "smoke", "rows": 300, "updates": 3})


def saved(path: Path, **changes: Any) -> Path:
    path.write_text(
        json.dumps({"preset": "quick", "algorithms": [{"algo": "sac", "share_of_matrix_rate": 0.1}]} | changes)
    )
    return path


def test_saved_figures_are_compared_by_their_share_of_the_matrix_rate(tmp_path: Path) -> None:
    rows = [{"algo": name, "share_of_matrix_rate": 0.25} for name in ("sac", "bc")]
    found = compare.compare_saved(saved(tmp_path / "old.json"), {"preset": "quick", "algorithms": rows})
    assert found["compared"] == [{"algo": "sac", "share_of_matrix_rate": [0.25, 0.1], "speedup": 2.5}]
    assert "2.50" in compare.format_comparison(found)


@pytest.mark.parametrize(
    ("changes", "sentence"), [({"preset": "paper"}, "is of preset paper"), ({"algorithms": 3}, "JSON")]
)
def test_other_files_are_refused(changes: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=sentence):
        compare.compare_saved(saved(tmp_path / "old.json", **changes), {"preset": "quick", "algorithms": []})


def test_a_folder_that_is_no_checkout_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--algo", "bc", "--compare", str(tmp_path)]) == 2
    assert "found neither" in capsys.readouterr().err
