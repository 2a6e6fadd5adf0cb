"""Progress bars on a clock that is set back."""

from __future__ import annotations

import io
import time

import pytest

from damorl.bars import Bar


def test_a_bar_moves_on_when_the_clock_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    hours = iter(range(1000, 0, -1))
    for place in ("time.time", "tqdm.std.time"):
        monkeypatch.setattr(place, lambda: 3600.0 * next(hours))
    said = io.StringIO()
    with Bar(total=4, file=said, mininterval=0.01, ascii=True) as bar:
        for _ in range(4):
            time.sleep(0.02)
            bar.update()
        assert 0.08 <= bar.format_dict["elapsed"] < 60
    drawn = [line.partition("|")[0].strip() for line in said.getvalue().split("\r")]
    assert {"25%", "50%", "75%", "100%"} <= set(drawn)
