"""Off-policy estimates with real fits beside the exact value, on the control problem of `test_select`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from damorl.experiment.ope import ope
from damorl.experiment.ope_settings import OPEConfig
from tests.experiment.test_ope import record_densities
from tests.experiment.test_select import GAINS, GAMMA, SETTINGS, world, write_data, write_run


def sampled_return(gain: float, steps: int) -> float:
    """The discounted value of `tanh(gain x + noise)` from the toy's starts."""
    rng = np.random.default_rng(1)
    x, total = rng.uniform(-2, 2, 20_000), 0.0
    for step in range(steps):
        total -= GAMMA**step * float(np.mean(x**2))
        x = world(x, np.tanh(gain * x + rng.standard_normal(x.shape)), rng)
    return total


@pytest.mark.slow
def test_what_has_enough_episodes_holds_the_value(tmp_path: Path) -> None:
    """Of the good regulator, which the data's uniform actions cover: 9 effective episodes of 60. DICE itself is off by
    a quarter or so on so few rows; its interval says as much."""
    write_data(tmp_path / "toy.hdf5")
    record_densities(tmp_path / "toy.hdf5")
    run = write_run(tmp_path / "run", tmp_path / "toy.hdf5")
    (found,) = ope([run], OPEConfig(SETTINGS, resamples=100, features=64))
    own = found["policies"][list(GAINS.values()).index(-1.0)]
    value = sampled_return(-1.0, 150)
    assert own["fqe"] == pytest.approx(value, rel=0.2)
    for name in ("wis", "pdis", "wpdis", "dr", "wdr", "dice"):
        about = own["about"][name]
        assert about["trusted"]
        low, high = about["interval"]
        assert low <= value <= high, name
