"""What every test stands on: JAX on the CPU, no screen, and a home of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # read when jax is first imported, so before any test module
# Nearly all of the tests' time would be compilation: compile plainly, and each program once for all processes.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(__file__).resolve().parent.parent / ".pytest_cache" / "xla")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
os.environ["MPLBACKEND"] = "Agg"

hypothesis.settings.register_profile("no deadline", deadline=None)  # a busy machine is not a bug
hypothesis.settings.load_profile("no deadline")


@pytest.fixture(scope="session", autouse=True)
def damorl_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The folder that DAMORL_HOME names, also for child processes: no test touches the user's data."""
    with pytest.MonkeyPatch.context() as patch:
        home = str(tmp_path_factory.mktemp("damorl-home"))
        patch.setenv("DAMORL_HOME", home)
        yield home


@pytest.fixture(scope="session")
def hopper_toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hopper-shaped dataset of short episodes that drift upright, some of which fall."""
    from damorl.testing.algorithms import write_toy

    return write_toy(tmp_path_factory.mktemp("data") / "hopper-toy.hdf5")
