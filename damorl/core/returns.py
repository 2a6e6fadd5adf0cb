"""What was earned from each row of an episode on."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def discounted_returns(reward: ArrayLike, ended: ArrayLike, gamma: float, following: float = 0.0) -> np.ndarray:
    """`[N]`, float64: what was collected from each row on, to its episode's last row (`ended`) or the last of all,
    after which `following` was collected."""
    returns = []
    backwards = (np.asarray(column)[::-1].tolist() for column in (reward, ended))
    for now, end in zip(*backwards, strict=True):
        following = now if end else now + gamma * following
        returns.append(following)
    return np.array(returns[::-1])
