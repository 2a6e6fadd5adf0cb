"""What every page of ours is made with: one environment, style and script inside, nothing asked of the network."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from damorl.errors import UserError


def require_html(out: Path) -> None:
    """UserError for a path that is no page's."""
    if out.suffix not in (".html", ".htm"):
        raise UserError(f"cannot write {out}: expected a name that ends in .html, found '{out.suffix}'; change --out")


def render(template: str, **content: Any) -> str:
    """A template of this package's, with `content`, our style, and our script with the hash that allows it."""
    environment = Environment(
        loader=PackageLoader("damorl.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates = resources.files("damorl.report") / "templates"
    style, script = ((templates / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template(template).render(
        style=Markup(style), script=Markup(script), script_hash=digest, **content
    )
