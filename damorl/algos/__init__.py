"""Every algorithm, by name."""

from __future__ import annotations

from damorl.algos import bc, damo, mobile, mopo, morel, sac, sambo
from damorl.algos.base import Algorithm

ALGORITHMS: dict[str, Algorithm] = {
    module.ALGORITHM.name: module.ALGORITHM for module in (damo, bc, sac, mopo, mobile, morel, sambo)
}
