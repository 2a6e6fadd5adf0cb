"""The cost of growth: one quantity grows at a time, and what does not fit or is not reached ends alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from damorl.bench import growth, growth_side
from damorl.bench.growth import format_growth, growth_points
from damorl.cli import main
from damorl.experiment.config import defaults, replace
from damorl.record.store import plain

ASKED = {"algo": "bc", "preset": "smoke", "rows": 500, "seeds": 1, "changes": {}, "seconds": 0.02, "updates": 5}


def test_one_quantity_grows_at_a_time() -> None:
    points = growth_points("mopo", "quick")
    config = defaults("mopo", "quick", growth.DATASET)[1]
    base = {"rows": growth.ROWS, "seeds": 1, "changes": {}}
    axes = {axis: [p for p in points if p.axis == axis] for axis in ("rows", "seeds", "buffer", "members", "width")}
    for axis, own in axes.items():
        assert [p.value for p in own] == sorted({p.value for p in own})
        assert sum(p.work == base for p in own) == 1, axis  # each passes through the preset
        for point in own:
            changed = {name for name in base if point.work[name] != base[name]}
            assert changed <= {axis if axis in ("rows", "seeds") else "changes"}
            grown = replace(config, dict(point.changes))
            capacity = grown.rollout_starts * grown.rollout_length * grown.rollout_retain
            value = {"buffer": capacity, "members": grown.dynamics.num_elites, "width": grown.hidden[0]}.get(axis)
            assert value in (None, point.value)
    assert [p.axis for p in points[:5]] == ["rows", "seeds", "buffer", "members", "width"]  # the small ones first


def test_what_an_algorithm_lacks_does_not_grow() -> None:
    assert {point.axis for point in growth_points("td3bc", "quick")} == {"rows", "seeds", "width"}
    assert {point.axis for point in growth_points("trajectory-transformer", "quick")} == {"rows", "seeds"}


def test_sizes_are_those_of_what_lives() -> None:
    found = growth_side.measured(ASKED)
    floats = 500 * (11 + 3 + 1 + 11 + 1) + 5 * 11 + 5  # rows, starts and returns; the episodes are of 100 rows
    assert found["data_bytes"] == 4 * (floats + 3 * 500)  # episode, and rank and share of the ranking
    assert found["updates_per_second"] >= found["updates_per_second_with_refresh"] > 0


@pytest.mark.slow
def test_a_measurement_is_a_process_of_its_own() -> None:
    here = growth_side.measured(ASKED)
    found = growth.measure(ASKED | {"memory": 0})
    assert found["outcome"] == growth.FITS
    assert found["peak_bytes"] > found["state_bytes"] + found["data_bytes"]
    assert {name: found[name] for name in ("state_bytes", "data_bytes")}.items() <= here.items()


@pytest.mark.slow
def test_what_does_not_fit_is_said() -> None:
    """The process may allocate less than its rows take."""
    found = growth.measure(ASKED | {"rows": 4_000_000, "memory": 2**28})
    assert found == {"outcome": growth.TOO_LARGE}


def test_time_that_has_run_out_starts_nothing() -> None:
    assert growth.measure(ASKED, left=0.0) == {"outcome": growth.OUT_OF_TIME}
    assert growth.measure(ASKED | {"memory": 0}, left=0.05) == {"outcome": growth.OUT_OF_TIME}


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Of mopo with made-up rates: the larger data do not fit, and four seeds fail."""

    def made_up(asked: dict[str, Any], left: float | None) -> dict[str, Any]:
        if asked["rows"] > 100_000:
            return {"outcome": growth.TOO_LARGE}
        if asked["seeds"] == 4:
            return {"outcome": growth.FAILED, "reason": "ValueError: no"}
        rates = {"updates_per_second": 1234.5 / asked["seeds"], "updates_per_second_with_refresh": 1000.0}
        sizes = {"state_bytes": 3 * 2**20, "data_bytes": 2**20, "peak_bytes": 500 * 2**20}
        return {"outcome": growth.FITS, "refresh_seconds": 0.25} | rates | sizes

    monkeypatch.setattr(growth, "measure", made_up)
    return growth.run_growth_bench("mopo", quiet=True)


def test_the_table_says_what_was_measured_and_what_was_not(figures: dict[str, Any]) -> None:
    lines = [line.split() for line in format_growth(figures).splitlines()]
    assert ["rows", "10,000", "1,234.5", "1,000.0", "0.250", "3.0", "1.0", "500.0"] in lines
    assert ["rows", "10,000,000", "does", "not", "fit"] in lines
    assert ["seeds", "4", "failed:", "ValueError:", "no"] in lines
    json.dumps(plain(figures), allow_nan=False)


def test_the_picture_shows_each_quantity(figures: dict[str, Any]) -> None:
    from damorl.report.growth import LABELS, growth_figure

    figure = growth_figure(figures)
    above, below = figure.axes[:5], figure.axes[5:]
    assert [axes.get_xlabel() for axes in below] == [LABELS[a] for a in ("rows", "seeds", "buffer", "members", "width")]
    rates, crosses = (np.array(above[p].get_lines()[n].get_path().vertices, float) for p, n in ((1, 0), (0, 2)))
    np.testing.assert_allclose(rates, [[1, 1234.5], [2, 617.25], [8, 1234.5 / 8]])
    np.testing.assert_allclose(crosses[:, 0], [1_000_000, 10_000_000])  # what does not fit


def test_the_shell_draws_and_refuses_what_belongs_elsewhere(
    figures: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(growth, "run_growth_bench", lambda *given: asked.append(given) or figures)
    picture = tmp_path / "new" / "growth.png"
    assert main(["bench", "--growth", "--algo", "mopo", "--minutes", "2", "--picture", str(picture), "--json"]) == 0
    assert asked == [("mopo", 3.0, True, "quick", 2.0)]
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert json.loads(capsys.readouterr().out)["algo"] == "mopo"
    for words in (["--algo", "all", "--growth"], ["--growth", "--compare", "x"], ["--growth", "--minutes", "0"]):
        assert main(["bench", *words]) == 2
    assert main(["bench", "--minutes", "1"]) == 2
