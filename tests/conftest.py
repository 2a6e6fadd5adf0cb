"""What every test stands on: JAX on the CPU, no screen, and a home of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # read when jax is first imported, so before any test module
# Nearly all of the tests' time would be compilation: compile plainly, and each program once for all processes.
# The fusion emitters take twice as long as those they replace.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false")
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(__file__).resolve().parent.parent / ".pytest_cache" / "xla")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
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


@pytest.fixture(scope="session")
def make_run() -> Callable[[Path, str], Path]:
    """Writes a finished run of seeds 0 and 4 with random policies for a built-in task, without training."""
    from safetensors.numpy import save_file

    from damorl.behaviour.host_policy import to_arrays
    from damorl.experiment.result import POLICIES
    from damorl.record import store
    from damorl.world.tasks import TASKS

    def make(run_dir: Path, task: str) -> Path:
        record, rng, seeds = TASKS[task], np.random.default_rng(0), (0, 4)
        sizes = ((record.obs_dim, 16), (16, 2 * record.action_dim))
        run_dir.mkdir()
        data: dict[str, Any] = {"name": "mine", "sha256": "ef" * 32, "num_transitions": 10, "task": task}
        data |= {"obs_mean": [0.0] * record.obs_dim, "obs_std": [0.5] * record.obs_dim}
        data |= {"action_low": [record.action_low] * record.action_dim}
        data |= {"action_high": [record.action_high] * record.action_dim}
        loop = {"total_updates": 40, "eval_episodes": 10}
        store.write_json(run_dir / store.CONFIG, {"algo": "bc", "seeds": list(seeds), "data": data, "loop": loop})
        store.write_json(run_dir / store.PROVENANCE, {"command": ["damorl"], "versions": {}, "git": None})
        store.write_json(run_dir / store.RESULT, {})
        store.append_metrics(run_dir, [{"step": 40, "seed": seed, "eval/return_mean": 1.0} for seed in seeds])
        arrays: dict[str, np.ndarray] = {}
        for seed in seeds:
            layers = tuple((rng.normal(0, 0.5, s).astype(np.float32), np.zeros(s[1], np.float32)) for s in sizes)
            arrays |= to_arrays(layers, f"{seed}/")
        save_file(arrays, run_dir / POLICIES)
        return run_dir

    return make


@pytest.fixture(scope="session")
def backend() -> str:
    """What MuJoCo draws with here, without a display. Where nothing does the test is skipped, or fails if
    DAMORL_REQUIRE_GL is set."""
    from damorl.errors import UserError
    from damorl.world.filming import find_backend

    try:
        return find_backend()
    except UserError as error:
        pytest.fail(str(error)) if os.environ.get("DAMORL_REQUIRE_GL") else pytest.skip(str(error))
