"""When the built-in tasks end.

Terminations are asked of *predicted* states, so they must hold for values no simulator would give: both bounds are
tested (|x < 100| instead of |x| < 100 is a well-copied bug), and a state that is not finite has always ended.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp

from damorl.types import Array

Termination = Callable[[Array, Array, Array], Array]
"""`(obs [*B, obs_dim], action [*B, action_dim], next_obs [*B, obs_dim]) -> [*B]` bool: has the task ended?"""


def never_ended(obs: Array, action: Array, next_obs: Array) -> Array:
    """Never; only a state that is not finite ends it. The rule of half-cheetah and pendulum."""
    return ~_finite(next_obs)


halfcheetah_ended = never_ended


def hopper_ended(obs: Array, action: Array, next_obs: Array) -> Array:
    """Fallen: height <= 0.7, |torso angle| >= 0.2, or a joint position or velocity outside (-100, 100).

    Gymnasium tests the velocities themselves but observes them clipped to [-10, 10], so on real observations the
    velocity test cannot fire; on predicted ones, which nothing clips, it can.
    """
    height, angle = next_obs[..., 0], next_obs[..., 1]
    in_range = jnp.all(jnp.abs(next_obs[..., 1:]) < 100.0, axis=-1)
    return ~(_finite(next_obs) & in_range & (height > 0.7) & (jnp.abs(angle) < 0.2))


def walker2d_ended(obs: Array, action: Array, next_obs: Array) -> Array:
    """Fallen: height outside (0.8, 2), or |torso angle| >= 1."""
    height, angle = next_obs[..., 0], next_obs[..., 1]
    return ~(_finite(next_obs) & (height > 0.8) & (height < 2.0) & (jnp.abs(angle) < 1.0))


def ant_ended(obs: Array, action: Array, next_obs: Array) -> Array:
    """Fallen or thrown up: torso height outside [0.2, 1]."""
    height = next_obs[..., 0]
    return ~(_finite(next_obs) & (height >= 0.2) & (height <= 1.0))


def inverted_double_pendulum_ended(obs: Array, action: Array, next_obs: Array) -> Array:
    """The tip is at height 1 or below; both poles are 0.6 long, the second one's angle is relative to the first's.

    Observations are `[x, sin a, sin b, cos a, cos b, velocities, constraint forces]`. MuJoCo tests the tip of its last
    Runge-Kutta stage, which is within about 1e-4 of the observed state's. No pose puts the tip above 1.2; a predicted
    state that puts it above 2 is nonsense and has ended too.
    """
    sin_a, sin_b, cos_a, cos_b = (next_obs[..., i] for i in range(1, 5))
    tip_height = 0.6 * cos_a + 0.6 * (cos_a * cos_b - sin_a * sin_b)
    return ~(_finite(next_obs) & (tip_height > 1.0) & (tip_height < 2.0))


def _finite(state: Array) -> Array:
    return jnp.all(jnp.isfinite(state), axis=-1)
