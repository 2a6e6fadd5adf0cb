"""Check every link inside the built site without a network: python docs/site/check_links.py build/site

Each `href` and `src` that stays in the site must name a file, and each fragment an element of that file. Addresses of
other hosts are not fetched. Prints what is broken and exits with 1 if anything is.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """The links of a page, with their lines, and the names that others may link to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[tuple[int, str]] = []
        self.names: set[str] = {"", "top"}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for key, value in attrs:
            if key in ("id", "name") and value:
                self.names.add(value)
            elif key in ("href", "src") and value is not None and tag != "base":
                self.links.append((self.getpos()[0], value))


def broken(site: Path) -> Iterator[str]:
    """One sentence for each link that leads nowhere."""
    site = site.resolve()
    pages = {path: Page(path) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        for line, link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            where = f"{path.relative_to(site)}:{line}: {link}"
            if not target.is_relative_to(site) or not target.is_file():
                yield f"{where}: no such file"
            elif target in pages and unquote(parts.fragment) not in pages[target].names:
                yield f"{where}: no such place in that page"


def main(folder: str) -> int:
    """Print what is broken; the exit code."""
    if not (Path(folder) / "index.html").exists():
        print(f"{folder}: expected a built site with index.html, found none; run make docs", file=sys.stderr)
        return 2
    found = list(broken(Path(folder)))
    print("\n".join(found) or f"{folder}: every link inside the site leads somewhere")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
