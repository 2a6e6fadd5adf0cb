"""The contract of an algorithm."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np

from damorl import api
from damorl.algos import ALGORITHMS
from damorl.algos.base import Algorithm
from damorl.data.datasets import Dataset, load_dataset, write_dataset
from damorl.errors import UserError
from damorl.experiment import inputs
from damorl.experiment import train as loop
from damorl.experiment.algorithms import check_record
from damorl.experiment.callbacks import Callback, Event
from damorl.experiment.config import PRESETS, RunConfig, defaults, dotted, replace, type_hints
from damorl.experiment.progress import Progress
from damorl.record import checkpoint, store
from damorl.testing.expect import expect, expect_same_bits

CLOCK = {
    "total_updates": 10,
    "refresh_interval": 5,
    "eval_interval": 10,
    "checkpoint_interval": 5,
    "eval_episodes": 1,
}
"""A run that is shorter still than the preset `smoke`, with a checkpoint half-way."""
SEEDS = (3, 5)


def check_algorithm(algorithm: Algorithm) -> None:
    """Hold an algorithm to the contract, on a toy data set and with the preset `smoke`; half a minute or so.

    - Its settings survive being written down, in every preset.
    - It trains, on finite numbers, and is scored; its epoch is compiled once, and gives the same bits from the same
      state: nothing that changes is kept outside of the state.
    - A seed trained beside another one is trained as if alone.
    - A run that is cut off after a checkpoint and continued ends in the same bits as one that is not.

    The algorithm need not be installed. AssertionError with the first of these that it breaks.
    """
    with known(algorithm), tempfile.TemporaryDirectory() as folder:
        check_settings(algorithm)
        data = write_toy(Path(folder) / "hopper-toy.hdf5")
        check_seeds(algorithm, load_dataset(data))
        check_resume(algorithm, data, Path(folder))


@contextmanager
def known(algorithm: Algorithm) -> Iterator[None]:
    """Put the algorithm into the table while the body runs. UserError for another one that has its name."""
    name, found = algorithm.name, ALGORITHMS.get(algorithm.name)
    check_record(name, algorithm)
    if found not in (None, algorithm):
        raise UserError(f"algorithm name {name!r}: expected one that is free, found a built-in one; rename it")
    ALGORITHMS[name] = algorithm
    try:
        yield
    finally:
        if found is None:
            del ALGORITHMS[name]


def check_settings(algorithm: Algorithm) -> None:
    """The settings of every preset are the same after they were written as JSON and read; `traced` names floats."""
    name, kind = algorithm.name, algorithm.config_type
    for preset in PRESETS:
        _, config = defaults(name, preset, "hopper-medium-expert")
        written = json.loads(json.dumps(dataclasses.asdict(config)))
        found = replace(kind(), dict(dotted(written)))
        expect(found == config, f"{name}, preset {preset}: expected settings as written, {config}, found {found}")
    for field in algorithm.traced:
        hint = type_hints(kind).get(field)
        is_float = float in (hint, *get_args(hint))
        expect(is_float, f"{name}: traced: expected the name of a float setting, found {field!r}")


def check_seeds(algorithm: Algorithm, dataset: Dataset) -> None:
    """Two seeds trained together give what each gives alone, up to rounding, and differ from one another."""
    name = algorithm.name
    together = two_epochs(algorithm, dataset, SEEDS)
    alone = two_epochs(algorithm, dataset, SEEDS[1:], again=True)
    for leaf, values in alone.items():
        difference = f"{name}: expected seed {SEEDS[1]} to be trained beside seed {SEEDS[0]} as alone: {leaf}"
        np.testing.assert_allclose(together[leaf][1], values[0], rtol=1e-3, atol=1e-4, err_msg=difference)
    distance = max(np.abs(leaf[0] - leaf[1]).max() for leaf in together.values())
    expect(
        distance > 0.01, f"{name}: expected seeds {SEEDS} to give policies that differ, found at most {distance:.2g}"
    )


def two_epochs(
    algorithm: Algorithm, dataset: Dataset, seeds: tuple[int, ...], again: bool = False
) -> dict[str, np.ndarray]:
    """The actor after two epochs, by the names of its leaves. AssertionError for an epoch that is compiled twice,
    numbers that are not finite and, with `again`, an epoch that gives other bits from the same state."""
    name = algorithm.name
    run_loop, settings = defaults(name, "smoke", "hopper-toy")
    run_loop = dataclasses.replace(run_loop, **CLOCK)  # so that the epoch is the very program of a run on that clock
    config = RunConfig(name, "hopper-toy", None, "smoke", seeds, run_loop, settings)
    problem, data = inputs.make_problem(dataset), inputs.to_device(dataset)
    state = loop.init_state(config, problem, data)
    state = loop.prepare_states(config, problem, data, state, Progress(config, quiet=True))
    epoch, keys = loop.make_epoch(config, problem), loop.seed_keys(seeds)
    held = jax.tree.map(np.array, state)  # an epoch uses its state up
    state, _, _ = epoch(state, data, keys, 0)
    if again:
        found, _, _ = epoch(jax.tree.map(jnp.asarray, held), data, keys, 0)
        leaves, expected = checkpoint.named_leaves(found), checkpoint.named_leaves(state)
        expect_same_bits(leaves, expected, f"{name}, the same epoch again")
    state, _, metrics = epoch(state, data, keys, 1)
    for key, values in metrics.items():
        expect(np.isfinite(values).all(), f"{name}: expected finite metrics, found {key} that is not")
    compiled = epoch._cache_size()  # type: ignore[attr-defined]
    expect(
        compiled == 1,
        f"{name}: expected the epoch to be compiled once, found {compiled} times: refresh and update must give a state "
        "of the types and shapes that they were given",
    )
    actor = {key: np.asarray(leaf) for key, leaf in checkpoint.named_leaves(algorithm.actor(state)).items()}
    for key, leaf in actor.items():
        expect(leaf.shape[:1] == (len(seeds),), f"{name}: expected an actor per seed, found {key} {leaf.shape}")
    return actor


def check_resume(algorithm: Algorithm, data: Path, folder: Path) -> None:
    """Train on the file `data`, continue a copy of the run from half-way, and compare the states saved at the end."""

    def train(out: str, **more: Any) -> Path:
        settings = {"preset": "smoke", "out": folder / out, "quiet": True, **CLOCK, **more}
        return api.train(algorithm.name, str(data), **settings).run_dir

    whole = train("whole", callbacks=[HalfWay(folder / "halves")])
    check_run(algorithm, whole)
    check_same_end(train("halves", resume=True), whole)


class HalfWay(Callback):
    """Copies the run directory into `out` right after the checkpoint half-way, as a crash would leave it there."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def on_checkpoint(self, event: Event) -> None:
        """Copy what is there once half of the updates are made."""
        if event.step == CLOCK["checkpoint_interval"]:
            shutil.copytree(event.run_dir, self.out / event.run_dir.name)


