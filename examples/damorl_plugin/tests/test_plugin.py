"""The plug-ins keep damorl's contracts, and do what they say."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from damorl_example.awc import ALGORITHM, Config, weights
from damorl_example.corridor import TASK
from damorl_example.record import play

import damorl
from damorl.testing import check_algorithm, check_task


def test_the_algorithm_keeps_the_contract() -> None:
    check_algorithm(ALGORITHM)


def test_the_task_keeps_the_contract() -> None:
    check_task(TASK)


def test_weights_by_hand() -> None:
    found = weights(Config(temperature=2.0, max_weight=3.0), jnp.array([-2.0, 0.0, 2.0, 4.0]))
    np.testing.assert_allclose(found, [np.exp(-1.0), 1.0, np.e, 3.0], rtol=1e-6)


def test_the_reference_return() -> None:
    returns = [sum(float(line.split("|")[2]) for line in play(seed)) for seed in range(100)]
    assert round(np.mean(returns), 1) == TASK.reference_min


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "two.steps"
    path.write_text("# by hand\n0 0 | 2 | 1 | 0.02 0.2 | -\n0.02 0.2 | -1 | 0.9 | 0.04 0.1 | cut\n")
    dataset = damorl.load_dataset(path, "corridor")
    np.testing.assert_array_equal(dataset.transitions.action, [[1.0], [-0.5]])  # from pushes up to 2
    np.testing.assert_array_equal(dataset.truncated, [False, True])
    path.write_text("0 0 | 2 | 1 | 0.02 0.2\n")
    with pytest.raises(damorl.UserError, match=r"found something else \(line 1: '0 0 \| 2"):
        damorl.load_dataset(path, "corridor")
