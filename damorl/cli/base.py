"""What every verb shares: parsing and printing."""

from __future__ import annotations

import json
from typing import Any

import tyro


def parse(arguments: type, verb: str, argv: list[str], description: str | None = None) -> Any:
    """The dataclass `arguments` filled from `argv` by tyro; a bad flag exits with code 2 there."""
    return tyro.cli(arguments, prog=f"damorl {verb}", args=argv, description=description)


def print_json(value: Any) -> None:
    """Indented JSON on standard output; see `record.store` for NaN and arrays."""
    from damorl.record.store import plain

    print(json.dumps(plain(value), indent=2))
