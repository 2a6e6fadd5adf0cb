"""Films of panels side by side as animated WebP or GIF, made small enough by a list of savings."""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from damorl.errors import UserError
from damorl.files import atomic_file, writing

FORMATS = {".webp": "WEBP", ".gif": "GIF"}
"""By the ending of the file."""
GAP, MARGIN, FONT_SIZE = 4, 5, 13
LINE = FONT_SIZE + 5
PAPER, INK, QUIET, MARK = (255, 255, 255), (31, 42, 55), (95, 105, 118), (180, 35, 35)
FADE = 0.5
"""How much of the paper's colour a panel takes on when its episode has ended."""
HOLD_SECONDS = 1.5
"""How long the last frame stays before the film begins again."""
ELLIPSIS = "\u2026"
MAX_LETTERS = 200
"""Of a line, whatever its width."""
SAMPLES = 8
"""Frames that the common palette of a GIF is made from."""


class Strip(NamedTuple):
    """What one panel shows."""

    name: str
    caption: str
    frames: np.ndarray
    """uint8 `[F, height, width, 3]`; the same height and width in all strips of a film."""
    ended: str | None = None
    """What is written over the last frame, which then stands still; None for an episode that the film does not see
    end."""


class Saving(NamedTuple):
    """How a film is written."""

    every: int
    """Every so many-th frame is kept; each then lasts longer."""
    scale: float
    """Of width and height."""
    colours: int
    """In a GIF's palette."""
    quality: int
    """Of WebP, from 0 to 100."""


SAVINGS = (
    Saving(1, 1.0, 64, 60),
    Saving(1, 1.0, 32, 40),
    Saving(2, 1.0, 32, 40),
    Saving(2, 0.75, 32, 30),
    Saving(2, 0.75, 16, 20),
    Saving(4, 0.75, 16, 20),
    Saving(4, 0.5, 16, 20),
    Saving(8, 0.5, 8, 10),
    Saving(16, 0.35, 8, 5),
)
"""Tried in this order until the film is small enough."""


class Written(NamedTuple):
    """A film on the disk."""

    path: Path
    num_bytes: int
    num_frames: int
    fps: float
    size: tuple[int, int]
    """Width and height in pixels."""


def write_film(path: Path, strips: Sequence[Strip], fps: float, max_bytes: int) -> Written:
    """Write the strips side by side, atomically, in at most `max_bytes`, with the first of `SAVINGS` that does it.

    A strip that ends before the longest one stands still. The same strips give the same bytes. UserError for a name
    that ends otherwise than in .webp or .gif, for a place that cannot be written, and where no saving is enough.
    """
    check_name(path)
    saving, content = small_enough(path, strips, fps, max_bytes)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)
    num_frames = len(kept_frames(strips, saving.every))
    return Written(path, len(content), num_frames, fps / saving.every, draw(strips, 0, saving.scale).size)


def small_enough(path: Path, strips: Sequence[Strip], fps: float, max_bytes: int) -> tuple[Saving, bytes]:
    """The first saving with which the film has at most `max_bytes`, and the film as the content of a file."""
    found = 0
    for saving in SAVINGS:
        content = encode(path.suffix, strips, saving, fps)
        if len(content) <= max_bytes:
            return saving, content
        found = len(content)
    raise UserError(
        f"{path}: expected a film of at most {max_bytes:,} bytes, found {found:,} with every saving; film fewer steps "
        "or panels"
    )


def check_name(path: Path) -> None:
    """UserError for a file of another format."""
    if path.suffix not in FORMATS:
        raise UserError(f"{path}: expected a name that ends in {' or '.join(FORMATS)}; choose another --out")


def kept_frames(strips: Sequence[Strip], every: int) -> list[int]:
    """The numbers of the frames that are kept: every so many-th, and the last."""
    num_frames = max(len(strip.frames) for strip in strips)
    return sorted({*range(0, num_frames, every), num_frames - 1})


