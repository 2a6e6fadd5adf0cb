"""One file brought here from one place, in as many pieces as the connection breaks it into.

HTTP is the standard library's `urllib` (redirects and the usual `http_proxy` variables included): libraries repeat a
request, but none that we know resumes a file on disk and sees to it that both halves are of the same file.
"""

from __future__ import annotations

import http.client
import json
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

from tqdm import tqdm

from damorl.bars import Bar
from damorl.files import atomic_file, writing

CHUNK = 1 << 20
"""Bytes that are read at most at once."""
TRANSIENT = (408, 425, 429)
"""What an HTTP server answers, beside 5xx, when it means "later"."""


class Failed(Exception):
    """This attempt did not bring the whole file; the text says why. Another attempt may."""


class Hopeless(Failed):
    """Another attempt at the same place would fail as well."""


class Stale(Failed):
    """The bytes that are here do not belong to the file that is there: another attempt must begin from nothing."""


@dataclass(frozen=True)
class Patience:
    """How long to bear with a bad connection."""

    timeout: float = 30.0
    """Seconds to wait for a connection, and for the next byte."""
    delays: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0)
    """Seconds before each further attempt; they start over whenever an attempt got further than all before it."""


@dataclass(frozen=True)
class Origin:
    """Which version of which file a part is a part of. Kept as JSON beside the part."""

    url: str
    etag: str | None
    modified: str | None
    size: int | None

    @property
    def validator(self) -> str | None:
        """What tells this version, byte by byte, from any other (a weak ETag does not); None if nothing does."""
        strong = self.etag is not None and not self.etag.startswith("W/")
        return self.etag if strong else self.modified

    def may_be(self, other: Origin) -> bool:
        """Does nothing differ that both know? The answer to a range request need not repeat everything."""
        pairs = zip(asdict(self).values(), asdict(other).values(), strict=True)
        return all(None in pair or pair[0] == pair[1] for pair in pairs)


class Stream(Protocol):
    """Bytes, a few at a time."""

    def read1(self, size: int, /) -> bytes:
        """At most `size` bytes, as soon as there are any; none at the end."""
        ...

    def close(self) -> None:
        """No more of it."""
        ...


class Answer(NamedTuple):
    """The bytes of `origin` from `start` on."""

    stream: Stream
    start: int
    origin: Origin


def transfer(url: str, part: Path, patience: Patience, progress: bool = False) -> bool:
    """Fill `part` with the whole file at `url` (http, https or file), from where an earlier, broken transfer ended.

    It is resumed only if the server gave an ETag or a date and still gives the same; otherwise it begins anew. Bytes
    of another `url` are kept until this one answers. Returns whether the file consists of more than one piece.

    Raises `Failed` if the last attempt did; what came is kept. UserError if `part` cannot be written. The caller sees
    to it that nobody else writes `part`.
    """
    furthest, delays = 0, list(patience.delays)
    while True:
        try:
            return _attempt(url, part, patience.timeout, progress)
        except Hopeless:
            raise
        except Failed as reason:
            if (reached := _size(part)) > furthest:
                furthest, delays = reached, list(patience.delays)
            if not delays:
                raise
            if progress:
                tqdm.write(f"{url}: {reason}; trying again in {delays[0]:g} s", file=sys.stderr)
            time.sleep(delays.pop(0))


def discard(part: Path) -> None:
    """Remove a part and what is known about it."""
    with writing(part):
        part.unlink(missing_ok=True)
        _record_path(part).unlink(missing_ok=True)


