"""A fitted model in a run's units, and its predictions back in the data's own (`OfflineData.units`)."""

from __future__ import annotations

import jax.numpy as jnp

from damorl.core.scaler import Standardiser
from damorl.parts.dynamics import Dynamics, Prediction
from damorl.types import Units


def to_units(model: Dynamics, units: Units | None) -> Dynamics:
    """The same model for states and rewards in `units`. Only its scaling changes: the networks see what they saw."""
    if units is None:
        return model
    inputs, targets = model.inputs, model.targets
    action = jnp.ones(inputs.mean.shape[0] - units.obs_scale.shape[0])
    shift = jnp.concatenate([units.obs_mean, 0.0 * action])
    scale = jnp.concatenate([units.obs_scale, action])
    change = jnp.append(1.0 / units.obs_scale, units.reward_factor)
    return model._replace(
        inputs=Standardiser((inputs.mean - shift) / scale, inputs.scale / scale),
        targets=Standardiser(targets.mean * change, targets.scale * change),
    )


def from_units(model: Dynamics, units: Units | None) -> Dynamics:
    """The inverse of `to_units`: a model in `units`, for states and rewards in the data's own."""
    if units is None:
        return model
    return to_units(model, Units(-units.obs_mean / units.obs_scale, 1.0 / units.obs_scale, 1.0 / units.reward_factor))


def to_own_units(prediction: Prediction, units: Units | None) -> Prediction:
    """A prediction in `units`, up to the states' origin, back in the data's own: for distances and deviations."""
    if units is None:
        return prediction
    scale = jnp.append(units.obs_scale, 1.0 / units.reward_factor)
    return Prediction(prediction.mean * scale, prediction.std * scale)