def draw(strips: Sequence[Strip], number: int, scale: float = 1.0) -> Image.Image:
    """One frame of the film: the panels in a row, with name and caption below each."""
    height, width = strips[0].frames.shape[1:3]
    step = width + GAP
    image = Image.new("RGB", (step * len(strips) - GAP, height + 2 * LINE + MARGIN), PAPER)
    for place, strip in enumerate(strips):
        image.paste(panel(strip, number), (place * step, 0))
        write_below(image, strip, place * step, width, height)
    if scale == 1.0:
        return image
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.BOX)


def panel(strip: Strip, number: int) -> Image.Image:
    """What the camera saw; faded, with what ended it, once the episode is over."""
    image = Image.fromarray(strip.frames[min(number, len(strip.frames) - 1)])
    if strip.ended is None or number < len(strip.frames) - 1:
        return image
    image = Image.blend(image, Image.new("RGB", image.size, PAPER), FADE)
    pen, font = ImageDraw.Draw(image), load_font()
    text = fitted(strip.ended, image.width - 2 * MARGIN)
    box = pen.textbbox((image.width / 2, MARGIN + 2), text, font=font, anchor="mt")
    pen.rectangle((box[0] - MARGIN, box[1] - MARGIN, box[2] + MARGIN, box[3] + MARGIN), fill=MARK)
    pen.text((image.width / 2, MARGIN + 2), text, PAPER, font, anchor="mt")
    return image


def write_below(image: Image.Image, strip: Strip, left: int, width: int, top: int) -> None:
    """Name and caption, centred below the panel."""
    pen, font = ImageDraw.Draw(image), load_font()
    for line, (text, colour) in enumerate(((strip.name, INK), (strip.caption, QUIET))):
        middle = left + width / 2, top + MARGIN + line * LINE
        pen.text(middle, fitted(text, width), colour, font, anchor="mt")


def load_font() -> Any:
    """Pillow's own letters: the same on every machine."""
    return ImageFont.load_default(FONT_SIZE)


def fitted(text: str, width: float) -> str:
    """One line of printable characters, cut with an ellipsis to at most `width` pixels."""
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    font, kept = load_font(), text[:MAX_LETTERS]
    if font.getlength(kept) <= width and kept == text:
        return text
    while kept and font.getlength(kept + ELLIPSIS) > width:
        kept = kept[:-1]
    return kept.rstrip() + ELLIPSIS


def encode(suffix: str, strips: Sequence[Strip], saving: Saving, fps: float) -> bytes:
    """The film as the content of a file."""
    numbers, buffer = kept_frames(strips, saving.every), io.BytesIO()
    images, times = [draw(strips, number, saving.scale) for number in numbers], durations(numbers, fps)
    if FORMATS[suffix] == "WEBP":
        first, rest, how = images[0], images[1:], {"quality": saving.quality, "method": 4}
    else:
        palette = common_palette(images, saving.colours)
        first, *rest = (image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images)
        how = {"optimize": False, "disposal": 1}
    first.save(buffer, FORMATS[suffix], save_all=True, append_images=rest, duration=times, loop=0, **how)
    return buffer.getvalue()


def durations(numbers: Sequence[int], fps: float) -> list[int]:
    """Milliseconds that each kept frame stays, until the next one is due; the last one stays `HOLD_SECONDS` more."""
    due = [10 * round(100 * number / fps) for number in (*numbers, numbers[-1] + 1)]  # GIF counts hundredths
    due[-1] += round(1000 * HOLD_SECONDS)
    return [after - before for before, after in itertools.pairwise(due)]


def common_palette(images: Sequence[Image.Image], colours: int) -> Image.Image:
    """A palette image for all frames, from some that are evenly spread: what stands still keeps its colours."""
    chosen = [images[i] for i in np.linspace(0, len(images) - 1, SAMPLES).round().astype(int)]
    width, height = chosen[0].size
    together = Image.new("RGB", (width, height * len(chosen)))
    for row, image in enumerate(chosen):
        together.paste(image, (0, row * height))
    return together.quantize(colours, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
