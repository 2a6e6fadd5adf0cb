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
def test_what_needs_no_weights_is_near_the_value_of_the_good_policies(tmp_path: Path) -> None:
    """Of the two regulators, whose episodes the data's uniform actions cover."""
    write_data(tmp_path / "toy.hdf5")
    record_densities(tmp_path / "toy.hdf5")
    run = write_run(tmp_path / "run", tmp_path / "toy.hdf5")
    (found,) = ope([run], OPEConfig(SETTINGS, resamples=100, features=64))
    for gain, own in list(zip(GAINS.values(), found["policies"], strict=True))[-2:]:
        value = sampled_return(gain, 150)
        print(gain, value, {name: (own[name], about) for name, about in own["about"].items()})
        assert own["fqe"] == pytest.approx(value, rel=0.2)
        assert own["dice"] == pytest.approx(value, rel=0.2)
        assert own["model"] == pytest.approx(value, rel=0.2)
