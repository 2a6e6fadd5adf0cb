"""Films of synthetic panels: their frames, their size, and what stands on them."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from damorl.errors import UserError
from damorl.report import film
from damorl.report.film import (
    HOLD_SECONDS,
    MARK,
    SAVINGS,
    Strip,
    draw,
    durations,
    fitted,
    kept_frames,
    load_font,
    write_film,
)

SIDE, FPS = 48, 25.0
LARGE = 10_000_000


def moving(num_frames: int, seed: int | None = None) -> np.ndarray:
    """A bright bar that moves by two pixels per frame, or noise."""
    if seed is not None:
        return np.random.default_rng(seed).integers(0, 256, (num_frames, SIDE, SIDE, 3)).astype(np.uint8)
    frames = np.full((num_frames, SIDE, SIDE, 3), 40, np.uint8)
    for number, image in enumerate(frames):
        image[:, (2 * number) % SIDE] = (250, 220, 30)
    return frames


def times_of(path: Path) -> list[int]:
    """Milliseconds of each frame."""
    with Image.open(path) as found:
        times = []
        for number in range(getattr(found, "n_frames", 1)):
            found.seek(number)
            found.load()
            times.append(found.info["duration"])
        return times


LONG, SHORT = Strip("long", "score 100.0", moving(20)), Strip("short", "score 3.0", moving(6), "ended")


@pytest.mark.parametrize("suffix", [".webp", ".gif"])
def test_a_film_has_every_frame_and_its_time(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "new" / f"film{suffix}"
    written = write_film(path, [LONG, SHORT], FPS, LARGE)
    assert (written.num_frames, written.fps, written.num_bytes) == (20, FPS, path.stat().st_size)
    with Image.open(path) as found:
        assert found.size == written.size == (2 * SIDE + film.GAP, SIDE + 2 * film.LINE + film.MARGIN)
        assert getattr(found, "n_frames", 1) == 20
        assert found.info["loop"] == 0
    assert times_of(path) == [40] * 19 + [40 + 1000 * HOLD_SECONDS]
    first = path.read_bytes()
    write_film(path, [LONG, SHORT], FPS, LARGE)
    assert path.read_bytes() == first
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [".webp", ".gif"])
def test_savings_keep_a_film_small(tmp_path: Path, suffix: str) -> None:
    noise = [Strip("noise", "cannot be compressed", moving(16, seed)) for seed in (0, 1)]
    path = tmp_path / f"film{suffix}"
    whole = write_film(path, noise, FPS, LARGE)
    limit = whole.num_bytes // 5
    small = write_film(path, noise, FPS, limit)
    assert small.num_bytes == path.stat().st_size <= limit
    assert small.num_frames < whole.num_frames
    assert sum(times_of(path)) == 16 * 40 + 1000 * HOLD_SECONDS  # it lasts as long as before
    with pytest.raises(UserError, match=r"at most 100 bytes, found .*fewer steps or panels"):
        write_film(path, noise, FPS, 100)
    assert path.stat().st_size == small.num_bytes  # the earlier film is untouched


def test_savings_get_stronger() -> None:
    def pixels(saving: film.Saving) -> float:
        return saving.scale**2 / saving.every

    for before, after in itertools.pairwise(SAVINGS):
        assert pixels(after) <= pixels(before)
        assert (after.colours, after.quality, pixels(after)) != (before.colours, before.quality, pixels(before))
        assert after.colours <= before.colours
        assert after.quality <= before.quality


def test_the_last_frame_is_kept() -> None:
    strips = lambda num_frames: [Strip("", "", moving(num_frames)), Strip("", "", moving(1))]
    assert kept_frames(strips(5), 1) == [0, 1, 2, 3, 4]
    assert kept_frames(strips(6), 2) == [0, 2, 4, 5]
    assert kept_frames(strips(1), 4) == [0]
    assert durations([0, 2, 4, 5], 25.0) == [80, 80, 40, 40 + 1000 * HOLD_SECONDS]
    assert sum(durations(list(range(60)), 30.0)) == 2000 + 1000 * HOLD_SECONDS  # 33.3 ms, in hundredths


def test_an_ended_episode_stands_still_and_says_so() -> None:
    pictures = [np.asarray(draw([LONG, SHORT], number)) for number in range(20)]
    right = [picture[:, SIDE + film.GAP :] for picture in pictures]
    left = [picture[:, :SIDE] for picture in pictures]
    marked = [bool((image[:SIDE] == MARK).all(axis=-1).any()) for image in right]
    assert marked == [False] * 5 + [True] * 15
    assert all(np.array_equal(image, right[5]) for image in right[6:])
    assert right[4][: SIDE // 2].max() == 250
    faded = right[5][SIDE - 1, 0]  # half of the dark grey, half paper
    assert np.allclose(faded, (40 + 255) / 2, atol=1)
    assert not any((image[:SIDE] == MARK).all(axis=-1).any() for image in left)
    assert not any(np.array_equal(a, b) for a, b in itertools.pairwise(left))
    lasting = Strip("short", "", moving(6))  # the film does not see it end
    assert np.array_equal(np.asarray(draw([LONG, lasting], 19))[:SIDE, SIDE + film.GAP :], lasting.frames[-1])


def test_names_are_one_printable_line_that_fits() -> None:
    assert fitted("DAMO", 200) == "DAMO"
    assert fitted("two\nlines\tand\x1b[31m red\u202e", 400) == "two lines and [31m red"
    font = load_font()
    cut = fitted("a very long name of an algorithm with settings=1e-3", 100)
    assert cut.endswith(film.ELLIPSIS)
    assert font.getlength(cut) <= 100 < font.getlength(cut[:-1] + "xxx")
    assert fitted("W" * 10_000, 50) == fitted("W" * 60, 50)


def test_another_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"film\.mp4: expected a name that ends in \.webp or \.gif"):
        write_film(tmp_path / "film.mp4", [LONG], FPS, LARGE)
