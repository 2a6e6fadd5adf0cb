"""Every algorithm, by name."""

from __future__ import annotations

from damorl.algos import bc, combo, cql, damo, mopo, sac, td3bc
from damorl.algos.base import Algorithm

ALGORITHMS: dict[str, Algorithm] = {
    module.ALGORITHM.name: module.ALGORITHM for module in (damo, bc, sac, mopo, combo, cql, td3bc)
}
