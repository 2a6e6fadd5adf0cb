"""DAMO with the actor's gradient through the model: the whole update, and the rest of it unchanged."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from damorl.algos import damo
from damorl.parts.dynamics import DynamicsConfig

MODEL = DynamicsConfig(num_members=2, num_elites=2, hidden=(8,))
KEY = jax.random.key(0)


def test_damo_learns_through_the_model(problem, data):
    """One update of the whole algorithm moves the actor, and finite."""
    config = damo.Config(
        hidden=(8,),
        classifier_hidden=(8,),
        batch_size=8,
        initial_batch_size=4,
        rollout_starts=4,
        rollout_length=2,
        rollout_retain=1,
        actor_objective="imagined",
        actor_starts=4,
        log_ratio="split",
        cloning_updates=1,
        dynamics=MODEL,
    )
    state = damo.init(KEY, config, problem, data)
    state, _ = damo.refresh(config, problem, state, data, KEY)
    moved, metrics = jax.jit(lambda s: damo.update(config, problem, s, data, KEY))(state)
    change = jax.tree.map(lambda a, b: float(jnp.max(jnp.abs(a - b))), moved.actor.params, state.actor.params)
    assert 0.0 < max(jax.tree.leaves(change)) < 1e-3
    assert all(np.isfinite(float(value)) for value in metrics.values())
