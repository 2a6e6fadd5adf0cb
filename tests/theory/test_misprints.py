"""Every misprint is borne out by its numbers, and the checks see it when there is nothing to see."""

from __future__ import annotations

import json

import numpy as np
import pytest

from damorl.cli.theory import theory_verb
from damorl.theory import misprints as page
from damorl.theory.misprints import misprints
from damorl.theory.printed import printed_table


def test_every_misprint_is_shown():
    found = misprints()
    assert [each.where for each in found if not each.shown] == []
    assert all(np.isfinite(list(each.numbers.values())).all() for each in found)


def test_table2_averages_by_hand():
    numbers = page.averages().numbers
    expected = {"DAMO": 74.1, "MOBILE": 73.2, "MOPO": 67.8, "COMBO": 66.8, "TT": 62.3, "RAMBO": 67.7, "OptiDICE": 46.8}
    for method, mean in expected.items():
        assert numbers[f"{method} rows"] == pytest.approx(mean, abs=0.0501)
        assert abs(numbers[f"{method} printed"] - numbers[f"{method} rows"]) > 0.25
    nine = page.nine_tasks().numbers
    for method, mean in {"DAMO": 91.5, "MOBILE": 88.0, "RAMBO": 83.1, "COMBO": 82.0, "MOPO": 81.8, "TT": 80.9}.items():
        assert nine[f"{method}, nine tasks"] == pytest.approx(mean, abs=0.0501)


def test_table2_is_whole():
    table = printed_table(2)
    assert len(table["rows"]) == 12
    assert {len(row) for row in table["rows"].values()} == {len(table["methods"])} == {9}


def test_right_averages_would_not_be_called_a_misprint(monkeypatch):
    table = printed_table(2)
    rows = np.array([[np.nan if x is None else x for x in row] for row in table["rows"].values()])
    table["printed_average"] = np.round(rows.mean(axis=0), 1).tolist()
    monkeypatch.setattr(page, "printed_table", lambda number: table)
    assert not page.averages().shown


def test_by_hand():
    numbers = page.missing_weight().numbers  # ratio 2 instead of 1: y = 2, Phi = 4
    assert list(numbers.values()) == pytest.approx([0.5, 0.5, -0.5], abs=1e-6)
    assert page.log_reward().numbers["minimum with log r"] == pytest.approx(np.log(0.5), abs=1e-9)
    assert page.exceeds_kl().numbers["x^3/3 is below KL up to x ="] == pytest.approx(0.2142, abs=1e-3)


@pytest.mark.slow
def test_the_command_prints_json(capsys):
    assert theory_verb(["--cases", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"claims", "split", "duals", "misprints"} == set(found)
    assert {row["source"] for row in found["duals"]} == {"AlgaeDICE", "OptiDICE", "O-DICE"}
    assert {row["divergence"] for row in found["claims"]} >= {"kl", "cubic"}
    assert len(found["misprints"]) == 9
