"""Sphinx's configuration. `make docs` builds docs/ into build/site with it."""

from __future__ import annotations

import sys
from pathlib import Path

SITE = Path(__file__).resolve().parent
sys.path[:0] = [str(SITE), str(SITE.parents[1])]  # the pages are of this checkout

from pages import sources  # noqa: E402

from damorl import __version__  # noqa: E402

project, author, version, release = "damorl", "the damorl authors", __version__, __version__
project_copyright = "the damorl authors"
root_doc = "index"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.linkcode", "pages"]
include_patterns = ["*.md", "algorithms/*.md", "tutorials/*.md", "generated/**"]
exclude_patterns = ["site"]
suppress_warnings = ["epub.unknown_project_files"]

# the anchors of headings are those of the hosting site
myst_heading_anchors = 4

# built-in autodoc: pages/docstrings.py turns the docstrings into reStructuredText
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
add_module_names = toc_object_entries = smartquotes = False
linkcode_resolve = sources.link_of
highlight_language = "none"  # indented blocks are commands and equations; Python blocks say so

html_theme = "furo"
html_title = f"damorl {__version__}"
html_static_path = ["static"]
html_css_files = ["damorl.css"]
html_js_files = ["tables.js"]
html_copy_source = html_show_sourcelink = False
html_theme_options = {"navigation_with_keys": True}
pygments_style, pygments_dark_style = "friendly", "github-dark"
