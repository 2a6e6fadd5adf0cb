"""The joint log-ratio is the paper's DAMO: what it computed before the log-ratio could be split, and goes on computing.

The numbers are means over the second of two blocks of five updates of the `smoke` preset, two seeds, recorded then.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from damorl.data.datasets import load_dataset
from damorl.experiment import inputs
from damorl.experiment import train as loop
from damorl.experiment.config import RunConfig, defaults, replace
from damorl.experiment.progress import Progress

RECORDED: dict[str, tuple[dict[str, Any], tuple[float, ...]]] = {
    "as printed": ({}, (1.964156, -3.081520, 0.999300, 1.652674, 0.553125, 0.091155)),
    "sac actor": ({"actor_objective": "sac"}, (1.959475, -1.827175, 0.999300, 1.652928, 0.553125, 0.091155)),
    "no data alignment": ({"data_alignment": False}, (1.964163, -3.108450, 0.999300, 1.665989)),
    "mixed": ({"critic_gradient": "mixed"}, (1.964157, -3.084484, 0.999300, 1.654662, 0.553125, 0.091155)),
    "full": ({"critic_gradient": "full"}, (1.964175, -3.138755, 0.999300, 1.690022, 0.553125, 0.091155)),
    "orthogonal": (
        {"critic_gradient": "orthogonal", "divergence": "chi_square"},
        (1.964139, -4.463771, 0.999300, 2.389930, 0.553125, 0.091155),
    ),
    "absorbing": ({"terminal_handling": "absorbing"}, (1.961435, -1.593942, 0.999300, 0.784221, 0.553125, 0.091155)),
}
NAMES = (
    "actor/entropy",
    "actor/loss",
    "actor/temperature",
    "actor/weight",
    "classifier/accuracy",
    "classifier/calibration_error",
)


@pytest.mark.parametrize("variant", RECORDED)
def test_joint_damo_is_what_it_was(variant: str, hopper_toy: Path) -> None:
    changes, expected = RECORDED[variant]
    run_loop, settings = defaults("damo", "smoke", "hopper-toy")
    run_loop = dataclasses.replace(run_loop, total_updates=100, refresh_interval=5)
    config = RunConfig("damo", "hopper-toy", None, "smoke", (3, 5), run_loop, replace(settings, changes))
    toy = load_dataset(hopper_toy)
    problem, data, keys = inputs.make_problem(toy), inputs.to_device(toy), loop.seed_keys(config.seeds)
    state = loop.prepare_states(config, problem, data, loop.init_state(config, problem, data), Progress(config, True))
    epoch = loop.make_epoch(config, problem)
    state, _, _ = epoch(state, data, keys, 0)
    _, _, metrics = epoch(state, data, keys, 1)
    found = [float(np.mean(metrics[name])) for name in NAMES[: len(expected)]]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
