"""The hashes in a run directory: what was written is read, anything else is refused in one sentence."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from damorl.errors import UserError
from damorl.record import store
from damorl.record.seal import SCHEMA, digest

CONTENT = {"name": "\u00fcber", "numbers": [0.1, 1e300, -0.0, 3], "inner": {"b": None, "a": True}}


def test_a_sealed_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    store.write_json(path, CONTENT | {"nan": math.nan, "array": np.arange(3)}, seal=True)
    assert store.read_json(path) == CONTENT | {"nan": "nan", "array": [0, 1, 2]}
    written = json.loads(path.read_text())
    assert list(written)[-1] == "seal"
    assert written["seal"] == {"schema": SCHEMA, "sha256": digest(store.read_json(path))}


def test_every_flip_of_a_sealed_file_is_refused_or_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    store.write_json(path, CONTENT, seal=True)
    content, refused = path.read_bytes(), 0
    for place in range(len(content)):
        for bit in range(8):
            damaged = bytearray(content)
            damaged[place] ^= 1 << bit
            path.write_bytes(damaged)
            try:
                found = store.read_json(path)
            except UserError:
                refused += 1
            else:
                assert found == CONTENT, damaged
    assert refused > 7 * len(content)


def test_what_has_no_seal_is_read_as_it_is(tmp_path: Path) -> None:
    for content in (CONTENT, [], [1, {"seal": 3}], {}, "text", {"sha256": {"0": "ab"}}):
        store.write_json(tmp_path / "a.json", content)
        assert store.read_json(tmp_path / "a.json") == content


def rows(count: int) -> list[store.Row]:
    return [{"step": step, "seed": 0, "loss": 0.5} for step in range(count)]


def test_every_flip_of_the_metrics_or_their_checksums_is_refused_or_changes_nothing(tmp_path: Path) -> None:
    store.append_metrics(tmp_path, rows(1))
    store.append_metrics(tmp_path, rows(2))
    expected, refused = store.read_metrics(tmp_path), 0
    for name in ("metrics.jsonl", "metrics.crc"):
        content = (tmp_path / name).read_bytes()
        for place in range(len(content)):
            damaged = bytearray(content)
            damaged[place] ^= 4
            (tmp_path / name).write_bytes(damaged)
            try:
                found = store.read_metrics(tmp_path)
            except UserError:
                refused += 1
            else:
                assert found == expected
        (tmp_path / name).write_bytes(content)
        assert refused > len(content) * 0.9
        refused = 0


def test_lines_that_a_kill_left_without_a_checksum_are_read_and_get_one_on_resume(tmp_path: Path) -> None:
    store.append_metrics(tmp_path, rows(3))
    sums = tmp_path / "metrics.crc"
    whole = sums.read_bytes()
    sums.write_bytes(whole[: len(whole) // 2])  # killed between the two
    assert store.read_metrics(tmp_path) == rows(3)
    store.truncate_metrics(tmp_path, 1)
    assert store.read_metrics(tmp_path) == rows(2)
    assert sums.read_bytes() == whole[: 2 * len(whole) // 3]
    sums.unlink()  # as an earlier version leaves it
    store.append_metrics(tmp_path, rows(1))
    assert not sums.exists()
    assert len(store.read_metrics(tmp_path)) == 3
