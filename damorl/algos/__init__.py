"""Every algorithm, by name."""

from __future__ import annotations

from damorl.algos import (
    bc,
    combo,
    cql,
    damo,
    mopo,
    rambo,
    sac,
    td3bc,
)
from damorl.algos.base import Algorithm

_MODULES = (damo, bc, sac, mopo, combo, rambo, cql, td3bc)
ALGORITHMS: dict[str, Algorithm] = {module.ALGORITHM.name: module.ALGORITHM for module in _MODULES}
