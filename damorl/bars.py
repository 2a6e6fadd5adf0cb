"""Progress bars that do not go by the time of day."""

from __future__ import annotations

import time
from typing import Any

from tqdm import tqdm


class Bar(tqdm):  # type: ignore[type-arg]
    """A bar of tqdm on the monotonic clock.

    tqdm's own is the time of day: set back by an hour, it makes a bar stand still for an hour and tell a negative rate.
    """

    @property
    def _time(self) -> Any:
        return time.monotonic

    @_time.setter
    def _time(self, _: Any) -> None:
        """tqdm sets it when a bar is made."""
