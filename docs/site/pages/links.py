"""Links from the pages to files of the repository.

The pages are also read on the hosting site, where a link may lead to any file. Here a link to a page stays one; a
source file is shown with its colours under `source/`; other files and folders are copied to `files/`.
"""

from __future__ import annotations

import shutil
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms import SphinxTransform

from pages import sources
from pages.sources import ROOT

DOCS = ROOT / "docs"
AT_ROOT = {ROOT / "CONTRIBUTING.md": "generated/contributing", ROOT / "CHANGELOG.md": "generated/changes"}
"""Files beside docs/ that are pages."""


class RepositoryLinks(SphinxTransform):
    """Points what Markdown links to at the page, the listing or the copy of a file."""

    default_priority = 300

    def apply(self, **_: Any) -> None:
        name = self.env.docname
        base = ROOT if name in AT_ROOT.values() else (DOCS / name).parent
        for node in [
            *self.document.findall(addnodes.pending_xref),
            *self.document.findall(addnodes.download_reference),
        ]:
            if node.get("reftype") != "myst" or node["reftarget"].startswith("#"):
                continue
            if node.get("refdomain") == "doc":
                path, anchor = f"{DOCS / node['reftarget']}.md", node["reftargetid"]
            else:
                path, _, anchor = node["reftarget"].partition("#")
            target = (base / path).resolve()
            if not target.is_relative_to(ROOT) or not target.exists():
                continue  # MyST says that it is missing
            if page := page_of(self.env, target):
                node.replace_self(page_reference(node, name, page, anchor))
            else:
                self.env.metadata[name].setdefault("files", set()).add(target.relative_to(ROOT).as_posix())
                node.replace_self(file_reference(node, name, target))


def page_of(env: Any, target: Path) -> str | None:
    """The page that is made of a file."""
    own = target.relative_to(DOCS).with_suffix("").as_posix() if target.is_relative_to(DOCS) else None
    return AT_ROOT.get(target) or (own if target.suffix == ".md" and own in env.found_docs else None)


def page_reference(node: nodes.Element, name: str, page: str, anchor: str) -> addnodes.pending_xref:
    """A reference to another page, which MyST resolves, and complains about if the anchor is missing."""
    about = {"refdomain": "doc", "reftarget": page, "reftargetid": anchor or None, "refdoc": name}
    return addnodes.pending_xref("", *node.children, reftype="myst", refexplicit=node["refexplicit"], **about)


def file_reference(node: nodes.Element, name: str, target: Path) -> nodes.reference:
    """A reference to the copy of a file."""
    up = "../" * name.count("/")
    return nodes.reference("", "", *node.children, refuri=up + place(target), internal=True)


def place(target: Path) -> str:
    """Where a file or folder lies in the site."""
    own = target.relative_to(ROOT).as_posix()
    if target.suffix in sources.LANGUAGES:
        return f"source/{own}.html"
    return f"files/{own}/index.html" if target.is_dir() else f"files/{own}"


def linked(env: Any) -> list[Path]:
    """All files and folders that some page links to."""
    return [ROOT / name for name in sorted({name for page in env.metadata.values() for name in page.get("files", ())})]


def write_files(app: Any, error: Exception | None) -> None:
    """Sphinx's hook: makes pages of source files, copies other files, and lists each folder's files on a plain page."""
    if error is not None or app.builder.format != "html":
        return
    out, found = Path(app.outdir), linked(app.env)
    modules = (ROOT / "damorl").rglob("*.py")
    sources.write_sources(sorted({*modules, *(path for path in found if path.suffix in sources.LANGUAGES)}), out)
    for path in found:
        to = out / "files" / path.relative_to(ROOT)
        if path.is_dir():
            shutil.copytree(path, to, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
            (to / "index.html").write_text(listing(path.relative_to(ROOT), to), encoding="utf-8")
        elif path.suffix not in sources.LANGUAGES:
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, to)


def listing(name: Path, folder: Path) -> str:
    """A page that links to all files of a folder."""
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    rows = "".join(f'<li><a href="{escape(file)}">{escape(file)}</a></li>' for file in files if file != "index.html")
    return sources.document(name.as_posix(), f"<ul>{rows}</ul>", "../" * (len(name.parts) + 1))


def rewrite(app: Any, name: str, source: list[str]) -> None:
    """Sphinx's hook: MyST drops the anchor of a link to a file that is no page, so these are named as pages first."""
    if name not in AT_ROOT.values():
        for path, page in AT_ROOT.items():
            up = "../" * (name.count("/") + 1)
            source[0] = source[0].replace(f"]({up}{path.name}", f"]({up[3:]}{page}.md")


def connect(app: Any) -> None:
    """Register with Sphinx."""
    app.add_transform(RepositoryLinks)
    app.connect("source-read", rewrite)
    app.connect("build-finished", write_files)
