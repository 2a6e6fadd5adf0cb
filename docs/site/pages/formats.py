"""The page of file formats: the docstrings of the modules that write the files."""

from __future__ import annotations

from pages.api import auto, heading

SECTIONS = {
    "A run directory": ("damorl.record.store", "damorl.record.members"),
    "Seals and checksums": ("damorl.record.seal", "damorl.record.sums"),
    "A checkpoint": ("damorl.record.checkpoint", "damorl.record.safe"),
    "A record of a run": ("damorl.record.compact",),
    "An exported policy": ("damorl.experiment.export", "damorl.experiment.exported"),
}


def page() -> str:
    """The page as reStructuredText."""
    lines = [
        *heading("File formats", "="),
        "Each section is the docstring of the module that writes the file. What damorl promises for files that were",
        "damaged or changed is in :doc:`/trust`; how data sets are read, in :doc:`/own-data`.",
        "",
    ]
    for title, modules in SECTIONS.items():
        lines += heading(title, "-")
        for name in modules:
            lines += [f"From :py:mod:`{name}`:", "", *auto("module", name, "no-members", "no-index"), ""]
    return "\n".join(lines)