def _attempt(url: str, part: Path, timeout: float, progress: bool) -> bool:
    held = _read_record(part, url)
    offset = _size(part) if held else 0
    if held and offset == held.size:  # complete: the process ended before it could say so
        return True
    try:
        answer = _open(url, offset, held, timeout)
        with closing(answer.stream), writing(part):
            if answer.start == 0:
                discard(part)  # before the new record is written: it never stands beside old bytes
                _write_record(part, answer.origin)
            _pour(answer, part, progress)
        return answer.start > 0
    except Stale:
        discard(part)
        raise


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _record_path(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _write_record(part: Path, origin: Origin) -> None:
    with atomic_file(_record_path(part)) as temporary:
        temporary.write_text(json.dumps(asdict(origin)), encoding="utf-8")


def _read_record(part: Path, url: str) -> Origin | None:
    """What `part` is a part of, if that is `url` and more of the same version can be asked for."""
    try:
        origin = Origin(**json.loads(_record_path(part).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
    return origin if origin.url == url and origin.validator and part.exists() else None


def _open(url: str, offset: int, held: Origin | None, timeout: float) -> Answer:
    """Ask for the bytes from `offset` on; the answer may begin at 0 nevertheless."""
    if urlsplit(url).scheme == "file":
        return _open_local(url, offset, held)
    headers = {"Accept-Encoding": "identity", "User-Agent": "damorl"}
    if offset and held and held.validator:
        headers |= {"Range": f"bytes={offset}-", "If-Range": held.validator}
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        raise _refusal(error.code, error.reason) from None
    except (ValueError, http.client.InvalidURL) as error:
        raise Hopeless(str(error)) from None
    except (OSError, http.client.HTTPException) as error:
        raise Failed(_describe(error)) from error
    try:
        return Answer(response, *_place(url, response.status, response.headers, offset, held))
    except Failed:
        response.close()
        raise


def _refusal(status: int, reason: str) -> Failed:
    text = " ".join(f"HTTP {status} {reason}".split())  # urllib's reason for endless redirects has three lines
    if status == 416:  # the part is longer than the file
        return Stale(text)
    return Failed(text) if status in TRANSIENT or status >= 500 else Hopeless(text)


def _place(url: str, status: int, headers: Mapping[str, str], offset: int, held: Origin | None) -> tuple[int, Origin]:
    """Where the bytes of an answer belong, `(start, origin)`."""
    length = headers.get("Content-Length")
    size = int(length) if length and length.isdecimal() else None
    origin = Origin(url, headers.get("ETag"), headers.get("Last-Modified"), size)
    if status == 200:
        return 0, origin
    if status != 206 or held is None:
        raise Hopeless(f"HTTP {status} instead of the file")
    content_range = headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", content_range)
    if not match or int(match[1]) != offset:
        raise Stale(f"asked for the bytes from {offset} on, found Content-Range {content_range!r}")
    total = None if match[2] == "*" else int(match[2])
    if not held.may_be(Origin(url, origin.etag, origin.modified, total)):
        raise Stale("the file changed between two halves")
    return offset, Origin(url, held.etag, held.modified, total or held.size)


def _open_local(url: str, offset: int, held: Origin | None) -> Answer:
    path = Path(urllib.request.url2pathname(urlsplit(url).path))
    try:
        stream = path.open("rb")
        stat = path.stat()
        origin = Origin(url, f'"{stat.st_mtime_ns}"', None, stat.st_size)
        start = stream.seek(offset if origin == held else 0)
    except OSError as error:
        raise Hopeless(_describe(error)) from error
    return Answer(stream, start, origin)


def _pour(answer: Answer, part: Path, progress: bool) -> None:
    """Append the answer to `part` as it comes, so that a killed process leaves all it got."""
    size, name = answer.origin.size, part.name.removesuffix(".part")
    bar = Bar(total=size, initial=answer.start, desc=name, unit="B", unit_scale=True, leave=False, disable=not progress)
    with part.open("ab") as file, bar:
        while chunk := _read(answer.stream):
            file.write(chunk)
            file.flush()
            bar.update(len(chunk))
    if size is not None and _size(part) != size:
        raise Failed(f"the connection ended after {_size(part)} of {size} bytes")


def _read(stream: Stream) -> bytes:
    try:
        return stream.read1(CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise Failed(_describe(error)) from error


def _describe(error: BaseException) -> str:
    """An exception of the network in a few words."""
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, TimeoutError):
        return "no answer in time"
    return (reason.strerror if isinstance(reason, OSError) else None) or str(reason) or type(reason).__name__
