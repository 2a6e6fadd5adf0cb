"""The page of the command line: what each verb says with --help."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Iterator
from unittest import mock

from damorl import cli
from damorl.cli import leaderboard
from pages.api import heading

GROUPS = {"data": cli.DATA_VERBS, "leaderboard": leaderboard.VERBS}
"""Verbs that have verbs of their own."""
WIDTH = "88"


def page() -> str:
    """The page as reStructuredText."""
    lines = [
        *heading("The command line", "="),
        "What ``damorl`` and each of its commands say with ``--help``. Settings of an algorithm are options of",
        "``damorl train ALGORITHM`` too: see :doc:`settings <settings/index>`.",
        "",
        *block(said(["--help"])),
    ]
    for verb in verbs():
        name = " ".join(["damorl", *verb])
        lines += [*heading(name, "-"), *block(said([*verb, "--help"]))]
    return "\n".join(lines)


def verbs() -> Iterator[list[str]]:
    """The words of every command, those of a group one by one."""
    for verb in cli.VERBS:
        yield from ([verb, inner] for inner in GROUPS[verb]) if verb in GROUPS else [[verb]]


def said(words: list[str]) -> str:
    """What a command prints, in plain letters."""
    out = io.StringIO()
    plain = mock.patch.dict(os.environ, COLUMNS=WIDTH, NO_COLOR="1", TERM="dumb")
    with plain, contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        cli.main(words)
    text = re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue()).strip("\n")
    if not text:
        raise ValueError(f"damorl {' '.join(words)} printed nothing")
    return "\n".join(line.rstrip() for line in text.splitlines())


def block(text: str) -> list[str]:
    """A preformatted block."""
    return [".. code-block:: none", "", *(f"   {line}".rstrip() for line in text.splitlines()), ""]
