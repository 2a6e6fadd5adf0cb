"""The part of the site that is made from the code: reference pages, docstrings, links to files of the repository.

The pages are written to docs/generated when a build begins, and only where their text has changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pages import api, commands, docstrings, equations, formats, links, names, settings

INCLUDED = {"contributing": "CONTRIBUTING.md", "changes": "CHANGELOG.md"}
"""Pages that are files in the root of the repository."""


def all_pages(docs: Path) -> Iterator[tuple[str, str]]:
    """Every page as its file name below docs/generated and its text."""
    yield from api.pages()
    yield from settings.pages(docs)
    yield "commands.rst", commands.page()
    yield "files.rst", formats.page()
    for name, file in INCLUDED.items():
        yield f"{name}.md", f"```{{include}} ../../{file}\n```\n"


def write_pages(app: Any) -> None:
    """Write the pages that have changed, and remove those that are made no more."""
    folder = Path(app.srcdir) / "generated"
    made = dict(all_pages(Path(app.srcdir)))
    for old in folder.rglob("*.*"):
        if old.relative_to(folder).as_posix() not in made:
            old.unlink()
    for name, text in made.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")


def add_contents(app: Any, name: str, source: list[str]) -> None:
    """The pages of the algorithms are in the table of their first page; the sidebar needs them as a list."""
    if name == "algorithms/README":
        source[0] += "\n```{toctree}\n:hidden:\n:glob:\n\n[a-z]*\n```\n"


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("builder-inited", write_pages)
    app.connect("source-read", add_contents)
    app.add_transform(names.OwnNames)
    app.add_transform(equations.Equations)
    app.connect("autodoc-process-docstring", docstrings.process)
    links.connect(app)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
