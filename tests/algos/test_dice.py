"""What AlgaeDICE, OptiDICE and O-DICE share: seeds side by side, one compilation, settings that are refused."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damorl.algos import algaedice, odice, optidice
from damorl.errors import UserError
from damorl.parts.actor import policy

TINY: dict[str, Any] = {"hidden": (8,), "batch_size": 6}
CASES = [
    (algaedice, algaedice.Config(**TINY)),
    (optidice, optidice.Config(**TINY)),
    (odice, odice.Config(**TINY, actor_hidden=(8,), reward_scale=0.5)),
]
EACH = pytest.mark.parametrize(("algo", "config"), CASES, ids=["algaedice", "optidice", "odice"])


@pytest.mark.slow  # two compilations for each
@EACH
def test_seeds_side_by_side_equal_single_runs_and_compile_once(algo: ModuleType, config, problem, data):
    """Two seeds under vmap, three updates each, against each seed alone. Every parameter that should move moves."""
    traces = []

    def run(key):
        traces.append(1)
        start = algo.init(key, config, problem, data)
        step = lambda state, k: algo.update(config, state, data, k)
        end, metrics = jax.lax.scan(step, start, jax.random.split(key, 3))
        return start, end, metrics

    keys = jax.vmap(jax.random.key)(jnp.arange(2))
    alone, together = jax.jit(run), jax.jit(jax.vmap(run))
    start, end, metrics = together(keys)
    singles = [alone(key) for key in keys]
    assert len(traces) == 2
    for i, single in enumerate(singles):
        for one, many in zip(jax.tree.leaves(single), jax.tree.leaves((start, end, metrics)), strict=True):
            np.testing.assert_allclose(one, many[i], rtol=2e-4, atol=2e-5)
    assert all(np.all(np.isfinite(value)) for value in metrics.values())
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), start.actor.params, end.actor.params)
    assert all(jax.tree.leaves(moved))
    actor = jax.tree.map(lambda leaf: leaf[0], algo.ALGORITHM.actor(end))
    assert policy(actor, data.rows.obs).mode().shape == data.rows.action.shape


@pytest.mark.parametrize(
    ("algo", "settings", "field"),
    [
        (algaedice, {"divergence_weight": 0.0}, "divergence_weight"),
        (algaedice, {"live_share": 1.5}, "live_share"),
        (algaedice, {"live_share": 0.0, "divergence": "kl"}, "kl"),
        (optidice, {"divergence": "cubic_symmetric"}, "cubic_symmetric"),
        (optidice, {"divergence_weight": 0.0}, "divergence_weight"),
        (optidice, {"warmup_updates": 1500}, "warmup_updates"),
        (odice, {"conjugate_share": 1.0}, "conjugate_share"),
        (odice, {"conjugate_share": 0.0}, "conjugate_share"),
        (odice, {"max_weight": 0.0}, "max_weight"),
    ],
)
def test_settings_that_cannot_work_are_refused(algo: ModuleType, settings, field):
    with pytest.raises(UserError, match=field):
        algo.Config(**settings)
