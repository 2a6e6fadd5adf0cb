"""The one atomic writer."""

from __future__ import annotations

from pathlib import Path

import pytest

from damorl.errors import UserError
from damorl.files import atomic_file, remove_leftovers, temporary_folder


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path):
    path = tmp_path / "kept"
    path.write_text("old")

    def write_half() -> None:
        with atomic_file(path) as temporary:
            temporary.write_bytes(b"ne")
            raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=r"cannot write .*kept: .*'No space left on device'; free some space"):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_only_what_a_killed_process_left_is_removed(tmp_path: Path):
    kept = [tmp_path / name for name in (".a.json.lock", "a.json", ".b.json.7.tmp", ".a.json.tmp")]
    for path in (*kept, tmp_path / ".a.json.7.tmp", tmp_path / ".a.json.123.tmp"):
        path.touch()
    (tmp_path / ".a.json.x1.tmp" / "inside").mkdir(parents=True)
    remove_leftovers(tmp_path, "a.json")
    assert sorted(tmp_path.iterdir()) == sorted(kept)
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a.json.lock", "a.json"]
    remove_leftovers(tmp_path / "missing")


def test_a_folder_that_a_killed_process_was_building_is_a_leftover(tmp_path: Path):
    with temporary_folder(tmp_path / "model") as folder:
        (folder / "part").touch()
        assert folder.parent == tmp_path
        remove_leftovers(tmp_path, "model")
        assert not folder.exists()
        folder.mkdir()
    assert list(tmp_path.iterdir()) == []
