"""The one atomic writer."""

from __future__ import annotations

from pathlib import Path

import pytest

from damorl.errors import UserError
from damorl.files import atomic_file


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
