"""The checksum of each line of a run's metrics: whoever reads the lines sees whether they are what was written.

`metrics.crc` beside `metrics.jsonl` has for each of its lines one with its CRC-32 and its length in bytes, written
after it. The last lines may lack theirs, if the process was killed in between; runs of earlier versions have no such
file.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

from damorl.errors import UserError

SUMS = "metrics.crc"


def sums_of(lines: Sequence[bytes]) -> bytes:
    """One line for each line."""
    return b"".join(b"%08x %d\n" % (zlib.crc32(line), len(line)) for line in lines)


def check_sums(path: Path, lines: Sequence[bytes]) -> None:
    """UserError if a line of the metrics at `path` is not the one that was summed. A file may have been cut off."""
    sums = path.with_name(SUMS)
    if not sums.exists():
        return
    told = [line for line in sums.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    for number, (line, expected) in enumerate(zip(lines, told, strict=False), start=1):
        if sums_of([line]) != expected and not _is_cut(line, expected):
            raise UserError(
                f"cannot use {path}: expected line {number} to have the checksum that {SUMS} tells, found another; "
                f"restore both from a copy or, if you changed the line on purpose, remove {SUMS}"
            )


def _is_cut(line: bytes, expected: bytes) -> bool:
    length = expected.split()[-1:]
    return not line.endswith(b"\n") and bool(length) and length[0].isdigit() and len(line) < int(length[0])
