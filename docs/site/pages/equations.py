"""Equations as they are typed in docstrings and pages, set with Greek letters, subscripts and superscripts.

They are preformatted blocks such as `E_{rho_M^pi}[f*(Phi / w)]`. Lines stay as they are, and so do commands, files,
tables and programs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from typing import Any

from docutils import nodes
from sphinx.transforms import SphinxTransform

NAMES = ["alpha", "beta", "gamma", "delta", "epsilon", "eta", "theta", "kappa", "lambda", "mu", "nu", "pi", "rho"]
NAMES += ["sigma", "tau", "phi", "psi", "omega", "Delta", "Phi", "Sigma"]
LETTERS = {name: unescape(f"&{name};") for name in NAMES}
TILDE, HAT, PRIME = "\u0303", "\u0302", "\u2032"
SIGNS = {"<=": "≤", ">=": "≥", "->": "→", "<-": "←", "||": "‖", "~": "\u223c"}
GREEK = "|".join(LETTERS)
LONG = "max|min|sum|mean|std|grad|Var"
"""Words that have short subscripts: `max_pi` is a maximum over pi, `max_std` a name."""
TOKEN = re.compile(
    r"(?P<mark>[_^])"
    rf"(?:\{{(?P<group>(?:[^{{}}]|\{{[^{{}}]*\}})*)\}}|(?P<word>(?:{GREEK})_[A-Za-z]'?|[A-Za-z]+(?:[+-]\d)?|-?\d+|\+))"
    rf"|(?<![A-Za-z_])(?P<long>{LONG})(?=_(?:\{{|\w\w?\b|{GREEK}))"
    rf"|(?<![A-Za-z_])(?P<letter>(?:{GREEK}|[A-Za-z])(?![A-Za-z]))(?P<number>\d?)(?P<star>\*(?=\())?"
    r"|(?P<tilde>~(?=[(', ]))|(?P<hat>\^(?=\())|(?P<sign><=|>=|->|<-|\|\||~|')|(?P<rest>[A-Za-z]\w*|\S|\s+)"
)
MATHS = re.compile(rf"(?<![A-Za-z_\-])(?:(?:{GREEK})(?![A-Za-z])|(?:max|min|E)[_\[]|f\*\()")
OTHER = re.compile(r'^\s*(damorl|python|pip|make|git|ray|export|import|from|def)\b|[{,] ?"|"[:,}]|--\w|\.\w+\(', re.M)
LONGEST = 8
"""Lines; a longer block is a table or a program."""


class Equations(SphinxTransform):
    """Sets every preformatted block that is an equation."""

    default_priority = 500

    def apply(self, **_: Any) -> None:
        for node in list(self.document.findall(nodes.literal_block)):
            text = node.astext()
            if node.get("language", "none") in ("none", "text") and is_equation(text):
                block = nodes.literal_block("", "", *typeset(text), classes=["equation"])
                block.source, block.line = node.source, node.line
                node.replace_self(block)


def is_equation(text: str) -> bool:
    """Whether a preformatted block is one."""
    return bool(MATHS.search(text)) and not OTHER.search(text) and text.count("\n") < LONGEST


def typeset(text: str) -> Iterator[nodes.Node]:
    """The text with its letters, signs, subscripts and superscripts."""
    before = ""  # what a mark would belong to: a letter, a bracket, or nothing
    for match in TOKEN.finditer(text):
        found, token = match.groupdict(), match[0]
        if found["mark"] and (before == "letter" or (before == "bracket" and token[1] in "+-0123456789")):
            inner = found["group"] if found["group"] is not None else found["word"]
            yield (nodes.subscript if found["mark"] == "_" else nodes.superscript)("", "", *typeset(inner))
        elif found["letter"]:
            yield nodes.Text(LETTERS.get(found["letter"], found["letter"]))
            yield from [nodes.subscript("", found["number"])] * bool(found["number"])
            yield from [nodes.superscript("", "*")] * bool(found["star"])
            before = "letter"
        elif before == "letter" and (token == "'" or found["tilde"] or found["hat"]):
            yield nodes.Text({"'": PRIME, "~": TILDE, "^": HAT}[token])
        else:
            yield nodes.Text(SIGNS.get(token, token))
            before = "letter" if found["long"] else "bracket" if token in (")", "]", "|", "||") else ""
