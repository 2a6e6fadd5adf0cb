"""Docstrings as they are written here, in reStructuredText.

A docstring is plain paragraphs with `code` in single backticks, lists with `- ` or `1. `, and indented blocks, which
are equations, shapes or examples and keep their columns. All else is text: docutils must not read `f*` as markup.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from itertools import groupby

CODE = re.compile(r"``[^`]+``|`[^`]+`")
NAME = re.compile(r"[A-Za-z_]\w*(\.\w+)*(\(\))?")
ITEM = re.compile(r"(- |\d+\. )")
UNDOCUMENTED = re.compile(r"Alias for field number \d+|Initialize self\.  See help")


def process(app: object, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Sphinx's hook: replaces the lines of a docstring by what docutils reads."""
    lines[:] = [] if UNDOCUMENTED.match("\n".join(lines)) else to_rst(lines)


def to_rst(lines: list[str]) -> list[str]:
    """The lines of a docstring, dedented, as reStructuredText."""
    out: list[str] = []
    for block in blocks(lines):
        out += [*block, ""]
    return out


def blocks(lines: list[str]) -> Iterator[list[str]]:
    """Paragraphs, list items and preformatted blocks, one at a time."""
    preformatted: list[str] = []
    in_list = False
    for empty, group in groupby(lines, lambda line: not line.strip()):
        if empty:
            preformatted += [""] * bool(preformatted)
            continue
        for kind, part in parts(list(group), in_list):
            if kind == "pre":
                preformatted += part
                continue
            if preformatted:
                yield literal(preformatted)
                preformatted = []
            in_list = kind == "item"
            yield item(part) if in_list else inline("\n".join(part)).split("\n")
    if preformatted:
        yield literal(preformatted)


def parts(lines: list[str], in_list: bool) -> Iterator[tuple[str, list[str]]]:
    """What stands between two empty lines, cut into `text`, `item` and `pre`."""
    kind, part = "", []
    for line in lines:
        indented = line.startswith("  ")
        if ITEM.match(line):
            new = "item"
        elif indented and (kind == "item" or (not kind and in_list and not line.startswith("    "))):
            new = ""
        else:
            new = "pre" if indented else "text"
        if part and (new == "item" or new not in ("", kind)):
            yield kind, part
            part = []
        kind = new or kind or "text"
        part.append(line)
    yield kind, part


def literal(lines: list[str]) -> list[str]:
    """A preformatted block."""
    text = textwrap.dedent("\n".join(lines)).rstrip()
    return [".. code-block:: none", "", *textwrap.indent(text, "   ").split("\n")]


def item(lines: list[str]) -> list[str]:
    """An entry of a list, its later lines beneath the first one's text."""
    mark = ITEM.match(lines[0])
    assert mark is not None
    body = inline("\n".join([lines[0][mark.end() :], *(line.strip() for line in lines[1:])])).split("\n")
    return [mark[0] + body[0], *(" " * mark.end() + line for line in body[1:])]


def inline(text: str) -> str:
    """Text with its code marked up and everything else escaped."""
    out, end = [], 0
    for match in CODE.finditer(text):
        before, after = text[: match.start()][-1:], text[match.end() :][:1]
        out += [escape(text[end : match.start()]), "\\ " * before.isalnum(), code(match[0].strip("`"))]
        out.append("\\ " * after.isalnum())
        end = match.end()
    return "".join([*out, escape(text[end:])])


def code(text: str) -> str:
    """A name as a link to what it names, if that is documented; anything else as code."""
    text = re.sub(r"\s+", " ", text.strip())
    return f":py:obj:`{text}`" if NAME.fullmatch(text) else f"``{text}``"


def escape(text: str) -> str:
    """Text in which no character is markup but `*word*`, and the name of a page leads there."""
    text = re.sub(r"([\\*`_|])", r"\\\1", text)
    text = re.sub(r"(?<!\w)\\\*([A-Za-z][\w -]*)\\\*(?!\w)", r"*\1*", text)
    return re.sub(r"\bdocs/([\w/-]+)\.md\b", r":doc:`docs/\1.md </\1>`", text)
