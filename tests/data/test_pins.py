"""The registry and the places: a name means the bytes of its first use, wherever they lie, and no others pass."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from damorl.data import pins
from damorl.data.download import D4RL_NAMES, download, downloaded_path, file_name
from damorl.errors import UserError
from tests.data.http_server import Server, serving

pytestmark = pytest.mark.usefixtures("bare_machine")
NAME, FILE = "hopper-medium-v2", "hopper_medium-v2.hdf5"
THIRD = 100_000


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def fetch(server: Server, refresh: bool = False) -> bytes:
    return download(NAME, [server.url], refresh=refresh).read_bytes()


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def test_other_bytes_than_the_pinned_ones_are_refused_and_the_old_file_stays(
    server: Server, good: bytes, other: bytes, target: Path
) -> None:
    fetch(server)
    before = target.stat()
    server.files[f"/{FILE}"] = other
    with pytest.raises(UserError) as refused:
        fetch(server, refresh=True)
    assert sha256(good) in str(refused.value)
    assert sha256(other) in str(refused.value)
    assert f"delete the entry {NAME} from {target.parents[1] / 'registry.json'}" in str(refused.value)
    assert target.read_bytes() == good
    assert (target.stat().st_mtime_ns, target.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    assert visible(target.parent) == [FILE]
    target.unlink()
    with pytest.raises(UserError, match=sha256(other)):
        fetch(server)
    assert visible(target.parent) == []


def test_the_next_mirror_may_have_the_pinned_bytes(server: Server, good: bytes, other: bytes, target: Path) -> None:
    fetch(server)
    target.unlink()
    with serving() as forger:
        forger.files[f"/{FILE}"] = other
        assert download(NAME, [forger.url, server.url]).read_bytes() == good


def test_deleting_the_entry_accepts_the_new_bytes(server: Server, other: bytes, target: Path) -> None:
    fetch(server)
    (target.parents[1] / "registry.json").write_text("{}")
    target.unlink()
    server.files[f"/{FILE}"] = other
    assert fetch(server) == other


def test_refresh_puts_the_pinned_bytes_back(server: Server, good: bytes, target: Path) -> None:
    fetch(server)
    target.write_bytes(good[:-1])
    with pytest.raises(UserError, match=rf"{sha256(good[:-1])}.* download {NAME} --refresh"):
        fetch(server)
    with pytest.raises(UserError, match=sha256(good)):
        downloaded_path(NAME)
    assert fetch(server, refresh=True) == good
    assert downloaded_path(NAME) == target


def test_refresh_is_compared_with_a_file_that_was_never_pinned(
    server: Server, good: bytes, other: bytes, target: Path
) -> None:
    target.parent.mkdir(parents=True)
    target.write_bytes(other)
    with pytest.raises(UserError, match=sha256(good)):
        fetch(server, refresh=True)
    assert target.read_bytes() == other
    (target.parents[1] / "registry.json").unlink()
    target.write_bytes(other[:THIRD])  # half a file pins nothing
    assert fetch(server, refresh=True) == good


def test_bytes_are_hashed_once_until_the_file_changes(
    server: Server, good: bytes, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch(server)
    hashed: list[Path] = []
    real = pins.hash_file
    monkeypatch.setattr(pins, "hash_file", lambda path: (hashed.append(path), real(path))[1])
    assert downloaded_path(NAME) == target
    assert hashed == []
    os.utime(target, ns=(1, 1))
    assert downloaded_path(NAME) == downloaded_path(NAME) == target
    assert hashed == [target]
    target.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    for _ in range(2):
        with pytest.raises(UserError, match=sha256(good)):
            downloaded_path(NAME)
    assert hashed == [target] * 3


@pytest.mark.parametrize("content", ["[]", "{", '{"hopper-medium-v2": {"sha256": "1"}}', '{"hopper-medium-v2": 3}'])
def test_a_damaged_registry_is_named(content: str, server: Server, bare_machine: Path) -> None:
    bare_machine.mkdir()
    (bare_machine / "registry.json").write_text(content)
    with pytest.raises(UserError, match=r"registry\.json: expected damorl's registry of downloads, found .*delete it"):
        fetch(server)


def test_pins_set_at_once_are_all_kept(server: Server, good: bytes) -> None:
    names = [name for name in D4RL_NAMES if name.startswith("hopper")]
    server.files |= {f"/{file_name(name)}": good for name in names}
    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(lambda name: download(name, [server.url]), names))
    assert sorted(pins.read_pins()) == sorted(names)


def test_a_place_without_locks_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match=r"expected a file that can be locked, found 'unable to open"),
        pins.locked(tmp_path),
    ):
        pass


# Places


def test_files_in_d4rls_own_folder_are_used_where_they_lie(good: bytes, tmp_path: Path, bare_machine: Path) -> None:
    assert downloaded_path("hopper-medium") is None
    message = rf"not downloaded yet: run `damorl data download {NAME}`, or put {FILE} into {bare_machine}"
    with pytest.raises(UserError, match=message):
        downloaded_path(NAME)
    folder = tmp_path / ".d4rl" / "datasets"
    folder.mkdir(parents=True)
    (folder / FILE).write_bytes(good)
    assert downloaded_path(NAME) == download(NAME) == folder / FILE
    assert (pins.read_pins()[NAME].sha256, pins.read_pins()[NAME].url) == (sha256(good), (folder / FILE).as_uri())
    assert visible(folder) == [FILE]


def test_d4rl_dataset_dir_is_searched_and_filled(
    server: Server, good: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("D4RL_DATASET_DIR", "~/mine")
    with pytest.raises(UserError, match=rf"put {FILE} into {tmp_path / 'mine'}"):
        downloaded_path(NAME)
    assert fetch(server) == good
    assert downloaded_path(NAME) == tmp_path / "mine" / FILE
    assert visible(tmp_path / "mine") == [FILE]


def test_half_a_file_left_by_another_program_is_neither_read_nor_pinned(
    good: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path))
    (tmp_path / FILE).write_bytes(good[:THIRD])
    with pytest.raises(UserError, match=rf"{FILE}: expected an HDF5 file .*data download {NAME} --refresh"):
        downloaded_path(NAME)
    assert not pins.read_pins()


def test_a_file_put_into_a_folder_of_ones_choice_is_found_again(server: Server, good: bytes, tmp_path: Path) -> None:
    path = download(NAME, [server.url], directory=tmp_path / "here")
    assert path == tmp_path / "here" / FILE == downloaded_path(NAME)
    assert path.read_bytes() == good


def test_a_place_that_cannot_be_written_is_named(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*file"):
        download(NAME, [server.url], directory=tmp_path / "file")
    assert not server.requests
