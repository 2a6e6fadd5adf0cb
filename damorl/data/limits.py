"""Sizes that a file declares, looked at before anything of that size is made."""

from __future__ import annotations

import os

MOST_COMPRESSED = 1100
"""Bytes that one stored byte can stand for (deflate: 1032)."""
UNSUSPICIOUS = 2**26
"""How large an array may be that the file holds nothing of, in bytes: as never written."""


def machine_memory() -> int | None:
    """Bytes of main memory; None where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        return None


def size_fault(declared: int, stored: int) -> str | None:
    """What is wrong with an array of `declared` bytes of which the file holds `stored`; None if nothing is."""
    return hollow_fault(declared, stored) or memory_fault(declared)


def hollow_fault(declared: int, stored: int) -> str | None:
    """What is wrong with an array of `declared` bytes where `stored` cannot stand for them; None if they can."""
    if declared > UNSUSPICIOUS and declared > MOST_COMPRESSED * stored:
        return f"an array of {declared / 2**20:,.0f} MiB of which the file holds {stored / 2**10:,.0f} KiB"
    return None


def memory_fault(declared: int) -> str | None:
    """What is wrong with reading an array of `declared` bytes as a whole; None if it fits."""
    memory = machine_memory()
    if memory is not None and declared > memory // 2:
        return f"an array of {declared / 2**20:,.0f} MiB, more than half of this machine's {memory / 2**20:,.0f} MiB"
    return None
