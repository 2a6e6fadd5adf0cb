"""Every algorithm, by name."""

from __future__ import annotations

from damorl.algos import bc, damo, trajectory_transformer
from damorl.algos.base import Algorithm

MODULES = (damo, bc, trajectory_transformer)
ALGORITHMS: dict[str, Algorithm] = {module.ALGORITHM.name: module.ALGORITHM for module in MODULES}
