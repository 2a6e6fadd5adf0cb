"""Source files as pages of their own, plain and quick to make, and the lines that the API's pages link to."""

from __future__ import annotations

import ast
import operator
import sys
from functools import cache
from html import escape
from pathlib import Path

from pygments import highlight
from pygments.formatters.html import HtmlFormatter
from pygments.lexers import get_lexer_by_name

ROOT = Path(__file__).resolve().parents[3]
LANGUAGES = {".py": "python", ".toml": "toml", ".js": "javascript"}
"""Files that are shown as a page."""
STYLES = (("all", "friendly"), ("(prefers-color-scheme: dark)", "github-dark"))
LAYOUT = """
:root { color-scheme: light dark; } body { margin: 1rem; font: 0.95rem/1.5 sans-serif; }
h1 { font-size: 1.1rem; overflow-wrap: anywhere; } .highlight { overflow-x: auto; padding: 0.5rem; }
.highlight a { color: inherit; text-decoration: none; opacity: 0.6; }
.highlight :target { opacity: 1; font-weight: bold; }
"""
FORMAT = HtmlFormatter(linenos="inline", lineanchors="L", anchorlinenos=True)


def style() -> str:
    """The style sheet of all source pages, for light and dark."""
    colours = ((media, HtmlFormatter(style=name).get_style_defs(".highlight")) for media, name in STYLES)
    return LAYOUT + "\n".join(f"@media {media} {{ {rules} }}" for media, rules in colours)


def document(title: str, body: str, up: str) -> str:
    """A plain page below the site's first one, which is `up` from here."""
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    head += f'<title>{escape(title)}</title><link rel="stylesheet" href="{up}source/style.css">'
    home = f'<h1><a href="{up}index.html">damorl</a> / {escape(title)}</h1>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>{home}\n{body}</body></html>\n'


def write_sources(paths: list[Path], out: Path) -> None:
    """A page for each source file, at `source/PATH.html` below `out`."""
    (out / "source").mkdir(exist_ok=True)
    (out / "source/style.css").write_text(style(), encoding="utf-8")
    for path in paths:
        own = path.relative_to(ROOT)
        page = out / "source" / f"{own}.html"
        if page.exists() and page.stat().st_mtime > path.stat().st_mtime:
            continue
        page.parent.mkdir(parents=True, exist_ok=True)
        body = highlight(path.read_text(encoding="utf-8"), get_lexer_by_name(LANGUAGES[path.suffix]), FORMAT)
        page.write_text(document(own.as_posix(), body, "../" * len(own.parts)), encoding="utf-8")


def link_of(domain: str, info: dict[str, str]) -> str | None:
    """Sphinx's hook: where the source of a documented object is, as seen from a page in generated/api."""
    try:
        found = operator.attrgetter(info["fullname"])(sys.modules[info["module"]])
        module, name = found.__module__, found.__qualname__
    except (AttributeError, KeyError):
        return None  # a field or a constant
    if not module.startswith("damorl."):
        return None
    path = Path(str(sys.modules[module].__file__))
    line = lines_of(path).get(name)
    return line and f"../../source/{path.relative_to(ROOT).as_posix()}.html#L-{line}"


@cache
def lines_of(path: Path) -> dict[str, int]:
    """The line of each function, class and method of a file, by its qualified name."""
    found: dict[str, int] = {}

    def walk(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found[prefix + node.name] = node.lineno
                walk(node.body if isinstance(node, ast.ClassDef) else [], f"{prefix}{node.name}.")

    walk(ast.parse(path.read_text(encoding="utf-8")).body, "")
    return found
