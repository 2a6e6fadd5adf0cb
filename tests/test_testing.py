"""The contracts of `damorl.testing` hold for what is right, and tell what is wrong."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damorl.algos.base import Algorithm, no_prepare, no_refresh
from damorl.data.datasets import Dataset, load_dataset
from damorl.errors import UserError
from damorl.experiment.algorithms import find_algorithm, origin_of_algorithm
from damorl.testing import check_algorithm, check_task
from damorl.testing.algorithms import check_resume, check_seeds, check_settings, known
from damorl.testing.expect import expect_same_bits
from damorl.types import Key, Metrics
from damorl.world.tasks import TASKS, never_ended


@dataclass(frozen=True)
class Config:
    rate: float = 0.1
    width: int = 4


class State(NamedTuple):
    weight: jax.Array


def drawn(key: Key, config: Config, problem: Any, data: Any) -> State:
    return State(jax.random.normal(key, (config.width,)))


def constant(key: Key, config: Config, problem: Any, data: Any) -> State:
    return State(jnp.zeros(config.width))


def step(config: Config, problem: Any, state: State, data: Any, key: Key) -> tuple[State, Metrics]:
    return State((1.0 - config.rate) * state.weight), {"weight": jnp.mean(state.weight)}


def not_finite(config: Config, problem: Any, state: State, data: Any, key: Key) -> tuple[State, Metrics]:
    return state, {"weight": jnp.log(-jnp.ones(()))}


def counting() -> Callable[..., tuple[State, Metrics]]:
    """An update that remembers on the host how often it was called."""
    count = itertools.count()

    def update(config: Config, problem: Any, state: State, data: Any, key: Key) -> tuple[State, Metrics]:
        number = jax.ShapeDtypeStruct((), np.float32)
        called = lambda _: np.float32(next(count))
        return State(state.weight + jax.pure_callback(called, number, state.weight, vmap_method="sequential")), {}

    return update


def narrowing(config: Config, problem: Any, state: State, data: Any, key: Key) -> tuple[State, Metrics]:
    return State(state.weight.astype(jnp.bfloat16)), {}


def kept(config: Config, problem: Any, state: State, data: Any, key: Key) -> tuple[State, Metrics]:
    return state, {}


GOOD = Algorithm("shrinking", Config, drawn, no_prepare, no_refresh, step, lambda state: state, traced=("rate",))
WRONG = [
    (replace(GOOD, init=constant), r"expected seeds \(3, 5\) to give policies that differ, found at most 0"),
    (replace(GOOD, update=not_finite), "expected finite metrics, found weight that is not"),
    (replace(GOOD, update=counting()), "the same epoch again: expected the same bits, found other ones in weight"),
    (replace(GOOD, refresh=narrowing, update=kept), "expected the epoch to be compiled once, found 2 times"),
    (replace(GOOD, actor=lambda state: jnp.zeros(3)), "expected an actor per seed"),
]


@pytest.fixture(scope="module")
def toy(hopper_toy: Path) -> Dataset:
    return load_dataset(hopper_toy)


def test_a_right_algorithm_passes_and_is_known_only_then(toy: Dataset) -> None:
    with known(GOOD):
        assert find_algorithm("shrinking") is GOOD
        assert origin_of_algorithm("shrinking")["package"] is None
        check_settings(GOOD)
        check_seeds(GOOD, toy)
    with pytest.raises(UserError, match="unknown algorithm 'shrinking'"):
        find_algorithm("shrinking")


@pytest.mark.parametrize(("algorithm", "told"), WRONG)
def test_a_wrong_algorithm_is_told_what_is_wrong(algorithm: Algorithm, told: str, toy: Dataset) -> None:
    with known(algorithm), pytest.raises(AssertionError, match="shrinking.*" + told):
        check_seeds(algorithm, toy)


def test_names_and_settings_are_checked_first() -> None:
    with pytest.raises(UserError, match="'bc': expected one that is free, found a built-in one"):
        check_algorithm(replace(GOOD, name="bc"))
    with pytest.raises(UserError, match="lower-case letters"):
        check_algorithm(replace(GOOD, name="Shrinking"))
    with pytest.raises(AssertionError, match="traced: expected the name of a float setting, found 'width'"):
        check_algorithm(replace(GOOD, traced=("rate", "width")))


@pytest.mark.slow
def test_what_a_trace_remembers_is_lost_by_a_resumed_run(hopper_toy: Path, tmp_path: Path) -> None:
    """A number that Python counts at trace time is a constant of the program, and another one in the next program."""
    bc, count = find_algorithm("bc"), itertools.count(1)

    def update(config: Any, problem: Any, state: Any, data: Any, key: Key) -> Any:
        return bc.update(replace(config, learning_rate=1e-4 * next(count)), problem, state, data, key)

    algorithm = replace(bc, name="counting", update=update)
    with (
        known(algorithm),
        pytest.raises(AssertionError, match=r"continued: expected the same bits.* in actor"),
    ):
        check_resume(algorithm, hopper_toy, tmp_path)


def test_bits_and_names_are_compared() -> None:
    zero, minus = {"a": np.zeros(2)}, {"a": -np.zeros(2)}
    expect_same_bits(zero, {"a": np.zeros(2)}, "x")
    with pytest.raises(AssertionError, match="found other ones in a"):
        expect_same_bits(zero, minus, "x")  # equal as numbers
    with pytest.raises(AssertionError, match=r"found \['b'\] in one of the two only"):
        expect_same_bits(zero, zero | {"b": np.ones(1)}, "x")


@pytest.mark.parametrize("name", sorted(TASKS))
def test_the_built_in_tasks_pass(name: str) -> None:
    check_task(TASKS[name], num_steps=220)


HOPPER = TASKS["hopper"]


def fallen(obs: jax.Array, action: jax.Array, next_obs: jax.Array) -> jax.Array:
    """Without a thought for what is not finite."""
    return next_obs[..., 0] < 0.7


def mean_fallen(obs: jax.Array, action: jax.Array, next_obs: jax.Array) -> jax.Array:
    return jnp.broadcast_to(jnp.mean(next_obs[..., 0]) < 0.0, next_obs.shape[:-1])


@pytest.mark.parametrize(
    ("task", "told"),
    [
        (replace(HOPPER, name="Hopper"), "expected lower-case"),
        (replace(HOPPER, obs_dim=12, obs_names=()), "expected 12 observations and 3 actions, found 11 and 3"),
        (replace(HOPPER, action_low=-2.0), "correct action_low"),
        (replace(HOPPER, reference_max=-100.0), "expected reference_min below reference_max"),
        (replace(HOPPER, reference_min=None), "expected reference_min below reference_max, or neither"),
        (replace(HOPPER, termination=fallen), "found that nan in feature 0 is not; add"),
        (replace(HOPPER, termination=mean_fallen), "judge each state by itself"),
        (replace(HOPPER, termination=never_ended), "found that it does not in .* which the simulator calls ended"),
        (replace(HOPPER, env_id="Hopper-v99"), "cannot open its simulator"),
    ],
)
def test_a_wrong_task_is_told_what_is_wrong(task: Any, told: str) -> None:
    with pytest.raises(AssertionError, match=told):
        check_task(task)


def test_a_task_without_simulator_passes() -> None:
    check_task(replace(HOPPER, env_id=None))
