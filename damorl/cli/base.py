"""What every verb shares: parsing and printing."""

from __future__ import annotations

import json
from typing import Any

import tyro

from damorl.errors import UserError


def parse(arguments: type, verb: str, argv: list[str], description: str | None = None) -> Any:
    """The dataclass `arguments` filled from `argv` by tyro; a bad flag exits with code 2 there."""
    return tyro.cli(arguments, prog=f"damorl {verb}", args=argv, description=description)


def print_json(value: Any) -> None:
    """Indented JSON on standard output; see `record.store` for NaN and arrays."""
    from damorl.record.store import plain

    print(json.dumps(plain(value), indent=2))


def column_map(columns: tuple[str, ...]) -> dict[str, str | list[str]]:
    """`observations=angle,speed` as `{"observations": ["angle", "speed"]}`."""
    found: dict[str, str | list[str]] = {}
    for column in columns:
        key, equals, names = column.partition("=")
        if not (key and equals and names) or key in found:
            raise UserError(
                f"--columns: expected each array once as key=name or key=name,name,..., found {column!r}; correct it"
            )
        found[key] = names.split(",") if "," in names else names
    return found
