"""What the scripts that write pages and pictures from records share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from PIL import Image

from damorl.record.seal import digest


def between(text: str, name: str, lines: list[str]) -> str:
    """`text` with other lines between its two markers of that name."""
    body = "\n".join(lines).strip()
    pattern = rf"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)"
    return re.sub(pattern, lambda m: f"{m[1]}{body}\n{m[2]}", text, flags=re.DOTALL)


def source(content: Any) -> dict[str, str]:
    """The metadata of a PNG that is drawn from `content`."""
    return {"Source": digest(content)}


def is_drawn_from(picture: Path, content: Any) -> bool:
    """Whether a PNG is there and was drawn from `content`."""
    return picture.exists() and Image.open(picture).info.get("Source") == digest(content)
