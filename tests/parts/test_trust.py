"""The trust region's target: when it grows, when it shrinks, and where it stays."""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp
import pytest

from damorl.algos import damo
from damorl.errors import UserError
from damorl.parts.trust import init_target, move_target
from damorl.parts.validation import Kept

SETTINGS = damo.Config(
    log_ratio="split", cloning_updates=1, kl_target=0.5, keep="validated", trust="validated", kl_bounds=(0.1, 1.0)
)
KEPT = Kept((), jnp.float32(100.0), (), jnp.float32(10.0))


@pytest.mark.parametrize(
    ("target", "value", "expected"),
    [
        (0.5, 120.0, 0.5 * 1.15),
        (0.5, 95.1, 0.5 * 1.15),  # within 5 % of the best
        (0.5, 94.9, 0.5 * 0.8),
        (0.99, 120.0, 1.0),
        (0.11, 0.0, 0.1),
    ],
)
def test_the_target_grows_where_the_model_vouches_shrinks_where_not_and_stays_in_bounds(target, value, expected):
    assert float(move_target(SETTINGS, jnp.float32(target), KEPT, jnp.float32(value))) == pytest.approx(expected)


def test_below_zero_the_tolerance_is_still_a_step_down():
    below = KEPT._replace(best=jnp.float32(-100.0))
    assert float(move_target(SETTINGS, jnp.float32(0.5), below, jnp.float32(-104.0))) > 0.5
    assert float(move_target(SETTINGS, jnp.float32(0.5), below, jnp.float32(-106.0))) < 0.5


def test_a_growing_region_grows_whatever_the_bound_is():
    growing = replace(SETTINGS, trust="growing")
    assert float(move_target(growing, jnp.float32(0.5), KEPT, jnp.float32(-1e6))) == pytest.approx(0.5 * 1.15)


def test_a_fixed_region_has_no_target_of_its_own():
    found = init_target(SETTINGS)
    assert found is not None
    assert float(found) == 0.5
    assert init_target(replace(SETTINGS, trust="fixed")) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kl_target": None}, "moves kl_target, found none"),
        ({"keep": "last"}, "asks for the policy's return in the model: set keep to validated"),
        ({"kl_growth": 0.9}, "expected kl_growth >= 1 >= kl_shrinkage > 0"),
        ({"kl_bounds": (2.0, 1.0)}, "kl_bounds in order"),
        ({"log_ratio": "joint"}, "set log_ratio to split"),
    ],
)
def test_what_cannot_work_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        replace(SETTINGS, **changes)