def check_run(algorithm: Algorithm, run_dir: Path) -> None:
    """A run on `CLOCK` has its metrics, is scored at its end, and tells of its model's fit if it has a model."""
    name, rows = algorithm.name, store.read_metrics(run_dir)
    steps = [row["step"] for row in rows]
    expect(steps == [5, 10], f"{name}: expected metrics of the updates 5 and 10, found {steps}")
    expect("eval/score" in rows[-1], f"{name}: expected a score after the last update, found {sorted(rows[-1])}")
    found, expected = (run_dir / store.DYNAMICS).exists(), hasattr(algorithm.config_type(), "dynamics")
    expect(found == expected, f"{name}: expected {store.DYNAMICS} of an algorithm with `dynamics` and of no other")


def check_same_end(run_dir: Path, other: Path) -> None:
    """The last checkpoints of two runs hold the same arrays, bit for bit."""
    from safetensors.numpy import load_file

    found, expected = (load_file(checkpoint.checkpoints(run / "checkpoint")[-1]) for run in (run_dir, other))
    expect_same_bits(found, expected, f"{run_dir.name}, continued")


def write_toy(path: Path) -> Path:
    """A hopper-shaped data set of short episodes that drift upright, some of which fall; in D4RL's layout."""
    rows, episode = 600, 50
    rng = np.random.default_rng(0)
    obs = rng.normal(0, 0.05, (rows, 11)).astype(np.float32)
    obs[:, 0] += 1.25
    next_obs = obs + rng.normal(0, 0.01, obs.shape).astype(np.float32)
    last = np.arange(rows) % episode == episode - 1
    terminal = last & (np.arange(rows) // episode % 2 == 0)
    columns = {
        "observations": obs,
        "actions": rng.uniform(-0.9, 0.9, (rows, 3)).astype(np.float32),
        "rewards": rng.uniform(0.5, 1.5, rows).astype(np.float32),
        "next_observations": next_obs,
        "terminals": terminal,
        "timeouts": last & ~terminal,
    }
    write_dataset(path, columns, {})
    return path
