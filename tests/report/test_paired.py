"""Two stores compared: which rows match, what is named instead, and the numbers by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import damorl
from damorl.cli import main
from damorl.errors import UserError
from damorl.record.compact import write_record
from damorl.record.store import write_json
from damorl.report.paired import compare
from damorl.report.statistics import Estimate, estimate, estimate_paired, mean, paired_difference

NAN = float("nan")


def column(*values: float) -> np.ndarray:
    return np.array(values)[:, None]


def test_the_difference_is_of_whole_pairs() -> None:
    found = paired_difference(np.array([[1.0, 5.0], [2.0, NAN]]), np.array([[4.0, 3.0], [NAN, 1.0]]))
    np.testing.assert_array_equal(found, [[3.0, -2.0], [NAN, NAN]])


def test_two_pairs_by_hand() -> None:
    # differences 1 and 3: a resample has mean 1 or 3 with chance 1/4 each, 2 with chance 1/2
    assert estimate_paired(column(10, 20), column(11, 23)) == Estimate(2.0, (1.0, 3.0))


def test_three_pairs_by_hand() -> None:
    # 1, 2, 6: all three draws the same has chance 1/27 > 2.5 %, so the ends are the extremes
    assert estimate_paired(column(0, 0, 0), column(1, 2, 6)) == Estimate(3.0, (1.0, 6.0))


def test_what_pairs_share_does_not_widen_the_interval() -> None:
    before = column(0, 50, 100)
    assert estimate_paired(before, before + 2.0) == Estimate(2.0, (2.0, 2.0))
    assert estimate(mean, before + 2.0).interval == (2.0, 102.0)  # each store alone knows nothing


def test_data_sets_weigh_the_same_and_are_drawn_apart() -> None:
    # differences 0, 4 on the first and 10 (twice) on the second: (2 + 10) / 2; the first moves by 2, half of it counts
    before = np.zeros((2, 2))
    assert estimate_paired(before, np.array([[0.0, 10.0], [4.0, 10.0]])) == Estimate(6.0, (5.0, 7.0))
    # a third seed on the second only
    a = np.array([[0.0, 0.0], [0.0, 0.0], [NAN, 0.0]])
    b = np.array([[0.0, 10.0], [4.0, 10.0], [7.0, 10.0]])
    assert estimate_paired(a, b) == Estimate(6.0, (5.0, 7.0))


def test_a_single_pair_has_no_interval() -> None:
    assert estimate_paired(column(1.0), column(2.5)) == Estimate(1.5, None)


def stores(make_run, tmp_path: Path) -> tuple[Path, Path]:
    """B has another gamma, one seed fewer and one more, and is partly a record; sets are named by their length."""
    make_run("a/damo-hopper", levels={0: 10.0, 1: 20.0, 2: 30.0})
    make_run("a/damo-walker", data="walker2d-medium", levels={0: 0.0, 1: 0.0})
    make_run("a/bc-hopper", algo="bc", levels={0: 5.0})
    make_run("b/damo-hopper", levels={0: 11.0, 1: 23.0, 3: 99.0}, gamma=0.9)
    write_record(
        make_run("elsewhere/damo-walker", data="walker2d-medium", levels={0: 6.0, 1: 6.0}, gamma=0.9), tmp_path / "b"
    )
    return tmp_path / "a", tmp_path / "b"


def test_rows_match_by_algorithm_data_and_seed(make_run, tmp_path: Path) -> None:
    paired = compare(*stores(make_run, tmp_path))
    found = {(row.algorithm, row.dataset): row for row in paired.rows}
    hopper = found["damo", "hopper-medium"]
    assert hopper.seeds == (0, 1)
    assert hopper.a == (15.5, 25.5)  # the mean of the last ten is 5.5 above the level
    assert hopper.difference == Estimate(2.0, (1.0, 3.0))
    assert hopper.settings == {"gamma": ("0.99", "0.9")}
    assert found["damo", "walker2d-medium"].difference == Estimate(6.0, (6.0, 6.0))
    (overall,) = paired.overall
    assert overall.datasets == ("hopper-medium", "walker2d-medium")
    assert overall.num_pairs == paired.num_pairs == 4
    assert overall.difference == Estimate(4.0, (3.5, 4.5))
    assert [(item.algorithm, item.seed, item.reason) for item in paired.unmatched] == [
        ("bc", 0, "only in A"),
        ("damo", 2, "only in A"),
        ("damo", 3, "only in B"),
    ]


def test_other_bytes_under_the_same_name_are_no_match_and_told(make_run, tmp_path: Path) -> None:
    make_run("a/x", levels={0: 1.0, 1: 2.0})
    other = make_run("b/x", levels={0: 1.0, 1: 2.0})
    config = json.loads((other / "config.json").read_text())
    config["data"]["sha256"] = "ff" * 32
    write_json(other / "config.json", config)
    paired = compare(tmp_path / "a", tmp_path / "b")
    assert paired.rows == ()
    assert len(paired.unmatched) == 4
    assert any(item.reason == "only in A; B has other data of this name (sha256 ffffffff)" for item in paired.unmatched)


def test_unfinished_and_failed_seeds_are_named(make_run, tmp_path: Path) -> None:
    make_run("a/x", levels={0: 1.0})
    make_run("b/x", levels={0: 1.0}, total=50_000)
    assert [item.reason for item in compare(tmp_path / "a", tmp_path / "b").unmatched] == ["unfinished in B"]
    write_json(tmp_path / "b" / "x" / "failure.json", {"kind": "killed", "reason": "it was"})
    assert [item.reason for item in compare(tmp_path / "a", tmp_path / "b").unmatched] == ["failed in B"]


def test_other_reference_returns_make_it_a_comparison_of_returns(make_run, tmp_path: Path) -> None:
    for place, low in (("a", 0.0), ("b", 5.0)):
        run_dir = make_run(f"{place}/x", levels={0: 1.0, 1: 2.0})
        config = json.loads((run_dir / "config.json").read_text())
        config["data"] |= {"reference_min": low, "reference_max": 100.0}
        write_json(run_dir / "config.json", config)
    paired = compare(tmp_path / "a", tmp_path / "b")
    (row,) = paired.rows
    assert row.metric == "eval/return_mean"
    assert "in returns" in row.notes[0]
    assert paired.overall == ()  # returns of several data sets have no common scale


def test_a_store_of_several_settings_is_refused_and_can_be_narrowed(make_run, tmp_path: Path) -> None:
    make_run("s/x", levels={0: 1.0, 1: 2.0}, gamma=0.99)
    make_run("s/y", levels={0: 2.0, 1: 4.0}, gamma=0.9)
    store = tmp_path / "s"
    with pytest.raises(UserError, match=r"A: expected one setting of damo on hopper-medium, found 2 values of gamma "):
        compare(store, store)
    with pytest.raises(UserError, match=r"choose with --b-setting gamma=0\.99"):
        compare(store, store, {"gamma": 0.99})
    (row,) = compare(store, store, {"gamma": 0.99}, {"gamma": "0.90"}).rows
    assert row.difference == Estimate(1.5, (1.0, 2.0))
    with pytest.raises(UserError, match="found 'gama'"):
        compare(store, store, {"gama": 0.99})
    with pytest.raises(UserError, match=r"expected runs with gamma=0\.5"):
        compare(store, store, {"gamma": 0.5})


def test_from_the_command_line(make_run, tmp_path: Path, capsys) -> None:
    a, b = map(str, stores(make_run, tmp_path))
    assert main(["leaderboard", "compare", a, b, "--out", str(tmp_path / "page.html")]) == 0
    told = capsys.readouterr().out
    assert "[3.5, 4.5]" in told
    assert "only in A" in told
    page = (tmp_path / "page.html").read_text()
    assert "+4.0" in page
    assert "Without a partner" in page
    assert main(["leaderboard", "compare", a, b, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["overall"][0]["difference"] == {"value": 4.0, "interval": [3.5, 4.5]}
    assert content["num_pairs"] == 4
    assert main(["leaderboard", "compare", a, str(tmp_path / "nowhere")]) == 2
    assert main(["leaderboard", "compare", a, b, "--a-setting", "gamma"]) == 2
    assert main(["leaderboard", "compare", a, b, "--out", str(tmp_path / "page.pdf")]) == 2


def test_the_python_twin_is_the_same_function_and_needs_no_jax() -> None:
    assert damorl.compare is compare
    code = "import sys, damorl; damorl.compare; print('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
