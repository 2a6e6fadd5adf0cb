"""A machine without data, and a server that has some: for the tests of downloads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from damorl.data import download
from tests.data.http_server import Server, serving

FILE = "hopper_medium-v2.hdf5"


def hopper_bytes(folder: Path, seed: int) -> bytes:
    """A data set of the hopper's sizes; every seed gives other numbers and the same number of bytes."""
    rng = np.random.default_rng(seed)
    rows = 3000
    arrays = {
        "observations": rng.normal(size=(rows, 11)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (rows, 3)).astype(np.float32),
        "rewards": rng.normal(size=rows).astype(np.float32),
        "next_observations": rng.normal(size=(rows, 11)).astype(np.float32),
        "terminals": np.zeros(rows, bool),
        "timeouts": np.arange(rows) % 1000 == 999,
    }
    with h5py.File(folder / f"{seed}.hdf5", "w") as file:
        for key, array in arrays.items():
            file[key] = array
    return (folder / f"{seed}.hdf5").read_bytes()


@pytest.fixture(scope="session")
def versions(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """Two data sets of the same size in bytes."""
    folder = tmp_path_factory.mktemp("versions")
    first, second = hopper_bytes(folder, 1), hopper_bytes(folder, 2)
    assert len(first) == len(second)
    assert first != second
    return first, second


@pytest.fixture
def good(versions: tuple[bytes, bytes]) -> bytes:
    """The file that the server has under the name of `FILE`."""
    return versions[0]


@pytest.fixture
def other(versions: tuple[bytes, bytes]) -> bytes:
    """Another file that could be it."""
    return versions[1]


@pytest.fixture
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`DAMORL_HOME` on a machine without any data; the official host has none either."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DAMORL_HOME", str(tmp_path / "damorl"))
    monkeypatch.delenv("D4RL_DATASET_DIR", raising=False)
    monkeypatch.delenv("DAMORL_MIRRORS", raising=False)
    monkeypatch.setattr(download, "OFFICIAL", str(tmp_path / "official"))
    return tmp_path / "damorl"


@pytest.fixture
def target(bare_machine: Path) -> Path:
    """Where `FILE` goes."""
    return bare_machine / "d4rl" / FILE


@pytest.fixture
def server(good: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Serves `good` as `FILE`."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving() as server:
        server.files[f"/{FILE}"] = good
        yield server
