"""A scale for the rewards, from the returns of the data's episodes."""

from __future__ import annotations

import jax.numpy as jnp

from damorl.errors import UserError
from damorl.types import Array, OfflineData

RETURN_RANGE = 1000.0  # what the range of episode returns is scaled to, as in the released codes of IQL and O-DICE


def reward_scale(given: float | None, data: OfflineData) -> Array:
    """The factor of the rewards, a scalar: `given`, or without one 1000 over the range of the returns of complete
    episodes. UserError where it depends on episodes and there is no complete one."""
    if given is not None:
        return jnp.float32(given)
    if data.episode_returns is None:
        raise UserError("reward_scale: expected a number, since the data hold no complete episode; found None: give 1")
    spread = jnp.max(data.episode_returns) - jnp.min(data.episode_returns)
    return RETURN_RANGE / jnp.where(spread > 0.0, spread, RETURN_RANGE)
