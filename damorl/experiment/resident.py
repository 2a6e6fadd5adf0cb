"""Training on data that are larger than memory: other rows of a file in every epoch.

Epoch e trains on `resident_rows` rows, which are drawn anew for it, spread evenly over the file. They depend on e
alone: a continued run is the same run, bit for bit, and a seed sees the same rows with others and alone. Units,
returns, ranks of episodes and initial states are of all rows. docs/own-data.md says what differs.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import jax.numpy as jnp
import numpy as np

from damorl.algos import ALGORITHMS
from damorl.algos.base import Algorithm, OfflineData, Problem
from damorl.core.scaler import Standardiser, fit_standardiser
from damorl.data.stored import StoredDataset
from damorl.errors import UserError
from damorl.experiment.config import LoopConfig, RunConfig
from damorl.experiment.units import Work, convert_data, factor_of, in_given_units
from damorl.parts.model_data import ModelSettings
from damorl.types import Ranking, Transition, Units

ROWS_STREAM, STARTS_STREAM = 0, 1

DataOf = Callable[[int], OfflineData]
"""Number of an epoch to its data."""


def check_resident(config: RunConfig) -> None:
    """UserError for an algorithm that needs all rows at once, and for a number of rows that is none."""
    if config.resident_rows is not None and config.resident_rows < 1:
        raise UserError(f"resident_rows must be at least 1, found {config.resident_rows}: leave it out for all rows")
    reason = needs_all_rows(config.algorithm)
    if reason is not None:
        others = ", ".join(name for name, algorithm in ALGORITHMS.items() if needs_all_rows(algorithm) is None)
        raise UserError(
            f"--resident-rows: expected an algorithm that learns row by row, found {config.algo}, which {reason}; "
            f"leave it out, or choose another algorithm ({others})"
        )


def needs_all_rows(algorithm: Algorithm) -> str | None:
    """Why an algorithm cannot learn from a few rows at a time; None if it can."""
    if issubclass(algorithm.config_type, ModelSettings):
        return "fits a model to all rows at once"
    return None if algorithm.planner is None else "learns from whole episodes"


def resident_work(config: RunConfig, problem: Problem, stored: StoredDataset) -> tuple[Work, DataOf]:
    """A run on `stored` in its units, with the data of epoch 0, and the data of any epoch.

    UserError where the algorithm needs all rows at once, or all of them would be in memory.
    """
    check_resident(config)
    size = config.resident_rows or 0
    if size >= stored.num_transitions:
        raise UserError(
            f"--resident-rows: expected fewer than the {stored.num_transitions} rows of {stored.path}, found {size}: "
            "leave it out, and all rows are in memory"
        )
    before, units = shares_before(stored), stored_units(config.loop, stored)
    work = in_given_units(config, problem, resident_data(stored, before, size, 0), units)

    def draw(epoch: int) -> OfflineData:
        data = resident_data(stored, before, size, epoch)
        return data if units is None else convert_data(data, units)

    return work, in_background(draw)


def in_background(draw: DataOf) -> DataOf:
    """`draw`, asked for epoch after epoch: the next epoch's is made while the caller works with this one's."""
    pool, ahead = ThreadPoolExecutor(1, "resident rows"), dict[int, Future[OfflineData]]()

    def found(epoch: int) -> OfflineData:
        now = ahead.pop(epoch, None) or pool.submit(draw, epoch)
        ahead.clear()
        ahead[epoch + 1] = pool.submit(draw, epoch + 1)
        return now.result()

    return found


def stored_units(loop: LoopConfig, stored: StoredDataset) -> Units | None:
    """The units of a run, as `units.find_units` has them from rows in memory, up to rounding."""
    factor = factor_of(stored.mean_abs_reward) if loop.reward_factor == "auto" else float(loop.reward_factor)
    if not loop.standardise_observations and factor == 1.0:
        return None
    inputs = Standardiser(jnp.zeros(stored.spec.obs_dim), jnp.ones(stored.spec.obs_dim))
    if loop.standardise_observations:
        mean, std = stored.obs.mean, stored.obs.std
        inputs = fit_standardiser(jnp.asarray([mean - std, mean + std], jnp.float32))  # rows of these moments
    return Units(inputs.mean, inputs.scale, jnp.float32(factor))


def spread_index(num_rows: int, size: int, stream: int, epoch: int) -> np.ndarray:
    """`size` of `num_rows` rows, int64 `[size]`, ascending: one uniform point in each of `size` equal stretches.

    Each row is as likely as any other, at most two of the numbers are equal, and at most where two stretches meet.
    """
    drawn = np.random.default_rng((stream, epoch)).random(size)
    return np.minimum((np.arange(size) + drawn) * (num_rows / size), num_rows - 1).astype(np.int64)


def resident_data(stored: StoredDataset, before: np.ndarray | None, size: int, epoch: int) -> OfflineData:
    """What is on the device in this epoch, in the data's own units; of initial states no more than of rows.

    The rows' episodes are not whole, so `episode` is None.
    """
    index = spread_index(stored.num_transitions, size, ROWS_STREAM, epoch)
    rows = Transition(*(jnp.asarray(column) for column in stored.take(index)))
    starts = stored.starts
    if len(starts) > size:
        starts = starts[spread_index(len(starts), size, STARTS_STREAM, epoch)]
    returns = jnp.asarray(stored.returns, jnp.float32) if len(stored.returns) else None
    initial_obs = jnp.asarray(stored.columns.take("observations", starts))
    ranking = None if before is None else rank_rows(before, np.searchsorted(stored.ends, index))
    return OfflineData(rows, initial_obs, None, returns, ranking)


def shares_before(stored: StoredDataset) -> np.ndarray | None:
    """For each episode, also an incomplete last one, the share of all rows in episodes that rank before it, `[E]`; None
    where no episode is complete. The order is that of `parts.start.rank_episodes`."""
    if not len(stored.ends):
        return None
    lengths = np.diff(np.append(stored.starts, stored.num_transitions))
    complete = len(stored.returns)
    order = np.append(np.argsort(-stored.returns, kind="stable"), np.arange(complete, len(lengths)))
    before = np.empty(len(lengths))
    before[order] = (np.cumsum(lengths[order]) - lengths[order]) / stored.num_transitions
    return before


def rank_rows(before: np.ndarray, episode: np.ndarray) -> Ranking:
    """Rows of these episodes `[n]` by the rank of their episode among all; `before` is that of `shares_before`."""
    share = before[episode]
    best_first = np.argsort(share, kind="stable")
    return Ranking(jnp.asarray(best_first, jnp.int32), jnp.asarray(share[best_first], jnp.float32))
