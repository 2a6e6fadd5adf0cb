"""Every algorithm, by name."""

from __future__ import annotations

from damorl.algos import (
    algaedice,
    bc,
    combo,
    cql,
    damo,
    edac,
    iql,
    mobile,
    mopo,
    morel,
    odice,
    optidice,
    rambo,
    rebrac,
    sac,
    sambo,
    td3bc,
    trajectory_transformer,
)
from damorl.algos.base import Algorithm

_MODULES = (
    *(damo, bc, sac),
    *(mopo, combo, rambo, mobile, morel, sambo),
    *(cql, td3bc, iql, rebrac, edac),
    *(algaedice, optidice, odice),
    trajectory_transformer,
)
ALGORITHMS: dict[str, Algorithm] = {module.ALGORITHM.name: module.ALGORITHM for module in _MODULES}
BUILT_IN = frozenset(ALGORITHMS)
"""The names that no plug-in may have."""
