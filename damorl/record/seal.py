"""The seal of a JSON file in a run directory: the version of its layout, and a hash of everything else in it.

A sealed file ends with `"seal": {"schema": 1, "sha256": ...}`. Files of earlier versions have none and are read as they
are; whoever changes a sealed file by hand removes the seal.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from damorl._version import __version__
from damorl.errors import UserError

SEAL, SCHEMA = "seal", 1


def sealed(content: dict[str, Any]) -> dict[str, Any]:
    """`content`, which is in JSON's own types, with its seal as the last entry."""
    return {**content, SEAL: {"schema": SCHEMA, "sha256": digest(content)}}


def digest(content: Any) -> str:
    """SHA-256 of what JSON can hold, in one canonical text."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def unsealed(path: Path, content: Any) -> Any:
    """The content without its seal, if it has one.

    UserError, naming `path`, if a newer version wrote the file or the content is not what was sealed.
    """
    if not isinstance(content, dict) or not (SEAL in content or _has_form(list(content.values())[-1:])):
        return content
    rest = {key: value for key, value in content.items() if key != SEAL}
    seal = content.get(SEAL)
    seal = seal if isinstance(seal, dict) else {}
    check_schema(path, seal.get("schema"))
    if digest(rest) != seal.get("sha256"):
        raise UserError(
            f"cannot use {path}: expected what damorl wrote, found content that does not match its hash; restore the "
            f"file from a copy or, if you changed it on purpose, remove the entry '{SEAL}'"
        )
    return rest


def _has_form(last: list[Any]) -> bool:
    """Whether the last entry is a seal, by another name: that is damaged, too."""
    return any(isinstance(entry, dict) and entry.keys() == {"schema", "sha256"} for entry in last)


def check_schema(path: Path, found: object, known: int = SCHEMA) -> None:
    """UserError if the file is in a newer layout than the `known` one."""
    if isinstance(found, int) and found > known:
        raise UserError(
            f"cannot use {path}: expected version {known} of its layout or an older one, found version {found}; "
            f"install a newer damorl than {__version__}"
        )


def check_format(path: Path, found: object, form: str, known: int = 1) -> None:
    """The same for a file that tells its layout as `form` with a number, `damorl-run-1`; other texts pass."""
    name, _, number = str(found).rpartition("-")
    if name == form and number.isdecimal():
        check_schema(path, int(number), known)
