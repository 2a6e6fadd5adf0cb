"""Names of classes in signatures, as the module that writes them means them.

Several modules have a class `Problem`. A signature shows the short name; what it names is known in its own module.
"""

from __future__ import annotations

import sys
from typing import Any

from sphinx import addnodes
from sphinx.transforms import SphinxTransform


class OwnNames(SphinxTransform):
    """Completes the target of every short name that is a class in the module it is written in; any other is exact."""

    default_priority = 300

    def apply(self, **_: Any) -> None:
        for node in self.document.findall(addnodes.pending_xref):
            if node.get("refdomain") != "py":
                continue
            node.attributes.pop("refspecific", None)  # with it the name would be looked for in every module
            module = sys.modules.get(node.get("py:module") or "")
            found = getattr(module, node["reftarget"], None)  # a name with dots is complete
            if isinstance(found, type):
                node["reftarget"] = f"{found.__module__}.{found.__qualname__}"
